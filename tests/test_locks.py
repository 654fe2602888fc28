"""One run at a time in a folder; what is dead holds nothing."""

import os
import signal
import subprocess
import sys

import pytest

from arcface_cakd.locks import LOCK, FolderInUseError, FolderLock

HOLDER = """
import os, sys, time
from arcface_cakd.locks import FolderLock
lock = FolderLock(sys.argv[1])
worker = os.fork()
if not worker:
    time.sleep(60)
print(worker, flush=True)
sys.stdin.read()
"""


def test_two_in_one_process_and_one_after_the_other(tmp_path):
    folder = tmp_path / "a" / "b"
    lock = FolderLock(folder)
    with pytest.raises(FolderInUseError, match=rf"output .*b: process {os.getpid()} on .*: wait"):
        FolderLock(folder)
    FolderLock(tmp_path / "other").release()
    lock.release()
    assert not (tmp_path / "a").exists()  # nothing was put in it
    again = FolderLock(folder)
    (folder / "model.pt").touch()
    again.release()
    lock.release()
    assert os.listdir(folder) == ["model.pt"]


def test_a_killed_process_holds_nothing_even_where_its_worker_lives_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(FolderInUseError, match=f"process {process.pid} on"):
            FolderLock(tmp_path)
        process.kill()
        process.wait()
        assert (tmp_path / LOCK).exists()
        os.kill(worker, 0)  # it is there
        FolderLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)
        process.communicate()
    assert os.listdir(tmp_path) == []


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(victim)
    with pytest.raises(OSError):
        FolderLock(tmp_path / "out")
    assert victim.read_text() == "mine"
