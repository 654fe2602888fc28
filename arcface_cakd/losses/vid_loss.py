"""Variational information distillation: a lower bound of what F_S tells about F_T.

L = sum over the maps of the mean over batch, channels c and positions of
1/2 [(mu(F_S) - F_T)^2 / s_c^2 + log s_c^2], s_c^2 = softplus(a_c) + 1e-5 learned: the negative
log-likelihood, but for a constant, of F_T under Gaussians about mu(F_S).

Ahn, Hu, Damianou, Lawrence & Dai, "Variational Information Distillation for Knowledge Transfer",
CVPR 2019. The paper sums over channels and positions; the mean is that of the published code
(RepDistiller's port and mdistiller), whose mu we take too: three 1x1 convolutions without bias
with ReLU between. mdistiller keeps the a_c in a plain list, so that they neither train nor are
saved; here they are parameters. L may be negative and is not 0 where both sides agree.

Maps on different grids: the larger one is averaged down to the smaller one's.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.maps import feature_map, map_widths, needs_of, to_common_grid
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES

EPSILON = 1e-5


def vid_loss(mean: Tensor, teacher: Tensor, raw_variance: Tensor) -> Tensor:
    """Mean of 1/2 [(mean - teacher)^2 / s^2 + log s^2], s^2 = softplus(raw_variance) + 1e-5.

    Args:
        mean: (B, C, H, W), mu(F_S).
        teacher: (B, C, H, W).
        raw_variance: (C,).
    """
    mean, teacher, raw_variance = map(at_least_float32, (mean, teacher, raw_variance))
    variance = (F.softplus(raw_variance) + EPSILON).view(-1, 1, 1)
    return ((mean - teacher).square() / variance + variance.log()).mean() / 2


@LOSSES.register("vid")
class VIDLoss(DistillationLoss):
    """1/2 [(mu(F_S) - F_T)^2 / s_c^2 + log s_c^2], mean over all.

    Args:
        dims: widths of the maps.
        stages: None for the final tokens, else indices of stages in both networks, negative ones
            counted from the last; their losses are added.
        initial_variance: s_c^2 at the start.

    Attributes:
        raw_variances: a_c, one parameter (C_T,) per map.

    Raises:
        ConfigError: a network has no such stage.
    """

    needs = frozenset({"tokens", "stages"})
    paper = "Ahn et al., CVPR 2019"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stages: tuple[int, ...] | None = None,
        initial_variance: Annotated[float, Range(1e-4)] = 5.0,
    ):
        super().__init__(dims)
        self.stages = (None,) if stages is None else tuple(stages)
        self.needs = needs_of(self.stages)
        widths = map_widths("vid", dims, self.stages)
        softplus = initial_variance - EPSILON
        raw = softplus + math.log(-math.expm1(-softplus))  # the inverse of softplus
        self.regressors = nn.ModuleList(_regressor(*pair) for pair in widths)
        self.raw_variances = nn.ParameterList(
            nn.Parameter(torch.full((theirs,), raw)) for _, theirs in widths
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        losses = []
        for stage, regressor, raw in zip(
            self.stages, self.regressors, self.raw_variances, strict=True
        ):
            ours, theirs = to_common_grid(feature_map(student, stage), feature_map(teacher, stage))
            losses.append(vid_loss(regressor(ours), theirs, raw))
        return total(losses)


def _regressor(ours: int, theirs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(ours, theirs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(theirs, theirs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(theirs, theirs, 1, bias=False),
    )
