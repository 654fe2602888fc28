"""Margin softmax over class centres that follow the teacher's embeddings."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import all_gather, rank, world_size
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    ClassShard,
    join,
    joined_labels,
    softmax_cross_entropy,
)
from arcface_cakd.losses.embedding_projection import embedding_projection
from arcface_cakd.partial_fc import (
    AdaFace,
    ArcFace,
    CombinedMarginLoss,
    CosFace,
    PartialFC,
    shard_of,
)
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES

_LEAST = 1e-6  # of a cosine and of a rate, as published
_WIDEST = {"arc": math.pi, "cos": 2.0, "ada": 1.0}  # margin of each kind


@torch.no_grad()
def move_centers(centers: Tensor, student: Tensor, teacher: Tensor, columns: Tensor) -> None:
    """w_y <- a w_y + (1 - a) e_T/|e_T|, in place; a = cos(e_S, e_T) cos(w_y, e_T), at least 1e-6.

    A class that the batch has several times moves to the mean of what each of its faces makes
    of the centre before.

    Args:
        centers: (C, E) of this rank's classes, C at least 1.
        student: (N, E) embeddings of the joined batch.
        teacher: (N, E) of the same faces.
        columns: (N, 1) int64 rows of ``centers``; -1: on another rank.
    """
    dtype = centers.dtype
    alike, settled = agreement(centers, student, teacher, columns)
    rate = (alike * settled).clamp(_LEAST, 1)
    rows, owned = columns.clamp_min(0), columns >= 0
    present, teacher = centers[rows[:, 0]], F.normalize(teacher.to(dtype))
    times = torch.zeros(len(centers), 1, dtype=dtype, device=centers.device)
    times.index_add_(0, rows[:, 0], owned.to(dtype))
    move = (1 - rate) * (teacher - present) / times[rows[:, 0]].clamp_min(1)
    centers.index_add_(0, rows[:, 0], move * owned)


@torch.no_grad()
def agreement(
    centers: Tensor, student: Tensor, teacher: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """cos(e_S, e_T) and cos(w_y, e_T), the latter at least 1e-6, each (N, 1).

    Arguments are those of ``move_centers``; what a class on another rank has is of no use.
    """
    student, teacher = student.to(centers.dtype), teacher.to(centers.dtype)
    present = centers[columns.clamp_min(0)[:, 0]]
    alike = F.cosine_similarity(student, teacher).clamp(-1, 1)
    settled = F.cosine_similarity(present, teacher).clamp(_LEAST, 1)
    return alike[:, None], settled[:, None]


@LOSSES.register("adadistill")
class AdaDistillLoss(DistillationLoss):
    """AdaDistill: margin softmax of the student over centres that follow the teacher.

    Before each loss the centre of every face's class moves (``move_centers``): far along
    towards the teacher's embedding of that face while the student is unlike the teacher
    (knowledge of single samples), hardly once it is alike (knowledge of classes).

    Boutros, Struc & Damer, ECCV 2024. As in their code, centres start at random, N(0, 0.01^2), not
    as the teacher's: the first face of a class sets its centre, and no class centres of the
    teacher are needed. Differences: their centres move on
    each GPU by its own batch and are never synchronised, ours by the joined batch, each centre
    on the one rank that holds it; of several faces of a class in a batch, theirs keeps an
    arbitrary one, ours takes the mean. There it is the only loss; here it stands beside the
    student's own margin softmax unless ``cakd.margin_weight`` is 0. No gradient reaches the
    teacher. Where Partial FC samples classes, so does this.

    ``kind="ada"`` is the margin of ``AdaFace`` (with its defaults of h and t_alpha), by the norm of
    the student's embedding, and ``geometry`` adds to its quality z, before it is kept between -1
    and 1, geometry * c * max(c - cos(e_S, e_T), 0), c = cos(w_y, e_T) of the centre before it
    moves, at least 1e-6: a student behind what the teacher is sure of gets the larger additive
    margin. Both are of a fork of the published code (rayyichen310/adadistill_with_adaface_loss,
    2025, without a licence: read, not run), which has m = 0.4 and 1 * 3 for ``geometry``, grown
    over the first epoch, which is left out here.

    Args:
        dims: widths of both embeddings and ``num_classes``.
        kind: "arc", s cos(theta_y + margin), "cos", s (cos(theta_y) - margin), or "ada".
        scale: s.
        margin: 0.45 for "arc" as published; for "cos" their class has 0.35.
        geometry: of "ada": how much z grows where the student is behind the teacher.
        gradient: of "arc": "exact" is the derivative, as in the published code;
            "straight_through" is how arcface_torch trains its own margin.
        seed: of the centres at the start, the same however they are sharded.
        projection: classify a learned linear map of the student's embedding, which embeddings
            of different width need. The map is not part of the student that is saved.

    Attributes:
        centers: (ceil(num_classes / world_size), E) float32, a buffer: this rank's shard, as
            Partial FC divides classes, and at most one row that is not used. So its shape is
            the same on every rank, and what broadcasts modules at the start of a run (which
            must come before the first forward pass, or before a checkpoint is loaded) can.
        updates: training forwards done, a buffer.

    Raises:
        ConfigError: the widths differ and ``projection`` is off, the number of classes is not
            known, ``geometry`` is set for another kind than "ada", or the margin is wider than
            angles or cosines are apart.
        LossError: no labels.
    """

    needs = frozenset({"labels"})
    sharded_buffers = frozenset({"centers"})
    paper = "Boutros et al., ECCV 2024"
    centers: Tensor
    updates: Tensor

    def __init__(
        self,
        dims: FeatureDims,
        *,
        kind: Literal["arc", "cos", "ada"] = "arc",
        scale: Annotated[float, Range(above=0.0)] = 64.0,
        margin: Annotated[float, Range(0.0, math.pi)] = 0.45,
        geometry: Annotated[float, Range(0.0)] = 0.0,
        gradient: Literal["exact", "straight_through"] = "exact",
        seed: int = 0,
        projection: bool = False,
    ):
        super().__init__(dims)
        if dims.num_classes is None:
            raise ConfigError(
                "adadistill keeps a centre for every class and does not know how many there are: "
                "give num_classes to the Distiller"
            )
        if geometry and kind != "ada":
            raise ConfigError(
                f"adadistill: geometry adds to the quality that the margin of kind={kind!r} does "
                'not have: set kind="ada", or geometry=0'
            )
        if margin > _WIDEST[kind]:
            raise ConfigError(
                f"adadistill: margin {margin:g} must be at most {_WIDEST[kind]:g} with "
                f"kind={kind!r}: lower it"
            )
        if kind != "arc" and gradient != "exact":
            self.without_effect = (
                f'gradient={gradient!r} has no effect, as it is of kind="arc": drop it',
            )
        self.margin_softmax: CombinedMarginLoss = CosFace(scale, margin)
        if kind == "arc":
            self.margin_softmax = ArcFace(scale, margin, gradient)
        elif kind == "ada":
            self.margin_softmax = AdaFace(scale, m=margin)
        self.geometry = geometry
        self.num_classes = dims.num_classes
        self.seed = seed
        self.projection = embedding_projection("adadistill", dims, projection)
        self.class_start, self.num_local = shard_of(dims.num_classes, rank(), world_size())
        rows = -(-dims.num_classes // world_size())
        self.register_buffer("centers", torch.zeros(rows, dims.teacher_embedding))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._started = False

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        labels = joined_labels(batch, "adadistill")
        if not self._started:
            self._start()
        joined = join(self.projection(student.embedding))
        sides = joined, all_gather(at_least_float32(teacher.embedding))
        if isinstance(self.margin_softmax, AdaFace):
            self._judge(self.margin_softmax, student.embedding, *sides, labels)
        if self.training:
            self._update(*sides, labels)
        shard = ClassShard.of_step(self.class_start, self.num_local, batch)
        cosines = shard.cosines(joined, self.centers[: self.num_local])
        columns = shard.columns(labels)
        return softmax_cross_entropy(self.margin_softmax(cosines, columns), columns)

    @torch.no_grad()
    def _start(self) -> None:
        """Draw the centres, unless a checkpoint brought them. Not in the constructor, for what
        rank 0 broadcasts after it would overwrite the other shards."""
        if int(self.updates) == 0:
            drawn = PartialFC(
                self.margin_softmax,
                self.dims.teacher_embedding,
                self.num_classes,
                seed=self.seed,
            )
            self.centers[: self.num_local].copy_(drawn.weight)
        self._started = True

    @torch.no_grad()
    def _update(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        whole = ClassShard(self.class_start, self.num_local)
        move_centers(self.centers, student, teacher, whole.columns(labels))
        self.updates += 1

    @torch.no_grad()
    def _judge(
        self, margin: AdaFace, embedding: Tensor, student: Tensor, teacher: Tensor, labels: Tensor
    ) -> None:
        """Tell the margin the quality of each image; ``embedding`` (B, E) is this rank's own."""
        norms = all_gather(at_least_float32(embedding).norm(dim=1, keepdim=True))
        columns = ClassShard(self.class_start, self.num_local).columns(labels)
        alike, settled = agreement(self.centers, student, teacher, columns)
        margin.observe(norms, self.geometry * settled * (settled - alike).clamp_min(0))

    def buffers_replaced(self) -> None:
        self._started = False

    def _load_from_state_dict(self, *args, **kwargs):
        self._started = False  # what comes may have been saved before the first forward pass
        super()._load_from_state_dict(*args, **kwargs)
