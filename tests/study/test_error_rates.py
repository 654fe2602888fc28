"""Simulated studies: their methods do not differ, and the report says how often one seemed to."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from arcface_cakd.evaluation import Estimate, PairScores


@pytest.fixture(scope="module")
def study():
    import error_rates
    import records

    people, _, _ = records.read_people(records.RUNS, "real", "dev")
    return SimpleNamespace(error_rates=error_rates, people=people)


@pytest.mark.parametrize("world", ["as on real faces", "trainings differ"])
def test_neither_method_is_better(study, world):
    each = study.error_rates.studies(
        study.error_rates.WORLDS[world], study.people, 2, np.random.default_rng(0)
    )
    found = []
    for _ in range(40):
        ours, theirs = next(each)
        assert ours.shape == theirs.shape == (2, len(study.people.issame))
        aucs = [
            np.mean([PairScores(row, study.people.issame).auc()[0] for row in rows])
            for rows in (ours, theirs)
        ]
        found.append(aucs[0] - aucs[1])
    spread = np.std(found, ddof=1)
    assert spread > 1e-3  # but each study has a winner
    assert abs(np.mean(found)) < 3.5 * spread / 40**0.5


def test_rates_are_counted(study):
    values = [-0.03, 0.01, 0.02, 0.04]
    found = [
        Estimate(v, v, v, std, p)
        for v, std, p in zip(values, (1, 1, 2, 2), (0.01, 0.2, 0.04, 0.06), strict=True)
    ]
    judged = study.error_rates.judged(found)
    assert judged["studies"] == 4
    assert judged["p below 0.05"] == 0.5
    assert judged["standard error / true"] == pytest.approx(2.5**0.5 / np.std(values))


def test_the_report(study, tmp_path, monkeypatch, capsys):
    words = ["error_rates.py", "--studies", "3", "--drawn", "2", "--seeds", "2", "--json"]
    monkeypatch.setattr("sys.argv", [*words, str(tmp_path / "out.json")])
    worlds = {"one": study.error_rates.WORLDS["pairs differ"]}
    monkeypatch.setattr(study.error_rates, "WORLDS", worlds)
    study.error_rates.main()
    report = json.loads((tmp_path / "out.json").read_text())
    found = report["worlds"]["one"]["2 seeds"]
    assert (found["closed"]["studies"], found["drawn"]["studies"]) == (3, 2)
    assert "one, 2 seeds" in capsys.readouterr().out
