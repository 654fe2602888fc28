"""Region attention over all stages of the student, and hierarchical MSE to the teacher's.

Each stage of the student becomes side x side regions: its map on a grid of side * patch, a
convolution of kernel and stride ``patch`` to ``dim`` channels, LayerNorm. All regions of all stages
attend to each other (multi-head; a fixed sinusoidal encoding of a region's number is added to
queries and keys). What attention gives for a stage's own regions goes through BatchNorm and a 1x1
convolution to the width of the teacher's stage, is scaled up to its grid by nearest neighbours, and
is compared by the hierarchical loss of ``reviewkd``; L is the sum over the stages.

Lin, Yao, Hsu, Xie, Shuai & Cheng, "Perspective-Aware Teaching: Adapting Knowledge for Heterogeneous
Distillation", ICCV 2025 (earlier FOFA, arXiv 2501.08885), as its code (jimmylin0979/PAT) computes
the region-aware attention, but for:

* There the encoding is indexed by an image's place in the batch, so that all regions of an image
  get the same one; here by the region's number, 0 to stages * side^2 - 1.
* There the convolution spans a stage's whole region, whose size its network knows. Here maps are
  first brought to side * patch positions across, larger ones by averages, smaller ones by nearest
  neighbours as there. With the defaults nothing differs for grids of 5 to 8 positions across.
* There BatchNorm and the 1x1 convolution come after scaling up, which weighs regions unequally
  where ``side`` does not divide the grid; here before, at a fraction of the memory. Tokens of a
  Transformer go through another projector there; here every stage is a map. BatchNorm sees the
  batch of all ranks and keeps no running statistics.
* Its other terms are other entries here: KL to the unprompted teacher's logits (``kd``), and the
  regulariser of the prompted ones (``cakd.preservation``). Its prompts, convolutions fed by the gap
  between student and teacher of the step before, are not APT's; the idea is ``feedback`` of
  ``cakd.prompts``.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.alignment.attention import multi_head_attention
from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.batch_norm import JoinedBatchNorm
from arcface_cakd.losses.maps import feature_map, map_widths, shared_stages
from arcface_cakd.losses.reviewkd_loss import reviewkd_loss
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def sinusoids(count: int, dim: int) -> Tensor:
    """(count, dim): sin and cos of n / 10000^(2i / dim) in turn (Vaswani et al., NeurIPS 2017)."""
    frequencies = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(count)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :dim]


class RegionAttention(nn.Module):
    """Regions of several maps that attend to each other.

    Args:
        widths: channels of the maps.
        side: regions across each map.
        patch: positions across a region.
        dim: width d of a region, a multiple of ``num_heads``.
        num_heads: heads.
    """

    places: Tensor

    def __init__(self, widths: list[int], side: int, patch: int, dim: int, num_heads: int):
        super().__init__()
        self.side, self.patch, self.num_heads = side, patch, num_heads
        self.embed = nn.ModuleList(nn.Conv2d(width, dim, patch, patch) for width in widths)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        places = sinusoids(len(widths) * side**2, dim)
        self.register_buffer("places", places, persistent=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) to as many (B, d, side, side), at least float32."""
        regions = [
            embed(_to_square(x, self.side * self.patch)).flatten(2).transpose(1, 2)
            for embed, x in zip(self.embed, maps, strict=True)
        ]
        normed = self.norm(at_least_float32(torch.cat(regions, 1)))
        query, key, value = self.qkv(normed).chunk(3, dim=-1)
        blended, _ = multi_head_attention(
            query + self.places, key + self.places, value, self.num_heads
        )
        shape = (self.side, self.side)
        stages = blended.split(self.side**2, 1)
        return [stage.transpose(1, 2).unflatten(2, shape) for stage in stages]


@LOSSES.register("pat")
class PATLoss(DistillationLoss):
    """The student's stages, blended by region attention, against the teacher's.

    Args:
        dims: widths of the stages.
        stages: indices of stages in both networks, first stage first, negative ones counted from
            the last; None: all that both have, counted from the last.
        side: regions across each stage (published: 64 regions in four stages).
        patch: positions across a region.
        dim: width of a region.
        num_heads: heads of the attention, which divide ``dim``.

    Raises:
        ConfigError: no stages, or one that a network lacks; ``num_heads`` does not divide ``dim``.
    """

    needs = frozenset({"stages"})
    paper = "Lin et al., ICCV 2025"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stages: tuple[int, ...] | None = None,
        side: Annotated[int, Range(1)] = 4,
        patch: Annotated[int, Range(1)] = 2,
        dim: Annotated[int, Range(1)] = 512,
        num_heads: Annotated[int, Range(1)] = 8,
    ):
        super().__init__(dims)
        if dim % num_heads:
            raise ConfigError(
                f"pat: num_heads={num_heads} does not divide dim={dim}: set a divisor of it"
            )
        self.stages = shared_stages("pat", dims, stages, least=1)
        widths = map_widths("pat", dims, self.stages)
        self.attention = RegionAttention([ours for ours, _ in widths], side, patch, dim, num_heads)
        self.aligners = nn.ModuleList(
            nn.Sequential(JoinedBatchNorm(dim), nn.Conv2d(dim, theirs, 1, bias=False))
            for _, theirs in widths
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        blended = self.attention([feature_map(student, stage) for stage in self.stages])
        targets = [feature_map(teacher, stage) for stage in self.stages]
        aligned = [
            F.interpolate(at_least_float32(align(x)), target.shape[2:], mode="nearest")
            for align, x, target in zip(self.aligners, blended, targets, strict=True)
        ]
        return reviewkd_loss(aligned, targets)


def _to_square(x: Tensor, side: int) -> Tensor:
    """A map (B, C, H, W) on a grid of side x side, height and width by themselves: averaged where
    it is larger, else by nearest neighbours."""
    height, width = (min(length, side) for length in x.shape[2:])
    if (height, width) != tuple(x.shape[2:]):
        x = F.adaptive_avg_pool2d(x, (height, width))
    if (height, width) != (side, side):
        x = F.interpolate(x, (side, side), mode="nearest")
    return x
