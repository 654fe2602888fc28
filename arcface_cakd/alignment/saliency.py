"""Where on the face a teacher's tokens have something to say."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.precision import at_least_float32


@torch.no_grad()
def teacher_saliency(tokens: Tensor) -> Tensor:
    """The saliency of each patch, by a batch of tokens (a choice of this project).

    s_j = mean over the faces of the root mean square of token j, every channel standardised over
    faces and patches, for raw tokens are nearly all their common mean; then averaged over the
    ranks, and stretched so that the least salient patch has 0 and the most salient one 1. Where
    all are alike, all have 0. With a process group this is a collective.

    Args:
        tokens: (B, N, C) without prompts, B * N >= 2.

    Returns:
        (N,) float64 on the CPU, the same on every rank; NaN where a token is not finite.
    """
    rows = at_least_float32(tokens).flatten(0, 1)
    standardised = F.batch_norm(rows, None, None, training=True).view_as(tokens)
    strength = standardised.square().mean(-1).sqrt().mean(0)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(strength)
    # A mean or a sum over the ranks: stretching makes them one.
    strength = strength.double().cpu()
    span = strength.max() - strength.min()
    if span <= 1e-6 * strength.max():
        return torch.zeros_like(strength)
    return (strength - strength.min()) / span
