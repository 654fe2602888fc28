"""Margins between classes: what stands between cosines and the softmax."""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from arcface_cakd.errors import ArcfaceCakdWarning
from arcface_cakd.partial_fc.errors import PartialFCError

Gradient = Literal["straight_through", "exact"]


class CombinedMarginLoss(nn.Module):
    r"""Scaled logits with a margin on each target: s cos θ, and at the target s f(θ).

    ======================== ==================== ===========================================
    m1, m2, m3               f(θ)                 gradient at the target, df/dcos θ
    ======================== ==================== ===========================================
    m1 = 1, m3 = 0 (ArcFace) cos(θ + m2)          ``gradient``: 1, or sin(θ + m2)/sin θ
    m3 > 0 (CosFace)         cos θ - m3           1
    m3 = 0, m1 not 1         cos(m1 θ + m2)       m1 sin(m1 θ + m2)/sin θ
    ======================== ==================== ===========================================

    The first two are what arcface_torch computes, also in that a positive m3 makes it ignore m1
    and m2 (said in a warning here); the last it does not have. No case guards against
    θ + m2 > π, as arcface_torch does not.

    Papers: ArcFace, Deng et al., CVPR 2019 (eq. 3 and 4); CosFace, Wang et al., CVPR 2018 (eq. 4).

    Args:
        s: scale of the logits, above 0.
        m1: factor on the angle.
        m2: addition to the angle, in radians.
        m3: subtraction from the cosine.
        interclass_filtering_threshold: non-target cosines above it become logits of 0 without
            gradient, taken to be label noise; 0 keeps them all.
        gradient: ArcFace's alone. "straight_through" lets the gradient pass the margin as if it
            were not there, which is how arcface_torch trains and what its recipes are tuned
            for; "exact" is the derivative. It grows without bound as θ goes to 0 or π, so it is
            taken at a cosine at least 8 machine epsilons from ±1.

    Raises:
        PartialFCError: an unknown ``gradient``, a scale that is not positive, or a margin that is
            negative, wider than angles or cosines are apart, or multiplies angles by 0 or by more
            than 4.
    """

    def __init__(
        self,
        s: float,
        m1: float,
        m2: float,
        m3: float,
        interclass_filtering_threshold: float = 0.0,
        gradient: Gradient = "straight_through",
    ):
        super().__init__()
        if gradient not in ("straight_through", "exact"):
            raise PartialFCError(
                f"gradient must be 'straight_through' or 'exact', got {gradient!r}"
            )
        if not s > 0:
            raise PartialFCError(f"the scale s of the logits must be above 0, got {s!r}")
        if not (0 <= m2 <= math.pi and 0 <= m3 <= 2 and (m3 > 0 or 0 < m1 <= 4)):
            raise PartialFCError(
                f"margin ({m1}, {m2}, {m3}): m1 multiplies an angle, above 0 and at most 4, m2 is "
                "added to it, in radians, from 0 to pi, and m3 taken from a cosine, from 0 to 2: "
                "ArcFace has (1, 0.5, 0), CosFace (1, 0, 0.4)"
            )
        self.s, self.m1, self.m2, self.m3 = float(s), float(m1), float(m2), float(m3)
        self.interclass_filtering_threshold = interclass_filtering_threshold
        self.gradient = gradient
        if m3 > 0 and (m1, m2) != (1, 0):
            warnings.warn(
                f"margin ({m1}, {m2}, {m3}): as in arcface_torch, m3 > 0 is CosFace and ignores "
                "m1 and m2; set them to 1 and 0",
                ArcfaceCakdWarning,
                stacklevel=2,
            )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits for a softmax; the input is left as it is.

        Args:
            logits: (B, C) cosines to the C classes of this shard, floating point.
            labels: (B,) or (B, 1) int64 columns of ``logits``; -1 where the target is a class
                of another shard.

        Returns:
            (B, C), ``logits``' dtype.
        """
        if logits.shape[1] == 0:
            return logits * self.s
        labels = labels.reshape(-1, 1)
        # Index arithmetic over whole columns, for row selections would wait for the GPU.
        owned = labels >= 0
        columns = labels.clamp_min(0)
        with torch.no_grad():
            cosines = logits.gather(1, columns)
            values, slopes = self._at_targets(cosines)
            values = torch.where(owned, values, cosines)
            if slopes is not None:
                slopes = torch.where(owned, slopes, 1.0)
            dropped = None
            if self.interclass_filtering_threshold > 0:
                dropped = logits > self.interclass_filtering_threshold
                dropped.scatter_(1, columns, dropped.gather(1, columns) & ~owned)
        return _MarginLogits.apply(logits, columns, values, slopes, dropped, self.s)

    def _at_targets(self, cosines: Tensor) -> tuple[Tensor, Tensor | None]:
        """f(θ) and df/dcos θ (None: 1) at cosines (B, 1)."""
        if self.m3 > 0:
            return cosines - self.m3, None
        values = (self.m1 * cosines.clamp(-1, 1).acos() + self.m2).cos()
        if self.m1 == 1 and self.gradient == "straight_through":
            return values, None
        limit = 1 - 8 * torch.finfo(cosines.dtype).eps
        angles = cosines.clamp(-limit, limit).acos()
        return values, self.m1 * (self.m1 * angles + self.m2).sin() / angles.sin()

    def extra_repr(self) -> str:
        text = f"s={self.s}, m1={self.m1}, m2={self.m2}, m3={self.m3}, gradient={self.gradient!r}"
        if self.interclass_filtering_threshold > 0:
            text += f", interclass_filtering_threshold={self.interclass_filtering_threshold}"
        return text


class ArcFace(CombinedMarginLoss):
    """The additive angular margin: s cos(θ + margin) at the target, ``margin`` in radians."""

    def __init__(
        self, s: float = 64.0, margin: float = 0.5, gradient: Gradient = "straight_through"
    ):
        super().__init__(s, 1.0, margin, 0.0, gradient=gradient)


class CosFace(CombinedMarginLoss):
    """The additive cosine margin: s (cos θ - m) at the target."""

    def __init__(self, s: float = 64.0, m: float = 0.40):
        super().__init__(s, 1.0, 0.0, m)


class _MarginLogits(torch.autograd.Function):
    """One new matrix forward and one backward, whatever the margin does at the targets."""

    @staticmethod
    def forward(ctx, cosines, columns, values, slopes, dropped, s):
        ctx.s = s
        ctx.save_for_backward(columns, slopes, dropped)
        logits = (cosines * s).scatter_(1, columns, values * s)
        if dropped is not None:
            logits.masked_fill_(dropped, 0)
        return logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        columns, slopes, dropped = ctx.saved_tensors
        gradient = gradient * ctx.s
        if slopes is not None:
            gradient.scatter_(1, columns, gradient.gather(1, columns) * slopes)
        if dropped is not None:
            gradient.masked_fill_(dropped, 0)
        return gradient, None, None, None, None, None
