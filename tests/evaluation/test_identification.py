"""What is held of a crowd that comes in parts, against all of its scores at once."""

import numpy as np
import pytest

from arcface_cakd.evaluation.identification import Strangers, TopScores, chunks


@pytest.mark.parametrize(("seed", "part", "round_to"), [(0, 7, None), (1, 64, 1), (2, 500, 1)])
def test_the_highest_of_each_probe_are_kept(seed, part, round_to):
    random = np.random.default_rng(seed)
    probes, crowd = random.normal(size=(20, 5)), random.normal(size=(301, 5))
    if round_to:  # ties abound, and products of whole numbers are exact
        probes, crowd = np.round(probes), np.round(crowd)
    own = random.random((20, 301)) < 0.05
    strangers = Strangers(probes, keep=4)
    for at in chunks(len(crowd), part):
        strangers.add(crowd[at], own[:, at])
    scores = np.where(own, -np.inf, probes @ crowd.T)
    assert strangers.top == pytest.approx(-np.sort(-scores, axis=1)[:, :4], abs=1e-12)
    mate = scores[np.arange(20), 3 * np.arange(20)]
    rank = [1 + sum(s >= m for s in row) for row, m in zip(scores, mate, strict=True)]
    assert strangers.rank(np.arange(20), mate).tolist() == [min(r, 5) for r in rank]


@pytest.mark.parametrize(("seed", "keep", "levels"), [(0, 1, None), (1, 50, 5), (2, 5000, None)])
def test_the_highest_scores_of_many_tables_are_kept_with_their_places(seed, keep, levels):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(60, 70))
    if levels:
        scores = np.round(scores * levels) / levels
    counted = random.random(scores.shape) < 0.7
    top = TopScores(keep)
    for rows in chunks(60, 13):
        for columns in chunks(70, 17):
            at = np.arange(60)[rows], np.arange(70)[columns]
            top.add(scores[rows, columns], *at, counted[rows, columns])
    found, pairs = top.result()
    assert (found == -np.sort(-scores[counted])[:keep]).all()
    assert (scores[pairs[:, 0], pairs[:, 1]] == found).all()
    assert counted[pairs[:, 0], pairs[:, 1]].all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)


def test_of_nothing_nothing_is_kept():
    top = TopScores(3)
    top.add(np.ones((2, 2)), np.arange(2), np.arange(2), np.zeros((2, 2), dtype=bool))
    assert [len(part) for part in top.result()] == [0, 0]
