"""Alignment of local features in feature space."""

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, LossBatch
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def urfm_feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean of (student - teacher)^2 over all of two (B, L, d) sets of attended local features."""
    return F.mse_loss(at_least_float32(student), at_least_float32(teacher))


@LOSSES.register("urfm_feature")
class URFMFeatureLoss(DistillationLoss):
    """L_feat = MSE(MSA(h_T), MSA(h_S)), mean over batch, centres and channels.

    Zhao et al., ACM MM 2023. Its weight in the paper could not be recovered. What
    the loss may move on the teacher's side is decided by ``cakd.urfm.stop_gradient``.

    Args:
        dims: not used.

    Raises:
        LossError: URFM is off.
    """

    needs = frozenset({"tokens", "alignment"})
    paper = "Zhao et al., ACM MM 2023"

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        aligned = self.alignment_of(batch)
        return urfm_feature_loss(aligned.student.attended, aligned.teacher.attended)
