"""Multi-head attention that returns its maps, which fused kernels do not."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.precision import at_least_float32


def multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d / heads) + bias) v, head by head.

    Under autocast the products run in its precision; softmax and what is returned do not.

    Args:
        query: (B, L, d), or (L, d) shared by the batch.
        key: (B, N, d).
        value: (B, N, d).
        bias: (heads, L, N), added to every image's logits, or (B, heads, L, N).

    Returns:
        (B, L, d) with the heads side by side, and the maps (B, heads, L, N).
    """

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (num_heads, -1)).transpose(-2, -3)

    q, k = split(query), split(key)
    logits = at_least_float32(q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    if bias is not None:
        logits = logits + bias
    return attend(logits.softmax(-1), value)


def attend(maps: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """What maps (B, heads, L, N) see of ``value`` (B, N, d): (B, L, d), the heads side by side.

    Returns it, at least float32, with the maps, as ``multi_head_attention`` does.
    """
    v = value.unflatten(-1, (maps.shape[1], -1)).transpose(-2, -3)
    out = at_least_float32(maps.to(v.dtype) @ v)
    return out.transpose(1, 2).flatten(-2), maps


class MultiHeadSelfAttention(nn.Module):
    """MSA over local features, with a LayerNorm before it and one after it (both ours).

    The first frees the maps of h's scale. The second gives what L_feat compares unit variance,
    without a learnable scale: it can neither be shrunk to please the loss, nor, in a module that
    the loss trains from the student's side alone, grow without bound.

    Args:
        dim: width d, a multiple of ``num_heads``.
        num_heads: heads.
        residual: whether the normalised h joins what its attention gives (ours). Fresh maps are
            nearly uniform: without it every local feature starts as the same mean of the face.
    """

    def __init__(self, dim: int, num_heads: int, residual: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.residual = residual
        # No biases: they would be a constant that all faces share.
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        for layer in (self.qkv, self.out):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, d) -> MSA(h) (B, L, d) and its softmax maps (B, heads, L, L)."""
        h = self.norm(h)
        query, key, value = self.qkv(h).chunk(3, dim=-1)
        attended, maps = multi_head_attention(query, key, value, self.num_heads)
        attended = at_least_float32(self.out(attended))
        if self.residual:
            attended = at_least_float32(h) + attended
        return F.layer_norm(attended, attended.shape[-1:]), maps
