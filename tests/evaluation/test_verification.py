"""The protocol against loops that spell it out, and against arcface_torch's own code."""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from arcface_cakd.data import VerificationSet
from arcface_cakd.evaluation import (
    EvaluationError,
    embed,
    evaluate_set,
    pair_distances,
    verification_metrics,
)


def made(seed, pairs, noise=1.0, width=16):
    """Embeddings of pairs that overlap, of uneven lengths; positives are two noisy copies."""
    random = np.random.default_rng(seed)
    issame = random.random(pairs) < 0.5
    first = random.normal(size=(pairs, width))
    other = np.where(issame[:, None], first, random.normal(size=(pairs, width)))
    embeddings = np.empty((2 * pairs, width))
    embeddings[0::2] = first + noise * random.normal(size=first.shape)
    embeddings[1::2] = other + noise * random.normal(size=first.shape)
    return embeddings * random.uniform(0.1, 9, (2 * pairs, 1)), issame


def tied(seed, pairs):
    """Few distinct distances, some of them (0 and 2) exactly on the grids of thresholds."""
    random = np.random.default_rng(seed)
    shapes = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 4, 0], [0, -1, 0]], dtype=float)
    issame = random.random(pairs) < 0.5
    first = random.integers(0, len(shapes), pairs)
    keep = issame & (random.random(pairs) < 0.7)
    other = np.where(keep, first, random.integers(0, len(shapes), pairs))
    return shapes[np.stack([first, other], axis=1).ravel()], issame


def contiguous_folds(count, folds):
    """The first ``count % folds`` folds have one pair more, as in scikit-learn's KFold."""
    start = 0
    for k in range(folds):
        stop = start + count // folds + (1 if k < count % folds else 0)
        yield [i for i in range(count) if not start <= i < stop], list(range(start, stop))
        start = stop


def spelled_distances(embeddings):
    distances = []
    for a, b in zip(embeddings[0::2], embeddings[1::2], strict=True):
        a, b = a / np.sqrt(np.dot(a, a)), b / np.sqrt(np.dot(b, b))
        distances.append(np.sum(np.square(a - b)))
    return np.array(distances)


def spelled_accuracy(distances, issame, folds):
    accuracies = []
    for train, test in contiguous_folds(len(issame), folds):
        best, best_right = None, -1
        for threshold in np.arange(0, 4, 0.01):
            right = np.sum((distances[train] < threshold) == issame[train])
            if right > best_right:
                best, best_right = threshold, right
        accuracies.append(np.sum((distances[test] < best) == issame[test]) / len(test))
    return np.mean(accuracies), np.std(accuracies)


def spelled_val(distances, issame, folds, target=1e-3):
    grid = np.arange(0, 4, 0.001)
    vals, fars = [], []
    for train, test in contiguous_folds(len(issame), folds):
        negatives = distances[train][~issame[train]]
        far = [np.sum(negatives < threshold) / len(negatives) for threshold in grid]
        threshold = 0.0
        if max(far) >= target:
            below = max(i for i in range(len(grid)) if far[i] <= target)
            threshold = grid[below]
            if far[below] < target:
                share = (target - far[below]) / (far[below + 1] - far[below])
                threshold += share * (grid[below + 1] - grid[below])
        near = distances[test] < threshold
        vals.append(np.sum(near & issame[test]) / np.sum(issame[test]))
        fars.append(np.sum(near & ~issame[test]) / np.sum(~issame[test]))
    return np.mean(vals), np.std(vals), np.mean(fars)


