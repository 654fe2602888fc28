"""Relational knowledge distillation: distances and angles within the batch.

L = w_d mean_ij huber(d_S,ij / d̄_S, d_T,ij / d̄_T) + w_a mean_ijk huber(cos_S,ijk, cos_T,ijk)

d_ij is the distance of embeddings i and j, d̄ its mean over i != j, and cos_ijk the cosine of the
angle at j between i and k. huber is quadratic below 1. w_d = 25, w_a = 50.

Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019. The paper's sums run over
distinct images; as in published code (RepDistiller, mdistiller, TFace's ``rkd``) the means here
run over all B^2 and B^3 index tuples, also those of repeated images, which give zero. Published
code forms the means per GPU; here they are those of the batch of all ranks, so that the value
does not depend on their number. Each rank takes the angles at its own images.

Angles at images that are nearly the same (a side below 1e-3 of the mean distance) count as right
angles, published code takes them as they come out. Embeddings are not normalised, as in all
published versions. Widths may differ.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import rank
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.relations import distance_matrix, joined
from arcface_cakd.precision import full_precision
from arcface_cakd.registry import LOSSES

# Angles that are in memory at once, for each side; more are computed in parts, and once again
# in the backward pass.
_MAX_ANGLES = 2**24
# The law of cosines subtracts squares: of shorter sides float32 leaves few digits of an angle.
_SHORT = 1e-3


@full_precision
def rkd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    vertices: range | None = None,
) -> Tensor:
    """RKD of embeddings (B, E_S) and (B, E_T).

    Args:
        student: with ``teacher``, of the same images.
        distance_weight: w_d.
        angle_weight: w_a.
        vertices: the images j at which to take angles; None takes all.
    """
    # Angles do not depend on the scale either, and so their squares stay within float32.
    student, teacher = (_over_mean(distance_matrix(x)) for x in (student, teacher))
    loss = student.new_zeros(())
    if distance_weight:
        loss = loss + distance_weight * F.smooth_l1_loss(student, teacher)
    if angle_weight:
        vertices = range(len(student)) if vertices is None else vertices
        loss = loss + angle_weight * _angle_loss(student, teacher, vertices)
    return loss


def _over_mean(distances: Tensor) -> Tensor:
    """Distances (B, B) over their mean between different images; all zero stay zero."""
    pairs = max(len(distances) * (len(distances) - 1), 1)
    return distances / (distances.sum() / pairs).clamp_min(torch.finfo(distances.dtype).tiny)


def _angle_loss(student: Tensor, teacher: Tensor, vertices: range) -> Tensor:
    batch = len(student)
    step = max(1, _MAX_ANGLES // batch**2)
    parts = [vertices[i : i + step] for i in range(0, len(vertices), step)]
    if len(parts) == 1:
        total = _angle_sum(student, teacher, parts[0])
    else:
        total = student.new_zeros(())
        for part in parts:
            total = total + checkpoint(_angle_sum, student, teacher, part, use_reentrant=False)
    return total / (len(vertices) * batch**2)


def _angle_sum(student: Tensor, teacher: Tensor, vertices: range) -> Tensor:
    return F.smooth_l1_loss(
        _cosines(student, vertices), _cosines(teacher, vertices), reduction="sum"
    )


def _cosines(distances: Tensor, vertices: range) -> Tensor:
    """Cosines (V, B, B) of the angles at the vertices, by the law of cosines, which needs no
    (V, B, E) differences. 0 where a side is shorter than ``_SHORT``; distances are over their
    mean."""
    sides = distances[vertices.start : vertices.stop]
    long = sides > _SHORT
    inverse = torch.where(long, 1 / torch.where(long, sides, 1), 0)
    square = sides.square()
    products = square[:, :, None] + square[:, None, :] - distances.square()
    return products * (0.5 * inverse[:, :, None]) * inverse[:, None, :]


@LOSSES.register("rkd")
class RKDLoss(DistillationLoss):
    """Distances and angles within the batch of all ranks.

    Args:
        dims: not used; the embeddings' widths may differ.
        distance_weight: weight of the distances.
        angle_weight: weight of the angles; their cost grows with the cube of the batch of all
            ranks, divided by the number of ranks.

    Raises:
        ConfigError: both weights are 0.
    """

    paper = "Park et al., CVPR 2019"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        distance_weight: Annotated[float, Range(0.0)] = 25.0,
        angle_weight: Annotated[float, Range(0.0)] = 50.0,
    ):
        super().__init__(dims)
        if not distance_weight and not angle_weight:
            raise ConfigError("rkd: distance_weight and angle_weight are both 0: set one of them")
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        local = len(student.embedding)
        return rkd_loss(
            *joined(student.embedding, teacher.embedding),
            distance_weight=self.distance_weight,
            angle_weight=self.angle_weight,
            vertices=range(rank() * local, (rank() + 1) * local),
        )
