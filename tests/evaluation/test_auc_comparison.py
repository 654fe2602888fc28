"""The AUCs of two methods compared: against brute force, and how often it errs."""

import itertools

import numpy as np
import pytest
from scipy import stats

from arcface_cakd.evaluation import EvaluationError, PairScores, People, auc_difference
from arcface_cakd.evaluation.auc_comparison import auc_shares, clustered_by_people


def made(seed, people=30, matched=2, different=80):
    """Pairs: ``matched`` of each person, and ``different`` of two people, some of them the same."""
    random = np.random.default_rng(seed)
    same = np.repeat(np.arange(people), matched)
    others = np.stack([random.choice(people, 2, replace=False) for _ in range(different)])
    others[-5:] = others[:5, ::-1]
    persons = np.concatenate([np.stack([same, same], axis=1), others])[
        random.permutation(people * matched + different)
    ]
    return People(persons[:, 0] == persons[:, 1], 3 * persons + 1)


def scores_of(people, seed, seeds=3, strength=0.3, digits=8):
    random = np.random.default_rng(seed)
    scores = random.normal(strength * people.issame, 0.3, (seeds, len(people.issame)))
    return np.clip(scores, -1, 1).round(digits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [8, 1])  # with 1 there are ties
def test_shares_are_placements(seed, digits):
    people = made(seed)
    scores = scores_of(people, seed, 1, digits=digits)[0]
    same = people.issame
    wins = (scores[same][:, None] > scores[~same]) + (scores[same][:, None] == scores[~same]) / 2
    expected = np.empty(len(scores))
    expected[same] = (wins.mean(axis=1) - wins.mean()) / same.sum()
    expected[~same] = (wins.mean(axis=0) - wins.mean()) / (~same).sum()
    found = auc_shares(PairScores(scores, same))
    np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_shares_say_what_another_weight_does(seed):
    """They are the AUC's derivatives by the weights of the pairs."""
    people = made(seed)
    pairs = PairScores(scores_of(people, seed, 1)[0], people.issame)
    weights = 1 + 1e-6 * np.eye(len(people.issame))
    slopes = (pairs.auc(weights) - pairs.auc()) / 1e-6
    np.testing.assert_allclose(auc_shares(pairs), slopes, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_products_of_all_pairs_that_share_a_person(seed):
    people = made(seed)
    random = np.random.default_rng(seed)
    # An effect of each person, so that the products sum to more than the squares.
    effects = random.normal(0, 1, 3 * 30 + 2)
    shares = effects[people.persons].sum(axis=1) + random.normal(0, 1, len(people.issame))
    expected = sum(
        shares[p] * shares[q]
        for p, q in itertools.product(range(len(shares)), repeat=2)
        if set(people.persons[p]) & set(people.persons[q])
    )
    assert expected > shares @ shares
    assert clustered_by_people(shares, people) == pytest.approx(expected, rel=1e-12)


def test_no_less_than_of_independent_groups():
    """Where shares of pairs that have a person in common take each other off."""
    people = People(np.zeros(3, dtype=bool), np.array([[0, 1], [1, 2], [2, 0]]))
    shares = np.array([1.0, -1.0, 0.5])
    # All share a person with all, so the products sum to (1 - 1 + 0.5)^2.
    assert clustered_by_people(shares, people) == pytest.approx(shares @ shares)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_estimate_by_hand(seeds):
    sets = [made(0), made(1, people=20, different=50)]
    ours = [scores_of(p, 7, seeds) for p in sets]
    theirs = [scores_of(p, 8, seeds, strength=0.2) for p in sets]
    aucs = np.array(
        [
            [
                [PairScores(row, p.issame).auc()[0] for row in rows]
                for rows, p in zip(m, sets, strict=True)
            ]
            for m in (ours, theirs)
        ]
    )
    by_seed = (1 - aucs[0]).mean(axis=0) - (1 - aucs[1]).mean(axis=0)
    of_people = 0.0
    for number, people in enumerate(sets):
        shares = sum(
            auc_shares(PairScores(one, people.issame))
            - auc_shares(PairScores(other, people.issame))
            for one, other in zip(ours[number], theirs[number], strict=True)
        )
        of_people += clustered_by_people(shares / seeds / 2, people)
    of_seeds = by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    freedom = (of_people + of_seeds) ** 2 / (
        of_people**2 / (29 + 19) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0)
    )
    std = np.sqrt(of_people + of_seeds)
    found = auc_difference(ours, theirs, sets)
    assert found.value == pytest.approx(by_seed.mean())
    assert found.std == pytest.approx(std)
    expected = stats.t.interval(0.95, freedom, by_seed.mean(), std)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.p == pytest.approx(2 * stats.t.cdf(-abs(by_seed.mean()) / std, freedom))
    wider = auc_difference(ours, theirs, sets, level=0.99)
    assert wider.low < found.low < found.high < wider.high
    back = auc_difference(theirs, ours, sets)
    assert (back.value, back.low, back.p) == pytest.approx((-found.value, -found.high, found.p))


