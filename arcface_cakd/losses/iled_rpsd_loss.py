"""Hard-mined distance of embeddings, and of their similarities to a memory bank's.

    L = ILED + relation_weight RPSD.

ILED (instance-level embedding distillation): the mean of d_i = 1 - cos(e_S,i, e_T,i), where images
whose d_i is below the mean of the batch of all ranks count ``easy_weight`` and the others 1.

RPSD (relation-based pairwise similarity distillation): over the pairs of image i and each other
image j of the batch of all ranks or of the bank, the gap cos(e_S,i, e_S,j) - cos(e_T,i, e_T,j); per
i the mean square of the gaps whose absolute value is at least its mean over j; the mean over i. The
bank holds both sides' embeddings of the latest images, of all ranks, first in, first out.

Mishra & Uikey, "Unified Knowledge Distillation Framework: Fine-Grained Alignment and Geometric
Relationship Preservation for Deep Face Recognition", IJCB 2025 (arXiv 2508.11376). No code was
published, and this rests on the paper's abstract: that ILED aligns embeddings of single images by a
dynamic hard mining, and that RPSD aligns pairwise similarities with a memory bank and a sample
mining. Its formulas, thresholds, weights and the bank's size were not recoverable and are ours: the
minings take what is at least the mean, a threshold that follows the student; cosines rather than
Euclidean distances; images that i is compared with are constants, as in every bank.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.distributed import all_gather, rank, world_size
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.losses.memory_bank import put_in
from arcface_cakd.precision import at_least_float32, full_precision
from arcface_cakd.registry import LOSSES


def iled_loss(student: Tensor, teacher: Tensor, easy_weight: float = 0.0) -> Tensor:
    """ILED of unit embeddings (B, E) of this rank; the mean over the ranks is that of all."""
    distance = 1 - (student * teacher).sum(1)
    every = all_gather(distance.detach())
    # A mean of equal numbers may be rounded to more than each of them.
    threshold = every.mean().clamp_max(every.max())
    weight, total = (
        easy_weight + (1 - easy_weight) * (d >= threshold).to(d.dtype)
        for d in (distance.detach(), every)
    )
    return world_size() * (weight * distance).sum() / total.sum()


@full_precision
def rpsd_loss(
    student: Tensor, teacher: Tensor, other_student: Tensor, other_teacher: Tensor, compared: Tensor
) -> Tensor:
    """RPSD.

    Args:
        student: (B, E_S) unit embeddings, and ``teacher`` (B, E_T).
        other_student: (K, E_S) unit embeddings to compare with, and ``other_teacher`` (K, E_T).
        compared: (B, K), 1 where there is such a pair and 0 where there is none.
    """
    gap = student @ other_student.T - teacher @ other_teacher.T
    size = gap.detach().abs() * compared
    mean = size.sum(1, keepdim=True) / compared.sum(1, keepdim=True).clamp_min(1)
    mined = compared * (size >= torch.minimum(mean, size.amax(1, keepdim=True)))
    return ((gap.square() * mined).sum(1) / mined.sum(1).clamp_min(1)).mean()


@LOSSES.register("iled_rpsd")
class ILEDRPSDLoss(DistillationLoss):
    """Distance of each image's two embeddings, and of both sides' pairwise similarities, mined.

    Mishra & Uikey, IJCB 2025, from its abstract: see the module.

    Args:
        dims: widths of both embeddings.
        easy_weight: weight in ILED of images that are nearer to the teacher than the batch's mean.
        relation_weight: of RPSD.
        bank_size: images that the bank holds; 0 leaves the pairs of the batch.
        projection: compare a learned linear map of the student's embedding, which embeddings of
            different width need. The map is not part of the student that is saved.

    Attributes:
        bank: (bank_size, 2 E_T) float32, unit embeddings of both sides side by side; the same on
            every rank.
        banked: int64 scalar, the images that ever went into the bank.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
    """

    paper = "Mishra & Uikey, IJCB 2025"
    bank: Tensor
    banked: Tensor

    def __init__(
        self,
        dims: FeatureDims,
        *,
        easy_weight: Annotated[float, Range(0.0, 1.0)] = 0.0,
        relation_weight: Annotated[float, Range(0.0)] = 1.0,
        bank_size: Annotated[int, Range(0)] = 8192,
        projection: bool = False,
    ):
        super().__init__(dims)
        self.easy_weight, self.relation_weight = easy_weight, relation_weight
        self.projection = embedding_projection("iled_rpsd", dims, projection)
        self.register_buffer("bank", torch.zeros(bank_size, 2 * dims.teacher_embedding))
        self.register_buffer("banked", torch.zeros((), dtype=torch.long))

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        # Normalised after autocast's product, so that what is banked has unit length.
        ours, theirs = (
            F.normalize(at_least_float32(x), dim=1)
            for x in (self.projection(at_least_float32(student.embedding)), teacher.embedding)
        )
        loss = iled_loss(ours, theirs, self.easy_weight)
        joined = all_gather(torch.cat([ours, theirs], 1).detach())
        other_ours, other_theirs = torch.cat([joined, self.bank]).chunk(2, 1)
        place = torch.arange(len(other_ours), device=joined.device)
        own = rank() * len(ours) + torch.arange(len(ours), device=joined.device)
        compared = (place - len(joined) < self.banked) & (place != own[:, None])
        relation = rpsd_loss(ours, theirs, other_ours, other_theirs, compared.to(ours.dtype))
        loss = loss + self.relation_weight * relation
        if self.training:
            put_in(self.banked, (self.bank, joined))
        return loss
