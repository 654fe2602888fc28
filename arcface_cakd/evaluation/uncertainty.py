"""How far a protocol's figure may be trusted: the interval of one set and one model."""

from collections.abc import Callable

import numpy as np

from arcface_cakd.evaluation.comparison import LEVEL, estimate
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.resampling import Bootstrap, Figure, Pairs, People

DRAWS = 1000


def interval(values: np.ndarray, drawn: str, level: float = LEVEL) -> Interval | None:
    """The interval of a figure, from its values (B,) on the draws.

    None where there are no draws, or one of them has no figure: too few people to draw again.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    found = estimate(float(values.mean()), values, level)
    return Interval(found.low, found.high, level, drawn)


def pair_interval(
    scores: np.ndarray, who: People | Pairs, figure: Figure, draws: int = DRAWS
) -> Interval | None:
    """The interval of a figure on pairs, by ``Bootstrap``.

    Args:
        scores: (P,) cosines.
        who: is on the pairs; ``Pairs`` where nobody says so.
        figure: such as ``accuracy``.
        draws: how many; 0: None is returned.
    """
    values = pair_draws(scores, who, figure, draws)
    return None if values is None else interval(values, who.drawn)


def pair_draws(
    scores: np.ndarray, who: People | Pairs, figure: Figure, draws: int
) -> np.ndarray | None:
    """A figure on each draw (B,); None for no draws, or where there are too few people."""
    if draws == 0:
        return None
    try:
        return Bootstrap([who], draws).resample([scores[None]], figure).draws[:, 0]
    except EvaluationError:  # a draw held pairs of one kind only
        return None


def person_draws(
    people: int, figure: Callable[[np.ndarray], float | None], draws: int, seed: int = 0
) -> np.ndarray:
    """A figure on draws of people with replacement: (B,), NaN where a draw has none.

    Args:
        people: how many there are.
        figure: of counts (N,), how often each of them was drawn.
        draws: B.
        seed: of the draws; the same people are drawn for every figure and model.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(people, 1 / people)
    values = np.full(draws, np.nan)
    for draw in range(draws):
        value = figure(rng.multinomial(people, shares))
        if value is not None:
            values[draw] = value
    return values
