"""Scores of the joined batch against class centres that are sharded over the ranks.

What the losses over identities share. The batches of all ranks are joined (N rows), and each rank
holds the columns of its own classes, as in Partial FC. One convention for gradients:

* Every rank computes the same loss, that of the joined batch, and back-propagates through it.
* Embeddings are joined by ``all_gather_with_grad`` and sums over classes by
  ``all_reduce_with_grad``, whose backward passes sum over the ranks. So what lies before them
  gets world_size times its part of the loss's gradient, and after the averaging of
  DistributedDataParallel the backbones (prompts and projections too) have exactly the gradient
  that one process would compute on the joined batch.
* The student's class centres belong to one rank each and are averaged by nobody: their gradient
  is divided by world_size here.

Where Partial FC sampled classes in this step, softmaxes run over the sampled classes of all
ranks, the same ones for student and teacher. Each has its rows in the shard of its own rank.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.distributed import (
    all_gather,
    all_gather_with_grad,
    all_reduce_with_grad,
    world_size,
)
from arcface_cakd.losses.base import LossBatch, LossError
from arcface_cakd.losses.relations import labels_of
from arcface_cakd.partial_fc import MarginHead
from arcface_cakd.precision import at_least_float32, autocast

SCALE = 64.0
"""s of s * cos, where a loss of both sides' logits is not told another."""


