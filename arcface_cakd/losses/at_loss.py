"""Attention transfer: where in the image the student's features are large, as the teacher's.

a(F) = mean_c |F_c|^p per position, as a vector over the positions divided by its L2 norm;
L = sum over the maps of the mean over batch and positions of (a(F_S) - a(F_T))^2.

Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017. This is the loss of their
published code (and of RepDistiller and mdistiller). The paper's is beta/2 times the norm
||a(F_S) - a(F_T)||, neither squared nor divided by the number of positions. Weights of 1000,
which those repositories use, go with the mean square.

Widths need not match. Maps on different grids: the larger one is averaged down before a().
"""

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.maps import feature_map, map_widths, needs_of, to_common_grid
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def at_loss(student: Tensor, teacher: Tensor, p: float = 2.0) -> Tensor:
    """Mean square difference of the attention maps of (B, C_S, H, W) and (B, C_T, H', W')."""
    student, teacher = to_common_grid(at_least_float32(student), at_least_float32(teacher))
    return F.mse_loss(_attention(student, p), _attention(teacher, p))


def _attention(x: Tensor, p: float) -> Tensor:
    return F.normalize(x.abs().pow(p).mean(1).flatten(1), dim=1)


@LOSSES.register("at")
class ATLoss(DistillationLoss):
    """Mean square difference of normalised attention maps.

    Args:
        dims: to know the stages; widths may differ.
        stages: None for the final tokens, else indices of stages in both networks, negative ones
            counted from the last; their losses are added.
        p: the power of the features' magnitudes.

    Raises:
        ConfigError: a network has no such stage.
    """

    needs = frozenset({"tokens", "stages"})
    paper = "Zagoruyko & Komodakis, ICLR 2017"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stages: tuple[int, ...] | None = None,
        p: Annotated[float, Range(1.0)] = 2.0,
    ):
        super().__init__(dims)
        self.stages = (None,) if stages is None else tuple(stages)
        map_widths("at", dims, self.stages)
        self.needs = needs_of(self.stages)
        self.p = p

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        return total(
            at_loss(feature_map(student, stage), feature_map(teacher, stage), self.p)
            for stage in self.stages
        )
