"""A rank that dies, is stopped or stuck ends the others and is named."""

import os
import signal
import time

import pytest
from helpers.engine_runs import small_config
from helpers.processes import as_torchrun, exit_codes

from arcface_cakd.distributed import DistributedError, gather_objects, rank
from arcface_cakd.engine import train
from arcface_cakd.engine import watchdog as watchdog_module
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.watchdog import Signs, Watchdog, _key


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
    assert signs.behind(10, 3) == [] and signs.behind(11, 3) == [1]
    signs.hear(12, (4, 4), (5, 5))
    assert signs.behind(30, 30) == []


def test_a_rank_that_died_before_it_told_its_step_is_silent_and_not_behind():
    signs = heard((0, (1, 1), (0, 0)), (8, (2, 2), (1, 0)), (15, (3, 2), (1, 0)))
    assert signs.behind(11, 2) == [] and signs.behind(11, 4) == [1]
    assert signs.silent(18.5) == [1]


def test_ranks_that_wait_at_the_same_step_are_fine_however_long():
    """As while rank 0 validates."""
    signs = heard((0, (1, 1), (4, 4)), (999, (2, 2), (4, 4)))
    assert signs.silent(999) == signs.behind(999, 999) == []


def test_one_rank_needs_no_watching():
    with Watchdog(0.01) as watchdog:
        watchdog.tick()
        time.sleep(0.05)


class Store(dict):
    set, get = dict.__setitem__, dict.__getitem__


@pytest.fixture
def watched(monkeypatch):
    """``watched(moments, signs, answers)``: what rank 0's watchdog of two ranks and 10 s says.

    It looks at the ``moments``, in seconds; ``signs(n)`` counts those of the other rank up to the
    nth look, and ``answers(n)`` is whether the store says so.
    """

    def run(moments, signs=lambda look: look, answers=lambda look: True):
        watchdog, left, said = Watchdog(10.0), list(moments), []
        watchdog._store, watchdog._signs = Store(), Signs(2, 10.0)

        def wait(pause):
            look = len(moments) - len(left)
            if answers(look):
                watchdog._store.set(_key(1), f"{signs(look)} 0")
                watchdog._give_sign()
                watchdog._listen()
            return bool(said) or not left

        with monkeypatch.context() as patch:
            patch.setattr(watchdog_module, "world_size", lambda: 2)
            patch.setattr(time, "monotonic", lambda: left.pop(0))
            patch.setattr(Watchdog, "_end", lambda self, *what: said.append(what))
            patch.setattr(watchdog._ended, "wait", wait)
            watchdog._watch()
        return said

    return run


EVERY_TWO = range(0, 40, 2)


def test_it_says_who_is_silent_and_not_after_it_was_stopped_itself(watched):
    assert watched(EVERY_TWO) == []
    text = "rank 1 has given no sign of life for 10 s (rank_timeout)"
    assert watched(EVERY_TWO, signs=lambda look: 1) == [(0, text)]
    # As where a batch system stops a whole job for an hour: nobody has given signs meanwhile.
    assert watched([0, 2, 3602, 3604, 3606], signs=lambda look: 1) == []


def test_a_store_that_gives_no_answer_ends_the_run(watched):
    """Each rank says so, for who holds it may be the one that speaks otherwise."""
    ((speaker, text),) = watched(EVERY_TWO, answers=lambda look: look < 2)
    assert speaker == rank() and "has given no answer for 10 s" in text


def lost_in_step_two(config, fault, victim, left):
    """One rank is; another leaves what is said of it, and ends what is only stopped."""
    as_torchrun()
    plain, tick, end, calls = Run.terms, Watchdog.tick, Watchdog._end, []
    process = gather_objects(os.getpid())[victim]

    def terms(self, *batch):
        calls.append(1)
        if len(calls) == 2 and rank() == victim and fault in ("SIGSTOP", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, fault))
        return plain(self, *batch)

    def ticked(self):
        if len(calls) == 1 and rank() == victim and fault == "late":
            time.sleep(60)
        tick(self)
        self._give_sign()  # so that all know of this step, however busy the machine is

    def told(self, speaker, text):
        left.write_text(text)
        if fault == "SIGSTOP":
            os.kill(process, signal.SIGKILL)
        end(self, speaker, text)

    Run.terms, Watchdog.tick, Watchdog._end = terms, ticked, told
    try:
        train(config)
    except DistributedError as error:
        left.write_text(str(error))
        raise


SILENT = "has given no sign of life for 4 s (rank_timeout)"
GONE = "was killed or lost; the others ended"
LATE = "has not come to the next step for 4 s (rank_timeout)"


@pytest.mark.parametrize(
    ("victim", "fault", "said"),
    [
        (0, "SIGSTOP", SILENT),
        (1, "SIGSTOP", SILENT),
        (0, "SIGKILL", GONE),
        (1, "SIGKILL", GONE),
        (0, "late", LATE),
        (1, "late", LATE),
    ],
    ids=lambda value: None if " " in str(value) else value,
)
def test_the_others_end_and_name_it(faces, tmp_path, victim, fault, said):
    """Rank 0 too, which else alone speaks."""
    config = small_config(faces, tmp_path / "out", rank_timeout=4.0)
    left = tmp_path / "left"
    codes = exit_codes(lost_in_step_two, 2, tmp_path, config, fault, victim, left, timeout=60)
    # Who is late is there to end itself.
    expected = [1, 1]
    if fault != "late":
        expected[victim] = -signal.SIGKILL
    # Of one that was killed others that are late themselves may hear by its silence first.
    sayings = (GONE, SILENT) if fault == "SIGKILL" else (said,)
    assert codes == expected
    assert left.read_text() in [f"rank {victim} {saying}" for saying in sayings]
