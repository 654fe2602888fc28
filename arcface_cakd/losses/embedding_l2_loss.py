"""Feature consistency: squared L2 distance between the embeddings of student and teacher.

L = 1/B sum_i ||ẑ_S,i - ẑ_T,i||^2, ẑ = z / ||z||, or z itself with ``normalize=False``.

The oldest loss of its kind: Ba and Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014,
on outputs; on the normalised embeddings of faces in VarGFaceNet (Yan et al., ICCV workshops
2019, eq. 5), and as feature consistency or FCD in later comparisons.

Published code differs in the mean: FaceX-Zoo's ``SNN_MIMIC`` and TFace's ``HintLoss`` divide by
the width E too, so that their value is this one, raw, over E. On normalised embeddings this is
twice ``embedding_cosine``.
"""

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def embedding_l2_loss(student: Tensor, teacher: Tensor, *, normalize: bool = True) -> Tensor:
    """mean over the batch of ||student - teacher||^2, for (B, E) embeddings: 0 to 4 if
    normalised."""
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return (student - teacher).square().sum(-1).mean()


@LOSSES.register("embedding_l2")
class EmbeddingL2Loss(DistillationLoss):
    """Squared L2 distance between the embeddings, normalised or raw (feature consistency).

    Args:
        dims: widths of both embeddings.
        normalize: compare directions; False compares lengths as well, which few students reach.
        projection: compare a learned linear map of the student's embedding, which embeddings of
            different width need. The map is not part of the student that is saved.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
    """

    paper = "Yan et al., ICCV workshops 2019"

    def __init__(self, dims: FeatureDims, *, normalize: bool = True, projection: bool = False):
        super().__init__(dims)
        self.normalize = normalize
        self.projection = embedding_projection("embedding_l2", dims, projection)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        projected = self.projection(at_least_float32(student.embedding))
        return embedding_l2_loss(projected, teacher.embedding, normalize=self.normalize)
