"""A set appears whole or not at all, also where its process is killed."""

import signal
import subprocess
import sys

import pytest
from helpers.written_sets import shown

from arcface_cakd.data import DataError
from arcface_cakd.preparation.output import whole_set
from arcface_cakd.preparation.shuffling import shuffle

FILES = ("train.rec", "train.idx", "property", "labels.tsv")


def fill(folder, text):
    for name in FILES:
        (folder / name).write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_set_that_fails_leaves_what_was_there(tmp_path):
    for out in (tmp_path / "new", tmp_path / "old"):
        if out.name == "old":
            out.mkdir()
            fill(out, "old")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RuntimeError), whole_set(out, True) as folder:
            fill(folder, "half")
            raise RuntimeError
        assert sorted(tmp_path.rglob("*")) == before
    assert contents(tmp_path / "old") == dict.fromkeys(FILES, "old")


def test_other_files_stay_and_the_sets_are_replaced(tmp_path):
    fill(tmp_path, "old")
    (tmp_path / "lfw.bin").write_text("pairs")
    with pytest.raises(DataError, match="with --force"), whole_set(tmp_path, False):
        pass
    with whole_set(tmp_path, True) as folder:
        fill(folder, "new")
        assert (tmp_path / "train.rec").read_text() == "old"
    assert contents(tmp_path) == dict.fromkeys(FILES, "new") | {"lfw.bin": "pairs"}


def test_what_only_the_former_set_had_goes(tmp_path, caplog):
    fill(tmp_path, "old")
    for name in ("left_out.tsv", "duplicates.tsv", "train_landmarks.npy"):
        (tmp_path / name).write_text("old")
    with whole_set(tmp_path, True) as folder:
        (folder / "train.rec").write_text("new")
        (folder / "train.idx").write_text("new")
    # Landmarks may be weeks of work: they are named.
    assert contents(tmp_path) == {
        "train.rec": "new",
        "train.idx": "new",
        "train_landmarks.npy": "old",
    }
    assert "train_landmarks.npy: is of the former data set" in caplog.text


KILLED = """
import os, signal, sys
from arcface_cakd.preparation import output
from arcface_cakd.preparation.shuffling import shuffle
moves, replace = 0, os.replace
def counted(source, target):
    global moves
    if str(target).startswith(sys.argv[2] + "/") and ".partial" not in str(target):
        if moves == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        moves += 1
    replace(source, target)
os.replace = counted
shuffle(sys.argv[1], sys.argv[2], 1, force=True)
"""


def test_killed_between_two_files_it_is_no_set(make_set, tmp_path):
    """Which a mixture of two would be, in one order or another."""
    folder = make_set("in", [0, 0, 1, 1], names={0: "a", 1: "b"}, landmarks=True)
    out = make_set("out", [0, 1, 2], 50)
    command = [sys.executable, "-c", KILLED, str(folder), str(out), "2"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert not (out / "train.idx").exists()
    assert [path.name for path in out.glob(".set*")]
    shuffle(folder, out, 1, force=True)
    assert sorted(shown(out).images) == sorted(shown(folder).images)
    assert not list(out.glob(".set*"))
