"""What losses over the relations within a batch share."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.alignment.attention import at_least_float32
from arcface_cakd.distributed import all_gather_with_grad
from arcface_cakd.losses.base import LossBatch, LossError

Function = TypeVar("Function", bound=Callable[..., Tensor])


def full_precision(function: Function) -> Function:
    """Decorator: tensors come in at least float32, and autocast is off inside.

    Autocast would form the products of float32 features in half precision: similarities of
    faces that differ in the third digit would then be equal.
    """

    @functools.wraps(function)
    def in_full_precision(*tensors: Tensor, **settings):
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*(at_least_float32(tensor) for tensor in tensors), **settings)

    return in_full_precision


def joined(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, ...) of both sides, at least float32, each joined over the ranks along the
    first axis, with gradient: what a loss that every rank forms of the whole batch starts from.
    """
    return tuple(all_gather_with_grad(at_least_float32(x)) for x in (student, teacher))


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
