"""Whether an ONNX graph takes pixels as 0..255 or as [-1, 1]: by its names, and by what it does."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from arcface_cakd.landmarks import CROP_SIZE

Pixels = Literal["raw", "normalised"]
_FACES = 3
# Of the mean squared distance of unit embeddings. Between pictures in [-1, 1] and the same ones in
# 0..255 its ratio was 2 and above for networks that take the former, and below 0.005 for the same
# networks behind a normalisation, for which [-1, 1] is one dark picture.
_MUCH_LESS = 0.02
_LEAST = 1e-3


def normalises_itself(graph) -> bool:
    """Whether ``insightface`` takes an ONNX graph for one that expects pixels in 0..255.

    Its rule: among the names of the first eight nodes one starts with Sub or _minus, and one
    with Mul or _mul.
    """
    names = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    return subtracts and multiplies


def pixels_by_embeddings(run: Callable[[Tensor], Tensor]) -> Pixels | None:
    """What pixels a graph takes, as its embeddings of three pictures say; None: they do not tell.

    Args:
        run: maps images (B, 3, 112, 112) to embeddings (B, E), without changing their pixels.
    """
    faces = _pictures()
    normalised, raw = _spread(run(faces)), _spread(run((faces + 1) * 127.5))
    if raw > _LEAST and normalised < _MUCH_LESS * raw:
        return "raw"
    if normalised > _LEAST and raw < normalised:
        return "normalised"
    return None


def _pictures() -> Tensor:
    """(3, 3, 112, 112) in [-1, 1] that differ as photographs do, in coarse structure."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_FACES, 3, 7, 7, generator=generator) * 2 - 1
    return nn.functional.interpolate(coarse, size=CROP_SIZE, mode="bilinear")


def _spread(embeddings: Tensor) -> float:
    """The mean squared distance of unit embeddings; 0 where they are not finite."""
    units = nn.functional.normalize(embeddings.double(), dim=1)
    if not torch.isfinite(units).all():
        return 0.0
    return float(torch.pdist(units).square().mean())
