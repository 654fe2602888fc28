"""Similarity-preserving distillation.

L = ||G_S - G_T||_F^2 / B^2, G = F F^T with each row divided by its L2 norm, F (B, width) the
features of the batch, one image a row.

Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, on the last feature map,
flattened: ``features="tokens"``. ``"embedding"``, the default, is what face recognition uses, as
it works for every teacher. The value is that of RepDistiller's ``Similarity`` and mdistiller's
``sp_loss``. TFace's loss of that name differs: it normalises the embeddings and leaves the rows
of G as they are, which is ``cckd`` of order 1 but for a factor.

Published code sees the batch of one GPU; here B is that of all ranks.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.relations import joined
from arcface_cakd.precision import full_precision
from arcface_cakd.registry import LOSSES


@full_precision
def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """SP of features (B, ...) of the same images; the sides' other dimensions may differ."""
    return F.mse_loss(_similarities(student), _similarities(teacher))


def _similarities(features: Tensor) -> Tensor:
    features = features.flatten(1)
    return F.normalize(features @ features.T, dim=-1)


@LOSSES.register("sp")
class SPLoss(DistillationLoss):
    """Row-normalised similarities within the batch of all ranks.

    Args:
        dims: not used; widths and grids may differ.
        features: what to compare images by, "embedding" or "tokens" (the last feature map,
            joined over the ranks at every step).
    """

    paper = "Tung & Mori, ICCV 2019"

    def __init__(
        self, dims: FeatureDims, *, features: Literal["embedding", "tokens"] = "embedding"
    ):
        super().__init__(dims)
        self.features = features
        if features == "tokens":
            self.needs = frozenset({"tokens"})

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        return sp_loss(*joined(getattr(student, self.features), getattr(teacher, self.features)))
