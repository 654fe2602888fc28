"""Intervals of single figures: whom they draw, and that they hold what they should."""

import numpy as np
import pytest

from arcface_cakd.evaluation import EvaluationError, Pairs, People, accuracy
from arcface_cakd.evaluation.uncertainty import (
    figure_intervals,
    interval,
    pair_draws,
    pair_interval,
    person_draws,
)


def made(seed, pairs):
    random = np.random.default_rng(seed)
    issame = random.random(pairs) < 0.5
    return np.clip(random.normal(np.where(issame, 0.4, 0.1), 0.2), -1, 1), issame


def test_pairs_are_drawn_with_replacement_each_as_often_as_any():
    weights = Pairs(np.arange(30) % 2 == 0).draw(4000, np.random.default_rng(1))
    assert (weights.sum(axis=1) == 30).all() and weights.min() == 0
    # A multinomial count of 30 draws at 1/30 each: mean 1, variance 29/30.
    assert weights.mean(axis=0) == pytest.approx(np.ones(30), abs=0.08)
    assert weights.var(axis=0) == pytest.approx(np.full(30, 29 / 30), abs=0.15)


def test_the_interval_is_the_percentiles_of_the_draws():
    values = np.random.default_rng(2).normal(size=501)
    found = interval(values, "people", 0.9)
    assert (found.low, found.high) == tuple(np.quantile(values, [0.05, 0.95]))
    assert (found.level, found.drawn) == (0.9, "people")
    with pytest.raises(EvaluationError, match=r"^too few people: 1 of 502 draws have no figure$"):
        interval(np.append(values, np.nan), "people")


def test_what_has_no_interval_says_why():
    values = np.stack([np.arange(200.0)] * 3, axis=1)
    values[7:9, 1] = np.nan
    found, reasons = figure_intervals({"a": 0.5, "b": 0.5, "c": None}, values)
    assert found["a"] == interval(values[:, 0], "people") and found["b"] is found["c"] is None
    assert reasons == {"b": "too few people: 2 of 200 draws have no figure"}


def test_the_interval_of_independent_pairs_is_as_wide_as_the_binomial_says():
    scores, issame = made(3, 2000)
    found = pair_interval(scores, Pairs(issame), accuracy, 300)
    rate = float(np.mean((2 - 2 * scores < 1.5) == issame))  # near enough to the best threshold
    assert found.drawn == "pairs"
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * np.sqrt(rate * (1 - rate) / 2000), rel=0.25
    )


def test_people_in_many_pairs_make_it_wider():
    """Two people make all mistakes: pairs drawn again hide how much hangs on them."""
    persons = np.array(
        [[k % 20, k % 20] for k in range(200)] + [[k, k + 1] for k in range(20)] * 10
    )
    issame = persons[:, 0] == persons[:, 1]
    scores = np.where(issame, np.where(persons[:, 0] < 4, -0.5, 0.9), 0.0)
    people = pair_interval(scores, People(issame, persons), accuracy, 200)
    pairs = pair_interval(scores, Pairs(issame), accuracy, 200)
    assert people.drawn == "people"
    assert people.high - people.low > 1.5 * (pairs.high - pairs.low)


def test_no_draws_or_too_few_people_give_no_interval():
    scores, issame = made(4, 40)
    assert pair_interval(scores, Pairs(issame), accuracy, 0) is None
    lone = np.arange(40) == 7  # nearly every third draw leaves out the only pair of one person
    with pytest.raises(
        EvaluationError, match=r"^too few pairs: a draw held pairs of one kind only"
    ):
        pair_draws(scores, Pairs(lone), accuracy, 50)


def test_a_figure_of_people_counts_each_as_often_as_drawn():
    seen = []
    values = person_draws(5, lambda counts: seen.append(counts) or float(counts[0]), 20)
    assert len(values) == 20 and all(counts.sum() == 5 for counts in seen)
    assert values.tolist() == [counts[0] for counts in seen]
    assert (person_draws(5, lambda counts: float(counts[0]), 20) == values).all()
    assert np.isnan(person_draws(5, lambda counts: None, 3)).all()
