"""Steps of the study's methods take turns, what the teacher says read from its cache."""

import json

import numpy as np
import pytest
import torch

from arcface_cakd.distiller import Distiller


@pytest.fixture
def step_costs(tiny, monkeypatch):
    import step_costs

    def command(*words):
        return step_costs.main(["--data", "tiny", "--faces", str(tiny.faces), *words])

    threads = torch.get_num_threads()
    yield command
    torch.set_num_threads(threads)


def test_a_method_with_class_centres_and_its_command(step_costs, tmp_path):
    path = tmp_path / "costs.json"
    words = ["--methods", "kd_0.17", "--rounds", "1", "--json", str(path)]
    assert step_costs(*words) == 0
    found = json.loads(path.read_text())
    assert set(found["ratios"]) == {"kd_0.17 / plain"}
    assert found["command"].endswith(" ".join(words))


def test_no_rounds_are_refused(step_costs, capsys):
    with pytest.raises(SystemExit):
        step_costs("--rounds", "0")
    assert "--rounds" in capsys.readouterr().err


def test_each_method_stands_against_the_plain_student_and_no_teacher_runs(
    step_costs, tmp_path, monkeypatch
):
    def runs(self, images):
        raise AssertionError("a timed step ran the teacher")

    monkeypatch.setattr(Distiller, "_unprompted", runs)
    path = tmp_path / "costs.json"
    methods = ("embedding_64", "embedding_64_urfm_50_1")
    assert step_costs("--methods", *methods, "--rounds", "3", "--json", str(path)) == 0
    found = json.loads(path.read_text())
    seconds = {name: np.array(each) for name, each in found["seconds"].items()}
    assert set(seconds) == {"plain", *methods}
    assert all(len(each) == 3 and (each > 0).all() for each in seconds.values())
    for method in methods:
        expected = np.median(seconds[method] / seconds["plain"])
        assert found["ratios"][f"{method} / plain"]["median"] == pytest.approx(expected)


def test_a_turn_is_so_many_steps(step_costs, monkeypatch):
    from arcface_cakd.bench.step import Steps

    counted = {"without": 0, "with_cache": 0}
    for name in counted:

        def step(self, name=name):
            counted[name] += 1

        monkeypatch.setattr(Steps, name, step)
    assert step_costs("--methods", "embedding_64", "--rounds", "2", "--steps", "3") == 0
    assert counted == {"without": 9, "with_cache": 9}  # a round before those that count


def test_faces_that_are_not_there_are_named(step_costs, tiny, capsys):
    (tiny.faces / "tiny").unlink()
    assert step_costs("--methods", "embedding_64") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "tiny" in error
