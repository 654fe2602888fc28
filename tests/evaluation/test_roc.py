import itertools

import numpy as np
import pytest

from arcface_cakd.evaluation import roc_curve


def pairs(seed, positives, negatives, levels=None):
    """Distances that overlap; with ``levels``, so few distinct ones that ties abound."""
    random = np.random.default_rng(seed)
    distances = np.concatenate(
        [random.normal(1.2, 0.4, positives), random.normal(1.8, 0.3, negatives)]
    )
    distances = distances.clip(0, 4)
    if levels:
        distances = np.round(distances * levels) / levels
    issame = np.arange(positives + negatives) < positives
    order = random.permutation(len(issame))
    return distances[order], issame[order]


CASES = [(0, 40, 30, None), (1, 200, 300, None), (2, 57, 200, 5), (3, 300, 41, 2), (4, 1, 1, None)]


@pytest.mark.parametrize("case", CASES)
def test_auc_is_the_rank_statistic(case):
    distances, issame = pairs(*case)
    wins = 0.0
    for near in distances[issame]:
        for far in distances[~issame]:
            wins += 1.0 if near < far else 0.5 if near == far else 0.0
    expected = wins / (issame.sum() * (~issame).sum())
    assert roc_curve(distances, issame).area() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_every_point_is_a_count(case):
    distances, issame = pairs(*case)
    curve = roc_curve(distances, issame)
    assert curve.thresholds[0] == -np.inf
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    for far, tar, threshold in zip(curve.far, curve.tar, curve.thresholds, strict=True):
        assert far == np.mean(distances[~issame] <= threshold)
        assert tar == np.mean(distances[issame] <= threshold)


@pytest.mark.parametrize("case", CASES[:4])
@pytest.mark.parametrize("far", [1.0, 0.5, 0.3, 0.1])
def test_tar_at_far_is_the_best_allowed_threshold(case, far):
    distances, issame = pairs(*case)
    best = 0.0
    for threshold in [-1.0, *distances]:
        accepted = distances <= threshold
        if np.sum(accepted & ~issame) <= far * np.sum(~issame) + 1e-9:
            best = max(best, np.mean(accepted[issame]))
    curve = roc_curve(distances, issame)
    if far * curve.negatives < 10:
        assert curve.tar_at(far) is None
    else:
        assert curve.tar_at(far) == best


def test_no_far_below_ten_false_accepts():
    distances, issame = pairs(5, 100, 1000)
    curve = roc_curve(distances, issame)
    assert curve.lowest_far == 0.01
    assert curve.tar_at(0.01) is not None
    assert curve.tar_at(0.0099) is None


@pytest.mark.parametrize("negatives", [1, 6, 9])
def test_too_few_pairs_for_any_far(negatives):
    distances, issame = pairs(5, 20, negatives)
    curve = roc_curve(distances, issame)
    assert curve.lowest_far is None
    assert [curve.tar_at(far) for far in (1e-3, 0.5, 1.0)] == [None] * 3


@pytest.mark.parametrize("case", CASES[:3])
def test_eer_is_where_a_dense_scan_crosses(case):
    """Walk along the straight pieces of the curve in small steps until FAR passes FRR."""
    distances, issame = pairs(*case)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(distances)):
        far = np.mean(distances[~issame] <= threshold)
        points.append((far, np.mean(distances[issame] <= threshold)))
    steps = np.linspace(0, 1, 2001)
    far, frr = [], []
    for (far_a, tar_a), (far_b, tar_b) in itertools.pairwise(points):
        far.append(far_a + steps * (far_b - far_a))
        frr.append(1 - (tar_a + steps * (tar_b - tar_a)))
    far, frr = np.concatenate(far), np.concatenate(frr)
    crossing = np.argmin(np.abs(far - frr))
    expected = (far[crossing] + frr[crossing]) / 2
    found = roc_curve(distances, issame).equal_error_rate()
    assert found == pytest.approx(expected, abs=2e-3 / len(points) + 1e-4)
    assert 0 < found < 0.5


def test_perfect_and_inverted_pairs():
    issame = np.array([True, True, False, False])
    perfect = roc_curve(np.array([0.1, 0.2, 0.8, 0.9]), issame)
    assert (perfect.area(), perfect.equal_error_rate()) == (1.0, 0.0)
    inverted = roc_curve(np.array([0.8, 0.9, 0.1, 0.2]), issame)
    assert (inverted.area(), inverted.equal_error_rate()) == (0.0, 1.0)
    tied = roc_curve(np.ones(4), issame)
    assert (tied.area(), tied.equal_error_rate()) == (0.5, 0.5)
