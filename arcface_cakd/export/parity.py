"""How near an exported file comes to torch, on the same faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.data import as_batch
from arcface_cakd.export.errors import ExportError
from arcface_cakd.landmarks import CROP_SIZE


@dataclass(frozen=True)
class Reference:
    """Images (B, 3, 112, 112) in [-1, 1] and torch's embeddings (B, E) of them, in float32."""

    images: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class Parity:
    """How near embeddings come to torch's.

    Attributes:
        cosine: the lowest cosine between an embedding and torch's.
        mean_cosine: the mean of those.
        max_abs_diff: the largest difference of one element.
        relative_error: the largest |found - torch| / |torch| of an embedding.
    """

    cosine: float
    mean_cosine: float
    max_abs_diff: float
    relative_error: float


def references(
    model: nn.Module, batches: Sequence[int], images: np.ndarray | None = None
) -> list[Reference]:
    """Batches of images, and torch's embeddings of them.

    Args:
        model: in eval mode and float32, on the CPU.
        batches: how many images each has.
        images: uint8 (sum(batches), 112, 112, 3) RGB to take them from; None: random pictures.

    Raises:
        ExportError: embeddings that are not finite.
    """
    found = []
    for number, batch in enumerate(batches):
        if images is None:
            shown = faces(batch, seed=batch)
        else:
            start = sum(batches[:number])
            shown = as_batch(images[start : start + batch])
        with torch.no_grad():
            embeddings = model(shown)
        if not torch.isfinite(embeddings).all():
            raise ExportError(
                f"{type(model).__name__} gives embeddings that are not finite: its weights come "
                "from a run that diverged"
            )
        found.append(Reference(shown, embeddings))
    return found


def compare(
    run: Callable[[Tensor], Tensor], expected: Sequence[Reference], tolerance: float
) -> Parity:
    """The differences of what ``run`` gives to torch's embeddings.

    Raises:
        ExportError: an embedding differs by more than ``tolerance`` of its length, or a batch
            size does not run.
    """
    cosines = []
    max_abs_diff, relative_error = 0.0, 0.0
    for of in expected:
        batch, found = len(of.images), run(of.images)
        if found.shape != of.embeddings.shape:
            raise ExportError(
                f"gives {tuple(found.shape)} for {batch} images, not {tuple(of.embeddings.shape)}"
            )
        found, reference = found.double(), of.embeddings.double()
        difference = found - reference
        error = float((difference.norm(dim=1) / reference.norm(dim=1)).max())
        if not error <= tolerance:  # also where it is NaN
            raise ExportError(
                f"its embeddings differ from torch's by {error:.1e} of their length at batch "
                f"{batch}; at most {tolerance:.0e} is allowed"
            )
        relative_error = max(relative_error, error)
        max_abs_diff = max(max_abs_diff, float(difference.abs().max()))
        cosines.append(nn.functional.cosine_similarity(found, reference))
    cosine = torch.cat(cosines)
    return Parity(float(cosine.min()), float(cosine.mean()), max_abs_diff, relative_error)


def faces(batch: int, seed: int = 0) -> Tensor:
    """Images (B, 3, 112, 112) in [-1, 1] that differ as photographs do, in coarse structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 7, 7, generator=generator) * 2 - 1
    images = nn.functional.interpolate(coarse, size=CROP_SIZE, mode="bilinear")
    noise = torch.randn(images.shape, generator=generator) * 0.05
    return (images + noise).clamp(-1, 1)
