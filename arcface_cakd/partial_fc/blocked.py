"""Margin softmax over many classes, some of them at a time.

What a block of classes needs stays in the processor's cache, and no copy of the class centres is
made: neither of unit length, nor of its gradient. For a block is a shard of its own: the margin
is told which of the targets are in it, and three numbers a row join it to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from arcface_cakd.partial_fc.cross_entropy import join_shards

BLOCK = 2048  # classes; 4 MB of centres of width 512

Margin = Callable[[Tensor, Tensor], Tensor]


def blocked_margin_softmax(
    embeddings: Tensor, centers: Tensor, columns: Tensor, margin: Margin, block: int = BLOCK
) -> Tensor:
    """Mean cross-entropy of margin logits, the classes spread over blocks and ranks.

    The same as ``sharded_cross_entropy(margin(cosines, columns), columns)`` but for rounding, in
    value and in gradients. The cosines are kept for the backward pass where they take up no more
    room than the centres do, as with up to E rows, and computed again there where they would.

    Args:
        embeddings: (B, E), the same rows on every rank, not of unit length.
        centers: (C_local, E), not of unit length; C_local may be 0.
        columns: (B, 1) int64 rows of ``centers`` of the targets, -1 where another rank has it.
        margin: ``(cosines (B, c), columns (B, 1)) -> logits (B, c)``, each column by itself, and
            the same in the backward pass as before; it leaves the cosines as they are.
        block: classes at a time.

    Returns:
        The loss, a scalar, equal on all ranks to the last bit.
    """
    return _BlockedMarginSoftmax.apply(embeddings, centers, columns, margin, block)


class _BlockedMarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings: Tensor, centers: Tensor, columns: Tensor, margin, block: int):
        batch = len(embeddings)
        norms = _lengths(embeddings)
        unit = embeddings / norms
        lengths = _lengths(centers)
        kept: list[Tensor] = []
        keeps = unit.numel() <= unit.shape[1] ** 2
        peak = embeddings.new_full((batch, 1), -torch.inf)
        local_sum, target = torch.zeros_like(peak), peak
        for rows, at in _blocks(columns, len(centers), block):
            cosines = _cosines(unit, centers[rows], lengths[rows])
            logits = margin(cosines, at)
            highest = torch.maximum(peak, logits.amax(1, keepdim=True))
            at_label = logits.gather(1, at.clamp_min(0))
            target = torch.where(at >= 0, at_label, target)
            local_sum = local_sum * (peak - highest).exp()
            local_sum += logits.sub_(highest).exp_().sum(1, keepdim=True)
            peak = highest
            if keeps:
                kept.append(cosines)
        highest, total, target = join_shards(peak, local_sum, target)
        ctx.margin, ctx.block = margin, block
        ctx.save_for_backward(unit, norms, centers, lengths, columns, highest, total, *kept)
        return (highest + total.log() - target).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        unit, norms, centers, lengths, columns, highest, total, *kept = ctx.saved_tensors
        scale = gradient / len(unit)
        to_gradient = scale / total
        of_unit = torch.zeros_like(unit)
        of_centers = torch.empty_like(centers) if ctx.needs_input_grad[1] else None
        for number, (rows, at) in enumerate(_blocks(columns, len(centers), ctx.block)):
            block = centers[rows]
            cosines = kept[number] if kept else _cosines(unit, block, lengths[rows])
            with torch.enable_grad():
                cosines = cosines.detach().requires_grad_()
                logits = ctx.margin(cosines, at)
            softmax = (logits.detach() - highest).exp_().mul_(to_gradient)
            at_label = torch.where(at >= 0, -scale, 0.0)
            softmax.scatter_add_(1, at.clamp_min(0), at_label)
            (of_cosines,) = torch.autograd.grad(logits, cosines, softmax)
            # Cosines are products over lengths: what is along a row's own direction drops out.
            of_products = of_cosines / lengths[rows].t()
            of_unit.addmm_(of_products, block)
            if of_centers is not None:
                radial = (of_products * cosines.detach()).sum(0).unsqueeze(1) / lengths[rows]
                torch.mm(of_products.t(), unit, out=of_centers[rows])
                of_centers[rows].addcmul_(block, radial, value=-1)
        radial = (of_unit * unit).sum(1, keepdim=True)
        of_embeddings = of_unit.addcmul_(unit, radial, value=-1).div_(norms)
        return of_embeddings, of_centers, None, None, None


def _blocks(columns: Tensor, classes: int, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the centres, and ``columns`` among them, -1 where the target is none of them."""
    for start in range(0, classes, block):
        stop = min(start + block, classes)
        inside = (columns >= start) & (columns < stop)
        yield slice(start, stop), torch.where(inside, columns - start, -1)


def _lengths(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12)


def _cosines(unit: Tensor, centers: Tensor, lengths: Tensor) -> Tensor:
    return torch.mm(unit, centers.t()).div_(lengths.t()).clamp_(-1, 1)
