"""Contrastive representation distillation.

L = L_S + L_T; L_S, with the student's embeddings as anchors, is the mean over images i of
-log h(i, i) - sum_{j negative for i} log(1 - h(i, j)), h(i, j) = e_ij / (e_ij + M_i c_S),
e_ij = exp(u_S,i . u_T,j / tau), u = A z / ||A z|| with a learned affine A for each side,
M_i the number of negatives of i and c_S the mean of all e_ij of the first batch; L_T is the
same with the sides exchanged. tau = 0.07.

Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, eq. 18 with noise
contrastive estimation; RepDistiller's ``CRDLoss`` (whose 1/N and Z = N c leave c alone). What
follows differs from both, in every published copy:

- Their memory holds one slowly moved vector per training image, found by its index, which no
  loader here yields. Ours is a queue: the embeddings of both sides of the latest batches, of
  all ranks, first in first out, the same on every rank.
- Hence the positive of an image is its embedding by the other side now, not an average of past
  epochs; negatives are all the rest of the batch of all ranks and of the queue, not a draw of
  16384 from the data set, and never images of the same identity where labels are known.
- As there, what an anchor is compared with is a constant: the student learns from L_S, the
  teacher's A and prompts from L_T.
"""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.distributed import all_gather, all_reduce_mean, rank
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.memory_bank import put_in
from arcface_cakd.precision import at_least_float32, full_precision
from arcface_cakd.registry import LOSSES

_UNKNOWN = -1  # a label that is not known


@full_precision
def scores(anchors: Tensor, candidates: Tensor, *, temperature: float) -> Tensor:
    """Logarithms of e (B, K), of unit anchors (B, d) and unit candidates (K, d)."""
    return anchors @ candidates.T / temperature


def contrastive_loss(
    scores: Tensor, positive: Tensor, negative: Tensor, normalizer: Tensor
) -> Tensor:
    """One of the two parts: L_S or L_T.

    Args:
        scores: (B, K), log e.
        positive: (B,) int64, the candidate that is an anchor's own image.
        negative: (B, K) bool, the candidates that are its negatives.
        normalizer: c, a scalar.
    """
    count = negative.sum(-1, keepdim=True).clamp_min(1)
    odds = scores - (count * normalizer).log()  # h = sigmoid(odds)
    own = F.logsigmoid(odds.gather(1, positive[:, None])).squeeze(1)
    others = (F.logsigmoid(-odds) * negative).sum(-1)
    return -(own + others).mean()


@LOSSES.register("crd")
class CRDLoss(DistillationLoss):
    """Contrast of each image's two embeddings with a queue of other images' embeddings.

    Labels are used where they are at hand.

    Args:
        dims: widths of both embeddings.
        dim: width of the space in which the sides are compared.
        queue_size: images that the queue holds; 0 leaves the negatives of the batch.
        temperature: tau, at least 0.02: e^(1/tau) must fit float32.

    Attributes:
        queue: (queue_size, 2 dim) float32, u_S and u_T side by side; all buffers are the same on
            every rank.
        queue_labels: (queue_size,) int64, -1 where unknown.
        queued: int64 scalar, the images that ever went into the queue.
        normalizer: (2,) float32, c_S and c_T; 0 before the first batch.
    """

    paper = "Tian et al., ICLR 2020"
    queue: Tensor
    queue_labels: Tensor
    queued: Tensor
    normalizer: Tensor

    def __init__(
        self,
        dims: FeatureDims,
        *,
        dim: Annotated[int, Range(1)] = 128,
        queue_size: Annotated[int, Range(0)] = 16384,
        temperature: Annotated[float, Range(0.02)] = 0.07,
    ):
        super().__init__(dims)
        self.temperature = temperature
        self.student_projection = nn.Linear(dims.student_embedding, dim)
        self.teacher_projection = nn.Linear(dims.teacher_embedding, dim)
        self.register_buffer("queue", torch.zeros(queue_size, 2 * dim))
        self.register_buffer("queue_labels", torch.full((queue_size,), _UNKNOWN))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))
        self.register_buffer("normalizer", torch.zeros(2))

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        sides = (self.student_projection, student), (self.teacher_projection, teacher)
        # Normalised after autocast's products, so that what is queued has unit length.
        anchors = [
            F.normalize(at_least_float32(project(at_least_float32(side.embedding))), dim=-1)
            for project, side in sides
        ]
        size = len(anchors[0])
        labels = batch.labels
        if labels is None:
            labels = torch.full((size,), _UNKNOWN, device=anchors[0].device)
        labels = labels.long()
        joined, joined_labels = all_gather(torch.cat(anchors, dim=1)), all_gather(labels)
        candidates = torch.cat([joined, self.queue]).chunk(2, dim=1)
        own = rank() * size + torch.arange(size, device=joined.device)
        negative = self._negatives(own, labels, joined_labels)
        logs = [
            scores(anchor, candidate, temperature=self.temperature)
            for anchor, candidate in zip(anchors, reversed(candidates), strict=True)
        ]
        normalizer = self._normalizer(logs, own, negative)
        if self.training:
            put_in(self.queued, (self.queue, joined), (self.queue_labels, joined_labels))
        return total(
            contrastive_loss(log, own, negative, c) for log, c in zip(logs, normalizer, strict=True)
        )

    def _negatives(self, own: Tensor, labels: Tensor, joined_labels: Tensor) -> Tensor:
        """Which of batch and queue are negatives of which local image: (B, K) bool."""
        all_labels = torch.cat([joined_labels, self.queue_labels])
        same = (labels[:, None] == all_labels) & (labels[:, None] != _UNKNOWN)
        place = torch.arange(len(all_labels), device=own.device)
        empty = place - len(joined_labels) >= self.queued
        return ~(same | empty | (place == own[:, None]))

    @torch.no_grad()
    def _normalizer(self, logs: list[Tensor], own: Tensor, negative: Tensor) -> Tensor:
        """c_S and c_T; of this batch if it is the first, and then kept if training."""
        compared = negative.scatter(1, own[:, None], True)
        sums = [(log.exp() * compared).sum() for log in logs]
        # Means over the ranks, whose quotient is that of the sums. Formed for every batch, as to
        # ask whether this is the first would wait for the GPU.
        means = all_reduce_mean(torch.stack([*sums, compared.sum()]))
        normalizer = torch.where(self.normalizer > 0, self.normalizer, means[:2] / means[2])
        if self.training:
            self.normalizer.copy_(normalizer)
        return normalizer
