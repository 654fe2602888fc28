"""Cosine distance between the embeddings of student and teacher."""

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def embedding_cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over the batch of 1 - cos(student, teacher), for (B, E) embeddings: 0 to 2."""
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


@LOSSES.register("embedding_cosine")
class EmbeddingCosineLoss(DistillationLoss):
    """Cosine distance between the embeddings: mean of 1 - cos(z_S, z_T).

    Whether Zhao et al. (ACM MM 2023) have an embedding-level term in their total could not be
    recovered; this one is a choice of this project, the commonest term of distillation for face
    recognition. On unit vectors it is half of the squared distance that others publish; by itself
    it is the "angular distillation" of david-svitov/margindistillation.

    Args:
        dims: widths of both embeddings.
        projection: compare a learned linear map of the student's embedding, which embeddings of
            different width need. The map is not part of the student that is saved.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
    """

    paper = "common in face recognition"

    def __init__(self, dims: FeatureDims, *, projection: bool = False):
        super().__init__(dims)
        self.projection = embedding_projection("embedding_cosine", dims, projection)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        return embedding_cosine_loss(self.projection(student.embedding), teacher.embedding)