@dataclass(frozen=True)
class ClassShard:
    """The classes of this rank that a step's softmax runs over.

    Attributes:
        start: the first class of the shard.
        count: classes in the shard, may be 0.
        rows: (C,) int64 distinct rows of the shard that take part; None: all of them.
    """

    start: int
    count: int
    rows: Tensor | None = None

    @classmethod
    def of_step(cls, start: int, count: int, batch: LossBatch) -> "ClassShard":
        """Those that the student's Partial FC sampled in this step, or all where it has all."""
        head = batch.partial_fc
        sampled = head is not None and head.sample_rate < 1
        return cls(start, count, getattr(head, "weight_index", None) if sampled else None)

    def cosines(self, embeddings: Tensor, centers: Tensor) -> Tensor:
        """Cosines (N, C), at least float32 also under autocast.

        Args:
            embeddings: (N, E), joined.
            centers: (count, E) of the whole shard.
        """
        if self.rows is not None:
            centers = centers.index_select(0, self.rows)
        if centers.requires_grad and world_size() > 1:
            centers = _ScaleGradient.apply(centers, 1 / world_size())
        embeddings, centers = at_least_float32(embeddings), at_least_float32(centers)
        dtype = torch.promote_types(embeddings.dtype, centers.dtype)
        # In bfloat16 a cosine is good to 0.004, which the scale of 64 makes 0.25.
        with autocast(embeddings.device.type, None):
            return F.linear(F.normalize(embeddings.to(dtype)), F.normalize(centers.to(dtype)))

    def columns(self, labels: Tensor) -> Tensor:
        """Columns (N, 1) of ``cosines`` that joined labels (N,) mean; -1: another rank's."""
        columns = labels - self.start
        owned = (columns >= 0) & (columns < self.count)
        if self.rows is None:
            return torch.where(owned, columns, -1).view(-1, 1)
        # One entry more than there are rows, for what is not owned.
        renumbered = torch.full((self.count + 1,), -1, dtype=torch.int64, device=labels.device)
        renumbered[self.rows] = torch.arange(len(self.rows), device=labels.device)
        return renumbered[torch.where(owned, columns, self.count)].view(-1, 1)

    def label_cosines(self, embeddings: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
        """Cosines (N, 1) of embeddings (N, E) to the centres of their joined labels (N,), on
        every rank; arguments as in ``cosines``."""
        own = embeddings.new_zeros(len(embeddings), 1)
        if self.count:
            rows = ClassShard(self.start, self.count).columns(labels)
            present = at_least_float32(centers.index_select(0, rows[:, 0].clamp_min(0)))
            own = F.cosine_similarity(embeddings, present)[:, None] * (rows >= 0)
        return all_reduce_with_grad(own)


def join(embedding: Tensor) -> Tensor:
    """Local embeddings (B, E) to those of all ranks (N, E), at least float32, with gradient."""
    return all_gather_with_grad(at_least_float32(embedding))


def log_sum_exp(scores: Tensor) -> Tensor:
    """log sum_c exp(score_c) over the classes of all ranks: (N, C) of this rank to (N, 1)."""
    lowest = torch.finfo(scores.dtype).min
    peak = scores.new_full((len(scores), 1), lowest)
    if scores.shape[1]:
        peak = scores.detach().amax(1, keepdim=True)
    peak = all_gather(peak).view(-1, len(scores), 1).amax(0)
    return peak + all_reduce_with_grad((scores - peak).exp().sum(1, keepdim=True)).log()


def at_labels(scores: Tensor, columns: Tensor) -> Tensor:
    """The scores (N, 1) at the targets, on every rank, of (N, C) and ``ClassShard.columns``; -inf
    where the target is a class of no rank."""
    if scores.shape[1]:
        own = scores.gather(1, columns.clamp_min(0)) * (columns >= 0)
    else:
        own = scores.sum(1, keepdim=True)  # zeros, but part of the graph as on every rank
    return sum_where_known(own, columns)


def sum_where_known(own: Tensor, columns: Tensor) -> Tensor:
    """The sum over the ranks of (N, 1), -inf where none has the class that ``columns`` (N, 1) mean:
    a finite loss of what nobody is would be trained on."""
    total, known = all_reduce_with_grad(torch.cat([own, (columns >= 0).to(own)], 1)).split(1, 1)
    return total.masked_fill(known.detach() == 0, -torch.inf)


def is_label(scores: Tensor, columns: Tensor) -> Tensor:
    """(N, C) bool: where ``scores`` (N, C) stand at the targets."""
    return columns == torch.arange(scores.shape[1], device=scores.device)


def softmax_cross_entropy(logits: Tensor, columns: Tensor) -> Tensor:
    """Mean over the joined batch of -log p_y, over the classes of all ranks: a scalar.

    Args:
        logits: (N, C) of this rank's classes.
        columns: (N, 1) int64, ``ClassShard.columns``.
    """
    return (log_sum_exp(logits) - at_labels(logits, columns)).mean()


def joined_labels(batch: LossBatch, name: str) -> Tensor:
    """The labels (N,) int64 of all ranks.

    Raises:
        LossError: there are none; ``name`` is the loss that needs them.
    """
    return all_gather(labels_of(name, batch).reshape(-1).long())


def student_head(batch: LossBatch, name: str) -> MarginHead:
    """The margin softmax head with the student's centres.

    Raises:
        LossError: there is none.
    """
    if batch.partial_fc is None:
        raise LossError(
            f"{name} needs the student's class centres: give the margin softmax head as "
            "partial_fc to Distiller.terms"
        )
    return batch.partial_fc


def teacher_head(batch: LossBatch, name: str) -> MarginHead:
    """The ``PartialFC`` with the teacher's frozen centres.

    Raises:
        LossError: there is none, or its classes are sharded otherwise than the student's.
    """
    head, teacher_fc = batch.partial_fc, batch.teacher_fc
    if teacher_fc is None:
        raise LossError(
            f"{name} needs the teacher's class centres: set cakd.teacher.centers to its "
            "checkpoint_gpu_*.pt"
        )
    if head is not None:
        shards = [(fc.class_start, fc.num_local) for fc in (head, teacher_fc)]
        if shards[0] != shards[1]:
            raise LossError(
                f"{name}: this rank has {shards[0][1]} class centres of the student from class "
                f"{shards[0][0]} and {shards[1][1]} of the teacher from class {shards[1][0]}: "
                "set cakd.teacher.centers to centres of the same training set"
            )
    return teacher_fc


def logits_of_both(
    student: Tensor, teacher: Tensor, batch: LossBatch, name: str, scale: float, standardise: bool
) -> tuple[Tensor, Tensor, ClassShard]:
    """Logits (N, C) of student and teacher, joined, each side's by its own centres, and the
    classes that they are for.

    Args:
        student: embeddings (B, E_S), and ``teacher`` (B, E_T).
        batch: of both sides' centres.
        name: the loss.
        scale: s of s * cos.
        standardise: whether to give their z-scores over the classes in place of them.

    Raises:
        LossError: see ``teacher_head`` and ``student_head``.
    """
    teacher_fc, head = teacher_head(batch, name), student_head(batch, name)
    shard = ClassShard.of_step(head.class_start, head.num_local, batch)
    sides = (student, head.weight), (teacher, teacher_fc.weight)
    ours, theirs = (scale * shard.cosines(join(embedding), weight) for embedding, weight in sides)
    if standardise:
        ours, theirs = z_scores(ours), z_scores(theirs)
    return ours, theirs, shard


def scale_without_effect(scale: float, standardise: bool) -> tuple[str, ...]:
    """What a loss says of a scale that z-scores take out again: ``without_effect``."""
    if not standardise or scale == SCALE:
        return ()
    return (f"scale={scale:g} has no effect, as standardise=True takes it out: drop one of them",)


def z_scores(logits: Tensor) -> Tensor:
    """Each row less its mean, over its standard deviation (of C - 1) + 1e-7, both over the classes
    of all ranks: (N, C) of this rank.

    Sun, Ren, Li, Wang & Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024.
    """
    count = all_gather(torch.tensor([logits.shape[1]], device=logits.device)).sum()
    centred = logits - all_reduce_with_grad(logits.sum(1, keepdim=True)) / count
    square = all_reduce_with_grad(centred.square().sum(1, keepdim=True))
    variance = square / (count - 1).clamp_min(1)
    # A root has no gradient at 0, where all logits are equal.
    return centred / (variance.clamp_min(1e-20).sqrt() + 1e-7)


def scores_by_teacher(embedding: Tensor, batch: LossBatch, name: str) -> tuple[Tensor, Tensor]:
    """Cosines (N, C) of embeddings (B, E), joined, to the teacher's centres of this rank, and the
    columns (N, 1) of the joined labels among them.

    Raises:
        LossError: see ``teacher_head`` and ``joined_labels``; ``name`` is the loss.
    """
    teacher_fc = teacher_head(batch, name)
    labels = joined_labels(batch, name)
    shard = ClassShard.of_step(teacher_fc.class_start, teacher_fc.num_local, batch)
    return shard.cosines(join(embedding), teacher_fc.weight), shard.columns(labels)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.factor, None
