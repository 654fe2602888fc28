import itertools
import math

import numpy as np
import pytest

from arcface_cakd.evaluation import (
    EvaluationError,
    Resampled,
    difference,
    estimate,
    gap_closed,
    holm,
    smallest_detectable,
)


def resampled(seed, mean, seeds=3, draws=999):
    random = np.random.default_rng(seed)
    shares = np.random.default_rng(7).multinomial(2, np.full(seeds, 1 / seeds), draws) / 2
    return Resampled(
        random.normal(mean, 0.01, seeds), random.normal(mean, 0.02, (draws, seeds)), shares
    )


def test_difference_draw_by_draw():
    ours, theirs = resampled(0, 0.05), resampled(1, 0.06)
    found = difference(ours, theirs)
    drawn = []
    for b in range(999):
        drawn.append(sum(ours.shares[b, s] * ours.draws[b, s] for s in range(3)))
        drawn[-1] -= sum(theirs.shares[b, s] * theirs.draws[b, s] for s in range(3))
    drawn.sort()
    assert found.value == pytest.approx(ours.values.mean() - theirs.values.mean())
    # Of 999 values in order, the quantiles 0.025 and 0.975 lie at 24.95 and 973.05.
    assert found.low == pytest.approx(drawn[24] + 0.95 * (drawn[25] - drawn[24]))
    assert found.high == pytest.approx(drawn[973] + 0.05 * (drawn[974] - drawn[973]))
    assert found.std == pytest.approx(
        math.sqrt(sum((d - np.mean(drawn)) ** 2 for d in drawn) / 998)
    )
    below = sum(d <= 0 for d in drawn)
    assert found.p == pytest.approx(2 * (1 + min(below, 999 - below)) / 1000)
    assert found.excludes_zero == (found.low > 0 or found.high < 0)


def test_p_value_and_interval_agree():
    """The 95 % interval leaves 0 out where p is below 0.05."""
    for shift in np.linspace(-0.08, 0.08, 41):
        found = estimate(shift, np.random.default_rng(0).normal(shift, 0.02, 3999))
        assert found.excludes_zero == (found.p < 0.05)
        assert 0 < found.p <= 1


def test_a_test_at_five_percent_errs_in_five_of_a_hundred():
    """Of normal means, resampled, none of which differs from 0."""
    random = np.random.default_rng(0)
    errors = 0
    for _ in range(600):
        sample = random.normal(0, 1, 60)
        drawn = random.choice(sample, (400, 60)).mean(axis=1)
        errors += estimate(sample.mean(), drawn).p < 0.05
    assert 0.03 < errors / 600 < 0.08


def test_gap_closed():
    plain, teacher = resampled(0, 0.10), resampled(2, 0.001, seeds=1)
    method = Resampled(0.4 * plain.values, 0.4 * plain.draws, plain.shares)
    teacher = Resampled(0 * teacher.values, 0 * teacher.draws, np.ones((999, 1)))
    found = gap_closed(method, plain, teacher)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6, 0.6))
    assert gap_closed(plain, plain, teacher).value == 0
    of_teacher = Resampled(np.zeros(3), np.zeros((999, 3)), plain.shares)
    assert gap_closed(of_teacher, plain, teacher).value == 1


def test_no_gap_to_close():
    plain = resampled(0, 0.10)
    with pytest.raises(EvaluationError, match="999 of 999 draws have no figure"):
        gap_closed(resampled(1, 0.05), plain, plain)


def test_seeds_must_pair():
    with pytest.raises(EvaluationError, match="2 seeds cannot be paired with 3"):
        difference(resampled(0, 0.1, seeds=2), resampled(0, 0.1))


def test_smallest_detectable_is_what_a_test_sees():
    """A true difference of that size is found in 80 % of tests, by simulation."""
    std = 0.3
    size = smallest_detectable(std)
    random = np.random.default_rng(0)
    found = np.abs(random.normal(size, std, 200000) / std) > 1.959964
    assert found.mean() == pytest.approx(0.8, abs=0.005)
    assert smallest_detectable(std, alpha=0.05 / 3) > size
    assert smallest_detectable(std, power=0.9) > size
    assert smallest_detectable(2 * std) == pytest.approx(2 * size)


def closed_test(p_values):
    """Holm by its definition as a closed test: for a hypothesis the largest, over all
    intersections that it is in, of the Bonferroni p value of the intersection."""
    names = list(p_values)
    adjusted = {}
    for name in names:
        worst = 0.0
        for size in range(1, len(names) + 1):
            for subset in itertools.combinations(names, size):
                if name in subset:
                    worst = max(worst, min(1.0, size * min(p_values[n] for n in subset)))
        adjusted[name] = worst
    return adjusted


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_bonferroni_test(seed):
    random = np.random.default_rng(seed)
    p_values = {f"H{k}": float(p) for k, p in enumerate(random.beta(0.4, 3, 1 + seed))}
    assert holm(p_values) == pytest.approx(closed_test(p_values))
    assert list(holm(p_values)) == list(p_values)


def test_holm_with_ties_and_none():
    p_values = {"a": 0.02, "b": 0.02, "c": 1.0}
    assert holm(p_values) == pytest.approx(closed_test(p_values))
    assert holm({}) == {}
