"""The margin softmax measured, alone and beside arcface_torch's."""

import json
import os
import sys

import pytest
import torch

from arcface_cakd.bench import BenchError
from arcface_cakd.bench.memory import MIB, forget_peak, peak_of
from arcface_cakd.cli import main


def hold(mebibytes):
    torch.zeros(mebibytes * MIB // 4).add_(1)


def hold_after_more(mebibytes):
    hold(3 * mebibytes)
    if not forget_peak():  # away from Linux the figure begins where the process does
        hold(4 * mebibytes)
    hold(mebibytes)


def end_at_once():
    os._exit(3)


def test_the_peak_is_what_was_held_at_most():
    assert 100 < peak_of(hold, 100) < 130


def test_what_was_held_before_is_left_out_where_linux_lets_it():
    peak = peak_of(hold_after_more, 100)
    assert 100 < peak < 130 if sys.platform == "linux" else 400 < peak < 430


def test_a_process_that_ends_without_a_figure_gets_one_line():
    with pytest.raises(BenchError, match="ended with 3"):
        peak_of(end_at_once)


@pytest.mark.skipif("ARCFACE_TORCH" not in os.environ, reason="no checkout of arcface_torch")
def test_beside_arcface_torch(tmp_path, capsys):
    out = tmp_path / "classes.json"
    asked = ["bench", "classes", "--num-classes", "50", "--batch-size", "4", "--rounds", "2"]
    assert main([*asked, "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    assert len(told["ratios"]["PartialFC_V2 / PartialFC, time"]["rounds"]) == 2
    assert set(told["seconds"]) == {"PartialFC", "PartialFC_V2"}
    assert told["settings"]["num_classes"] == 50
    assert "PartialFC / PartialFC_V2, memory" in capsys.readouterr().out


def test_alone(monkeypatch, capsys):
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    monkeypatch.setattr("arcface_cakd.bench.classes.peak_of", lambda *args: 1.0)
    assert main(["bench", "classes", "--num-classes", "50", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "PartialFC, seconds" in out
    assert "set ARCFACE_TORCH" in out
