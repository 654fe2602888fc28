"""Partial FC: the class centres, a shard of them on each rank."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from arcface_cakd.distributed import (
    DistributedError,
    all_gather,
    all_gather_with_grad,
    rank,
    world_size,
)
from arcface_cakd.partial_fc.adaface import AdaFace
from arcface_cakd.partial_fc.blocked import blocked_margin_softmax
from arcface_cakd.partial_fc.cross_entropy import sharded_cross_entropy
from arcface_cakd.partial_fc.errors import PartialFCError
from arcface_cakd.partial_fc.margin import CombinedMarginLoss

# From here on classes are gone through in blocks. Up to here all of them together are as fast, and
# runs keep the last bits that they have always had.
MANY_CLASSES = 8192

_INIT_BLOCK = 1024  # classes whose initial centres are drawn together
_INITIAL, _SAMPLING = 1, 2  # streams of random numbers under one seed


def shard_of(num_classes: int, rank: int, world_size: int) -> tuple[int, int]:
    """First class and number of classes of a rank's shard, as arcface_torch divides them."""
    size, larger = divmod(num_classes, world_size)
    return size * rank + min(rank, larger), size + int(rank < larger)


class PartialFC(nn.Module):
    """Margin softmax over class centres that are sharded over the ranks (An et al., CVPR 2022,
    arXiv 2203.15565), with the contract of arcface_torch's ``PartialFC_V2``.

    Every rank sees the joined batch and its own classes. The loss is the mean cross-entropy of
    the joined batch, the same number on every rank. Gradients: of that mean with respect to the
    rank's own centres; with respect to the embeddings, world_size times that, because
    DistributedDataParallel will divide the backbone's gradients by it. So the backbone gets what
    one process would compute on the joined batch, and a per-rank mean loss may be added to this
    one on the same scale.

    The state dict holds ``weight`` (classes of this rank, E), as arcface_torch's does, and what the
    margin keeps: ``AdaFace`` its statistics, others nothing. The generator that samples classes is
    kept with ``rng_state`` and ``set_rng_state``.

    Differences from arcface_torch: it runs without a process group and without a GPU; the batch
    size may change from call to call; labels are not written to; the loss is not capped at
    -log(1e-30); initial centres depend on (seed, class) and sampled ones on (seed, rank), never
    on the global random state.

    Args:
        margin_loss: ``(cosines (B, C), labels (B, 1)) -> logits (B, C)``, labels -1 where the
            target is elsewhere: ``CombinedMarginLoss`` and its like. ``AdaFace`` is told the norms
            of the embeddings before.
        embedding_size: width E.
        num_classes: classes of all ranks together.
        sample_rate: share of this rank's centres in each step, in (0, 1]. Those of the batch
            always take part, others are drawn at random; the rest get a gradient of zero.
        fp16: multiply embeddings and centres in float16; the softmax is float32 all the same.
        seed: of initial centres and sampled classes.

    Raises:
        PartialFCError: a sample rate outside (0, 1], no classes.
    """

    def __init__(
        self,
        margin_loss: Callable[[Tensor, Tensor], Tensor],
        embedding_size: int,
        num_classes: int,
        sample_rate: float = 1.0,
        fp16: bool = False,
        *,
        seed: int = 0,
    ):
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise PartialFCError(f"sample_rate must be above 0 and at most 1, got {sample_rate!r}")
        if num_classes < 1:
            raise PartialFCError(f"num_classes must be at least 1, got {num_classes!r}")
        self.margin_softmax = margin_loss
        self.embedding_size = embedding_size
        self.num_classes = num_classes
        self.sample_rate = sample_rate
        self.fp16 = fp16
        self.world_size = world_size()
        self.class_start, self.num_local = shard_of(num_classes, rank(), self.world_size)
        self.num_sample = int(sample_rate * self.num_local)
        self.weight = nn.Parameter(
            _initial_centers(seed, self.class_start, self.num_local, embedding_size)
        )
        # The classes (rows of `weight`) of the latest forward pass; None: all of them.
        self.weight_index: Tensor | None = None
        self._generator = _generator(seed, _SAMPLING, rank())

    @classmethod
    def from_centers(
        cls, margin_loss: Callable[[Tensor, Tensor], Tensor], centers: Tensor
    ) -> "PartialFC":
        """Frozen centres: gradients flow to the embeddings only.

        Args:
            margin_loss: as in the constructor.
            centers: (num_classes, E) of all ranks; each keeps its own shard.
        """
        num_classes, embedding_size = centers.shape
        module = cls(margin_loss, embedding_size, num_classes)
        module.set_centers(centers)
        module.weight.requires_grad_(False)
        return module

    @torch.no_grad()
    def set_centers(self, centers: Tensor) -> None:
        """Take this rank's shard of centers (num_classes, E), however they were sharded before.

        Raises:
            PartialFCError: another number of classes or another width.
        """
        expected = (self.num_classes, self.embedding_size)
        if tuple(centers.shape) != expected:
            raise PartialFCError(f"class centres have shape {tuple(centers.shape)}, not {expected}")
        self.weight.copy_(centers[self.class_start : self.class_start + self.num_local])

    def rng_state(self) -> Tensor:
        """State of this rank's generator of sampled classes, a uint8 CPU tensor."""
        return self._generator.get_state()

    def set_rng_state(self, state: Tensor) -> None:
        """Go on sampling from a ``rng_state`` of the same rank."""
        self._generator.set_state(state.cpu())

    def forward(self, local_embeddings: Tensor, local_labels: Tensor) -> Tensor:
        """The loss of the joined batch.

        Args:
            local_embeddings: (B, E) of this rank, not normalised; B the same on every rank.
            local_labels: (B,) or (B, 1) integers in [0, num_classes).

        Returns:
            A scalar of ``weight``'s dtype.

        Raises:
            PartialFCError: a label that is no class; shapes that do not fit. Labels on a GPU
                are not looked at, which would stall it: there the loss becomes inf.
            DistributedError: batches that differ between ranks (on a GPU, unchecked); a process
                group that was started after this module was made.
        """
        labels = self._join_labels(local_embeddings, local_labels)
        embeddings = all_gather_with_grad(
            local_embeddings.to(self.weight.dtype), gradient_scale=self.world_size
        )
        if isinstance(self.margin_softmax, AdaFace):
            self.margin_softmax.observe(embeddings.detach().norm(dim=1, keepdim=True))
        columns = labels - self.class_start
        columns = torch.where((columns >= 0) & (columns < self.num_local), columns, -1)
        weight: Tensor = self.weight
        if self.sample_rate < 1:
            self.weight_index, columns = self._sample(columns)
            weight = weight.index_select(0, self.weight_index)
        columns = columns.view(-1, 1)
        if self._goes_in_blocks(weight):
            with torch.autocast(embeddings.device.type, enabled=False):
                return blocked_margin_softmax(embeddings, weight, columns, self.margin_softmax)
        logits = self.margin_softmax(self._cosines(embeddings, weight), columns)
        return sharded_cross_entropy(logits, columns)

    def _goes_in_blocks(self, weight: Tensor) -> bool:
        """Whether there are enough classes for it, under a margin that may be asked twice."""
        margin = self.margin_softmax
        pure = isinstance(margin, CombinedMarginLoss) and not isinstance(margin, AdaFace)
        return pure and not self.fp16 and len(weight) > MANY_CLASSES

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines (N, C_local) of embeddings (N, E) to all centres of this rank's shard."""
        return self._cosines(embeddings.to(self.weight.dtype), self.weight)

    def _cosines(self, embeddings: Tensor, weight: Tensor) -> Tensor:
        embeddings, weight = _Normalize.apply(embeddings), _Normalize.apply(weight)
        with torch.autocast(embeddings.device.type, torch.float16, enabled=self.fp16):
            cosines = linear(embeddings, weight)
        return _ClampCosines.apply(cosines.to(self.weight.dtype))

    def _join_labels(self, local_embeddings: Tensor, local_labels: Tensor) -> Tensor:
        """Check what can be checked without waiting for a GPU; the labels of all ranks."""
        if world_size() != self.world_size:
            raise DistributedError(
                f"PartialFC was made for {self.world_size} rank(s) and {world_size()} are "
                "running: start the process group first"
            )
        labels = local_labels.reshape(-1).long()
        batch = len(labels)
        if tuple(local_embeddings.shape) != (batch, self.embedding_size):
            raise PartialFCError(
                f"embeddings have shape {tuple(local_embeddings.shape)}, not "
                f"{(batch, self.embedding_size)} as {batch} labels and embedding_size need"
            )
        on_cpu = labels.device.type == "cpu"
        if on_cpu:
            sizes = all_gather(torch.tensor([batch]))
            if (sizes != batch).any():
                raise DistributedError(
                    f"batches of {', '.join(map(str, sizes.tolist()))} on the ranks: give every "
                    "rank the same number of images"
                )
        labels = all_gather(labels)
        # Judged after joining, so that every rank fails alike and none waits for another.
        if on_cpu and batch:
            low, high = (int(bound) for bound in labels.aminmax())
            if low < 0 or high >= self.num_classes:
                wrong = low if low < 0 else high
                raise PartialFCError(
                    f"label {wrong} is outside [0, {self.num_classes}): set num_classes to the "
                    "number of identities in the data"
                )
        return labels

    @torch.no_grad()
    def _sample(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Choose rows of ``weight``: those of the batch, and random others.

        Returns:
            The rows, ascending, and ``columns`` (B_global,) renumbered to them.
        """
        # Drawn on the CPU, so that the sample is the same on every device. The last entry
        # catches the columns that are -1.
        scores = torch.rand(self.num_local + 1, generator=self._generator, device="cpu")
        scores = scores.to(columns.device)
        scores[columns] = 2.0
        scores = scores[:-1]
        keep = self.num_sample
        if keep < min(len(columns), self.num_local):  # else there is room for every positive
            keep = max(keep, int((scores == 2.0).sum()))
        index = scores.topk(keep).indices.sort().values
        renumbered = torch.searchsorted(index, columns)
        return index, torch.where(columns >= 0, renumbered, -1)

    def extra_repr(self) -> str:
        return (
            f"embedding_size={self.embedding_size}, num_classes={self.num_classes}, "
            f"num_local={self.num_local}, sample_rate={self.sample_rate}, fp16={self.fp16}"
        )


class _Normalize(torch.autograd.Function):
    """Rows to unit length, as ``torch.nn.functional.normalize`` does. Its backward pass holds
    five matrices of the size of all centres at once, this one three."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12)
        unit = rows / lengths
        ctx.save_for_backward(unit, lengths)
        return unit

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        unit, lengths = ctx.saved_tensors
        radial = (gradient * unit).sum(1, keepdim=True)
        return torch.addcmul(gradient, unit, radial, value=-1).div_(lengths)


class _ClampCosines(torch.autograd.Function):
    """Clamp to [-1, 1] in place. Only rounding leads outside, so the gradient passes whole;
    ``Tensor.clamp_`` would keep a copy of the matrix to mask it."""

    @staticmethod
    def forward(ctx, cosines: Tensor) -> Tensor:
        ctx.mark_dirty(cosines)
        return cosines.clamp_(-1, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def _generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU generator of its own for every (seed, stream)."""
    state = np.random.SeedSequence((seed % 2**64, *stream)).generate_state(1, np.uint64)
    return torch.Generator(device="cpu").manual_seed(int(state[0]))


def _initial_centers(seed: int, start: int, count: int, embedding_size: int) -> Tensor:
    """N(0, 0.01^2) centres of classes [start, start + count), the same for any sharding."""
    centers = torch.empty(count, embedding_size, device="cpu")
    for block in range(start // _INIT_BLOCK, -(-(start + count) // _INIT_BLOCK)):
        first = block * _INIT_BLOCK
        drawn = torch.randn(
            _INIT_BLOCK, embedding_size, generator=_generator(seed, _INITIAL, block), device="cpu"
        )
        low, high = max(first, start), min(first + _INIT_BLOCK, start + count)
        centers[low - start : high - start] = drawn[low - first : high - first]
    return centers.mul_(0.01)
