"""A rank that dies, is stopped or stuck ends the others and is named."""

import os
import signal
import time

import pytest
from helpers.engine_runs import small_config
from helpers.processes import RankFailed, as_torchrun, run_ranks

from arcface_cakd.distributed import rank
from arcface_cakd.engine import train
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.watchdog import Signs, Watchdog


def heard(*moments, seconds=10.0):
    """``Signs`` of two ranks after (time, beats, steps)."""
    signs = Signs(2, seconds)
    for now, beats, steps in moments:
        signs.hear(now, beats, steps)
    return signs


def test_a_rank_without_signs_of_life_is_silent():
    signs = heard((0, (1, 1), (0, 0)), (6, (2, 1), (0, 0)), (12, (3, 1), (0, 0)))
    assert signs.silent(9) == [] and signs.silent(12) == [1] and signs.silent(23) == [0, 1]
    signs.hear(13, (4, 2), (0, 0))
    assert signs.silent(13) == []


def test_a_rank_that_lives_and_does_not_come_to_the_step_is_behind():
    signs = heard((0, (1, 1), (4, 4)), (1, (2, 2), (5, 4)), (11, (3, 3), (5, 4)))
    assert signs.behind(10) == [] and signs.behind(11) == [1]
    signs.hear(12, (4, 4), (5, 5))
    assert signs.behind(30) == []


def test_ranks_that_wait_at_the_same_step_are_fine_however_long():
    """As while rank 0 validates."""
    signs = heard((0, (1, 1), (4, 4)), (999, (2, 2), (4, 4)))
    assert signs.silent(999) == signs.behind(999) == []


def test_one_rank_needs_no_watching():
    with Watchdog(0.01) as watchdog:
        watchdog.tick()
        time.sleep(0.05)


def interrupted_in_step_two(config, number, left):
    as_torchrun()
    plain, calls = Run.terms, []

    def terms(self, *batch):
        calls.append(1)
        if len(calls) == 2 and rank() == 0:
            os.kill(os.getpid(), number)
        return plain(self, *batch)

    def end(self, found, text):
        left.write_text(text)
        os._exit(1)

    Run.terms, Watchdog._end = terms, end
    train(config)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_others_end_and_name_it(faces, tmp_path, number):
    """Rank 0 too, which else alone speaks."""
    config = small_config(faces, tmp_path / "out", rank_timeout=5.0)
    left = tmp_path / "left"
    with pytest.raises(RankFailed) as failed:
        run_ranks(interrupted_in_step_two, 2, tmp_path, config, number, left)
    if number == signal.SIGSTOP:
        assert left.read_text() == "rank 0 has given no sign of life for 5 s (rank_timeout)"
    else:
        assert "DistributedError: rank 0 was killed or lost; the others ended" in str(failed.value)
