"""Rates of millions of pairs, read off the scores of one person's pairs and the highest others."""

from dataclasses import dataclass

import numpy as np

from arcface_cakd.evaluation.roc import MIN_FALSE_ACCEPTS


@dataclass(frozen=True, eq=False)
class ScoreTail:
    """Scores of genuine comparisons, and the highest of the impostor ones.

    A rate at a false accept rate below the tail's is exact: what lies further down is accepted by
    no threshold that it could need.

    Attributes:
        genuine: (G,) scores, a higher one says one person; -inf where it must not count.
        impostor: (K,) the highest impostor scores, in descending order.
        impostors: how many there are in all.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    impostors: int

    def rate_at(self, far: float) -> float | None:
        """The highest share of the genuine that is accepted while at most ``far`` of the impostors
        are; None where fewer than ten impostors may be, or the tail is too short."""
        if far * self.impostors < MIN_FALSE_ACCEPTS * (1 - 1e-12):
            return None
        return self.weighted_rate_at(
            far,
            np.ones(len(self.genuine)),
            np.ones(len(self.impostor)),
            float(self.impostors),
        )

    def threshold_at(self, far: float) -> float | None:
        """The impostor score that a genuine one must exceed at ``rate_at``; None where none need
        be exceeded, or the tail is too short."""
        beyond = int(far * self.impostors * (1 + 1e-12))
        return float(self.impostor[beyond]) if beyond < len(self.impostor) else None

    def weighted_rate_at(
        self,
        far: float,
        genuine_weights: np.ndarray,
        impostor_weights: np.ndarray,
        impostor_total: float,
    ) -> float | None:
        """``rate_at``, where each comparison counts by weight, as in resampling.

        Args:
            far: the false accept rate.
            genuine_weights: (G,) at least 0.
            impostor_weights: (K,) at least 0.
            impostor_total: weight of all impostors, also of those that are not in the tail.

        Returns:
            None where the genuine weigh nothing, or the tail is too short.
        """
        weight = genuine_weights.sum()
        if weight == 0 or impostor_total == 0:
            return None
        accepted = np.cumsum(impostor_weights)
        # Weights are whole: what rounding adds to a product must not lose a level.
        beyond = np.searchsorted(accepted, far * impostor_total * (1 + 1e-12), side="right")
        if beyond < len(self.impostor):
            taken = self.genuine > self.impostor[beyond]
        elif len(self.impostor) == self.impostors:
            taken = np.isfinite(self.genuine)
        else:
            return None
        return float(genuine_weights[taken].sum() / weight)
