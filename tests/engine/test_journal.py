import io
import json
import re
import sys

import pytest
import torch

from arcface_cakd.engine.journal import Journal, describe, read_history
from arcface_cakd.engine.meters import Meter


def line(step, **more):
    return {
        "step": step,
        "epoch": 0,
        "loss": 2.0 + step,
        "margin": 2.0,
        "lr": 0.1,
        "images_per_second": 10.0,
        "seconds": 1.0,
        "seconds_left": 3725.0,
        **more,
    }


def steps_in(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(text)["step"] for text in lines]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    with Journal(tmp_path, 40, start=0, active=True) as journal:
        for step in (10, 20, 30):
            journal.log(line(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # a kill in the middle of a line
    with Journal(tmp_path, 40, start=25, active=True) as journal:
        assert [entry["step"] for entry in journal.history] == [10, 20]
        journal.log(line(30))
    assert steps_in(tmp_path) == [10, 20, 30]
    assert read_history(tmp_path) == journal.history


def test_what_is_no_line_is_left_out_and_said(tmp_path, caplog):
    first, last = (json.dumps(line(step)).encode() for step in (10, 40))
    odd = [
        b"\xff",
        b'{"step": 15, "note": "\xed\xa0\x80"}',
        b"5",
        b"",
        b'{"loss": 1.0}',
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([first, *odd, last, b'{"step": 50']))
    assert [entry["step"] for entry in read_history(tmp_path)] == [10, 40]
    assert caplog.messages == [
        f"{path}: line 2 is no line of a run's and is left out, as are {len(odd)} more"
    ]
    with Journal(tmp_path, 60, start=40, active=True) as journal:  # which is resumed
        assert [entry["step"] for entry in journal.history] == [10, 40]
    assert steps_in(tmp_path) == [10, 40]


def test_what_somebody_wrote_into_a_line_stays_there(tmp_path, caplog):
    """And is no figure."""
    lines = [
        dict(line(10), note="lr lowered by hand", seconds_left=None),
        dict(line(20), terms=1, lr={}),
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    before = path.read_bytes()
    with Journal(tmp_path, 60, start=20, active=True) as journal:
        first, second = journal.history
    assert path.read_bytes() == before and not caplog.messages
    assert first == {k: v for k, v in line(10).items() if k != "seconds_left"}
    assert second["terms"] == {} and "lr" not in second


def test_a_new_run_starts_its_record_anew(tmp_path):
    for _ in range(2):
        with Journal(tmp_path, 40, start=0, active=True) as journal:
            journal.log(line(10))
    assert steps_in(tmp_path) == [10]


def test_tensorboard_holds_every_number_of_a_line(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path, 40, start=0, active=True) as journal:
        journal.log(line(10, terms={"anchoring": 0.5}, diagnostics={"teacher_rank": 7.0}))
        journal.log_validation(10, 0, {"lfw": 0.75})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    values = {tag: board.Scalars(tag)[0] for tag in board.Tags()["scalars"]}
    assert values["terms/anchoring"].value == 0.5
    assert values["diagnostics/teacher_rank"].value == 7.0
    assert values["validation/lfw"].value == 0.75
    assert values["loss"].step == 10


def test_highest_and_last_validation(tmp_path):
    with Journal(tmp_path, 40, start=0, active=True) as journal:
        for step, accuracy in ((10, 0.7), (20, 0.9), (30, 0.8)):
            journal.log_validation(step, 0, {"lfw": accuracy})
    assert journal.highest() == {"lfw": 0.9}
    assert journal.last_validation() == {"lfw": 0.8}


def test_other_ranks_write_nothing(tmp_path):
    with Journal(tmp_path / "out", 40, start=0, active=False) as journal:
        journal.log(line(10))
        journal.log_validation(10, 0, {"lfw": 0.7})
        journal.tick()
    assert journal.history == [] and not (tmp_path / "out").exists()


def test_a_log_line_says_speed_loss_terms_and_time_left():
    text = describe(line(10, terms={"anchoring": 0.5}, grad_scale=1024.0), 40)
    for piece in (
        "step 10/40",
        "loss 12.0000 (margin 2.0000 anchoring 0.5000)",
        "lr 1.00e-01",
        "grad scale 1024",
        "10 img/s",
        "1:02:05 left",
    ):
        assert piece in text


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [80, 200])
def test_the_bar_shows_loss_rate_speed_and_below_it_the_terms(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    terms = {f"a_term_with_a_long_name_{i}": i / 3 for i in range(4)}
    with Journal(tmp_path, 40, start=0, active=True) as journal:
        journal.log(line(10, terms=terms))
        journal.tick()
        journal.log_validation(10, 0, {"lfw": 0.5})
    shown = terminal.getvalue()
    assert "loss 12.0000, lr 1.00e-01, 10 img/s" in shown
    assert "step 10: accuracy lfw 0.5000" in shown
    names = "margin 2, a_term_with_a_long_name_0 0, a_term_with_a_long_name_1 0.3333"
    assert names in shown
    assert ("a_term_with_a_long_name_3 1" in shown) == (columns == 200)
    rows = re.split(r"\r|\n|\x1b\[A", shown)
    assert max(len(row) for row in rows if row.startswith("margin")) < columns


def test_the_bar_of_a_plain_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Journal(tmp_path, 40, start=0, active=True) as journal:
        journal.log(line(10))
    assert "loss 12.0000, lr" in terminal.getvalue() and "margin" not in terminal.getvalue()


def test_a_meter_is_the_mean_since_the_last_reading_also_when_restored():
    names = ("margin", "embedding_cosine")
    meter = Meter()
    meter.update(names, torch.tensor([1.0, 10.0]))
    assert meter.read() == [1.0, 10.0]
    meter.update(names, torch.tensor([2.0, 10.0]))
    meter.update(names, torch.tensor([3.0, 40.0]))
    meter = Meter(meter.state_dict())
    meter.update(names, torch.tensor([4.0, 40.0]))
    assert meter.read() == pytest.approx([3.0, 30.0])


@pytest.mark.parametrize("others", [("margin",), ("margin", "urfm_feature")])
def test_a_meter_never_adds_one_term_to_another(others):
    meter = Meter()
    meter.update(("margin", "embedding_cosine"), torch.tensor([1.0, 10.0]))
    meter = Meter(meter.state_dict())
    meter.update(others, torch.full((len(others),), 5.0))
    assert meter.read() == [5.0] * len(others)
