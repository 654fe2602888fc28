"""What losses over the relations within a batch share."""

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.distributed import all_gather_with_grad
from arcface_cakd.losses.base import LossBatch, LossError
from arcface_cakd.precision import at_least_float32, full_precision


def joined(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, ...) of both sides, at least float32, each joined over the ranks along the
    first axis, with gradient: what a loss that every rank forms of the whole batch starts from.
    """
    ours, theirs = (all_gather_with_grad(at_least_float32(x)) for x in (student, teacher))
    return ours, theirs


@full_precision
def cosine_matrix(x: Tensor) -> Tensor:
    """Cosines (B, B) between the rows of x (B, E)."""
    unit = F.normalize(x, dim=-1)
    return unit @ unit.T


def distance_matrix(x: Tensor) -> Tensor:
    """Euclidean distances (B, B) between the rows of x (B, E).

    Of differences, not of products, whose rounding hides small distances. The gradient of a
    distance of zero is zero.
    """
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def labels_of(loss: str, batch: LossBatch) -> Tensor:
    """``batch.labels``.

    Raises:
        LossError: there are none; it names the ``loss``.
    """
    if batch.labels is None:
        raise LossError(
            f"{loss} needs labels: train on labelled images or drop it from cakd.losses"
        )
    return batch.labels
