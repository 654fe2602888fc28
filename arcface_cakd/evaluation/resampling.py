"""How far a figure on pairs may be trusted: people and seeds drawn again, methods compared paired.

Pairs of one set are not independent: a person stands in many of them. So people are drawn, not
pairs: with replacement, as many as there are, and a pair of two people counts as the product of
how often each was drawn, a pair of one person as often as that person was. This is the pigeonhole
bootstrap of Owen ("The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007; Owen &
Eckles, "Bootstrapping data arrays of arbitrary order", ibid. 6(3), 2012) with one set of draws for
both sides of a pair, since both are people of one population, as the vertex bootstrap of Snijders
& Borgatti (Connections 22(2), 1999) has it. No bootstrap of such arrays is exact (McCullagh,
Bernoulli 6(2), 2000); this one errs on the safe side, as Owen shows: of the variance, the part that
belongs to single pairs of two people comes out up to three times as large.

Trained networks differ by their seed too. Seeds are drawn with the people, one fewer than there
are, for at S draws the variance of a mean over S seeds would come out (S - 1) / S of what it is
(McCarthy & Snowden, "The bootstrap and finite population sampling", 1985). A few seeds make an
interval that is too short rather than too long, and one seed says nothing of seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.pair_scores import PairScores

Figure = Callable[[PairScores, np.ndarray | None], np.ndarray]
_AT_ONCE = 100  # draws whose weights are in memory


@dataclass(frozen=True, eq=False)
class People:
    """Who is on the pairs of a verification set.

    Attributes:
        issame: (P,) bool, whether a pair shows one person.
        persons: (P, 2) int, a number for each person.

    Raises:
        EvaluationError: shapes that differ, or persons that contradict ``issame``.
    """

    issame: np.ndarray
    persons: np.ndarray
    drawn: ClassVar[str] = "people"

    def __post_init__(self):
        if self.persons.shape != (len(self.issame), 2):
            raise EvaluationError(
                f"persons must be ({len(self.issame)}, 2), two for each pair, got "
                f"{self.persons.shape}"
            )
        wrong = np.flatnonzero((self.persons[:, 0] == self.persons[:, 1]) != self.issame)
        if len(wrong):
            raise EvaluationError(
                f"pair {wrong[0]} and {len(wrong) - 1} others: issame contradicts who is on them"
            )

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Weights (draws, P) of the pairs, people drawn with replacement."""
        names, persons = np.unique(self.persons, return_inverse=True)
        persons = persons.reshape(self.persons.shape)
        count = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        one, other = count[:, persons[:, 0]], count[:, persons[:, 1]]
        return np.where(self.issame, one, one * other).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a set that does not say who is on them: they are drawn themselves.

    What people do to the spread of a figure is then left out: such an interval is too short where
    a person stands in many pairs.

    Attributes:
        issame: (P,) bool, whether a pair shows one person.
    """

    issame: np.ndarray
    drawn: ClassVar[str] = "pairs"

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Weights (draws, P) of the pairs, drawn with replacement."""
        count = len(self.issame)
        return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Resampled:
    """A figure of one method, a column for each seed.

    Attributes:
        values: (S,) on the set as it is.
        draws: (B, S) on each draw of people.
        shares: (B, S) what each seed counts in each draw; rows sum to 1.
    """

    values: np.ndarray
    draws: np.ndarray
    shares: np.ndarray

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.values.mean())

    @property
    def drawn(self) -> np.ndarray:
        """(B,) the mean over the seeds that were drawn, on each draw of people."""
        return (self.draws * self.shares).sum(axis=1)


class Bootstrap:
    """Draws of people and seeds that are the same for every method that is looked at.

    Args:
        sets: who is on the pairs of each verification set, or the pairs where nobody says so; a
            figure is the mean over the sets. People of one set are taken for others than those of
            another.
        draws: B.
        seed: of the draws.
    """

    def __init__(self, sets: Sequence[People | Pairs], draws: int = 2000, seed: int = 0):
        self.sets = list(sets)
        self.draws = draws
        self._seed = seed

    def resample(self, scores: Sequence[np.ndarray], figure: Figure) -> Resampled:
        """A figure of one method.

        Args:
            scores: (S, P) cosines for each set, a row for each seed; seeds in the same order for
                methods that are to be compared.
            figure: such as ``one_minus_auc``.

        Raises:
            EvaluationError: scores that do not fit the sets, or so few people that a draw holds
                pairs of one kind only.
        """
        if len(scores) != len(self.sets) or len({len(rows) for rows in scores}) != 1:
            raise EvaluationError(
                f"scores of {[np.shape(rows) for rows in scores]} must be (S, P) for each of "
                f"{len(self.sets)} sets"
            )
        seeds = len(scores[0])
        values, draws = np.zeros(seeds), np.zeros((self.draws, seeds))
        for number, (people, rows) in enumerate(zip(self.sets, scores, strict=True)):
            judged = [PairScores(row, people.issame) for row in rows]
            values += [float(figure(pairs, None)[0]) for pairs in judged]
            rng = np.random.default_rng([self._seed, number])
            for start in range(0, self.draws, _AT_ONCE):
                weights = people.draw(min(_AT_ONCE, self.draws - start), rng)
                for kind in (people.issame, ~people.issame):
                    if not weights[:, kind].sum(axis=1).all():
                        which = f"set {number}: " if len(self.sets) > 1 else ""
                        raise EvaluationError(
                            f"{which}too few {people.drawn}: a draw held pairs of one kind only"
                        )
                for column, pairs in enumerate(judged):
                    draws[start : start + len(weights), column] += figure(pairs, weights)
        rng = np.random.default_rng([self._seed, len(self.sets)])
        return Resampled(
            values / len(scores), draws / len(scores), seed_shares(seeds, self.draws, rng)
        )


def seed_shares(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, seeds): S - 1 of S seeds drawn with replacement, as shares; one seed counts fully."""
    taken = max(seeds - 1, 1)
    return rng.multinomial(taken, np.full(seeds, 1 / seeds), size=draws) / taken


def one_minus_auc(pairs: PairScores, weights: np.ndarray | None = None) -> np.ndarray:
    """1 - AUC: how often a pair of two people scores above one of one person."""
    return 1 - pairs.auc(weights)


def accuracy(pairs: PairScores, weights: np.ndarray | None = None) -> np.ndarray:
    """``PairScores.accuracy``."""
    return pairs.accuracy(weights)


def tar_at_one_percent(pairs: PairScores, weights: np.ndarray | None = None) -> np.ndarray:
    """TAR at FAR = 0.01."""
    return pairs.tar_at(0.01, weights)