CASES = {
    "even": made(0, 600),
    "uneven folds": made(1, 457),
    "easy": made(2, 300, noise=0.2),
    "hopeless": made(3, 211, noise=9.0),
    "tied": tied(4, 503),
    "tied again": tied(5, 240),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("folds", [2, 7, 10])
def test_accuracy_equals_the_protocol_spelled_out(case, folds):
    embeddings, issame = CASES[case]
    result = verification_metrics(embeddings, issame, folds)
    accuracy, std = spelled_accuracy(spelled_distances(embeddings), issame, folds)
    assert result.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert result.accuracy_std == pytest.approx(std, abs=1e-12)


@pytest.mark.parametrize("case", ["even", "uneven folds", "tied"])
def test_val_equals_the_protocol_spelled_out(case):
    embeddings, issame = CASES[case]
    result = verification_metrics(embeddings, issame)
    val, std, far = spelled_val(spelled_distances(embeddings), issame, 10)
    assert result.val == pytest.approx(val, abs=1e-12)
    assert result.val_std == pytest.approx(std, abs=1e-12)
    assert result.val_far == pytest.approx(far, abs=1e-12)


def test_val_where_thousands_of_negatives_carry_its_far():
    embeddings, issame = made(11, 5000, noise=0.7)
    result = verification_metrics(embeddings, issame)
    val, _, far = spelled_val(spelled_distances(embeddings), issame, 10)
    assert 0.1 < val < 0.99
    assert 0 < far < 0.01
    assert (result.val, result.val_far) == pytest.approx((val, far), abs=1e-12)


def test_a_distance_equal_to_the_threshold_is_refused():
    """Orthogonal pairs lie exactly on the threshold 2.00: only 2.01 accepts them."""
    embeddings = np.tile([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], (10, 1))
    issame = np.tile([True, False], 10)
    result = verification_metrics(embeddings, issame)
    assert result.accuracy == 1
    assert result.threshold == pytest.approx(2.01, abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_threshold_is_the_lowest_of_the_best(case):
    embeddings, issame = CASES[case]
    distances = spelled_distances(embeddings)
    rights = [np.sum((distances < t) == issame) for t in np.arange(0, 4, 0.01)]
    expected = np.arange(0, 4, 0.01)[rights.index(max(rights))]
    assert verification_metrics(embeddings, issame).threshold == expected


@pytest.mark.parametrize("case", CASES)
def test_counts_and_distances(case):
    embeddings, issame = CASES[case]
    result = verification_metrics(embeddings, list(issame))
    assert (result.pairs, result.positives) == (len(issame), issame.sum())
    assert result.negatives == result.pairs - result.positives
    np.testing.assert_allclose(
        pair_distances(embeddings), spelled_distances(embeddings), atol=1e-14
    )


def test_a_far_that_the_negatives_do_not_carry_is_absent_with_its_reason():
    embeddings, issame = made(6, 2000)
    result = verification_metrics(embeddings, issame, fars=(0.1, 0.01, 0.001))
    assert set(result.tar) == {0.1, 0.01}
    assert result.absent == {"tar@far=0.001": f"needs 10000 negative pairs, has {result.negatives}"}
    distances = spelled_distances(embeddings)
    allowed = np.sort(distances[~issame])[int(0.01 * result.negatives)]  # the first too many
    assert result.tar[0.01] == np.mean(distances[issame] < allowed)


def test_val_is_absent_where_a_fold_has_one_kind_only():
    embeddings, issame = made(7, 400)
    order = np.argsort(~issame, kind="stable")
    embeddings = embeddings.reshape(400, 2, -1)[order].reshape(800, -1)
    result = verification_metrics(embeddings, issame[order])
    assert (result.val, result.val_std, result.val_far) == (None, None, None)
    assert "fold" in result.absent["val"]
    accuracy, _ = spelled_accuracy(spelled_distances(embeddings), issame[order], 10)
    assert result.accuracy == pytest.approx(accuracy, abs=1e-12)


def test_every_figure_goes_into_json():
    embeddings, issame = CASES["even"]
    result = verification_metrics(embeddings, issame)
    figures = json.loads(json.dumps(result.to_dict()))
    assert figures["accuracy"] == result.accuracy
    assert figures["tar"] == {"0.1": result.tar[0.1]}
    assert figures["absent"].keys() == {"tar@far=0.01", "tar@far=0.001", "tar@far=0.0001"}
    assert set(figures) == {
        *("pairs", "positives", "negatives", "folds", "accuracy", "accuracy_std", "threshold"),
        *("auc", "eer", "tar", "val", "val_std", "val_far", "absent"),
        "accuracy_interval",
    }


def test_a_set_is_embedded_with_flip_and_judged():
    images = np.random.default_rng(0).integers(0, 256, (40, 112, 112, 3), dtype=np.uint8)
    issame = np.arange(20) % 2 == 0

    def backbone(batch):
        return batch[:, :, :4, :9].flatten(1)

    found = evaluate_set(backbone, VerificationSet(images, issame), batch_size=7)
    assert found == verification_metrics(embed(backbone, images, flip=True), issame)
    assert found != verification_metrics(embed(backbone, images, flip=False), issame)


def broken(change):
    embeddings, issame = made(8, 40)
    return change(embeddings, issame)


def with_nan(embeddings, issame):
    embeddings[[13, 20], 2] = np.nan, np.inf
    return embeddings, issame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_nan, "2 of 80 embeddings are not finite, the first is number 13"),
        (lambda e, s: (e[:-1], s), "odd"),
        (lambda e, s: (e[:-2], s), "39 pairs"),
        (lambda e, s: (e, s | True), "one identity"),
        (lambda e, s: (e, s & False), "two identities"),
        (lambda e, s: (e[:18], s[:9]), "9 pairs do not make 10 folds"),
        (lambda e, s: (e[0], s), r"\(2P, E\)"),
        (lambda e, s: (e[:0], s[:0]), "0 pairs"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(change, said):
    with pytest.raises(EvaluationError, match=said) as caught:
        verification_metrics(*broken(change))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def host():
    """arcface_torch's own ``eval/verification.py``, without mxnet, which it only reads with."""
    checkout = os.environ.get("ARCFACE_TORCH")
    if not checkout:
        pytest.skip("ARCFACE_TORCH does not name an arcface_torch checkout")
    pytest.importorskip("sklearn", reason="arcface_torch's protocol needs scikit-learn")
    pytest.importorskip("scipy")
    mxnet = types.ModuleType("mxnet")
    mxnet.ndarray = types.ModuleType("mxnet.ndarray")
    stubs = {"mxnet": mxnet, "mxnet.ndarray": mxnet.ndarray}
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        spec = importlib.util.spec_from_file_location(
            "host_verification", Path(checkout) / "eval" / "verification.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, former in before.items():
            if former is None:
                del sys.modules[name]
            else:
                sys.modules[name] = former
    # scipy >= 1.9 refuses the repeated values that this interpolates over.
    module.interpolate = types.SimpleNamespace(
        interp1d=lambda x, y, kind: lambda at: np.interp(at, x, y)
    )
    return module


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_arcface_torchs(host, case):
    embeddings, issame = CASES[case]
    from sklearn.preprocessing import normalize

    _, _, accuracy, val, val_std, far = host.evaluate(normalize(embeddings), issame)
    result = verification_metrics(embeddings, issame)
    assert result.accuracy == pytest.approx(np.mean(accuracy), abs=1e-9)
    assert result.accuracy_std == pytest.approx(np.std(accuracy), abs=1e-9)
    assert result.val == pytest.approx(val, abs=1e-9)
    assert result.val_std == pytest.approx(val_std, abs=1e-9)
    assert result.val_far == pytest.approx(far, abs=1e-9)
