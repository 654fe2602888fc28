"""Embeddings of stored images."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.data import as_batch
from arcface_cakd.data.images import CROP
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.progress import track

logger = logging.getLogger("arcface_cakd")


class Faces(Protocol):
    """Face crops that are read where they are asked for; an array of them is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """uint8 (n, 112, 112, 3) RGB."""


def embed(
    backbone: Callable[[Tensor], Tensor],
    images: Faces,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    flip: bool = True,
    description: str = "embedding",
) -> np.ndarray:
    """Embed stored images, as arcface_torch's verification does.

    Args:
        backbone: maps images (B, 3, 112, 112) float32 in [-1, 1], RGB, to embeddings (B, E): a
            module, which runs in eval mode and gets its modes back, or an ``OnnxBackbone``.
        images: (N, 112, 112, 3) uint8, RGB; an array, or what reads them, see ``Faces``. They are
            converted batch by batch: the float32 images of a whole set would take gigabytes.
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
    if isinstance(images, np.ndarray) and (
        images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != CROP
    ):
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


def check_finite(embeddings: np.ndarray) -> None:
    """Refuse embeddings (N, E) of which some are not finite.

    Raises:
        EvaluationError: some are not; the message says how many, and which is the first.
    """
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise EvaluationError(
            f"{np.count_nonzero(~finite)} of {len(finite)} embeddings are not finite, the first "
            f"is number {np.argmin(finite)}: the model has diverged"
        )


def warn_of_zeros(embeddings: np.ndarray, what: str) -> None:
    """Say in the log how many embeddings (N, E) are of length 0, which are like nobody's.

    Args:
        embeddings: of faces.
        what: their name.
    """
    if zeros := np.count_nonzero(~embeddings.any(axis=1)):
        logger.warning("%s: %d of %d embeddings are zero", what, zeros, len(embeddings))


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (N, E) at length 1, float64. A zero row stays zero."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))[:, None]
    return embeddings / np.where(norms == 0, 1, norms)


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
