"""Alignment of local features in attention space."""

from torch import Tensor

from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def urfm_attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """(student - teacher)^2 of two (B, heads, L, L) attention maps, summed over the keys (the
    last dimension), mean over the rest: 0 to 2."""
    difference = at_least_float32(student) - at_least_float32(teacher)
    return difference.square().sum(-1).mean()


@LOSSES.register("urfm_attention")
class URFMAttentionLoss(DistillationLoss):
    """L_attn = sum over keys of (Attn_T - Attn_S)^2, mean over batch, heads and centres.

    Zhao et al., ACM MM 2023, has the mean square, over the keys too. The sum is a
    choice of this project: L times the paper's. A mean over softmax maps, whose entries are near
    1 / L, starts between 1e-3 and 1e-5, where much of its gradient vanishes in float16.

    Args:
        dims: the number of URFM's local centres.

    Raises:
        ConfigError: there is one local centre: a softmax over one key is 1, and the loss always 0.
        LossError: URFM is off.
    """

    needs = frozenset({"tokens", "alignment"})
    paper = "Zhao et al., ACM MM 2023"

    def __init__(self, dims: FeatureDims):
        super().__init__(dims)
        if dims.num_centers == 1:
            raise ConfigError(
                "urfm_attention: with one local centre every attention map is 1 and the loss 0: "
                "set cakd.urfm.num_centers to more, or drop the loss from cakd.losses"
            )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        aligned = self.alignment_of(batch)
        return urfm_attention_loss(aligned.student.attention, aligned.teacher.attention)
