"""From a name to a network."""

import importlib
import inspect
from typing import Any

import torch

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.onnx_teacher import ONNX
from arcface_cakd.registry import BACKBONES

TIMM = "timm:"


def get_model(
    name: str,
    dropout: float = 0.0,
    fp16: bool = False,
    num_features: int = 512,
    **kwargs: Any,
) -> FaceBackbone:
    """Build a network by name, with the arguments of arcface_torch's own ``get_model``.

    Args:
        name: a name in ``BACKBONES``, or ``timm:<model>`` for a timm model that yields a grid
            of tokens.
        dropout: share of the features dropped before the embedding's linear layer, in [0, 1).
        fp16: whether the body runs in float16 under autocast.
        num_features: width E of the embedding.
        kwargs: for the network's own factory.

    Raises:
        UnknownNameError: no network has that name; the message names the nearest one.
        BackboneError: a value out of range, an argument that the network does not take, or a
            registered factory that gives something else than a ``FaceBackbone``.
    """
    if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
        raise BackboneError(f"network {name!r}: num_features must be 1 or more, got {num_features}")
    if not 0 <= dropout < 1:
        raise BackboneError(f"network {name!r}: dropout must be in [0, 1), got {dropout}")
    if str(name).startswith(ONNX):
        raise BackboneError(
            f"network {name!r} is an ONNX file: it can be a teacher, as cakd.teacher.network, but "
            "not be trained or exported: take a name in BACKBONES or 'timm:<model>'"
        )
    if torch.empty(0).is_meta:
        # timm and torchvision import it, with which torch 2.6 fails on the meta device, and then
        # wherever it is needed, as by every optimiser.
        with torch.device("cpu"):
            importlib.import_module("torch._dynamo")
    arguments = {"dropout": dropout, "fp16": fp16, "num_features": num_features, **kwargs}
    if str(name).startswith(TIMM):
        from arcface_cakd.backbones import timm_grid

        model = timm_grid.build(name.removeprefix(TIMM), **arguments)
        model.built_as = name
        return model

    factory = BACKBONES.get(name)
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise BackboneError(
            f"network {name!r} cannot be built with {', '.join(arguments)}: {error}"
        ) from error
    model = factory(**arguments)
    if not isinstance(model, FaceBackbone):
        raise BackboneError(
            f"network {name!r} is a {type(model).__name__}, not a FaceBackbone: "
            "derive it from arcface_cakd.backbones.FaceBackbone"
        )
    promised = ("embedding_size", "token_dim", "grid", "stage_dims")
    lacking = [attribute for attribute in promised if not hasattr(model, attribute)]
    if lacking:
        raise BackboneError(f"network {name!r} does not set {', '.join(lacking)}")
    model.built_as = str(name)
    return model
