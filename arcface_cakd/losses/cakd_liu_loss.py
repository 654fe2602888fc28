"""Cross-architecture distillation by projection into the teacher's attention and feature spaces.

L = L_attention + linear_weight L_linear, on the final tokens:

* Partially cross attention (PCA) projector: three 3x3 convolutions make Q_S, K_S, V_S of the
  student's map. L_attention = mean (Attn_T - PCAttn_S)^2
  + value_weight mean (V_T V_T^T / sqrt(d) - V_S V_S^T / sqrt(d))^2, where
  Attn = softmax(Q K^T / sqrt(d)) V, and PCAttn_S is that of g(Q_S), g(K_S), g(V_S): g puts the
  teacher's entry in the place of the student's with probability ``replace``.
* Group-wise linear (GL) projector: L_linear = mean (h_T - h'_S)^2, where h'_S are the student's
  features, each through the linear layer of its 4x4 neighbourhood of the grid.

Liu, Cao, Li, Hu, Ding & Li, "Cross-Architecture Knowledge Distillation", ACCV 2022, equations 1
to 6 and the first part of 10. The multi-view robust training (7 to 9: transformed views and a
discriminator) is left out. Further, in comparison with the paper:

* Its Q_T, K_T, V_T are those of a ViT's last block. Other teachers have none that span the face
  (a Swin's attend within windows), so here all three are the final tokens, layer-normalised
  without weights: maps of which tokens are alike, which nothing learned can degrade.
* Squared norms are means here.
* Attention has heads, d being their width; the paper writes one.
* Dropout before the linear layers has no stated rate there.

The code that its authors made public (yufanLIU/CrossArch_KD) has the same linear layers, value and
gradient, and the same attention and V V^T / sqrt(d), of one head. Else it differs from the paper,
which ours follows: one linear layer makes Q_S, K_S, V_S in place of the convolutions; nothing is
replaced; what is compared are Q K^T / sqrt(d) before the softmax (weight 0.2) and V V^T (0.05),
each averaged over the heads, the teacher's V V^T without its 1 / sqrt(d); the student's side is
the last stage but one; and logits and class tokens are compared too.

Replacement and dropout draw, in training alone, from torch's global generator of the device, so
that a resumed run repeats them; ranks draw their own. In eval nothing is replaced.

Maps on different grids: the larger one is averaged down to the smaller one's.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.alignment.attention import multi_head_attention
from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.heads import heads_of
from arcface_cakd.losses.maps import feature_map, smaller_grid, to_common_grid
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.registry import LOSSES


def partially_crossed(student: Tensor, teacher: Tensor, replace: float) -> Tensor:
    """g: ``student`` with each entry replaced by the teacher's with probability ``replace``."""
    return torch.where(torch.rand_like(student) < replace, teacher, student)


def cross_attention_loss(
    crossed: Sequence[Tensor],
    student_value: Tensor,
    teacher: Sequence[Tensor],
    num_heads: int = 1,
    value_weight: float = 1.0,
) -> Tensor:
    """Mean square difference of what attention gives, and of the values' products.

    Args:
        crossed: g(Q_S), g(K_S), g(V_S), each (B, N, C).
        student_value: V_S, (B, N, C).
        teacher: Q_T, K_T, V_T, each (B, N, C).
        num_heads: heads, which divide C.
        value_weight: of the second difference.
    """

    def attended(side: Sequence[Tensor]) -> Tensor:
        query, key, value = map(at_least_float32, side)
        return multi_head_attention(query, key, value, num_heads)[0]

    with autocast(student_value.device.type, None):
        loss = F.mse_loss(attended(crossed), attended(teacher))
        ours, theirs = (_products(value, num_heads) for value in (student_value, teacher[2]))
        return loss + value_weight * F.mse_loss(ours, theirs)


def _products(value: Tensor, num_heads: int) -> Tensor:
    heads = at_least_float32(value).unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return heads @ heads.transpose(-1, -2) / math.sqrt(heads.shape[-1])


class GroupwiseLinear(nn.Module):
    """A linear layer for each neighbourhood of a grid.

    Args:
        channels: in, and ``out``: out.
        grid: (H, W).
        side: positions across a neighbourhood; those at the right and lower edge may be smaller.
    """

    def __init__(self, channels: int, out: int, grid: tuple[int, int], side: int):
        super().__init__()
        self.side = side
        rows, columns = (math.ceil(length / side) for length in grid)
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(channels, out) for _ in range(columns)) for _ in range(rows)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W), at least float32."""
        lines = []
        for line, layers in zip(
            x.permute(0, 2, 3, 1).split(self.side, 1), self.layers, strict=True
        ):
            blocks = zip(line.split(self.side, 2), layers.children(), strict=True)
            lines.append(torch.cat([layer(block) for block, layer in blocks], 2))
        return at_least_float32(torch.cat(lines, 1)).permute(0, 3, 1, 2)


@LOSSES.register("cakd_liu")
class CAKDLiuLoss(DistillationLoss):
    """PCA and GL projectors against the teacher's final tokens.

    Args:
        dims: widths and grids of the tokens.
        replace: probability that g takes the teacher's entry.
        num_heads: heads of the attention, which divide the width of the teacher's tokens; None:
            one for each 64 channels where 64 divides it, else one.
        neighbourhood: positions across a neighbourhood that shares a linear layer: 4 makes 4
            layers on a grid of 7 and 16 on one of 14.
        dropout: of the student's map before the linear layers.
        value_weight: of the difference of V V^T / sqrt(d).
        linear_weight: of L_linear.

    Raises:
        ConfigError: ``num_heads`` does not divide the width of the teacher's tokens.
    """

    needs = frozenset({"tokens"})
    paper = "Liu et al., ACCV 2022"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        replace: Annotated[float, Range(0.0, 1.0)] = 0.5,
        num_heads: Annotated[int, Range(1)] | None = None,
        neighbourhood: Annotated[int, Range(1)] = 4,
        dropout: Annotated[float, Range(0.0, 0.99)] = 0.0,
        value_weight: Annotated[float, Range(0.0)] = 1.0,
        linear_weight: Annotated[float, Range(0.0)] = 1.0,
    ):
        super().__init__(dims)
        ours = dims.student_tokens
        theirs, teacher_grid = dims.teacher_map_shape
        self.replace, self.num_heads = replace, heads_of("cakd_liu", theirs, num_heads)
        self.value_weight, self.linear_weight = value_weight, linear_weight
        grid = smaller_grid(dims.student_grid, teacher_grid)
        self.qkv = nn.ModuleList(nn.Conv2d(ours, theirs, 3, padding=1) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.linear = GroupwiseLinear(ours, theirs, grid, neighbourhood)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        maps = to_common_grid(feature_map(student, None), feature_map(teacher, None))
        tokens = maps[1].flatten(2).transpose(1, 2)
        normed = F.layer_norm(tokens, tokens.shape[-1:])
        qkv = [
            at_least_float32(convolution(maps[0])).flatten(2).transpose(1, 2)
            for convolution in self.qkv
        ]
        crossed = qkv
        if self.training:
            crossed = [partially_crossed(x, normed, self.replace) for x in qkv]
        loss = cross_attention_loss(
            crossed, qkv[2], [normed] * 3, self.num_heads, self.value_weight
        )
        projected = self.linear(self.dropout(maps[0]))
        return loss + self.linear_weight * F.mse_loss(projected, maps[1])
