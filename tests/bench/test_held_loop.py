"""Loops that know nothing of each other go on by turns."""

import threading

import pytest

from arcface_cakd.bench.held_loop import HeldLoop


def loop_of(name, seen, finished):
    def loop(batches):
        seen.append(f"{name} begins")
        for number, batch in enumerate(batches):
            seen.append(f"{name}{number} {batch}")
        finished.append(name)  # unreachable: there is no end

    return loop


def test_two_loops_by_turns_and_nothing_before_it_is_let_on():
    seen, finished = [], []
    one, two = (HeldLoop(loop_of(name, seen, finished), lambda: "x") for name in "ab")
    assert seen == ["a begins", "b begins"]
    for held in (one, two, two, one):
        held.step()
    assert seen[2:] == ["a0 x", "b0 x", "b1 x", "a1 x"]
    one.close()
    two.close()
    assert not finished
    with pytest.raises(RuntimeError, match="ended"):
        one.step()


def test_what_a_loop_raises_reaches_whoever_let_it_on():
    def at_the_second(batches):
        next(batches)
        next(batches)
        raise ValueError("the loss is not finite")

    held = HeldLoop(at_the_second, lambda: None)
    held.step()
    with pytest.raises(ValueError, match="not finite"):
        held.step()

    def at_once(batches):
        raise KeyError("no such network")

    with pytest.raises(KeyError, match="no such network"):
        HeldLoop(at_once, lambda: None)


def test_a_step_is_over_when_the_next_batch_is_asked_for():
    done = []

    def loop(batches):
        for _ in batches:
            done.append(threading.current_thread())

    held = HeldLoop(loop, lambda: None)
    held.step()
    assert len(done) == 1
    held.close()
    assert not done[0].is_alive()
