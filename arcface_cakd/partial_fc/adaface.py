"""AdaFace: a margin by the quality of each image, as the norm of its embedding tells it."""

import math
from typing import Annotated

import torch
from torch import Tensor

from arcface_cakd.config import Range
from arcface_cakd.partial_fc.errors import PartialFCError
from arcface_cakd.partial_fc.margin import CombinedMarginLoss
from arcface_cakd.registry import SECTIONS

_EPS = 1e-3  # of cosines, angles, norms and the deviation, as published
_LARGEST_NORM = 100.0


@SECTIONS.register("adaface")
class AdaFace(CombinedMarginLoss):
    r"""s cos θ, and at the target s (cos(θ - m z) - (m + m z)): the angular part of the margin
    shrinks and the additive one grows with the quality z.

    z = h (|e| - mean) / (deviation + 0.001), kept between -1 and 1; |e| the norm of the embedding,
    between 0.001 and 100, without gradient. Mean and deviation are running ones of the batches'
    norms: t_alpha of the batch's and 1 - t_alpha of what was, from 20 and 100. They move in
    training mode and are in the state dict.

    Kim, Jain & Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022, as its code
    (mk-minchul/AdaFace) computes it, also in that cosines are kept 0.001 from ±1 and angles between
    0.001 and π - 0.001, without gradient beyond; but cosines to other classes than the target's are
    left as they are, and the statistics are of the batches of all ranks, the same on every rank,
    where theirs are each GPU's own. The gradient is the derivative.

    ``observe`` gives it the norms before each forward pass: ``PartialFC`` does.

    Args:
        s: scale of the logits, above 0.
        interclass_filtering_threshold: as in ``CombinedMarginLoss``.
        m: the margin; what it takes from a cosine is up to 2m.
        h: how far z spreads: with 0.333 two thirds of the images are within ±0.333.
        t_alpha: share of the batch's in the running statistics.

    Attributes:
        batch_mean: (1,) float32, running mean of the norms.
        batch_std: (1,) float32, running deviation of the norms.
    """

    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        s: float = 64.0,
        interclass_filtering_threshold: float = 0.0,
        *,
        m: Annotated[float, Range(0.0, 1.0)] = 0.4,
        h: Annotated[float, Range(0.0)] = 0.333,
        t_alpha: Annotated[float, Range(above=0.0, high=1.0)] = 0.01,
    ):
        super().__init__(s, 1.0, 0.0, 0.0, interclass_filtering_threshold)
        self.m, self.h, self.t_alpha = m, h, t_alpha
        self.register_buffer("batch_mean", torch.full((1,), 20.0))
        self.register_buffer("batch_std", torch.full((1,), 100.0))
        self._quality: Tensor | None = None

    @torch.no_grad()
    def observe(self, norms: Tensor, addition: Tensor | float = 0.0) -> None:
        """Take the quality of the images of the next forward pass.

        Args:
            norms: (B, 1) of the embeddings of all ranks, in the order of the logits' rows.
            addition: (B, 1), added to z before it is kept between -1 and 1.
        """
        norms = norms.to(self.batch_mean.dtype).clamp(_EPS, _LARGEST_NORM)
        if self.training and len(norms) > 1:  # one image has no deviation
            self.batch_mean.lerp_(norms.mean(), self.t_alpha)
            self.batch_std.lerp_(norms.std(), self.t_alpha)
        z = self.h * (norms - self.batch_mean) / (self.batch_std + _EPS)
        self._quality = (z + addition).clamp(-1, 1)

    def _at_targets(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        if self._quality is None or len(self._quality) != len(cosines):
            raise PartialFCError(
                "AdaFace was not told the norms of the embeddings of these logits, which decide "
                "its margin: call observe(norms) before each forward pass"
            )
        z = self._quality.to(cosines.dtype)
        angles = cosines.clamp(_EPS - 1, 1 - _EPS).acos()
        shifted = angles - self.m * z
        clear = (cosines.abs() <= 1 - _EPS) & (shifted >= _EPS) & (shifted <= math.pi - _EPS)
        values = shifted.clamp(_EPS, math.pi - _EPS).cos() - self.m * (1 + z)
        return values, torch.where(clear, shifted.sin() / angles.sin(), 0.0)

    def extra_repr(self) -> str:
        text = f"s={self.s}, m={self.m}, h={self.h}, t_alpha={self.t_alpha}"
        if self.interclass_filtering_threshold > 0:
            text += f", interclass_filtering_threshold={self.interclass_filtering_threshold}"
        return text
