"""How far a protocol's figure may be trusted: the interval of one set and one model."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from arcface_cakd.evaluation.comparison import LEVEL, estimate
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.resampling import Bootstrap, Figure, Pairs, People

DRAWS = 1000
Name = TypeVar("Name", bound=Hashable)


def interval(values: np.ndarray, drawn: str, level: float = LEVEL) -> Interval:
    """The interval of a figure, from its values (B,) on the draws.

    Raises:
        EvaluationError: a draw has no figure, or there is one draw alone.
    """
    if len(values) < 2:
        raise EvaluationError("one draw has no interval: take more draws")
    lacking = np.count_nonzero(~np.isfinite(values))
    if lacking:
        raise EvaluationError(f"too few {drawn}: {lacking} of {len(values)} draws have no figure")
    found = estimate(float(values.mean()), values, level)
    return Interval(found.low, found.high, level, drawn)


def figure_intervals(
    figures: Mapping[Name, float | None], values: np.ndarray
) -> tuple[dict[Name, Interval | None], dict[Name, str]]:
    """The intervals of figures, people drawn again, and why a figure has none.

    Args:
        figures: F of them, by name; one that is None has no interval, and needs no reason.
        values: (B, F), theirs on the draws: what ``person_draws`` gives.

    Returns:
        intervals, and reasons of those that are None though their figures are not.
    """
    found: dict[Name, Interval | None] = dict.fromkeys(figures)
    reasons: dict[Name, str] = {}
    for (name, figure), column in zip(figures.items(), values.T, strict=True):
        if figure is None:
            continue
        try:
            found[name] = interval(column, "people")
        except EvaluationError as error:
            reasons[name] = str(error)
    return found, reasons


def pair_interval(
    scores: np.ndarray, who: People | Pairs, figure: Figure, draws: int = DRAWS
) -> Interval | None:
    """The interval of a figure on pairs, by ``Bootstrap``.

    Args:
        scores: (P,) cosines.
        who: is on the pairs; ``Pairs`` where nobody says so.
        figure: such as ``accuracy``.
        draws: how many; 0: None is returned.

    Raises:
        EvaluationError: see ``pair_draws``.
    """
    values = pair_draws(scores, who, figure, draws)
    return None if values is None else interval(values, who.drawn)


def pair_draws(
    scores: np.ndarray, who: People | Pairs, figure: Figure, draws: int, seed: int = 0
) -> np.ndarray | None:
    """A figure on each draw (B,); None for no draws.

    Args:
        scores, who, figure, draws: as ``pair_interval`` takes them.
        seed: of the draws; another one for another set of people.

    Raises:
        EvaluationError: too few people: a draw held pairs of one kind only.
    """
    if draws == 0:
        return None
    return Bootstrap([who], draws, seed).resample([scores[None]], figure).draws[:, 0]


def person_draws(
    people: int,
    figures: Callable[[np.ndarray], Sequence[float | None]],
    draws: int,
    seed: int = 0,
) -> np.ndarray:
    """Figures on draws of people with replacement: (B, F), NaN where a draw has none.

    Args:
        people: how many there are, N.
        figures: F of them, of counts (N,), how often each person was drawn.
        draws: B, at least 1.
        seed: of the draws; the same people are drawn for every model.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(people, 1 / people)
    rows = [figures(rng.multinomial(people, shares)) for _ in range(draws)]
    return np.array(rows, dtype=np.float64)  # which makes NaN of None
