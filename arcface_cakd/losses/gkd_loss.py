"""Grouped knowledge distillation: the identities that the teacher thinks possible, and how probable
it thinks them together.

Per image the primary group is the fewest identities whose probabilities softmax(z_T / T), from the
highest down, sum to ``threshold`` or more; the secondary group is all others. P is a side's
probability of the primary group. Then

    L = T^2 (binary_weight KL((P_T, 1 - P_T) || (P_S, 1 - P_S))
             + primary_weight P_T KL of the probabilities within the primary group
             + secondary_weight (1 - P_T) KL of those within the secondary group),

which with all weights 1 is ``kd``, regrouped.

Zhao, Zhu, Guo, Zhang & Lei, "Grouped Knowledge Distillation for Deep Face Recognition", AAAI 2023
(arXiv 2304.04462). No code was published, and this rests on the paper's abstract: the two groups by
cumulative probability of the softened prediction, the three parts, and that the secondary one is
left out. Not recoverable were the threshold, T, the weights and whether P_T stays a factor of the
primary part; these are ours, the factor as the regrouping of KL gives it: it is at least
``threshold``, so near 1. Logits and sampled classes are as in the loss ``kd``.
"""

from typing import Annotated

import torch
from torch import Tensor

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import all_gather, all_reduce_with_grad
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    SCALE,
    log_sum_exp,
    logits_of_both,
    scale_without_effect,
)
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES

_HALVINGS = 40  # of an interval of log p no wider than 2^8: past what float32 resolves


def gkd_loss(
    student: Tensor,
    teacher: Tensor,
    threshold: float = 0.9,
    temperature: float = 4.0,
    primary_weight: float = 1.0,
    binary_weight: float = 1.0,
    secondary_weight: float = 0.0,
) -> Tensor:
    """The loss above, mean over the rows.

    Args:
        student: (N, C) logits of the joined batch, C this rank's classes.
        teacher: (N, C) logits for the same classes.
        threshold: least probability of the primary group.
        temperature: T.
        primary_weight: of the part within the primary group.
        binary_weight: of the part between the groups.
        secondary_weight: of the part within the secondary group.
    """
    student = at_least_float32(student) / temperature
    teacher = at_least_float32(teacher) / temperature
    primary = primary_group(teacher, threshold)
    pair_s, within_s = _grouped(student, primary)
    pair_t, within_t = _grouped(teacher, primary)
    binary = (pair_t.exp() * (pair_t - pair_s)).sum(1)
    divergence = within_t.exp() * (within_t - within_s)
    parts = torch.stack([(divergence * primary).sum(1), (divergence * ~primary).sum(1)], 1)
    shares = pair_t.exp() * all_reduce_with_grad(parts)
    loss = binary_weight * binary + primary_weight * shares[:, 0] + secondary_weight * shares[:, 1]
    return temperature**2 * loss.mean()


@torch.no_grad()
def primary_group(scores: Tensor, threshold: float) -> Tensor:
    """(N, C) bool: the primary group of softmax(scores (N, C)) over the classes of all ranks.

    Equally probable classes go together. The least log p of the group is found by halving, so
    that no rank needs another's classes; those nearer to it than float32 tells apart belong too.
    """
    log_p = scores - log_sum_exp(scores)
    low = log_p.new_zeros(len(log_p), 1)
    if log_p.shape[1]:
        low = log_p.amin(1, keepdim=True)
    low = all_gather(low).view(-1, len(log_p), 1).amin(0)  # as a bound it holds everything
    high = torch.ones_like(low)  # holds nothing
    p = log_p.exp()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = all_reduce_with_grad((p * (log_p >= middle)).sum(1, keepdim=True)) >= threshold
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return log_p >= low


def _grouped(scores: Tensor, primary: Tensor) -> tuple[Tensor, Tensor]:
    """log of (P, 1 - P), (N, 2), and of each class's probability within its group, (N, C)."""
    lowest = torch.finfo(scores.dtype).min  # a group without classes
    sums = [log_sum_exp(scores.masked_fill(mask, lowest)) for mask in (~primary, primary)]
    pair = torch.cat(sums, 1)
    return pair.log_softmax(1), scores - torch.where(primary, pair[:, :1], pair[:, 1:])


@LOSSES.register("gkd")
class GKDLoss(DistillationLoss):
    """Primary and binary part of KD, grouped by the teacher's cumulative probability.

    Zhao et al., AAAI 2023, from its abstract: see the module.

    Args:
        dims: not used: each side has centres of its own width.
        threshold: least probability of the primary group.
        temperature: T. At scale 64 even T = 4 leaves logits of up to +-16.
        primary_weight: of the part within the primary group.
        binary_weight: of the part between the groups.
        secondary_weight: of the part within the secondary group, which the method leaves out.
        scale: s of both sides' logits; of no effect with ``standardise``.
        standardise: whether z-scores take the place of the logits, see ``kd``.

    Raises:
        ConfigError: all weights are 0.
        LossError: no class centres of the student or of the teacher.
    """

    needs = frozenset({"logits", "centers"})
    paper = "Zhao et al., AAAI 2023"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        threshold: Annotated[float, Range(above=0.0, high=1.0)] = 0.9,
        temperature: Annotated[float, Range(above=0.0)] = 4.0,
        primary_weight: Annotated[float, Range(0.0)] = 1.0,
        binary_weight: Annotated[float, Range(0.0)] = 1.0,
        secondary_weight: Annotated[float, Range(0.0)] = 0.0,
        scale: Annotated[float, Range(above=0.0)] = SCALE,
        standardise: bool = False,
    ):
        super().__init__(dims)
        self.weights = primary_weight, binary_weight, secondary_weight
        if not any(self.weights):
            raise ConfigError("gkd: all its weights are 0: set primary_weight or binary_weight")
        self.threshold, self.temperature = threshold, temperature
        self.scale, self.standardise = scale, standardise
        self.without_effect = scale_without_effect(scale, standardise)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs, _ = logits_of_both(
            student.embedding, teacher.embedding, batch, "gkd", self.scale, self.standardise
        )
        return gkd_loss(ours, theirs, self.threshold, self.temperature, *self.weights)
