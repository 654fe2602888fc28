"""Pooling and scoring of templates, against loops in float64, and scikit-learn's curve."""

import itertools

import numpy as np
import pytest

from arcface_cakd.evaluation.roc import roc_curve
from arcface_cakd.evaluation.templates import pair_scores, people_of_pairs, pool_templates


def pooled_slowly(features, templates, medias):
    pooled = {}
    for template in sorted(set(templates)):
        total = np.zeros(features.shape[1])
        for media in {m for t, m in zip(templates, medias, strict=True) if t == template}:
            own = [
                feature
                for feature, t, m in zip(features, templates, medias, strict=True)
                if (t, m) == (template, media)
            ]
            total += sum(own) / len(own)
        pooled[template] = total / np.sqrt(sum(x * x for x in total))
    return list(pooled), np.array(list(pooled.values()))


@pytest.mark.parametrize(("seed", "images", "templates"), [(0, 1, 1), (1, 40, 7), (2, 300, 60)])
def test_a_video_counts_as_one_image(seed, images, templates):
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, 12)).astype(np.float32)
    of = random.integers(0, templates, images) * 3 + 5
    medias = random.integers(0, 4, images)
    numbers, units = pool_templates(features, of, medias)
    slow_numbers, slow = pooled_slowly(features.astype(np.float64), of.tolist(), medias.tolist())
    assert numbers.tolist() == slow_numbers
    assert units == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(("seed", "templates", "pairs"), [(0, 2, 1), (1, 90, 400), (2, 200, 9000)])
def test_scores_are_dot_products(seed, templates, pairs):
    random = np.random.default_rng(seed)
    units = random.normal(size=(templates, 9))
    listed = random.integers(0, templates, (pairs, 2))
    slow = [sum(units[a] * units[b]) for a, b in listed]
    assert pair_scores(units, listed) == pytest.approx(slow, abs=1e-12)


def test_pairs_of_one_person_link_templates():
    pairs = np.array([[0, 1], [1, 2], [3, 4], [0, 5], [2, 4], [6, 6]])
    people = people_of_pairs(pairs, np.array([1, 1, 1, 0, 0, 1], dtype=bool), 8)
    groups = [{0, 1, 2}, {3, 4}, {5}, {6}, {7}]
    for a, b in itertools.combinations(range(8), 2):
        assert (people[a] == people[b]) == any({a, b} <= group for group in groups)


@pytest.mark.parametrize(("seed", "levels"), [(0, None), (1, 3), (2, 12)])
def test_the_nearest_far_is_read_off_the_corners_that_scikit_learn_keeps(seed, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    issame = random.random(700) < 0.3
    scores = random.normal(np.where(issame, 1.0, 0.0))
    if levels:
        scores = np.round(scores * levels) / levels
    curve = roc_curve(-scores, issame)
    fars, tars, _ = metrics.roc_curve(issame, scores)
    for far in (1e-6, 1e-3, 0.004, 0.01, 0.05, 0.1, 0.37, 1.0):
        # The highest first, the first of equally near ones: as the host goes through them.
        distance, k = min((abs(f - far), -k) for k, f in enumerate(fars))
        assert curve.tar_nearest(far) == pytest.approx(tars[-k], abs=1e-12), far
        assert distance >= 0
