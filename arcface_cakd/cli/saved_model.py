"""The model that a command is given as a ``model.pt``, and the network that it is of."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arcface_cakd.errors import ArcfaceCakdError

if TYPE_CHECKING:
    from arcface_cakd.backbones import FaceBackbone

_DEFAULT_WIDTH = 512
_CORE_ML = ".mlpackage"  # which no runtime here is for


class SavedModel(NamedTuple):
    """A network with its weights, and the name that ``get_model`` knows it by."""

    backbone: "FaceBackbone"
    network: str


def load_model(args: argparse.Namespace) -> SavedModel:
    """The network of ``args.model``: that of the ``model.json`` beside it, or the one named.

    Args:
        args: ``model``, and the options ``network`` and ``embedding_size``, None where not given.

    Raises:
        ArcfaceCakdError: it is an exported file, nobody says the network, an option says another
            one or another width than ``model.json``, or the weights cannot be read or do not fit.
    """
    from arcface_cakd.backbones import embedding_size_of, get_model, read_description
    from arcface_cakd.backbones.weights import copy_weights, read_weights
    from arcface_cakd.runtimes import ending_of

    if ending_of(args.model) or Path(args.model).suffix == _CORE_ML:
        raise ArcfaceCakdError(
            f"{args.model}: an exported file, and weights are asked for here: give the model.pt "
            "that it was written from"
        )
    said = read_description(args.model)
    for option in ("network", "embedding_size"):
        given, found = getattr(args, option), getattr(said, option, None)
        if given is not None and found is not None and given != found:
            raise ArcfaceCakdError(
                f"--{option.replace('_', '-')} {given}: {args.model} is of {found}, as the .json "
                "beside it says: drop the option"
            )
    state = read_weights(args.model)  # first, for of what is no model nobody knows the network
    if said is None and not args.network:
        beside = Path(args.model).with_suffix(".json")
        raise ArcfaceCakdError(
            f"--network is needed for {args.model}: say which network it is of (no {beside.name}, "
            "which would, is beside it)"
        )
    network = args.network if said is None else said.network
    width = args.embedding_size if said is None else said.embedding_size
    if width is None:
        width = embedding_size_of(state, lambda e: get_model(network, num_features=e))
    backbone = get_model(network, num_features=width or _DEFAULT_WIDTH)
    copy_weights(backbone, state, f"weights {args.model}")
    return SavedModel(backbone, network)
