"""ArcFace over the teacher's class centres, with margins read off the teacher."""

import math
from typing import Annotated

import torch
from torch import Tensor

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    ClassShard,
    join,
    joined_labels,
    softmax_cross_entropy,
    teacher_head,
)
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.registry import LOSSES


def distilled_margins(closeness: Tensor, low: float = 0.2, high: float = 0.5) -> Tensor:
    """low + (high - low) d_i / max_j d_j: the closer the teacher, the larger the margin.

    Args:
        closeness: (N, 1) cosines of the teacher's embeddings to their class's centre; those
            below 0 count as 0.
        low: margin at closeness 0.
        high: margin at the batch's greatest closeness.
    """
    closeness = closeness.clamp_min(0.0)
    greatest = closeness.max().clamp_min(torch.finfo(closeness.dtype).tiny)
    return low + (high - low) * (closeness / greatest)


def margin_distillation_loss(
    cosines: Tensor, columns: Tensor, margins: Tensor, scale: float = 64.0
) -> Tensor:
    """Mean over the rows of the softmax cross-entropy of s cos(theta), s cos(theta_y + m_i).

    Args:
        cosines: (N, C) of the student's joined embeddings to the teacher's centres, C this
            rank's classes.
        columns: (N, 1) int64 columns of the targets; -1: on another rank.
        margins: (N, 1) in radians.
        scale: s.
    """
    logits = cosines
    if cosines.shape[1]:
        places = columns.clamp_min(0)
        own = cosines.gather(1, places)
        # arccos has no derivative at 1 and -1.
        limit = 1 - 8 * torch.finfo(own.dtype).eps
        moved = torch.cos(own.clamp(-limit, limit).acos() + margins.to(own.dtype))
        logits = cosines.scatter(1, places, torch.where(columns >= 0, moved, own))
    return softmax_cross_entropy(scale * logits, columns)


@LOSSES.register("margin_distillation")
class MarginDistillationLoss(DistillationLoss):
    """MarginDistillation: s cos(theta_y + m_i) over the teacher's frozen class centres.

    m_i = margin_min + (margin_max - margin_min) d_i / max_j d_j, d_i = cos(e_T, W_y): a face
    that the teacher places close to its centre must come close in the student too.

    Svitov & Alyamkin, 2020 (arXiv 2003.02586), with the value and gradient of their code
    (david-svitov/margindistillation), but for: the greatest d is that of the joined batch, where
    theirs is of each GPU's batch; d below 0 counts as 0, where theirs leads to margins below the
    least, or, if all are below 0, above the greatest. Margins are targets: no gradient reaches the
    teacher, whose prompts could otherwise lower the loss by leaving the centres. There it is the
    only loss; here it stands beside the student's own margin softmax unless
    ``cakd.margin_weight`` is 0. Where Partial FC samples classes, so does this.

    Args:
        dims: widths of both embeddings.
        scale: s.
        margin_min: in radians, of a face at right angles to its centre.
        margin_max: in radians, of the batch's face closest to its centre.
        projection: classify a learned linear map of the student's embedding, which embeddings
            of different width need. The map is not part of the student that is saved.

    Raises:
        ConfigError: the widths differ and ``projection`` is off, or margin_min > margin_max.
        LossError: no labels, or no class centres of the teacher.
    """

    needs = frozenset({"labels", "centers"})
    paper = "Svitov & Alyamkin, 2020"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        scale: Annotated[float, Range(above=0.0)] = 64.0,
        margin_min: Annotated[float, Range(0.0, math.pi)] = 0.2,
        margin_max: Annotated[float, Range(0.0, math.pi)] = 0.5,
        projection: bool = False,
    ):
        super().__init__(dims)
        if margin_min > margin_max:
            raise ConfigError(
                f"margin_distillation: margin_min {margin_min} is above margin_max "
                f"{margin_max}: exchange them"
            )
        self.scale = scale
        self.margin_min, self.margin_max = margin_min, margin_max
        self.projection = embedding_projection("margin_distillation", dims, projection)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        teacher_fc = teacher_head(batch, "margin_distillation")
        labels = joined_labels(batch, "margin_distillation")
        shard = ClassShard.of_step(teacher_fc.class_start, teacher_fc.num_local, batch)
        with torch.no_grad():
            joined = join(teacher.embedding)
            closeness = shard.label_cosines(joined, teacher_fc.weight, labels)
            margins = distilled_margins(closeness, self.margin_min, self.margin_max)
        cosines = shard.cosines(join(self.projection(student.embedding)), teacher_fc.weight)
        columns = shard.columns(labels)
        return margin_distillation_loss(cosines, columns, margins, self.scale)
