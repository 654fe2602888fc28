"""Anchoring: what keeps URFM's teacher side from collapsing."""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import SECTIONS

_DROP = 0.5


@SECTIONS.register("anchoring")
class Anchoring(nn.Module):
    """Ties the teacher-side mapping to the teacher's knowledge (a choice of this project).

    From the teacher's local features a small head must predict the teacher's own embedding:
    mean over the batch of 1 - cos(head(MSA(h_T)), embedding), the embedding unprompted and
    detached, so that mapping and MSA both keep what the teacher knows. Without it constant local
    features minimise both alignment losses, because the mapping is learned on both sides.

    The head is a global depthwise sum, a weight for each centre and channel, then a linear map:
    no capacity hides what h has lost. In training a random part of the centres is left out of
    each step's sum, the same for all images: else one centre could carry the embedding alone, the
    weights of the others at zero, and what they know would go.

    Args:
        dim: width d of the local features.
        num_centers: local centres L.
        teacher_embedding_size: width E_T.
        weight: weight of the term.
        drop: share of the centres that are left out, rounded down; at least one stays.

    Attributes:
        without_effect: settings that change nothing beside the others, a line each.
    """

    def __init__(
        self,
        dim: int,
        num_centers: int,
        teacher_embedding_size: int,
        *,
        weight: Annotated[float, Range(0.0)] = 1.0,
        drop: Annotated[float, Range(0.0, 1.0)] = _DROP,
    ):
        super().__init__()
        self.weight = weight
        self.kept = num_centers - min(int(drop * num_centers), num_centers - 1)
        self.without_effect: tuple[str, ...] = ()
        if self.kept == num_centers and drop not in (0.0, _DROP):
            self.without_effect = (
                f"cakd.anchoring.drop={drop:g} has no effect: it leaves out none of {num_centers} "
                "local centre(s); set it higher, or take it out",
            )
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.Parameter(torch.empty(num_centers, dim))
        nn.init.normal_(self.pool, std=num_centers**-0.5)
        self.predict = nn.Linear(dim, teacher_embedding_size)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """The loss, not weighted: a scalar in [0, 2].

        Args:
            h: (B, L, d), ``Alignment.anchored``.
            embedding: (B, E_T), the unprompted teacher's; no gradient reaches it.
        """
        centers: Tensor = self.norm(h)
        pool: Tensor = self.pool
        if self.training and self.kept < len(pool):
            # Drawn on the CPU, whose generator checkpoints keep: the same on every device.
            kept = torch.randperm(len(pool))[: self.kept].to(h.device)
            centers, pool = centers[:, kept], pool[kept] * (len(pool) / self.kept)
        pooled = (centers * pool).sum(1)
        predicted = at_least_float32(self.predict(pooled))
        return (1 - F.cosine_similarity(predicted, embedding.detach(), dim=-1)).mean()
