"""Sides take turns; ratios are round by round."""

import numpy as np
import pytest
import torch

from arcface_cakd.bench import Ratio, Report, Times, take_turns
from arcface_cakd.bench.timing import clock_of


class Clock:
    """Moves on by what each side says that it takes, and by nothing else."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def side(self, name, *seconds):
        waits = iter(seconds)

        def work():
            self.calls.append(name)
            self.now += next(waits)

        return work


def test_sides_take_turns_and_the_order_turns_too():
    clock = Clock()
    sides = {"a": clock.side("a", 9, 1, 2, 3), "b": clock.side("b", 9, 2, 8, 3)}
    times = take_turns(sides, 3, clock=clock)
    assert "".join(clock.calls) == "abbaabba"
    assert times.seconds == {"a": [1, 2, 3], "b": [2, 8, 3]}
    assert times.ratio("b", "a").rounds == (2, 4, 1)
    assert times.ratio("b", "a", "b").rounds == (2 / 3, 8 / 10, 3 / 6)
    assert times.median("b") == 3


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_the_spread_is_of_the_rounds(count):
    rounds = np.random.default_rng(count).normal(size=count).tolist()
    ratio = Ratio.of(rounds)
    expected = np.quantile(rounds, [0.25, 0.5, 0.75])
    np.testing.assert_allclose([ratio.low, ratio.median, ratio.high], expected)
    assert ratio.rounds == tuple(rounds)


def test_on_a_cpu_what_others_do_does_not_count():
    """CPU time of this process: it stands still while the process sleeps."""
    import time

    assert clock_of(torch.device("cpu")) is time.process_time


def test_a_report_holds_each_figure_with_its_rounds():
    times = Times({"ours": [1.0, 2.0], "theirs": [2.0, 2.0]})
    report = Report("arcface-cakd bench step", {"batch_size": 2}, notes=["without a GPU"])
    report.ratios["theirs / ours"] = times.ratio("theirs", "ours")
    report.amounts["MiB at most"] = 12.5
    report.add_times(times)
    told = report.to_dict()
    assert told["ratios"]["theirs / ours"]["rounds"] == [2.0, 1.0]
    assert told["ratios"]["theirs / ours"]["median"] == 1.5
    assert told["seconds"] == times.seconds
    assert told["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    lines = str(report).splitlines()
    assert lines[1].split()[:4] == ["theirs", "/", "ours", "1.500"]
    assert lines[2].split() == ["MiB", "at", "most", "12.500"]
    assert lines[-1] == "without a GPU"
