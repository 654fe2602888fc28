"""Triplet distillation: a triplet loss whose margins the teacher sets.

L = mean over triplets of relu(d_S(a, p) - d_S(a, n) + m(a, p, n)),
m = m_min + (m_max - m_min) t / t_max, t = relu(d_T(a, n) - d_T(a, p)), t_max its largest value in
the batch; m_min = 0.2, m_max = 0.5

Feng, Wang, Hu, Yu, Wang, Wang, "Triplet Distillation for Deep Face Recognition", arXiv 1905.04457,
2019; ICIP 2020. Its authors published no code; david-svitov/margindistillation implements it for
MXNet, and value and gradient here are those of its code on the same triplets. d is the squared
distance of normalised embeddings, as in FaceNet, or, by setting, their angle: that code's
``triplet_distillation_L2`` and ``triplet_distillation_cos``. It takes t_max of the batch of one
GPU, here that of all ranks counts; where t_max is 0 it divides by it, here all margins are m_min.
Which triplets there are is left to a sampler by paper and code; choices of this project:

- All triplets of the batch of all ranks: a and p two images of one identity (in both orders), n
  of another one. The mean is over all of them, at rest or not. A batch without any gives 0.
- The margins are constants: no gradient reaches the teacher's prompts, which would lower this
  loss by making the teacher tell faces apart less.
- It needs batches that hold several images of an identity. In random batches of a large data set
  there are few: expect about B^2 / (2 x identities) pairs.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import all_gather, all_gather_with_grad
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.relations import cosine_matrix, labels_of
from arcface_cakd.precision import at_least_float32, full_precision
from arcface_cakd.registry import LOSSES


@full_precision
def triplet_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    margin_min: float = 0.2,
    margin_max: float = 0.5,
    distance: Literal["squared", "angle"] = "squared",
) -> Tensor:
    """Triplet distillation of embeddings (B, E_S) and (B, E_T) with labels (B,).

    Takes memory for (pairs of one identity) x B distances. No gradient flows to the teacher.
    """
    same = labels[:, None] == labels
    anchor, positive = same.fill_diagonal_(False).nonzero(as_tuple=True)
    if not len(anchor):
        return student.sum() * 0
    valid = labels[anchor, None] != labels
    student, teacher = (_distances(x, distance) for x in (student, teacher.detach()))
    gap = (teacher[anchor] - teacher[anchor, positive, None]).clamp_min(0) * valid
    share = gap / gap.max().clamp_min(1e-12)
    margin = margin_min + (margin_max - margin_min) * share
    violation = student[anchor, positive, None] - student[anchor] + margin
    return (violation.relu() * valid).sum() / valid.sum().clamp_min(1)


def _distances(embeddings: Tensor, distance: Literal["squared", "angle"]) -> Tensor:
    cosines = cosine_matrix(embeddings)
    if distance == "squared":
        return 2 - 2 * cosines
    limit = 1 - 8 * torch.finfo(cosines.dtype).eps  # arccos has no derivative at 1 and -1
    return cosines.clamp(-limit, limit).acos()


@LOSSES.register("triplet_distillation")
class TripletDistillationLoss(DistillationLoss):
    """Triplet loss with margins that the teacher's distances set.

    Args:
        dims: not used; the embeddings' widths may differ.
        margin_min: margin where the teacher does not tell negative from positive.
        margin_max: margin where it tells them apart best.
        distance: of two embeddings: "squared", of the normalised ones, 0 to 4; or "angle", in
            radians, as the margins then are, at most pi.

    Raises:
        ConfigError: ``margin_min`` is above ``margin_max``, or that wider than angles are apart.
    """

    needs = frozenset({"labels"})
    paper = "Feng et al., ICIP 2020"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        margin_min: Annotated[float, Range(0.0, 4.0)] = 0.2,
        margin_max: Annotated[float, Range(0.0, 4.0)] = 0.5,
        distance: Literal["squared", "angle"] = "squared",
    ):
        super().__init__(dims)
        if margin_min > margin_max:
            raise ConfigError(
                f"triplet_distillation: margin_min {margin_min:g} is above margin_max "
                f"{margin_max:g}: exchange them"
            )
        if distance == "angle" and margin_max > math.pi:
            raise ConfigError(
                f"triplet_distillation: margin_max {margin_max:g} must be at most pi with "
                'distance="angle": lower it'
            )
        self.margin_min = margin_min
        self.margin_max = margin_max
        self.distance = distance

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        return triplet_distillation_loss(
            all_gather_with_grad(at_least_float32(student.embedding)),
            all_gather(at_least_float32(teacher.embedding)),
            all_gather(labels_of("triplet_distillation", batch)),
            margin_min=self.margin_min,
            margin_max=self.margin_max,
            distance=self.distance,
        )
