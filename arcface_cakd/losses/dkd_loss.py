"""Decoupled knowledge distillation."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import all_reduce_with_grad
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    SCALE,
    at_labels,
    is_label,
    joined_labels,
    log_sum_exp,
    logits_of_both,
    scale_without_effect,
)
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    columns: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """T^2 (alpha TCKD + beta NCKD), mean over the rows.

    TCKD = KL of the pairs (p_y, 1 - p_y), NCKD = KL over the classes other than y, each side's
    probabilities among them summing to 1.

    Args:
        student: (N, C) logits of the joined batch, C this rank's classes.
        teacher: (N, C) logits for the same classes.
        columns: (N, 1) int64 columns of the targets; -1: on another rank.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T.
    """
    target = is_label(student, columns)
    pair_s, others_s = _decoupled(at_least_float32(student) / temperature, columns, target)
    pair_t, others_t = _decoupled(at_least_float32(teacher) / temperature, columns, target)
    tckd = (pair_t.exp() * (pair_t - pair_s)).sum(1)
    # exp(0) at the target, times a difference of 0.
    nckd = all_reduce_with_grad((others_t.exp() * (others_t - others_s)).sum(1))
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _decoupled(scores: Tensor, columns: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log of (p_y, 1 - p_y), (N, 2), and of p_c / (1 - p_y), (N, C), which is 0 at the target."""
    lowest = torch.finfo(scores.dtype).min
    of_others = log_sum_exp(scores.masked_fill(target, lowest))
    odds = at_labels(scores, columns) - of_others
    return F.logsigmoid(torch.cat((odds, -odds), 1)), (scores - of_others).masked_fill(target, 0.0)


@LOSSES.register("dkd")
class DKDLoss(DistillationLoss):
    """T^2 (alpha TCKD + beta NCKD) on z = scale * cos(embedding, own centres).

    Zhao, Cui, Song, Qiu & Liang, CVPR 2022, as mdistiller computes it, but for: the target is
    left out of NCKD exactly, where mdistiller subtracts 1000 from its logit; and the warm-up
    (there 20 of 240 epochs on CIFAR-100) is that of any loss here, ``schedule``. Logits and
    sampled classes are as in the loss ``kd``.

    Args:
        dims: not used: each side has centres of its own width.
        alpha: weight of TCKD, and ``beta`` of NCKD.
        temperature: T.
        scale: s of both sides' logits; of no effect with ``standardise``.
        standardise: whether z-scores take the place of the logits, see ``kd``.

    Raises:
        ConfigError: ``alpha`` and ``beta`` are both 0.
        LossError: no labels, or no class centres of the student or of the teacher.
    """

    needs = frozenset({"labels", "logits", "centers"})
    paper = "Zhao et al., CVPR 2022"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        alpha: Annotated[float, Range(0.0)] = 1.0,
        beta: Annotated[float, Range(0.0)] = 8.0,
        temperature: Annotated[float, Range(above=0.0)] = 4.0,
        scale: Annotated[float, Range(above=0.0)] = SCALE,
        standardise: bool = False,
    ):
        super().__init__(dims)
        if not alpha and not beta:
            raise ConfigError("dkd: alpha and beta are both 0: set one of them")
        self.alpha, self.beta = alpha, beta
        self.temperature = temperature
        self.scale, self.standardise = scale, standardise
        self.without_effect = scale_without_effect(scale, standardise)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs, shard = logits_of_both(
            student.embedding, teacher.embedding, batch, "dkd", self.scale, self.standardise
        )
        columns = shard.columns(joined_labels(batch, "dkd"))
        return dkd_loss(ours, theirs, columns, self.alpha, self.beta, self.temperature)
