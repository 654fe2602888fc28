"""Two methods' AUC compared, with a standard error in closed form.

What each pair adds to an AUC is its placement among the pairs of the other kind (DeLong, DeLong &
Clarke-Pearson, Biometrics 44(3), 1988). Pairs that share a person are not independent, so their
products count in the variance of a sum as well as their squares: the estimator for dyads of
Fafchamps & Gubert (Journal of Development Economics 83(2), 2007) and Aronow, Samii & Assenova
(Political Analysis 23(4), 2015). Nor are the pairs that one trained network judged: the variance
of the mean over seeds is added. What belongs to a person and a seed at once is then in both parts
and could be taken off (Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 29(2),
2011); it is not, which errs on the safe side and keeps both parts above zero. Degrees of freedom
are those of Satterthwaite (Biometrics Bulletin 2(6), 1946), as few seeds make an uncertain part.

This is of the AUC alone; the bootstrap of ``resampling.py`` is of every figure, and its intervals
are too wide where single pairs vary and too narrow where few seeds do. In simulated studies of
methods that do not differ, on the pairs of LFW, p lay below 0.05 in 3 to 7 of 100 by this, in 1 to
16 by that (``eval/study/error_rates.py``).
"""

from collections.abc import Sequence

import numpy as np

from arcface_cakd.evaluation.comparison import LEVEL, Estimate
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.pair_scores import PairScores
from arcface_cakd.evaluation.resampling import People


def auc_difference(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    sets: Sequence[People],
    level: float = LEVEL,
) -> Estimate:
    """1 - AUC of one method less that of another, the mean over seeds and sets.

    With one seed the interval is of people alone.

    Args:
        ours: (S, P) cosines for each set, a row for each seed.
        theirs: the same of the other method, its seeds in the same order.
        sets: who is on the pairs. People of one set are taken for others than those of another.
        level: of the interval.

    Raises:
        EvaluationError: scores that do not fit the sets or each other, or methods that differ
            and of which each places all pairs of a kind alike, so that nothing says how surely.
    """
    seeds = len(ours[0]) if len(ours) else 0
    expected = [(seeds, len(people.issame)) for people in sets]
    shapes = [[np.shape(rows) for rows in each] for each in (ours, theirs)]
    if not seeds or shapes != [expected, expected]:
        raise EvaluationError(
            f"scores of {shapes[0]} and {shapes[1]} must both be (S, P), for each of {len(sets)} "
            "sets, the seeds those that both methods have"
        )
    by_seed, of_people, persons = np.zeros(seeds), 0.0, 0
    for rows, others, people in zip(ours, theirs, sets, strict=True):
        shares = np.zeros(len(people.issame))
        for seed in range(seeds):
            one = PairScores(rows[seed], people.issame)
            other = PairScores(others[seed], people.issame)
            by_seed[seed] += (other.auc()[0] - one.auc()[0]) / len(sets)
            shares += (auc_shares(other) - auc_shares(one)) / seeds / len(sets)
        of_people += clustered_by_people(shares, people)
        persons += len(np.unique(people.persons)) - 1
    of_seeds = float(by_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    return _estimate(float(by_seed.mean()), of_people, persons, of_seeds, seeds - 1, level)


def auc_shares(pairs: PairScores) -> np.ndarray:
    """(P,) float64: what each pair adds to the AUC of another draw of pairs; they sum to 0.

    A pair's placement is the share of the other kind that it is on the right side of, ties
    counting half. Its share is that less the AUC, divided by how many there are of its kind.
    """
    scores, issame = pairs.scores, pairs.issame
    shares = np.empty(len(scores))
    for kind, right_above in ((issame, True), (~issame, False)):
        others = np.sort(scores[~kind])
        below = sum(np.searchsorted(others, scores[kind], side) for side in ("left", "right"))
        placed = below / (2 * len(others))
        placed = placed if right_above else 1 - placed
        shares[kind] = (placed - placed.mean()) / np.count_nonzero(kind)
    return shares


def clustered_by_people(shares: np.ndarray, people: People) -> float:
    """The variance of a sum over pairs: products of all pairs that have a person in common.

    No less than that of groups which are independent: of the pairs of one person, and of the
    same two people.

    Args:
        shares: (P,) what each pair adds, which sum to 0.
        people: who is on them.
    """
    names, persons = np.unique(people.persons, return_inverse=True)
    one, other = persons.reshape(people.persons.shape).T
    two = ~people.issame
    sums = np.bincount(one, shares, len(names)) + np.bincount(other[two], shares[two], len(names))
    couples = np.minimum(one, other) * len(names) + np.maximum(one, other)
    together = [
        np.bincount(np.unique(couples[kind], return_inverse=True)[1], shares[kind])
        for kind in (two, people.issame)
    ]
    # Pairs of the same two people have both in common and were counted with each.
    found = sums @ sums - together[0] @ together[0]
    return float(max(found, *[sum(t @ t for t in together)]))


def _estimate(
    value: float, of_people: float, persons: int, of_seeds: float, seeds: int, level: float
) -> Estimate:
    """With Student's t; ``persons`` and ``seeds`` are the parts' degrees of freedom."""
    from scipy.stats import t as student

    variance = of_people + of_seeds
    if variance**0.5 <= 1e-12 * abs(value) and value:  # what rounding leaves is no error
        raise EvaluationError(
            "each method places all pairs of a kind alike: the difference has no standard error"
        )
    if variance == 0:  # a method and itself
        return Estimate(0.0, 0.0, 0.0, 0.0, 1.0)
    uncertain = of_people**2 / persons + (of_seeds**2 / seeds if seeds else 0.0)
    distribution = student(variance**2 / uncertain)
    std = variance**0.5
    reach = float(distribution.ppf((1 + level) / 2)) * std
    p = float(2 * distribution.sf(abs(value) / std))
    return Estimate(value, value - reach, value + reach, std, p)
