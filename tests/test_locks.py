"""One run at a time in a folder; what is dead holds nothing."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.engine_runs import make_faces
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.cli import main
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


def free_lock(folder, seconds=60):
    """The lock, once a worker that was just forked has had its turn to let go of it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return FolderLock(folder)
        except FolderInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


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
        free_lock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)
        process.communicate()
    assert os.listdir(tmp_path) == []


def commanded(config):
    """The command's exit code, and what this rank says."""
    as_torchrun()
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["train", str(config)])
    return code, said.getvalue().splitlines()


def test_ranks_in_an_output_of_another_run_end_with_one_line(tmp_path):
    """As torchrun starts them: all end, one speaks, and what is there stays."""
    faces, output = make_faces(tmp_path / "faces"), tmp_path / "out"
    config = tmp_path / "tiny.py"
    config.write_text(
        "import helpers.engine_runs\nfrom easydict import EasyDict as edict\n"
        f"config = edict(rec={str(faces)!r}, output={str(output)!r}, network='test_tiny',\n"
        "              embedding_size=16, batch_size=4, num_workers=0, val_targets=[])\n"
    )
    first = FolderLock(output)
    (output / "metrics.jsonl").write_text("the first's")
    (code, said), (other_code, other_said) = run_ranks(commanded, 2, tmp_path, config)
    assert code == other_code == 1
    (line,) = [text for text in said if text.startswith("arcface-cakd")]
    holder = f"arcface-cakd train: error: output {output}: process {os.getpid()} on"
    assert line.startswith(holder) and "wait until it ends, or name another output" in line
    assert not [text for text in other_said if "error" in text]
    assert sorted(os.listdir(output)) == [LOCK, "metrics.jsonl"]
    assert (output / "metrics.jsonl").read_text() == "the first's"
    first.release()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(victim)
    with pytest.raises(OSError):
        FolderLock(tmp_path / "out")
    assert victim.read_text() == "mine"


def test_a_folder_that_was_moved_away_does_not_unlock_the_one_in_its_place(tmp_path):
    first = FolderLock(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    second = FolderLock(tmp_path / "out")
    first.release()
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path / "out")
    second.release()
