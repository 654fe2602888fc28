"""Embeddings of stored images."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.data import as_batch
from arcface_cakd.data.images import CROP
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.progress import track


def embed(
    backbone: Callable[[Tensor], Tensor],
    images: np.ndarray,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    flip: bool = True,
    description: str = "embedding",
) -> np.ndarray:
    """Embed stored images, as arcface_torch's verification does.

    Args:
        backbone: maps images (B, 3, 112, 112) float32 in [-1, 1], RGB, to embeddings (B, E): a
            module, which runs in eval mode and gets its modes back, or an ``OnnxBackbone``.
        images: (N, 112, 112, 3) uint8, RGB. They are converted batch by batch: the float32
            images of a whole set would take gigabytes.
        batch_size: images per forward.
        device: where a module computes; it is moved there. None: where its parameters are.
        flip: whether the embedding of the mirrored image is added.
        description: what the progress display says.

    Returns:
        (N, E) float64, not normalised: the sum of the embeddings of an image and its mirror
        image, or the image's own where ``flip`` is off. The sum is taken in float64, as
        arcface_torch takes it.

    Raises:
        EvaluationError: images of another shape or type, or none.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != CROP:
        raise EvaluationError(
            f"images must be uint8 (N, 112, 112, 3), got {images.dtype} {images.shape}"
        )
    if len(images) == 0:
        raise EvaluationError("there are no images to embed")
    device = _place(backbone, device)
    parts = []
    with _evaluating(backbone), torch.no_grad():
        starts = range(0, len(images), batch_size)
        for start in track(starts, description, unit="batches"):
            batch = as_batch(images[start : start + batch_size], device)
            part = backbone(batch).double()
            if flip:
                part = part + backbone(batch.flip(3)).double()
            parts.append(part.cpu().numpy())
    return np.concatenate(parts)


def _place(backbone: Callable, device: str | torch.device | None) -> torch.device:
    if not isinstance(backbone, nn.Module):
        return torch.device("cpu")
    if device is not None:
        backbone.to(device)
        return torch.device(device)
    tensors = [*backbone.parameters(), *backbone.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


@contextlib.contextmanager
def _evaluating(backbone: Callable) -> Iterator[None]:
    """Eval mode inside; every submodule's own mode again afterwards (some may be frozen)."""
    modes = {}
    if isinstance(backbone, nn.Module):
        modes = {module: module.training for module in backbone.modules()}
        backbone.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
