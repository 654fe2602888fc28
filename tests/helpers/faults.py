"""Faults for tests: a process killed at a step or around a write, files that are damaged.

Kills happen in a forked child, which shares the imports of its parent and nothing else.
"""

import contextlib
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from arcface_cakd.engine.builders import Run

# What changes the disk, as the code under test calls it: before and after each is a place to die.
WRITES = ((os, "replace"), (os, "link"), (os, "unlink"), (os, "rename"), (torch, "save"))


def forked(work: Callable[[], object], log: Path | None = None) -> int:
    """The exit code of a forked child that does some work: 0, or 1 where it raises, or minus the
    number of the signal that ended it.

    Args:
        work: what to do.
        log: a file for what the child says; None: nobody hears it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            said = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def watched(event: Callable[[str], None]) -> Iterator[None]:
    """Calls ``event`` with the name of what is about to happen, and of what has happened.

    That is steps of the built-in loop (``Run.terms``), ``WRITES``, and "in save" where the first
    part of a file is on the disk.
    """
    former = [(Run, "terms", Run.terms), *((owner, n, getattr(owner, n)) for owner, n in WRITES)]

    def around(name: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            event(f"before {name}")
            result = function(*args, **kwargs)
            event(f"after {name}")
            return result

        return wrapped

    def save(content, file, *args, **kwargs):
        event("before save")
        real(content, _InParts(file, event), *args, **kwargs)
        event("after save")

    real = torch.save
    try:
        for owner, name, function in former:
            setattr(owner, name, save if name == "save" else around(name, function))
        yield
    finally:
        for owner, name, function in former:
            setattr(owner, name, function)


def killed_at(number: int, work: Callable[[], object], log: Path | None = None) -> int:
    """``forked``, with SIGKILL at the event of that number (from 0), if there are so many."""
    return forked(lambda: _dying(number, work), log)


def events_of(work: Callable[[], object], record: Path) -> list[str]:
    """The names of the events of some work, in order; ``record``: a file to hand them over by."""

    def recorded():
        with record.open("w") as file, watched(lambda name: print(name, file=file)):
            work()

    assert forked(recorded) == 0
    return record.read_text().splitlines()


def truncate(path: Path, draw: random.Random) -> None:
    """Cut a file anywhere."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def _dying(number: int, work: Callable[[], object]) -> None:
    seen = []

    def event(name: str) -> None:
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(name)

    with watched(event):
        work()


class _InParts:
    """A file that tells when its first part is written."""

    def __init__(self, file, event: Callable[[str], None]):
        self._file, self._event, self._told = file, event, False

    def write(self, data) -> int:
        written = self._file.write(data)
        if not self._told:
            self._told = True
            self._file.flush()
            self._event("in save")
        return written

    def __getattr__(self, name: str):
        return getattr(self._file, name)
