"""What every protocol has: data that it reads, a model that it judges, a table of the figures."""

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from arcface_cakd.data.face_files import FaceFiles
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.uncertainty import DRAWS


class Protocol(ABC):
    """A way to judge a model by faces, of a data set in the layout that it is published in.

    Opening one reads what says which faces there are and who is on them, and refuses what is
    wrong there, before a model is loaded. The first line of a subclass's docstring is what
    ``arcface-cakd list protocols`` says of it.

    Attributes:
        takes_targets: whether ``targets`` can choose among the sets of a folder.
        has_roc: whether the results have a ROC curve, as ``plot_roc`` draws them.

    Args:
        paths: what the user gave for data, at least one.
        targets: names of the sets to take from folders, or None.

    Raises:
        EvaluationError: data that the protocol cannot judge.
        DataError: data that are missing, or not as the layout has them.
    """

    takes_targets: ClassVar[bool] = False
    has_roc: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None): ...

    @abstractmethod
    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, Any]:
        """Judge a model: results by name, frozen, each with ``to_dict``.

        In that dictionary ``intervals`` has the dotted names of the figures for keys: the interval
        of ``figures["tar"]["1e-06"]`` is ``figures["intervals"]["tar.1e-06"]``.

        Args:
            embedder: the model.
            draws: of people, for the intervals; 0: none.

        Raises:
            EvaluationError: embeddings that cannot be judged; the message says of which data.
            DataError: a face cannot be read.
        """

    def data_digests(self) -> dict[str, str]:
        """The SHA-256, in hex, of what the last ``judge`` looked at, by the results' names.

        A protocol may leave out what it has none of.
        """
        return {}

    @abstractmethod
    def table(self, results: Mapping[str, Any]) -> str:
        """The results of ``judge`` as text, rates in percent."""


@contextlib.contextmanager
def judging(what: object) -> Iterator[None]:
    """Inside, an EvaluationError gets the data's name before its message."""
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(f"{what}: {error}") from error


def digest_of(*parts: FaceFiles | np.ndarray) -> str:
    """A SHA-256, in hex, of images that were read and of the numbers that go with them.

    Args:
        parts: of images the digests of their files and the landmarks, in order; of arrays, such
            as who is on the images, their numbers.
    """
    found = hashlib.sha256()
    for part in parts:
        arrays = (part.digests, part.landmarks) if isinstance(part, FaceFiles) else (part,)
        for array in arrays:
            if array is not None:
                found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def one_folder(paths: Sequence[Path], layout: str) -> Path:
    """The one folder that a protocol reads.

    Args:
        paths: what the user gave.
        layout: what should be in the folder, for the message.

    Raises:
        EvaluationError: several paths, or no folder.
    """
    if len(paths) != 1 or not paths[0].is_dir():
        given = ", ".join(map(str, paths))
        raise EvaluationError(f"--data {given}: give one folder, that holds {layout}")
    return paths[0]
