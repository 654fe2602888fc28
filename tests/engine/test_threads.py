"""No more threads than cores, and a word where others want them too."""

import logging
import os

import pytest
import torch

from arcface_cakd import openmp
from arcface_cakd.engine import threads
from arcface_cakd.engine.threads import CHOSEN_BY, settle_threads, usable_cores


@pytest.fixture
def machine(monkeypatch):
    """Of two cores, where nobody has chosen; ``set`` is the number that torch was given last."""
    given = {"set": 8, "load": 0.0}
    for name in (*CHOSEN_BY, *openmp.CHOSEN_BY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: given["set"])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: given.update(set=number))
    monkeypatch.setattr(os, "getloadavg", lambda: (given["load"], 0, 0), raising=False)
    return given


def test_no_more_threads_than_cores(machine, caplog):
    caplog.set_level(logging.INFO, "arcface_cakd")
    settle_threads()
    assert machine["set"] == 2
    assert caplog.messages == ["threads: 2 instead of 8, as this process has no more cores"]
    settle_threads()
    assert len(caplog.messages) == 1


def test_a_busy_machine_is_said_and_changes_nothing(machine, caplog):
    machine.update(set=2, load=7.5)
    settle_threads()
    assert machine["set"] == 2
    assert "load of this machine is 7.5 on 2 cores" in caplog.text
    assert "GOMP_SPINCOUNT=1000 in the environment may be faster" in caplog.text
    caplog.clear()
    machine.update(set=1)
    settle_threads()
    assert not caplog.messages


@pytest.mark.parametrize("name", openmp.CHOSEN_BY)
def test_how_threads_wait_is_settled(name, machine, monkeypatch, caplog):
    machine.update(set=2, load=7.5)
    monkeypatch.setenv(name, "passive")
    settle_threads()
    assert machine["set"] == 2
    assert not caplog.messages


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_whoever_has_chosen_is_left_alone(name, machine, monkeypatch, caplog):
    machine["load"] = 9.0
    monkeypatch.setenv(name, "8")
    settle_threads()
    assert machine["set"] == 8
    assert not caplog.messages


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_a_containers_share_of_time_counts(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
