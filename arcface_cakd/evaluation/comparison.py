"""Two methods compared: intervals, p values, and what could not have been seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.resampling import Resampled

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: on the set as it is, the mean over seeds.
        low: end of the interval, and ``high`` the other.
        high: see ``low``.
        std: the standard error of ``value``.
        p: two-sided p value of the hypothesis that the figure is 0.
    """

    value: float
    low: float
    high: float
    std: float
    p: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def estimate(value: float, drawn: np.ndarray, level: float = LEVEL) -> Estimate:
    """A figure with its percentile interval, from its values (B,) on the draws.

    ``std`` is the standard deviation over the draws; ``p`` goes by the percentile intervals that
    leave 0 out: (1 + draws on the rarer side of 0) / (1 + draws), doubled.

    Raises:
        EvaluationError: a draw is not finite, as where the gap of ``gap_closed`` is 0 in one.
    """
    if not np.isfinite(drawn).all():
        raise EvaluationError(
            f"{np.count_nonzero(~np.isfinite(drawn))} of {len(drawn)} draws have no figure: "
            "there are too few people, or no difference to divide by"
        )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    rarer = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Estimate(
        value=float(value),
        low=float(low),
        high=float(high),
        std=float(drawn.std(ddof=1)),
        p=min(1.0, 2 * (1 + rarer) / (1 + len(drawn))),
    )


def difference(ours: Resampled, theirs: Resampled, level: float = LEVEL) -> Estimate:
    """``ours`` less ``theirs``, on the same people and seeds in each draw.

    Raises:
        EvaluationError: the seeds differ in number.
    """
    if ours.draws.shape != theirs.draws.shape:
        raise EvaluationError(
            f"{ours.draws.shape[1]} seeds cannot be paired with {theirs.draws.shape[1]}, nor "
            f"{len(ours.draws)} draws with {len(theirs.draws)}: compare the seeds that both have"
        )
    return estimate(ours.mean - theirs.mean, ours.drawn - theirs.drawn, level)


def gap_closed(
    method: Resampled, plain: Resampled, teacher: Resampled, level: float = LEVEL
) -> Estimate:
    """The share of the way from the plain student to the teacher that a method goes.

    0 is the plain student, 1 the teacher; the same people in each draw. ``plain`` has the seeds
    of ``method``; the teacher may have one only.
    """

    def share(ours, lowest, highest):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(ours - lowest, highest - lowest)

    value = share(method.mean, plain.mean, teacher.mean)
    return estimate(float(value), share(method.drawn, plain.drawn, teacher.drawn), level)


def smallest_detectable(std: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided test at ``alpha`` would see with chance ``power``.

    (z(1 - alpha / 2) + z(power)) standard errors, by the normal approximation.

    Args:
        std: the standard error of the difference, as ``Estimate.std``.
        alpha: level of the test; for m hypotheses under Holm at worst 0.05 / m.
        power: chance to see it.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * std


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for how many hypotheses there are, by their names.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6(2), 1979: a hypothesis is rejected at level alpha where its adjusted value is at
    most alpha, and the chance of any false rejection is then at most alpha.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for done, name in enumerate(sorted(p_values, key=lambda n: (p_values[n], n))):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
