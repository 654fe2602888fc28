"""What every distillation loss has in common."""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from arcface_cakd.alignment import Alignment
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.partial_fc import MarginHead
from arcface_cakd.registry import did_you_mean

NEEDS = frozenset(
    {"tokens", "stages", "student_stages", "labels", "logits", "centers", "alignment"}
)

# Those that a teacher of embeddings only does not have, and that prompts change beside its output.
PIXEL_FEATURES = frozenset({"tokens", "stages", "alignment"})


class LossError(ArcfaceCakdError):
    """A loss that lacks what it needs; the message says what to set."""


@dataclass(frozen=True)
class FeatureDims:
    """The widths of what a loss will see.

    Attributes:
        student_embedding: E of the student, and ``teacher_embedding`` of the teacher.
        student_tokens: C of the student's tokens, and ``teacher_tokens`` of the teacher's; None
            of one that gives embeddings only, which no loss that needs tokens gets to see.
        student_stages: channels of the student's stages, and ``teacher_stages`` of the teacher's.
        num_classes: identities of the training set, where known.
        student_grid: (H, W) of the student's tokens, and ``teacher_grid`` of the teacher's.
        num_centers: URFM's local centres; None where it is off.
    """

    student_embedding: int
    teacher_embedding: int
    student_tokens: int
    teacher_tokens: int | None
    student_stages: tuple[int, ...] = ()
    teacher_stages: tuple[int, ...] = ()
    num_classes: int | None = None
    student_grid: tuple[int, int] = (7, 7)
    teacher_grid: tuple[int, int] | None = (7, 7)
    num_centers: int | None = None

    @property
    def teacher_map_shape(self) -> tuple[int, tuple[int, int]]:
        """``teacher_tokens`` and ``teacher_grid``, of a teacher that has them.

        Raises:
            LossError: it gives embeddings only.
        """
        if self.teacher_tokens is None or self.teacher_grid is None:
            raise LossError(
                "the teacher gives embeddings only, and no tokens to compare with: take another "
                "loss, or a teacher that has pixel features"
            )
        return self.teacher_tokens, self.teacher_grid


@dataclass(frozen=True)
class LossBatch:
    """What a loss may use besides the features of both sides.

    Attributes:
        labels: (B,) int64, or None where none are at hand.
        partial_fc: the student's margin softmax head, ours or arcface_torch's ``PartialFC_V2``,
            after its forward pass of this step.
        teacher_fc: a ``PartialFC`` of the teacher's frozen class centres, sharded over the ranks
            as the student's, where a loss needs ``centers``.
        alignment: URFM's local features of both sides, where URFM is on.
        unprompted: the teacher's features without prompts, where something asked for them.
    """

    labels: Tensor | None
    partial_fc: MarginHead | None = None
    alignment: Alignment | None = None
    unprompted: FaceFeatures | None = None
    teacher_fc: MarginHead | None = None


def total(losses: Iterable[Tensor]) -> Tensor:
    """The sum of one or more losses."""
    return functools.reduce(operator.add, losses)


class DistillationLoss(nn.Module):
    """Base of distillation losses: ``forward(student, teacher, batch) -> scalar``.

    A loss is a pure function plus a thin module of this class. Its value is a mean over the
    local batch, in float32 also under autocast. Keyword-only parameters of its constructor are
    its settings.

    Args:
        dims: the widths of what it will see.

    Attributes:
        needs: what of ``NEEDS`` the loss uses; whoever runs it supplies that and may skip the
            rest. ``tokens``, ``stages``: those of both sides; ``student_stages``: the student's
            alone, for which a teacher of embeddings suffices; ``alignment``: what URFM makes of
            both sides' tokens; ``logits``: the student's class centres, in
            ``batch.partial_fc``; ``centers``: the teacher's, in ``batch.teacher_fc``.
        sharded_buffers: names of the buffers of which each rank holds its own classes, along the
            first axis: the rows of ``partial_fc.shard_of``, and unused ones after them where
            shards differ in size. All other buffers are the same on every rank.
        paper: where the loss was published, for ``arcface-cakd list losses``.
        without_effect: what of its settings changes nothing beside the others, a line each.

    Raises:
        ValueError: a subclass declares a need that does not exist.
    """

    needs: frozenset[str] = frozenset()
    sharded_buffers: frozenset[str] = frozenset()
    paper: str = ""
    without_effect: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for need in cls.needs:
            if need not in NEEDS:
                raise ValueError(
                    f"{cls.__name__}.needs has {need!r}; {did_you_mean(str(need), NEEDS)}"
                )

    def __init__(self, dims: FeatureDims):
        super().__init__()
        self.dims = dims

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        """The loss, a scalar.

        Args:
            student: with gradient, and ``teacher`` with gradient to its prompts alone.
            batch: what the loss declared that it ``needs``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def buffers_replaced(self) -> None:
        """Its buffers have other values than its forward pass left: they were given back those
        of before it. A loss that remembers beside them what it made of them forgets that here."""

    def alignment_of(self, batch: LossBatch) -> Alignment:
        """``batch.alignment``.

        Raises:
            LossError: URFM is off.
        """
        if batch.alignment is None:
            raise LossError(
                f"{type(self).__name__} compares URFM's local features, but URFM is off: set "
                "cakd.urfm or drop the loss from cakd.losses"
            )
        return batch.alignment
