"""Rates off the highest scores alone, against all scores and every threshold."""

import numpy as np
import pytest

from arcface_cakd.evaluation.roc import roc_curve
from arcface_cakd.evaluation.score_tail import ScoreTail


def rate_slowly(genuine, impostor, far):
    """Over every threshold, in whole numbers."""
    best = 0
    for threshold in np.unique(np.concatenate([genuine, impostor])):
        if np.sum(impostor >= threshold) <= far * len(impostor) + 1e-9:
            best = max(best, np.sum(genuine >= threshold))
    return best / len(genuine)


def made(seed, levels):
    random = np.random.default_rng(seed)
    genuine, impostor = random.normal(1, 1, 200), random.normal(0, 1, 1500)
    if levels:  # ties abound
        genuine, impostor = (
            np.round(genuine * levels) / levels,
            np.round(impostor * levels) / levels,
        )
    return genuine, -np.sort(-impostor)


@pytest.mark.parametrize(("seed", "levels"), [(0, None), (1, 2), (2, 8)])
@pytest.mark.parametrize("far", [0.01, 0.03, 0.1])
def test_a_short_tail_gives_the_rate_of_all_scores(seed, levels, far):
    genuine, impostor = made(seed, levels)
    whole = ScoreTail(genuine, impostor, len(impostor)).rate_at(far)
    assert whole == pytest.approx(rate_slowly(genuine, impostor, far), abs=1e-12)
    keep = int(far * len(impostor)) + 1
    assert ScoreTail(genuine, impostor[:keep], len(impostor)).rate_at(far) == whole
    assert ScoreTail(genuine, impostor[: keep - 1], len(impostor)).rate_at(far) is None
    curve = roc_curve(-np.concatenate([genuine, impostor]), np.arange(1700) < 200)
    assert whole == pytest.approx(curve.tar_at(far), abs=1e-12)


def test_weighted_scores_count_as_repeated_ones():
    genuine, impostor = made(3, 6)
    random = np.random.default_rng(4)
    one, two = random.integers(0, 3, 200), random.integers(0, 3, 1500)
    found = ScoreTail(genuine, impostor[:600], 1500).weighted_rate_at(
        0.05, one, two[:600], float(two.sum())
    )
    slow = rate_slowly(np.repeat(genuine, one), np.repeat(impostor, two), 0.05)
    assert found == pytest.approx(slow, abs=1e-12)


def test_too_few_impostors_give_no_rate():
    genuine, impostor = made(5, None)
    tail = ScoreTail(genuine, impostor, 1500)
    assert tail.rate_at(9 / 1500) is None and tail.rate_at(10 / 1500) is not None
    assert tail.weighted_rate_at(0.1, np.zeros(200), np.ones(1500), 1500.0) is None
    assert tail.threshold_at(0.01) == impostor[15]
    # All may be accepted: all that count are.
    lost = ScoreTail(np.array([1.0, -np.inf]), impostor, 1500)
    assert lost.rate_at(1.0) == 0.5
