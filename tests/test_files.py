import errno
import os
import signal
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

from arcface_cakd.files import atomic_path, open_own, scratch_folder, write_text
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack


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


def test_what_cannot_be_written_to_is_named_as_the_user_does(tmp_path, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    for way in (atomic_path, scratch_folder):
        with pytest.raises(PermissionError) as error, way(tmp_path / "out"):
            pass
        assert error.value.filename == str(tmp_path / "out")


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


def test_the_name_of_a_partial_file_cannot_be_told_beforehand(tmp_path, monkeypatch):
    names = set()
    for _ in range(3):
        with atomic_path(tmp_path / "a.npy") as partial:
            names.add(partial.name)
            assert partial.is_file() and not partial.is_symlink()
            np.save(partial, np.zeros(3))
    assert len(names) == 3 and np.load(tmp_path / "a.npy").shape == (3,)
    # Were it told all the same, what somebody put there is not written to.
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * size)
    with atomic_path(tmp_path / "a.npy") as partial:
        told = partial
    victim = tmp_path / "victim"
    victim.write_text("mine")
    told.symlink_to(victim)
    with pytest.raises(FileExistsError) as raised:
        write_text(tmp_path / "a.npy", "text")
    assert raised.value.filename == str(tmp_path / "a.npy") and victim.read_text() == "mine"


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "a.txt"
    victim.write_text("mine")
    target.symlink_to(victim)
    with pytest.raises(OSError), open_own(target, "a") as file:
        file.write("more")
    write_text(target, "text")
    assert victim.read_text() == "mine" and not target.is_symlink()
    assert target.read_text() == "text"
    with open_own(target, "a") as file:
        file.write(" and more")
    assert target.read_text() == "text and more"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_stay_and_nobody_else_reads_meanwhile(tmp_path, mode):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    (tmp_path / "plain").touch()  # by Python's own open
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    target.chmod(mode)
    with atomic_path(target) as partial:
        assert stat.S_IMODE(partial.stat().st_mode) & ~mode == 0
        partial.write_text("new")
    assert stat.S_IMODE(target.stat().st_mode) == mode and target.read_text() == "new"


def test_what_a_rename_shows_is_on_the_disk_before_and_the_rename_after(tmp_path, monkeypatch):
    events = []

    def name_of(number):
        return os.path.basename(os.readlink(f"/proc/self/fd/{number}"))

    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", name_of(fd))), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append(("rename", os.path.basename(b))), replace(a, b))
    )
    write_text(tmp_path / "a.txt", "text")
    (synced, partial), renamed, folder = events
    assert synced == "sync" and partial.endswith(".partial.txt")
    assert renamed == ("rename", "a.txt") and folder == ("sync", tmp_path.name)
    events.clear()
    with MXIndexedRecordIO(tmp_path / "b.idx", tmp_path / "b.rec", "w") as writer:
        writer.write_idx(0, pack(IRHeader(0, 1.0, 0, 0), b"image"))
    assert [kind for kind, _ in events] == ["sync", "rename", "sync"] * 2
    assert [name for kind, name in events if kind == "rename"] == ["b.rec", "b.idx"]


def test_the_partial_files_of_a_record_writer_are_nobodys_to_choose(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".a.{os.getpid()}.partial.rec").symlink_to(victim)  # as they were once named
    with MXIndexedRecordIO(tmp_path / "a.idx", tmp_path / "a.rec", "w") as writer:
        writer.write_idx(0, pack(IRHeader(0, 1.0, 0, 0), b"image"))
    assert victim.read_text() == "mine" and (tmp_path / "a.rec").stat().st_size > 0


@pytest.mark.parametrize(
    "name", ["a" * 240 + ".txt", "名" * 80 + ".txt", "a." + "名" * 80], ids=len
)
def test_a_very_long_name_has_a_partial_file_too(tmp_path, name):
    """A disk counts bytes, 255 at most."""
    target = tmp_path / name
    write_text(target, "text")
    assert target.read_text() == "text"
