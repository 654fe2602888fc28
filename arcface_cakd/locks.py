"""Folders that one run at a time writes to."""

import contextlib
import logging
import os
import socket
import weakref
from pathlib import Path
from typing import IO

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import open_own

try:
    import fcntl
except ImportError:  # no POSIX system: there, nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("arcface_cakd")

LOCK = ".lock"


def try_lock(file: IO) -> bool:
    """Whether this process has the system's lock on an open file from here on, until it closes it.

    On a disk that has no locks it seems so, and a warning says that.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        logger.warning("no locks on the disk of %s: let one run at a time write to it", file.name)
    return True


class FolderInUseError(ArcfaceCakdError):
    """Another process writes to a folder; the message names both."""


class FolderLock:
    """A folder as this process's own, until ``release`` or the process's end, however it ends.

    It is a lock of the system's on the file ``.lock``, which goes with the process; its forks,
    such as workers that outlive it for seconds, do not hold it. On a disk that has no locks, one
    warning says so.

    Args:
        folder: made if it is missing; removed again where nothing was put in it.

    Raises:
        FolderInUseError: another process holds it.
        OSError: it cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: IO | None = self._locked()
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        _held.add(self)

    def release(self) -> None:
        """Let others have it."""
        if self._file is None:
            return
        # Removed while it is held: what another process opened before is none, see below. Another
        # one's, where the folder was moved away and made anew, stays.
        with contextlib.suppress(OSError):
            if _is_at(self.folder / LOCK, self._file):
                os.unlink(self.folder / LOCK)
        self._file.close()
        self._file = None
        for path in self._made:
            with contextlib.suppress(OSError):  # there is something in it
                path.rmdir()

    def forget(self) -> None:
        """In a fork, which does not hold what its parent does."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _locked(self) -> IO:
        path = self.folder / LOCK
        while True:
            file = open_own(path, "a+", encoding="utf-8")
            if not try_lock(file):
                file.seek(0)
                holder = file.read(200).strip() or "another process"
                file.close()
                raise FolderInUseError(
                    f"output {self.folder}: {holder} is writing to it: wait until it ends, or name "
                    "another output"
                )
            with contextlib.suppress(FileNotFoundError):
                if _is_at(path, file):
                    return file
            file.close()  # its holder removed it meanwhile


def _is_at(path: Path, file: IO) -> bool:
    """Whether an open file is the one at ``path``."""
    return os.path.samestat(os.stat(path), os.fstat(file.fileno()))


_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
