"""Masked generative distillation: the teacher's whole map from parts of the student's.

L = mean of (G(m a(F_S)) - F_T)^2 over batch, channels and positions: a a 1x1 convolution where
the widths differ, m a random mask of 0 and 1, G a 3x3 convolution, ReLU and a 3x3 convolution.

Yang, Li, Shao, Shi, Yuan & Yuan, "Masked Generative Distillation", ECCV 2022. Their code divides
the sum of squares by the batch alone and multiplies it by 2e-5 (5e-7 for two-stage detectors,
7e-5 in classification); the mean here, C H W times less than that sum, makes a weight mean the
same for every teacher. It masks positions with the ratios 0.65 (detectors of one stage), 0.45 (of
two) or 0.75 (segmentation), and whole channels with 0.15 in classification, which the setting
``mask`` offers too.

The masks are drawn, in training alone, from torch's global generator of the device, so that a
resumed run repeats them; ranks draw their own. In eval nothing is masked.

Maps on different grids: the larger one is averaged down to the smaller one's.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.maps import feature_map, map_widths, needs_of, to_common_grid
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    """mean of (generated - teacher)^2 of two maps (B, C, H, W)."""
    return F.mse_loss(at_least_float32(generated), at_least_float32(teacher))


def mask_at_random(x: Tensor, ratio: float, mask: Literal["positions", "channels"]) -> Tensor:
    """``x`` (B, C, H, W) with each position, or each channel, of each image 0 with probability
    ``ratio``; what is left is not scaled."""
    batch, channels, height, width = x.shape
    shape = (batch, 1, height, width) if mask == "positions" else (batch, channels, 1, 1)
    return x * (torch.rand(shape, device=x.device) >= ratio)


@LOSSES.register("mgd")
class MGDLoss(DistillationLoss):
    """Mean square of G(masked student map) - F_T.

    Args:
        dims: widths of the maps.
        stage: which map: None for the final tokens, else the index of a stage in both networks,
            negative ones counted from the last.
        mask_ratio: probability of masking.
        mask: what is masked: ``"positions"`` (all channels of a place) or ``"channels"``.

    Raises:
        ConfigError: a network has no such stage.
    """

    needs = frozenset({"tokens", "stages"})
    paper = "Yang et al., ECCV 2022"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stage: int | None = None,
        mask_ratio: Annotated[float, Range(0.0, 0.99)] = 0.65,
        mask: Literal["positions", "channels"] = "positions",
    ):
        super().__init__(dims)
        self.stage = stage
        self.needs = needs_of((stage,))
        self.mask_ratio, self.mask = mask_ratio, mask
        ((ours, theirs),) = map_widths("mgd", dims, (stage,))
        self.align = nn.Conv2d(ours, theirs, 1) if ours != theirs else nn.Identity()
        self.generate = nn.Sequential(
            nn.Conv2d(theirs, theirs, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(theirs, theirs, 3, padding=1),
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs = to_common_grid(*(feature_map(x, self.stage) for x in (student, teacher)))
        ours = self.align(ours)
        if self.training:
            ours = mask_at_random(ours, self.mask_ratio, self.mask)
        return mgd_loss(self.generate(ours), theirs)
