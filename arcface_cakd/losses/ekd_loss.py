"""Evaluation-oriented knowledge distillation: ranks of similarities among operating thresholds.

L = w_pos mean_{positive pairs} (r_S - r_T)^2 + w_neg mean_{hard negative pairs} (r_S - r_T)^2,
r = sum_k sigmoid((cos - t_k) / tau)

A pair is positive if both images are of one identity. Thresholds t_k, of each side its own, are
the cosines that false positives reach at the rates 1e-1 ... 1e-6 among the batch's negative
pairs, as moving averages: t <- (1 - momentum) t + momentum t_batch. r counts, softly, the
thresholds that a pair passes; pairs that lie on the same side of each on both sides add nothing.
Hard negatives are those with the student's 2000 largest cosines.

Huang et al., "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR 2022.
Constants are those of its code, TFace's ``EKD``. Differences from that code:

- Its thresholds begin at 0, which they leave with a rate of 1 % a step; ours begin at those of
  the first batch.
- A batch without a positive pair makes its value NaN, one without a negative pair stops it; here
  the part in question is 0.
- It runs without gradient to the teacher; here prompts learn from it. Thresholds have none.
- Its trainer draws half of each batch with 4 images an identity. Nothing here does so: in random
  batches of a large data set positive pairs are rare (expect about B^2 / (2 x identities)).
"""

from typing import Annotated

import torch
from torch import Tensor

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.distributed import all_gather
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.relations import cosine_matrix, joined, labels_of
from arcface_cakd.registry import LOSSES


def pairs_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of images of one identity (2, P), and of different ones (2, N); of labels (B,)."""
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    pairs, same = torch.stack([first, second]), labels[first] == labels[second]
    return pairs[:, same], pairs[:, ~same]


def false_positive_thresholds(negatives: Tensor, rates: tuple[float, ...]) -> Tensor:
    """The cosines (K,) that K shares of the negative pairs lie above.

    Args:
        negatives: (N,) cosines, N > 0.
        rates: the shares.
    """
    ordered = negatives.detach().sort(descending=True).values
    # 1e-9: a product that should be whole may come out a little less.
    places = [min(int(len(ordered) * rate + 1e-9), len(ordered) - 1) for rate in rates]
    return ordered[places]


def rank_loss(student: Tensor, teacher: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the soft ranks of cosines (P,); 0 if P is 0.

    Args:
        student: with ``teacher``, of the same pairs.
        thresholds: (2, K), the student's and the teacher's.
        temperature: tau.
    """
    cosines = torch.stack([student, teacher])
    ranks = ((cosines[:, :, None] - thresholds[:, None]) / temperature).sigmoid().sum(-1)
    return (ranks[0] - ranks[1]).square().sum() / max(len(student), 1)


@LOSSES.register("ekd")
class EKDLoss(DistillationLoss):
    """Ranks of similarities among the thresholds at given false positive rates.

    Args:
        dims: not used; the embeddings' widths may differ.
        false_positive_rates: where to put thresholds.
        hard_negatives: how many negative pairs to compare, of the batch of all ranks.
        temperature: tau, the softness of ranks, in units of a cosine.
        momentum: weight of this batch in the moving averages.
        positive_weight: w_pos, and ``negative_weight`` w_neg, of the two parts.

    Attributes:
        thresholds: (2, K) float32, the student's and the teacher's, the same on every rank.
        batches: int64 scalar, the batches that moved them.

    Raises:
        ConfigError: no rates, or both weights are 0.
    """

    needs = frozenset({"labels"})
    paper = "Huang et al., CVPR 2022"
    thresholds: Tensor
    batches: Tensor

    def __init__(
        self,
        dims: FeatureDims,
        *,
        false_positive_rates: Annotated[tuple[float, ...], Range(above=0.0, high=1.0)] = (
            1e-1,
            1e-2,
            1e-3,
            1e-4,
            1e-5,
            1e-6,
        ),
        hard_negatives: Annotated[int, Range(1)] = 2000,
        temperature: Annotated[float, Range(above=0.0)] = 0.01,
        momentum: Annotated[float, Range(above=0.0, high=1.0)] = 0.01,
        positive_weight: Annotated[float, Range(0.0)] = 0.02,
        negative_weight: Annotated[float, Range(0.0)] = 0.01,
    ):
        super().__init__(dims)
        if not false_positive_rates:
            raise ConfigError("ekd: false_positive_rates is empty: give at least one")
        if not positive_weight and not negative_weight:
            raise ConfigError("ekd: positive_weight and negative_weight are both 0: set one")
        self.false_positive_rates = false_positive_rates
        self.hard_negatives = hard_negatives
        self.temperature = temperature
        self.momentum = momentum
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.register_buffer("thresholds", torch.zeros(2, len(false_positive_rates)))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs = map(cosine_matrix, joined(student.embedding, teacher.embedding))
        positive, negative = pairs_of(all_gather(labels_of("ekd", batch)))
        nearest = ours[tuple(negative)].detach().topk(min(self.hard_negatives, negative.shape[1]))
        hard = negative[:, nearest.indices]
        thresholds = self.thresholds
        if negative.shape[1]:
            thresholds = self._moved_thresholds(ours[tuple(negative)], theirs[tuple(negative)])
        return total(
            weight
            * rank_loss(ours[tuple(pairs)], theirs[tuple(pairs)], thresholds, self.temperature)
            for weight, pairs in ((self.positive_weight, positive), (self.negative_weight, hard))
        )

    @torch.no_grad()
    def _moved_thresholds(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Thresholds for this batch, from its negative pairs (N,); kept if training."""
        of_batch = torch.stack(
            [false_positive_thresholds(x, self.false_positive_rates) for x in (student, teacher)]
        ).to(self.thresholds.dtype)
        moved = self.thresholds.lerp(of_batch, self.momentum) if self.training else self.thresholds
        moved = torch.where(self.batches > 0, moved, of_batch)
        if self.training:
            self.thresholds.copy_(moved)
            self.batches += 1
        return moved
