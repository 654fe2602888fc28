import os
import signal
import socket
import subprocess
import sys

import pytest

from arcface_cakd.files import atomic_path, write_text


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic_path(target) as partial:
        partial.write_text("one")
        assert not target.exists() and partial.suffix == ".txt"
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


WRITER = """
import os, signal, sys
from arcface_cakd.files import atomic_path
with atomic_path(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial.name, flush=True)
    if sys.argv[2] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def writer(path, way):
    """A process in the midst of writing ``path``, and the name of its partial file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_the_next_write_removes_what_a_killed_process_left(tmp_path):
    target = tmp_path / "a.txt"
    process, left = writer(target, "dies")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    # Of other files and of another machine's processes, who may be at work.
    others = {
        left.replace(".a.", ".a.b."),
        left.replace(".txt", ".npy"),
        left.replace(socket.gethostname(), "elsewhere"),
        left.replace(".partial", ""),
    }
    for name in others:
        (tmp_path / name).touch()
    assert len(others - {left}) == 4 and (tmp_path / left).read_text() == "half"
    write_text(target, "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", *others}


def test_two_processes_that_write_the_same_file_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "a.txt"
    process, partial = writer(target, "waits")
    write_text(target, "whole")
    assert (tmp_path / partial).read_text() == "half" and target.read_text() == "whole"
    process.communicate()
    assert process.returncode == 0 and target.read_text() == "half"
    assert os.listdir(tmp_path) == ["a.txt"]
