import itertools

import numpy as np
import pytest

from arcface_cakd.evaluation import (
    EvaluationError,
    PairScores,
    roc_curve,
    verification_metrics,
)


def made(seed, pairs, levels=None):
    """Cosines and truth; with ``levels`` so few distinct scores that ties abound."""
    random = np.random.default_rng(seed)
    issame = random.random(pairs) < 0.45
    scores = np.clip(random.normal(np.where(issame, 0.5, 0.1), 0.25), -1, 1)
    return (np.round(scores * levels) / levels if levels else scores), issame


CASES = [(0, 100, None), (1, 137, 4), (2, 200, 20), (3, 61, 1)]


def weights_of(seed, pairs, draws=4):
    return np.random.default_rng(seed).integers(0, 4, (draws, pairs))


@pytest.mark.parametrize("case", CASES)
def test_auc_of_weighted_pairs_is_that_of_repeated_ones(case):
    scores, issame = made(*case)
    weights = weights_of(case[0], case[1])
    found = PairScores(scores, issame).auc(weights)
    assert found.shape == (4,)
    for value, row in zip(found, weights, strict=True):
        positives = np.repeat(scores[issame], row[issame])
        negatives = np.repeat(scores[~issame], row[~issame])
        wins = [(p > n) + (p == n) / 2 for p, n in itertools.product(positives, negatives)]
        assert value == pytest.approx(np.mean(wins), abs=1e-12)
    plain = PairScores(scores, issame).auc()
    assert plain == pytest.approx(roc_curve(2 - 2 * scores, issame).area(), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("far", [0.05, 0.2, 0.5])
def test_tar_of_weighted_pairs_is_that_of_repeated_ones(case, far):
    scores, issame = made(*case)
    weights = weights_of(case[0], case[1])
    found = PairScores(scores, issame).tar_at(far, weights)
    for value, row in zip(found, weights, strict=True):
        positives = np.repeat(scores[issame], row[issame])
        negatives = np.repeat(scores[~issame], row[~issame])
        best = 0.0
        for threshold in scores:
            if np.sum(negatives >= threshold) <= far * len(negatives) + 1e-9:
                best = max(best, np.mean(positives >= threshold))
        assert value == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_accuracy_of_weighted_pairs_fold_by_fold(case):
    scores, issame = made(*case)
    weights = weights_of(case[0], case[1])
    distances, folds = 2 - 2 * scores, np.array_split(np.arange(case[1]), 10)
    for value, row in zip(PairScores(scores, issame).accuracy(weights), weights, strict=True):
        right = 0
        for fold in folds:
            rest = np.setdiff1d(np.arange(case[1]), fold)
            best, threshold = -1, None
            for candidate in np.arange(0, 4, 0.01):
                count = row[rest] @ ((distances[rest] < candidate) == issame[rest])
                if count > best:
                    best, threshold = count, candidate
            right += row[fold] @ ((distances[fold] < threshold) == issame[fold])
        assert value == pytest.approx(right / row.sum(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_the_protocols(seed):
    scores, issame = made(seed, 200)
    embeddings = np.zeros((400, 2))
    embeddings[0::2, 0] = 3.0
    embeddings[1::2] = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    expected = verification_metrics(embeddings, issame)
    pairs = PairScores(scores, issame)
    assert pairs.accuracy() == pytest.approx(expected.accuracy, abs=1e-12)
    assert pairs.tar_at(0.1) == pytest.approx(expected.tar[0.1], abs=1e-12)


def test_what_cannot_be_judged():
    scores, issame = made(0, 40)
    with pytest.raises(EvaluationError, match=r"must both be \(P,\)"):
        PairScores(scores[:-1], issame)
    for wrong in (1.5, np.nan):
        with pytest.raises(EvaluationError, match="finite cosines"):
            PairScores(np.where(np.arange(40) == 3, wrong, scores), issame)
    with pytest.raises(EvaluationError, match="all 40 pairs show one identity"):
        PairScores(scores, np.ones(40, dtype=bool))
    with pytest.raises(EvaluationError, match=r"a FAR of 0\.01"):
        PairScores(scores, issame).tar_at(0.01)
