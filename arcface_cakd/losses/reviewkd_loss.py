"""Knowledge review: each stage of the student, joined with all deeper ones, against the teacher's.

From the last stage up, an attention based fusion (ABF) forms x = conv1x1(F_S), adds what the
stage below left, r scaled up to x's grid, as x a + r b with (a, b) = sigmoid(conv1x1([x, r]))
per position, hands the result on as the next r, and compares conv3x3(it) with the teacher's
stage. Both convolutions end in BatchNorm. The comparison is the hierarchical context loss (HCL):
the mean square difference at full size, and of averages on grids of 4, 2 and 1 with the weights
1/2, 1/4 and 1/8, divided by the sum of the weights used. L is the sum over the stages.

Chen, Liu, Zhao & Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, as their published
code and mdistiller compute it, but for: the pooled embedding is no further level here; the
teacher's stages are taken as they are, where theirs are taken before the last ReLU; the warm-up
of the weight is cakd.losses[...].schedule; and BatchNorm sees the batch of all ranks, as
SyncBatchNorm, and keeps no running statistics, of which training makes no use.

A stage whose grid differs from the teacher's is brought to it by nearest neighbours, as there.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.batch_norm import JoinedBatchNorm
from arcface_cakd.losses.maps import feature_map, map_widths, shared_stages
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def hierarchical_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of two maps (B, C, H, W): grids of 4, 2 and 1 count where they are below H."""
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    loss, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= student.shape[2]:
            continue
        weight /= 2
        weights += weight
        ours, theirs = (F.adaptive_avg_pool2d(x, side) for x in (student, teacher))
        loss = loss + weight * F.mse_loss(ours, theirs)
    return loss / weights


def reviewkd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum of HCL over pairs of maps (B, C_i, H_i, W_i), those of a pair of one shape."""
    return total(hierarchical_context_loss(*pair) for pair in zip(student, teacher, strict=True))


class AttentionBasedFusion(nn.Module):
    """One level of the review.

    Args:
        channels: of the student's stage.
        mid: of what is handed on.
        out: of the teacher's stage.
        fuse: whether something is handed in.
    """

    def __init__(self, channels: int, mid: int, out: int, fuse: bool):
        super().__init__()
        reduce = nn.Conv2d(channels, mid, 1, bias=False)
        expand = nn.Conv2d(mid, out, 3, padding=1, bias=False)
        for convolution in (reduce, expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.reduce = nn.Sequential(reduce, JoinedBatchNorm(mid))
        self.expand = nn.Sequential(expand, JoinedBatchNorm(out))
        self.attention = nn.Conv2d(2 * mid, 2, 1) if fuse else None

    def forward(self, x: Tensor, deeper: Tensor | None, grid: torch.Size) -> tuple[Tensor, Tensor]:
        """What to compare (B, out, *grid), and what to hand on (B, mid, *grid).

        Args:
            x: (B, channels, H, W).
            deeper: (B, mid, ...) from the level below, where something is handed in.
            grid: that of the teacher's stage.
        """
        x = self.reduce(x)
        if self.attention is not None:
            assert deeper is not None, "this level fuses, and nothing was handed in"
            deeper = _to_grid(deeper, x.shape[2:])
            weights = at_least_float32(self.attention(torch.cat([x, deeper], 1))).sigmoid()
            x = x * weights[:, :1] + deeper * weights[:, 1:]
        x = _to_grid(x, grid)
        return self.expand(x), x


@LOSSES.register("reviewkd")
class ReviewKDLoss(DistillationLoss):
    """Fusion of the student's stages, top down, and HCL to the teacher's.

    Args:
        dims: widths of the stages.
        stages: indices of stages in both networks, first stage first, negative ones counted from
            the last; None: all that both have, counted from the last.
        mid_channels: largest width of what is handed on, which is else that of the student's
            last stage. Memory grows with it: a level holds several maps of that width.

    Raises:
        ConfigError: no stages, or one that a network lacks.
    """

    needs = frozenset({"stages"})
    paper = "Chen et al., CVPR 2021"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stages: tuple[int, ...] | None = None,
        mid_channels: Annotated[int, Range(1)] = 512,
    ):
        super().__init__(dims)
        self.stages = shared_stages("reviewkd", dims, stages, least=1)
        widths = map_widths("reviewkd", dims, self.stages)
        mid = min(mid_channels, widths[-1][0])
        self.levels = nn.ModuleList(
            AttentionBasedFusion(ours, mid, theirs, fuse=i < len(widths) - 1)
            for i, (ours, theirs) in enumerate(widths)
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        targets = [feature_map(teacher, stage) for stage in self.stages]
        outputs: list[Tensor] = []
        deeper = None
        for stage, level, target in zip(
            reversed(self.stages), reversed(self.levels), reversed(targets), strict=True
        ):
            output, deeper = level(feature_map(student, stage), deeper, target.shape[2:])
            outputs.insert(0, output)
        return reviewkd_loss(outputs, targets)


def _to_grid(x: Tensor, grid: torch.Size) -> Tensor:
    return x if x.shape[2:] == grid else F.interpolate(x, grid, mode="nearest")
