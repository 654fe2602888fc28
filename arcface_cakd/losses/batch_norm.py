"""BatchNorm as a loss's own layers have it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.distributed import all_reduce_with_grad, world_size
from arcface_cakd.precision import at_least_float32


class JoinedBatchNorm(nn.Module):
    """BatchNorm over (B, C, H, W) of all ranks, as SyncBatchNorm, always with the statistics of
    the batch: running ones, of which training makes no use, are not kept.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), at least float32 also under autocast; B the same on every rank."""
        x = at_least_float32(x)
        if world_size() > 1:
            x = x - _mean(x)
            x = x * (_mean(x.square()) + 1e-5).rsqrt()
            return x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def _mean(x: Tensor) -> Tensor:
    """Mean per channel over the batches of all ranks, of one size: (1, C, 1, 1)."""
    return all_reduce_with_grad(x.mean((0, 2, 3), keepdim=True)) / world_size()
