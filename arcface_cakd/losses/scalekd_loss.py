"""Cross attention projector and dual-view feature mimicking against the teacher's final tokens.

A projector P lets learned queries, one for each of the teacher's tokens, attend to the student's
map: keys and values are linear in ReLU(BN(conv3x3(F_S))) + a learned place, queries linear in
ReLU(linear(learned)); softmax(sharpness q k^T / sqrt(d)) v, of several heads, is mixed by a linear
layer, layer-normalised, and goes through a residual ReLU MLP four times as wide. With one P for
each view,

    L = spatial_weight  mean |u(P_1(F_S))      - u(F_T)|^2
      + frequency_weight mean |u(h(P_2(F_S)))  - u(h(F_T))|^2,

means over batch and positions, u each position's vector to unit length, h the map without the
zero frequency of its cosine transform: each channel less its mean over the positions.

Fan, Li, Liu & Yao, "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", NeurIPS
2024, as its code (deep-optimization/ScaleKD) computes the part at the last stage. What differs:

* Its third part, teacher parameter perception, is left out: there the third stage of the student,
  projected, runs through the teacher's last stage, and its output is both compared with the
  teacher's and taken as the queries of the last stage. A loss here sees features, not the
  teacher's layers. The queries are the learned ones which the code has for want of that output.
* The logit term beside it there (weight 0.5) is the loss ``kd`` here.
* Sums over the positions, times 0.08 and 0.06, are means here. On a grid of 7 the published
  weights are a weight of 49 x 0.08 = 3.92 with the defaults, whose ratio is the published one.
* The transform is not computed: taking out its zero frequency and going back is h.
* BatchNorm sees the batch of all ranks and keeps no running statistics.
"""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.alignment.attention import multi_head_attention
from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.batch_norm import JoinedBatchNorm
from arcface_cakd.losses.heads import heads_of
from arcface_cakd.losses.maps import feature_map
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def without_mean(x: Tensor) -> Tensor:
    """h: a map (B, C, H, W), each channel less its mean over the positions."""
    return x - x.mean((2, 3), keepdim=True)


def mimicking_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """mean over batch and positions of |u(projected) - u(teacher)|^2, of maps (B, C, H, W)."""
    ours, theirs = (F.normalize(at_least_float32(x), dim=1) for x in (projected, teacher))
    return (ours - theirs).square().sum(1).mean()


class CrossAttentionProjector(nn.Module):
    """P: the student's map on the teacher's grid and in its width.

    Args:
        channels: of the student's map, and ``student_grid`` its (H, W).
        out: channels of the teacher's map, and ``teacher_grid`` its (H, W).
        num_heads: heads, which divide ``out``.
        sharpness: factor on what the softmax is taken of.
    """

    def __init__(
        self,
        channels: int,
        student_grid: tuple[int, int],
        out: int,
        teacher_grid: tuple[int, int],
        num_heads: int,
        sharpness: float,
    ):
        super().__init__()
        self.grid = teacher_grid
        self.num_heads, self.sharpness = num_heads, sharpness
        self.stem = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            JoinedBatchNorm(channels),
            nn.ReLU(),
        )
        self.place = nn.Parameter(torch.empty(channels, *student_grid))
        nn.init.trunc_normal_(self.place, std=0.02)
        self.queries = nn.Parameter(torch.randn(teacher_grid[0] * teacher_grid[1], out))
        self.of_query = nn.Sequential(nn.Linear(out, out), nn.ReLU(), nn.Linear(out, out))
        # A bias of the keys would be the same for all that a query compares.
        self.key = nn.Linear(channels, out, bias=False)
        self.value = nn.Linear(channels, out)
        self.mix = nn.Linear(out, out)
        self.norm = nn.LayerNorm(out)
        self.mlp = nn.Sequential(nn.Linear(out, 4 * out), nn.ReLU(), nn.Linear(4 * out, out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, *teacher_grid), at least float32."""
        tokens = (self.stem(x) + self.place).flatten(2).transpose(1, 2)
        query = self.sharpness * self.of_query(self.queries)
        attended, _ = multi_head_attention(
            query, self.key(tokens), self.value(tokens), self.num_heads
        )
        normed = self.norm(at_least_float32(self.mix(attended)))
        projected = at_least_float32(normed + self.mlp(normed))
        return projected.transpose(1, 2).unflatten(2, self.grid)


@LOSSES.register("scalekd")
class ScaleKDLoss(DistillationLoss):
    """Both views of the student's final map, projected, against the teacher's.

    Args:
        dims: widths and grids of the tokens.
        spatial_weight: of the map as it is.
        frequency_weight: of the map without its mean.
        num_heads: heads of the projectors' attention, which divide the width of the teacher's
            tokens; None: one for each 64 channels where 64 divides it, else one (published: of 48,
            64 or 128 channels).
        sharpness: factor on what the softmax is taken of.

    Raises:
        ConfigError: ``num_heads`` does not divide the width of the teacher's tokens; both weights
            are 0.
    """

    needs = frozenset({"tokens"})
    paper = "Fan et al., NeurIPS 2024"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        spatial_weight: Annotated[float, Range(0.0)] = 1.0,
        frequency_weight: Annotated[float, Range(0.0)] = 0.75,
        num_heads: Annotated[int, Range(1)] | None = None,
        sharpness: Annotated[float, Range(above=0.0)] = 5.0,
    ):
        super().__init__(dims)
        if not spatial_weight and not frequency_weight:
            raise ConfigError(
                "scalekd: spatial_weight and frequency_weight are both 0: set one of them"
            )
        self.spatial_weight, self.frequency_weight = spatial_weight, frequency_weight
        width, grid = dims.teacher_map_shape
        heads = heads_of("scalekd", width, num_heads)
        self.spatial, self.frequency = (
            CrossAttentionProjector(
                dims.student_tokens, dims.student_grid, width, grid, heads, sharpness
            )
            for _ in range(2)
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs = feature_map(student, None), feature_map(teacher, None)
        spatial = mimicking_loss(self.spatial(ours), theirs)
        frequency = mimicking_loss(without_mean(self.frequency(ours)), without_mean(theirs))
        return self.spatial_weight * spatial + self.frequency_weight * frequency
