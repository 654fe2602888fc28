"""ShrinkTeaNet's angular distillation loss.

L = 1/B sum_i (1 - cos(z_S,i, z_T,i))^2

Duong, Luu, Quach, Le, "ShrinkTeaNet: Million-scale Lightweight Face Recognition via Shrinking
Teacher-Student Networks", arXiv 1905.10620, 2019; in this form also eq. 4 of VarGFaceNet (Yan et
al., ICCV workshops 2019). The authors published no code. The one that others published as its
"angular distillation", david-svitov/margindistillation, leaves out the square: that is the loss
``embedding_cosine``. Here the papers' square stays.

The paper adds it to a margin softmax loss, which here is the student's own head, and asks for it
at intermediate features too; this is its term at the embedding. Its gradient vanishes as the
angle closes, unlike that of ``embedding_cosine``.
"""

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def shrinkteanet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over the batch of (1 - cos(student, teacher))^2, for (B, E) embeddings: 0 to 4."""
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).square().mean()


@LOSSES.register("shrinkteanet")
class ShrinkTeaNetLoss(DistillationLoss):
    """Angular distance of the embeddings: mean of (1 - cos(z_S, z_T))^2.

    Args:
        dims: widths of both embeddings.
        projection: compare a learned linear map of the student's embedding, which embeddings of
            different width need. The map is not part of the student that is saved.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
    """

    paper = "Duong et al., 2019"

    def __init__(self, dims: FeatureDims, *, projection: bool = False):
        super().__init__(dims)
        self.projection = embedding_projection("shrinkteanet", dims, projection)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        projected = self.projection(at_least_float32(student.embedding))
        return shrinkteanet_loss(projected, teacher.embedding)
