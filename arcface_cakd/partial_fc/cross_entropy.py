"""Softmax cross-entropy whose classes are spread over the ranks."""

import torch
from torch import Tensor

from arcface_cakd.distributed import all_gather


def sharded_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows of log sum_c exp z_c - z_target, c over the classes of all ranks.

    Each rank holds the columns of its own classes; together they exchange three numbers a row.
    The gradient on each rank is that of the mean with respect to its own columns. Where no rank
    owns the target of a row the loss is +inf.

    Args:
        logits: (B, C_local) floating point, the same rows on every rank; C_local may be 0.
        labels: (B, 1) int64 columns of the targets, -1 where another rank has the target.

    Returns:
        The loss, a scalar, equal on all ranks to the last bit.
    """
    return _ShardedCrossEntropy.apply(logits, labels)


def join_shards(peak: Tensor, local_sum: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax over the classes of all ranks, from what each knows of its own; a collective.

    Args:
        peak: (B, 1), the highest logit of each row.
        local_sum: (B, 1), sum_c exp(z_c - peak).
        target: (B, 1), the target's logit, -inf where another rank has it.

    Returns:
        the same three of all ranks together, equal on every rank to the last bit.
    """
    # One exchange instead of three: each rank's sum is relative to its own peak, and is
    # rescaled once the highest peak is known.
    shards = all_gather(torch.stack((peak, local_sum, target)))
    peaks, sums, targets = shards.view(-1, 3, *peak.shape).unbind(1)
    highest = peaks.amax(0)
    return highest, (sums * (peaks - highest).exp()).sum(0), targets.amax(0)


class _ShardedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        batch = logits.shape[0]
        peak = logits.new_full((batch, 1), -torch.inf)
        target = peak
        if logits.shape[1]:
            peak = logits.amax(1, keepdim=True)
            at_label = logits.gather(1, labels.clamp_min(0))
            target = torch.where(labels >= 0, at_label, -torch.inf)
        exponentials = (logits - peak).exp_()
        local_sum = exponentials.sum(1, keepdim=True)

        highest, total, target = join_shards(peak, local_sum, target)
        ctx.save_for_backward(exponentials, (peak - highest).exp() / total, labels)
        return (highest + total.log() - target).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        exponentials, to_probability, labels = ctx.saved_tensors
        scale = gradient / exponentials.shape[0]
        result = exponentials * (to_probability * scale)
        if result.shape[1]:
            at_label = torch.where(labels >= 0, -scale, 0.0)
            result.scatter_add_(1, labels.clamp_min(0), at_label)
        return result, None