def test_no_less_than_of_the_pairs_of_each_person_together():
    """Where those of two people take them off."""
    people = People(np.array([True, True, False]), np.array([[0, 0], [0, 0], [0, 1]]))
    shares = np.array([1.0, 0.5, -1.4])
    # Person 0 is on all: (1 + 0.5 - 1.4)^2, and person 1's own pair adds nothing new.
    assert clustered_by_people(shares, people) == pytest.approx(1.5**2 + 1.4**2)


def test_a_method_does_not_differ_from_itself():
    people = made(0)
    ours = scores_of(people, 1)
    found = auc_difference([ours], [ours], [people])
    assert (found.value, found.low, found.high, found.std, found.p) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_five_of_a_hundred_null_studies_find_something(seeds):
    """Methods that do not differ, with effects of people, of people and method, and of seeds."""
    random = np.random.default_rng(seeds)
    people = made(0, people=120, matched=3, different=720)
    persons = people.persons // 3

    def field(of_people, of_pairs):
        own, other = random.normal(0, of_people, (2, 120))
        effects = np.where(people.issame, own[persons[:, 0]], other[persons].sum(1) / 2**0.5)
        return effects + random.normal(0, of_pairs, len(persons))

    found, studies = 0, 400
    for _ in range(studies):
        common = 0.4 * people.issame + field(0.08, 0.1)
        ours, theirs = (
            np.clip(
                common
                + method
                + np.stack([field(0.02, 0.04) for _ in range(seeds)])
                # With one seed nothing can be said of seeds.
                + (random.normal(0, 0.01, (seeds, 1)) * people.issame if seeds > 1 else 0),
                -1,
                1,
            )
            for method in (field(0.03, 0.05), field(0.03, 0.05))
        )
        found += auc_difference([ours], [theirs], [people]).p < 0.05
    assert 0.02 < found / studies < 0.09


class TestRefusals:
    people = made(0)

    def test_nothing_varies(self):
        """All right against all level: a difference, and nothing that says how sure it is."""
        perfect = np.where(self.people.issame, 0.9, 0.1)[None]
        level = np.full_like(perfect, 0.5)
        with pytest.raises(EvaluationError, match="places all pairs of a kind alike"):
            auc_difference([perfect], [level], [self.people])

    @pytest.mark.parametrize("seed", range(5))
    def test_people_whose_shares_cancel(self, seed):
        """All pairs of one person of the same, all of two of the same two: what is left of their
        products is of rounding."""
        issame = np.array([True, False] * 10)
        people = People(issame, np.stack([np.zeros(20, int), np.where(issame, 0, 1)], 1))
        ours, theirs = np.random.default_rng(seed).uniform(-1, 1, (2, 1, 20))
        with pytest.raises(EvaluationError, match="no standard error"):
            auc_difference([ours], [theirs], [people])

    @pytest.mark.parametrize(
        ("ours", "theirs", "sets"),
        [
            ([scores_of(people, 0, 3)], [scores_of(people, 0, 2)], [people]),
            ([scores_of(people, 0, 3)[:, :-1]], [scores_of(people, 0, 3)], [people]),
            ([scores_of(people, 0, 3)], [scores_of(people, 0, 1)], [people]),
            ([scores_of(people, 0, 3)] * 2, [scores_of(people, 0, 3)], [people]),
            ([], [], []),
        ],
    )
    def test_scores_that_do_not_fit(self, ours, theirs, sets):
        with pytest.raises(EvaluationError, match=r"must both be \(S, P\)"):
            auc_difference(ours, theirs, sets)
