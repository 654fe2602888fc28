"""All pairs, against every pair held at once."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, crop, embedding, save
from helpers.result_figures import check_intervals

from arcface_cakd.evaluation import EvaluationError
from arcface_cakd.evaluation.protocols.all_pairs import AllPairs, verify_all_pairs


def brute(units, people, far):
    """Over every pair and threshold."""
    pairs = list(itertools.combinations(range(len(units)), 2))
    scores = np.array([float(np.dot(units[a], units[b])) for a, b in pairs])
    same = np.array([people[a] == people[b] for a, b in pairs])
    genuine, impostor = scores[same], np.sort(scores[~same])
    best = 0.0
    for threshold in np.append(genuine, np.inf):
        accepted = len(impostor) - np.searchsorted(impostor, threshold)
        if accepted <= far * len(impostor):
            best = max(best, np.mean(genuine >= threshold))
    return best, len(genuine), len(impostor)


def made(seed, count, people):
    random = np.random.default_rng(seed)
    who = random.permutation(random.integers(0, people, count) * 5)
    centres = random.normal(size=(5 * people, 8))
    units = centres[who] + 1.3 * random.normal(size=(count, 8))
    return units / np.linalg.norm(units, axis=1, keepdims=True), who


@pytest.mark.parametrize(
    ("seed", "count", "people", "block"), [(0, 60, 9, 7), (1, 150, 40, 64), (2, 150, 3, 1000)]
)
def test_chunks_give_what_all_pairs_at_once_give(seed, count, people, block):
    units, who = made(seed, count, people)
    fars = (0.002, 0.01, 0.05)
    result = verify_all_pairs(units, who, fars, draws=20, block=block)
    for far in fars:
        best, positives, negatives = brute(units, who, far)
        assert (result.positives, result.negatives) == (positives, negatives)
        if far * negatives < 10:
            assert result.tar[far] is None and result.intervals[far] is None
        else:
            assert result.tar[far] == pytest.approx(best, abs=1e-9)
            drawn = result.intervals[far]  # of three people a draw may hold one alone
            assert drawn.low <= drawn.high if people > 3 else drawn is None
    assert any(rate is not None and 0 < rate < 1 for rate in result.tar.values())


def test_draws_count_pairs_by_their_people(monkeypatch):
    units, who = made(3, 80, 12)
    seen = []

    def draws(people, figures, count, seed=0):
        rng = np.random.default_rng(1)
        for _ in range(4):
            drawn = rng.multinomial(people, np.full(people, 1 / people))
            seen.append((drawn, figures(drawn)[0]))
        return np.zeros((2, 1))

    monkeypatch.setattr("arcface_cakd.evaluation.protocols.all_pairs.person_draws", draws)
    monkeypatch.setattr("arcface_cakd.evaluation.protocols.all_pairs._TAIL", 9)
    verify_all_pairs(units, who, (0.05,), draws=4, block=32)
    names = np.unique(who)
    for drawn, value in seen:
        count = dict(zip(names.tolist(), drawn.tolist(), strict=True))
        genuine, impostor = [], []
        for a, b in itertools.combinations(range(80), 2):
            score = float(units[a] @ units[b])
            if who[a] == who[b]:
                genuine += [score] * count[who[a]]
            else:
                impostor += [score] * (count[who[a]] * count[who[b]])
        impostor = np.sort(impostor)
        allowed = [
            t
            for t in np.append(genuine, np.inf)
            if len(impostor) - np.searchsorted(impostor, t) <= 0.05 * len(impostor)
        ]
        assert value == pytest.approx(np.mean(np.array(genuine) >= min(allowed)), abs=1e-9)


def test_sets_of_one_name_are_all_judged(tmp_path, monkeypatch):
    for folder in ("x/a", "a", "b"):
        for person in range(2):
            for k in range(2):
                save(tmp_path / folder / f"p{person}" / f"{k}.png", crop(person, k))
    monkeypatch.chdir(tmp_path)
    for paths in (["x/a", "a", "b"], ["a", "x/a", "b"]):
        assert list(AllPairs([Path(path) for path in paths]).sets) == paths


def test_what_is_resized_and_what_has_no_interval_is_said(tmp_path, caplog):
    for person in range(3):
        for k in range(8):
            save(tmp_path / f"own/p{person}/{k}.png", crop(person, k, 90))
    save(tmp_path / "own/p2/7.png", crop(2, 7)[:90, :90])
    protocol = AllPairs([tmp_path / "own"])
    results = protocol.judge(EMBEDDER, draws=100)
    (said,) = caplog.messages
    assert said.startswith("own: 1 of 24 images are not 112 x 112 and were resized, the first is ")
    assert said.endswith("p2/7.png")
    result = verify_all_pairs(*made(2, 250, 3), draws=100)
    assert set(result.intervals.values()) == {None}
    (reason,) = set(result.to_dict()["absent"].values())
    assert list(result.absent) == ["intervals.tar.0.001"]
    lines = protocol.table({"own": result}).splitlines()
    assert f"own: no interval of tar.0.001: {reason}" in lines
    assert reason.startswith("too few people: ")
    assert results["own"].absent == {}  # nothing was asked for that has no figure


def test_the_threshold_is_what_a_pair_must_exceed():
    units, who = made(4, 120, 30)
    result = verify_all_pairs(units, who, (0.01,), draws=0)
    scores = units @ units.T
    same = (who[:, None] == who[None])[np.triu_indices(120, 1)]
    scores = scores[np.triu_indices(120, 1)]
    threshold = result.thresholds[0.01]
    assert np.mean(scores[~same] > threshold) <= 0.01 < np.mean(scores[~same] >= threshold) + 1e-9
    assert result.tar[0.01] == pytest.approx(np.mean(scores[same] > threshold), abs=1e-12)


def test_folders_of_people_are_sets_of_their_own(tmp_path, monkeypatch):
    for group, first in (("a", 0), ("b", 20)):
        for person in range(5):
            for k in range(3):
                path = tmp_path / group / f"p{person}" / f"{k}.png"
                save(path, crop(first + person, k, 90))
    protocol = AllPairs([tmp_path / "a", tmp_path / "b"])
    results = protocol.judge(EMBEDDER, draws=0)
    assert list(results) == ["a", "b"]
    rows = np.array([embedding(crop(20 + p, k, 90)) for p in range(5) for k in range(3)])
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = verify_all_pairs(units, np.repeat(np.arange(5), 3), draws=0)
    assert results["b"].tar == wanted.tar
    assert (results["b"].images, results["b"].positives) == (15, 15)
    assert protocol.table(results).splitlines()[3].split()[:4] == ["b", "5", "15", "105"]
    (again,) = AllPairs([tmp_path / "a"]).judge(EMBEDDER, draws=20).values()
    check_intervals(json.loads(json.dumps(again.to_dict())))
    monkeypatch.chdir(tmp_path / "a" / "p0")
    assert list(AllPairs([Path("..")]).sets) == ["a"]
    for person in range(5):
        for k in (1, 2):
            (tmp_path / "a" / f"p{person}" / f"{k}.png").unlink()
    with pytest.raises(EvaluationError, match="nobody has two images"):
        AllPairs([tmp_path / "a"])
