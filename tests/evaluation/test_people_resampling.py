import numpy as np
import pytest

from arcface_cakd.evaluation import (
    Bootstrap,
    EvaluationError,
    PairScores,
    People,
    accuracy,
    one_minus_auc,
    seed_shares,
    tar_at_one_percent,
)


def made(seed=0, people=30, matched=2, different=80):
    """Pairs: ``matched`` of each person, and ``different`` of two people."""
    random = np.random.default_rng(seed)
    same = np.repeat(np.arange(people), matched)
    others = np.stack([random.choice(people, 2, replace=False) for _ in range(different)])
    persons = np.concatenate([np.stack([same, same], axis=1), others])
    order = random.permutation(len(persons))
    persons = persons[order]
    return People(persons[:, 0] == persons[:, 1], persons)


def scores_of(people, seed, seeds=3):
    random = np.random.default_rng(seed)
    return np.clip(random.normal(0.3 * people.issame, 0.3, (seeds, len(people.issame))), -1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_counts_pairs_as_often_as_its_people(seed):
    """By listing the people that were drawn, each copy by itself."""
    people = made(seed, people=12, different=30)
    people = People(people.issame, people.persons * 7 + 5)  # numbers need not be dense
    weights = people.draw(5, np.random.default_rng(seed))
    counts = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=5)
    for row, count in zip(weights, counts, strict=True):
        crowd = [7 * person + 5 for person in range(12) for _ in range(count[person])]
        for weight, (one, other) in zip(row, people.persons, strict=True):
            copies = sum(p == one for p in crowd)
            if one != other:  # each copy of the one meets each copy of the other
                copies = sum(p == one and q == other for p in crowd for q in crowd)
            assert weight == copies


@pytest.mark.parametrize("figure", [one_minus_auc, accuracy, tar_at_one_percent])
def test_each_draw_is_the_figure_on_its_weights(figure):
    sets = [made(1, different=110), made(2, people=25, different=120)]
    scores = [scores_of(people, 3 + k) for k, people in enumerate(sets)]
    found = Bootstrap(sets, draws=230, seed=4).resample(scores, figure)
    assert (found.values.shape, found.draws.shape, found.shares.shape) == ((3,), *[(230, 3)] * 2)
    for column in range(3):
        values, draws = [], []
        for number, people in enumerate(sets):
            pairs = PairScores(scores[number][column], people.issame)
            rng = np.random.default_rng([4, number])
            weights = np.concatenate([people.draw(n, rng) for n in (100, 100, 30)])
            values.append(figure(pairs, None)[0])
            draws.append(np.array([figure(pairs, row[None])[0] for row in weights]))
        assert found.values[column] == pytest.approx(np.mean(values), abs=1e-12)
        np.testing.assert_allclose(found.draws[:, column], np.mean(draws, axis=0), atol=1e-12)
    assert found.mean == pytest.approx(found.values.mean())
    np.testing.assert_allclose(found.drawn, (found.draws * found.shares).sum(1))


def test_methods_meet_the_same_draws():
    people = made()
    scores = scores_of(people, 0)
    bootstrap = Bootstrap([people], draws=50)
    one, other = (bootstrap.resample([scores], one_minus_auc) for _ in range(2))
    np.testing.assert_array_equal(one.draws, other.draws)
    np.testing.assert_array_equal(one.shares, other.shares)
    again = Bootstrap([people], draws=50, seed=1).resample([scores], one_minus_auc)
    assert not np.array_equal(one.draws, again.draws)


def test_the_spread_over_people_is_the_standard_error():
    """Of a figure whose variance is known: the mean score of matched pairs, one a person."""
    people = made(people=80, matched=1, different=160)
    scores = scores_of(people, 5, seeds=1)

    def mean_of_matched(pairs, weights):
        weights = np.ones((1, len(pairs.scores))) if weights is None else weights
        matched = weights[:, pairs.issame]
        return matched @ pairs.scores[pairs.issame] / matched.sum(axis=1)

    found = Bootstrap([people], draws=4000).resample([scores], mean_of_matched)
    own = scores[0][people.issame]
    assert found.draws.std() == pytest.approx(own.std() / np.sqrt(len(own)), rel=0.05)


def test_pairs_of_two_people_share_what_their_people_bring():
    """Scores that are a sum over the two people: drawing pairs would miss most of the spread."""
    random = np.random.default_rng(0)
    own = random.normal(0, 0.1, 40)
    both = np.stack(np.triu_indices(40, 1), axis=1)
    same = np.stack([np.arange(40)] * 2, axis=1)
    persons = np.concatenate([both, same])
    people = People(persons[:, 0] == persons[:, 1], persons)
    scores = own[persons].sum(axis=1)

    def mean_of_different(pairs, weights):
        weights = np.ones((1, len(pairs.scores))) if weights is None else weights
        different = weights[:, ~pairs.issame]
        return different @ pairs.scores[~pairs.issame] / different.sum(axis=1)

    found = Bootstrap([people], draws=3000).resample([scores[None]], mean_of_different)
    known = 2 * own.std() / np.sqrt(40)  # the mean over all pairs is twice the mean over people
    assert found.draws.std() == pytest.approx(known, rel=0.1)
    by_pairs = scores[~people.issame].std() / np.sqrt(len(both))
    assert found.draws.std() > 3 * by_pairs


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_spread_over_seeds_is_the_standard_error(seeds):
    shares = seed_shares(seeds, 40000, np.random.default_rng(0))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    values = np.random.default_rng(seeds).normal(size=seeds)
    expected = values.std(ddof=1) / np.sqrt(seeds)
    assert (shares @ values).std() == pytest.approx(expected, rel=0.03)


def test_one_seed_counts_fully():
    assert np.all(seed_shares(1, 10, np.random.default_rng(0)) == 1)


def test_what_cannot_be_resampled():
    people = made()
    with pytest.raises(EvaluationError, match=r"persons must be \(140, 2\)"):
        People(people.issame, people.persons[:-1])
    with pytest.raises(EvaluationError, match="issame contradicts who is on them"):
        People(~people.issame, people.persons)
    with pytest.raises(EvaluationError, match="for each of 1 sets"):
        Bootstrap([people]).resample([scores_of(people, 0)] * 2, one_minus_auc)
    couple = np.array([[0, 0]] * 10 + [[0, 1]] * 10)
    few = People(couple[:, 0] == couple[:, 1], couple)
    with pytest.raises(EvaluationError, match="too few people"):
        Bootstrap([few]).resample([scores_of(few, 0)], one_minus_auc)
