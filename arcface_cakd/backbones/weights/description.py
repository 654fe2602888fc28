"""``model.json``: what a ``model.pt`` is of, which its tensors do not say."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arcface_cakd import __version__
from arcface_cakd.backbones.weights.errors import WeightsError
from arcface_cakd.files import sha256_of

FORMAT = 1
"""Raised by whatever changes the meaning of a key."""


@dataclass(frozen=True)
class TrainingSet:
    """What a model learned from.

    Attributes:
        name: of its folder, without the path.
        images: how many; None where they could not be counted.
        classes: how many the run told apart; None where it did not look at labels.
    """

    name: str
    images: int | None
    classes: int | None

    @classmethod
    def at(cls, folder: str, images: int | None, classes: int | None) -> "TrainingSet":
        """That in a folder, which may be relative."""
        return cls(Path(os.path.abspath(folder)).name, images, classes)


@dataclass(frozen=True)
class ModelDescription:
    """What a ``model.pt`` is of; the file says beside it the version of this package, its own
    format and the SHA-256 of the weights.

    Attributes:
        network: the name that ``get_model`` takes.
        embedding_size: width E of the embedding.
        training_set: what it learned from.
    """

    network: str
    embedding_size: int
    training_set: TrainingSet

    def to_json(self, sha256: str) -> str:
        """The content of ``model.json`` for weights with that digest; equal runs give it equal."""
        content = {"format": FORMAT, **asdict(self), "arcface_cakd": __version__, "sha256": sha256}
        return json.dumps(content, indent=2) + "\n"


def description_path(weights: str | os.PathLike) -> Path:
    """Where the description of weights is: ``model.json`` for ``model.pt``."""
    return Path(weights).with_suffix(".json")


def read_description(weights: str | os.PathLike) -> ModelDescription | None:
    """What is said of weights; None where nothing of ours is beside them.

    It is not held against the weights: ``read_weights`` does that.

    Args:
        weights: a file of weights, there or not, or what else ``read_weights`` takes.

    Raises:
        WeightsError: the description is damaged, or a later version of this package wrote it.
    """
    content = _content(weights)
    return None if content is None else _description(content, description_path(weights))


def check_description(weights: Path) -> None:
    """Hold weights against the digest that is said beside them, where there is one.

    Raises:
        WeightsError: the description is of other bytes, or damaged.
    """
    content = _content(weights)
    if content is None:
        return
    _description(content, description_path(weights))
    found = sha256_of(weights)
    if content["sha256"] != found:
        path = description_path(weights)
        raise WeightsError(
            f"weights {weights} are not those that {path} is of (SHA-256 {found[:12]}..., not "
            f"{str(content['sha256'])[:12]}...): one of the two was damaged or written over: copy "
            f"both again, or remove {path.name} and name the network yourself"
        )


def named_with_description(weights: str | os.PathLike) -> str:
    """The weights' path, for messages; with the network and width that they are of where known."""
    said = read_description(weights)
    if said is None:
        return str(weights)
    return f"{weights} (of network {said.network!r}, embedding_size {said.embedding_size})"


def _content(weights: str | os.PathLike) -> dict[str, Any] | None:
    if not Path(weights).name or not (path := description_path(weights)).is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    # A file of the user's may have that name: it is none of ours without these.
    if not isinstance(content, dict) or not {"format", "sha256", "network"} <= content.keys():
        return None
    return content


def _description(content: dict[str, Any], path: Path) -> ModelDescription:
    if content["format"] != FORMAT:
        raise WeightsError(
            f"{path} has format {content['format']!r}, which this version ({__version__}) of "
            f"arcface_cakd does not know: install the one that wrote it "
            f"({content.get('arcface_cakd')}), or remove the file and name the network yourself"
        )
    try:
        trained_on = TrainingSet(**content["training_set"])
        said = ModelDescription(content["network"], content["embedding_size"], trained_on)
        if not isinstance(said.network, str) or type(said.embedding_size) is not int:
            raise TypeError
    except (KeyError, TypeError):
        raise WeightsError(
            f"{path} is damaged: copy it again beside its weights, or remove it and name the "
            "network yourself"
        ) from None
    return said
