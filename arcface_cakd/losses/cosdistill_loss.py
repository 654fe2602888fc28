"""CosFace of the student's embedding over the teacher's class centres."""

from typing import Annotated

from torch import Tensor

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import scores_by_teacher, softmax_cross_entropy
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.partial_fc import CosFace
from arcface_cakd.registry import LOSSES


def cosdistill_loss(
    cosines: Tensor, columns: Tensor, scale: float = 64.0, margin: float = 0.35
) -> Tensor:
    """Mean over the rows of the softmax cross-entropy of s cos(theta), s (cos(theta_y) - margin).

    Args:
        cosines: (N, C) of the student's joined embeddings to the teacher's centres, C this
            rank's classes.
        columns: (N, 1) int64 columns of the targets; -1: on another rank.
        scale: s.
        margin: subtracted from the cosine.
    """
    return softmax_cross_entropy(CosFace(scale, margin)(cosines, columns), columns)


@LOSSES.register("cosdistill")
class CosDistillLoss(DistillationLoss):
    """CosFace of the student's embedding over the teacher's frozen class centres.

    The baseline "CosDistill" of Boutros, Struc & Damer, ECCV 2024 (AdaDistill), whose code does
    the same on one shard of classes, with a margin of 0.45. There it is the only loss; here it
    stands beside the student's own margin softmax unless ``cakd.margin_weight`` is 0. Where
    Partial FC samples classes, so does this.

    Args:
        dims: widths of both embeddings.
        scale: s.
        margin: subtracted from the target's cosine.
        projection: classify a learned linear map of the student's embedding, which embeddings
            of different width need. The map is not part of the student that is saved.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
        LossError: no labels, or no class centres of the teacher.
    """

    needs = frozenset({"labels", "centers"})
    paper = "Boutros et al., ECCV 2024"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        scale: Annotated[float, Range(above=0.0)] = 64.0,
        margin: Annotated[float, Range(0.0, 2.0)] = 0.35,
        projection: bool = False,
    ):
        super().__init__(dims)
        self.scale, self.margin = scale, margin
        self.projection = embedding_projection("cosdistill", dims, projection)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        embedding = self.projection(student.embedding)
        scores = scores_by_teacher(embedding, batch, "cosdistill")
        return cosdistill_loss(*scores, self.scale, self.margin)
