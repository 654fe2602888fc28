"""The piecewise index function (PIF) of iRPE: from a distance to a row of a table."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arcface_cakd.config import ConfigError


@dataclass(frozen=True)
class PIFSettings:
    """Constants of the piecewise index function, for unsigned distances.

    Distances are in units of ``geometry.UNIT``, one step of the 7x7 grid. iRPE's published
    1.9, 3.8, 15.2 leaves 4 rows, too few for a face; see ``spread`` for the default.

    Attributes:
        alpha: up to here a distance is rounded: one row per unit.
        beta: largest index; the table has floor(beta) + 1 rows.
        gamma: the distance at which the logarithmic part reaches beta.

    Raises:
        ConfigError: not 0 < alpha < gamma, or beta below round(alpha), the last linear row.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self):
        if not 0 < self.alpha < self.gamma:
            raise ConfigError(
                f"urfm.pif: alpha {self.alpha:g} and gamma {self.gamma:g} must satisfy "
                "0 < alpha < gamma"
            )
        if math.floor(self.beta) < round(self.alpha):
            raise ConfigError(
                f"urfm.pif: beta {self.beta:g} leaves {math.floor(self.beta) + 1} rows, but "
                f"distances up to alpha {self.alpha:g} need {round(self.alpha) + 1}: raise beta "
                "or lower alpha"
            )

    @property
    def rows(self) -> int:
        """Rows that a table of unsigned distances needs."""
        return math.floor(self.beta) + 1

    @classmethod
    def spread(cls, distance: Tensor) -> "PIFSettings":
        """Constants that spread these distances over the rows (a choice of this project).

        Rounding up to the first decile of the distances (at least half a unit); from there
        logarithmic up to the largest distance, with 1.5 rows per unit of the distances' range.
        On the 7x7 grid no row then holds a third of the patches, whatever the facial distance
        and the anchor.

        Args:
            distance: every distance in use, any shape, non-negative, in units.
        """
        distance = distance.double().flatten()
        largest = distance.max().item()
        alpha = max(distance.quantile(0.1).item(), 0.5)
        rows = max(1.0, 1.5 * (largest - distance.min().item()))
        return cls(alpha=alpha, beta=float(math.ceil(alpha + rows)), gamma=max(largest, 2 * alpha))

    def __call__(self, distance: Tensor) -> Tensor:
        """``piecewise_index`` of ``distance`` with these constants."""
        return piecewise_index(distance, self.alpha, self.beta, self.gamma)


def piecewise_index(distance: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """The piecewise index function of iRPE (Wu et al., ICCV 2021, eq. 18).

    g(x) = round(x) where \\|x\\| <= alpha, else
    sign(x) min(beta, round(alpha + ln(\\|x\\| / alpha) / ln(gamma / alpha) (beta - alpha))),
    truncated to an integer after beta has clipped it, as the published code does: a beta of 3.8
    gives at most 3. Halves round to even.

    Args:
        distance: floating point, any shape; signed or not.

    Returns:
        int64 of the same shape, from -floor(beta) to floor(beta).
    """
    magnitude = distance.abs()
    octaves = torch.log(magnitude.clamp(min=alpha) / alpha) / math.log(gamma / alpha)
    far = (alpha + octaves * (beta - alpha)).round().clamp(max=beta)
    index = torch.where(magnitude <= alpha, magnitude.round(), far)
    return (distance.sign() * index).long()
