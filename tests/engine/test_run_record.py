"""What ``run.json`` keeps of a run that was stopped, and told otherwise when it went on."""

import dataclasses
import json

import pytest
from helpers.engine_runs import small_config

from arcface_cakd.engine import read_run_record, train
from arcface_cakd.engine.run_record import run_parts


@pytest.fixture
def stopped(faces, tmp_path):
    """The config of a run of 9 steps that was stopped after 4."""
    config = small_config(faces, tmp_path / "run", num_epoch=1, checkpoint_every=2)
    train(config, stop_after_step=4)
    assert read_run_record(config.output)["steps"] == 9
    return config


def started(config, when):
    """As if the record had been written at another time."""
    path = config.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": when}))


def told(config):
    return [
        (part["since"], part["config"]["lr"]) for part in run_parts(read_run_record(config.output))
    ]


def test_what_goes_on_as_it_was_has_one_part(stopped):
    started(stopped, "then")
    train(dataclasses.replace(stopped, resume=True, force=True), stop_after_step=6)
    assert told(stopped) == [(0, 0.05)]
    assert read_run_record(stopped.output)["started"] == "then"


def test_former_settings_stay_as_far_as_they_held(stopped):
    for lr, steps in ((0.04, 6), (0.03, 6), (0.02, 9)):  # that with 0.03 takes no step
        train(dataclasses.replace(stopped, resume=True, lr=lr), stop_after_step=steps)
    assert told(stopped) == [(0, 0.05), (4, 0.04), (6, 0.02)]
    # A finished run has nothing more to be told.
    before = (stopped.folder / "run.json").read_bytes()
    train(dataclasses.replace(stopped, resume=True, lr=0.01))
    assert (stopped.folder / "run.json").read_bytes() == before


def test_what_begins_anew_has_no_former_settings(stopped):
    train(dataclasses.replace(stopped, lr=0.04, force=True), stop_after_step=2)
    assert told(stopped) == [(0, 0.04)]


def test_the_record_of_an_earlier_version_is_the_first_part(stopped):
    path = stopped.folder / "run.json"
    record = json.loads(path.read_text())
    del record["since"], record["steps"]
    path.write_text(json.dumps(record))
    train(dataclasses.replace(stopped, resume=True, lr=0.04), stop_after_step=6)
    first, last = run_parts(read_run_record(stopped.output))
    assert (first["config"]["lr"], last["config"]["lr"], last["since"]) == (0.05, 0.04, 4)


def test_the_record_of_an_earlier_version_goes_on_as_it_was(stopped):
    path = stopped.folder / "run.json"
    record = json.loads(path.read_text())
    del record["since"], record["steps"], record["config"]["margin_gradient"]  # newer than it
    path.write_text(json.dumps(record))
    train(dataclasses.replace(stopped, resume=True), stop_after_step=6)
    (part,) = run_parts(read_run_record(stopped.output))
    assert (part["since"], part["started"]) == (0, record["started"])
    train(dataclasses.replace(stopped, resume=True, lr=0.04), stop_after_step=8)
    assert told(stopped) == [(0, 0.05), (6, 0.04)]
