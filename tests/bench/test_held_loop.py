"""Loops that know nothing of each other go on by turns, each in a process of its own."""

import os
import threading
import time

import pytest
import torch

from arcface_cakd.bench import BenchError
from arcface_cakd.bench.held_loop import HeldLoop

# Forked here, so that no process has to import torch; nothing of torch is called in them.


def loop_of(turns, name, file):
    def say(text):
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(f"{name} {text}\n")

    say("begins")
    for number, _ in enumerate(turns):
        say(number)
    say("ends")  # unreachable: there is no end


def test_two_loops_by_turns_and_nothing_before_it_is_let_on(tmp_path):
    file = tmp_path / "lines"
    one, two = (HeldLoop(loop_of, name, file, start_method="fork") for name in "ab")
    assert file.read_text().splitlines() == ["a begins", "b begins"]
    for held in (one, two, two, one):
        held.step()
    assert file.read_text().splitlines()[2:] == ["a 0", "b 0", "b 1", "a 1"]
    one.close()
    two.close()
    assert "ends" not in file.read_text()
    with pytest.raises(RuntimeError, match="ended"):
        one.step()
    one.close()


def raising_at_the_second(turns):
    next(turns)
    next(turns)
    raise ValueError("the loss is not finite")


class TwoPart(Exception):
    def __init__(self, one, two):  # does not pickle
        super().__init__(f"{one}, {two}")


def raising_at_once(turns, error):
    raise TwoPart("no such", "network") if error is None else error


def dying(turns):
    next(turns)
    os._exit(3)


def test_what_a_loop_raises_reaches_whoever_let_it_on():
    held = HeldLoop(raising_at_the_second, start_method="fork")
    held.step()
    with pytest.raises(ValueError, match="not finite"):
        held.step()
    held.close()
    with pytest.raises(KeyError, match="no such network"):
        HeldLoop(raising_at_once, KeyError("no such network"), start_method="fork")
    with pytest.raises(RuntimeError, match="TwoPart: no such, network"):
        HeldLoop(raising_at_once, None, start_method="fork")


def test_a_process_that_is_gone():
    held = HeldLoop(dying, start_method="fork")
    with pytest.raises(BenchError, match="dying: its process ended with 3"):
        held.step()
    held.close()


def in_two_threads(turns, busy):
    def work():
        begin = time.thread_time()
        while time.thread_time() - begin < busy:
            pass

    for _ in turns:
        both = [threading.Thread(target=work) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()


def test_the_seconds_are_those_of_the_steps_in_all_threads():
    held = HeldLoop(in_two_threads, 0.1, start_method="fork")
    assert held.seconds == 0.0
    held.step()
    assert held.seconds >= 0.2
    time.sleep(0.01)
    first = held.seconds
    held.step()
    assert held.seconds >= first + 0.2
    held.close()


def saying_threads(turns, file):
    file.write_text(str(torch.get_num_threads()))
    print("of no use to whoever reads figures")
    next(turns)


def test_its_process_has_the_threads_of_this_one_and_says_nothing(tmp_path, capfd):
    held = HeldLoop(saying_threads, tmp_path / "threads", start_method="fork")
    held.close()
    assert (tmp_path / "threads").read_text() == str(torch.get_num_threads())
    said = capfd.readouterr()
    assert said.out == ""
    assert "of no use" in said.err
