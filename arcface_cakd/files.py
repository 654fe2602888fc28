"""Files that appear whole or not at all: written beside, flushed to the disk, and renamed."""

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of errors that free space mends."""

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
# Bytes of a partial file's name, which has more to hold than the file's own.
_LONGEST_STEM = 100
_LONGEST_SUFFIX = 50
_BLOCK = 1 << 20  # bytes of a file that are read at once


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; put it in ``path``'s place when the block succeeds.

    The parent folder is made if it is missing. If the block raises, the partial file is removed
    and whatever stood at ``path`` is left as it was; if the process is killed, the next one on
    this machine that writes ``path`` removes it. The suffix is kept, because some writers
    (numpy, matplotlib) choose or append by it. See ``partial_beside`` and ``put_in_place``.
    """
    path = Path(path)
    partial = partial_beside(path)
    try:
        yield partial
        put_in_place(partial, path)
    except OSError as error:
        if error.filename == str(partial):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, to fill with what will stand there.

    When the block ends, the folder is removed with what it still holds; if the process is killed,
    by the next one on this machine that asks for the same. The parent folder is made if it is
    missing.

    Raises:
        OSError: it cannot be made; of the name ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    scratch = _partial_name(path)
    try:
        scratch.mkdir()
    except OSError as error:
        error.filename = str(path)  # the name that the user knows
        raise
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def partial_beside(path: str | os.PathLike) -> Path:
    """Make an empty file beside ``path``, for ``put_in_place`` when it is written.

    Nobody can have put a file or a link there before, for nobody can tell its name; and nobody
    reads it who may not read what stands at ``path``.

    Raises:
        OSError: it cannot be made; of the name ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    partial = _partial_name(path)
    mode = 0o666 if _mode(path) is None else 0o600
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, mode))
    except OSError as error:
        error.filename = str(path)
        raise
    return partial


def put_in_place(partial: str | os.PathLike, path: str | os.PathLike) -> None:
    """Rename a written file to ``path``: after a crash of the machine one of the two is there.

    A link at ``path`` is replaced, not followed; the permissions of a file there stay.
    """
    mode = _mode(path)
    if mode is not None:
        with contextlib.suppress(OSError):  # disks that know no permissions
            os.chmod(partial, mode)
    sync(partial)
    os.replace(partial, path)
    _sync_folder(Path(path).parent)


def put_folder_in_place(written: Path, path: Path) -> None:
    """Rename a folder of files to ``path``, where there is nothing or an empty folder."""
    for file in written.iterdir():
        sync(file)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
    written.rename(path)
    _sync_folder(path.parent)


def sync(path: str | os.PathLike) -> None:
    """Wait until what was written to a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def json_text(content: Any, indent: int) -> str:
    """``content`` as JSON, which has no number for NaN and infinity: ``null`` stands for them."""
    return json.dumps(_with_null(content), indent=indent, allow_nan=False) + "\n"


def in_the_way_of(path: str | os.PathLike) -> Path | None:
    """What is no folder among those that ``path`` would be in; None where each is one or can be."""
    above = Path(os.path.abspath(path)).parents
    there = next(folder for folder in above if os.path.lexists(folder))
    return None if there.is_dir() else there


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def open_own(path: str | os.PathLike, mode: str, **options: Any) -> IO:
    """``open`` for a file that grows or changes in its place: OSError where a link stands there."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _NO_LINKS, 0o666)

    return open(path, mode, opener=opener, **options)


def _with_null(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _with_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _mode(path: str | os.PathLike) -> int | None:
    """The permissions of a file, None where there is none."""
    try:
        found = os.lstat(path).st_mode
    except OSError:
        return None
    return stat.S_IMODE(found) if stat.S_ISREG(found) else None


def _sync_folder(folder: Path) -> None:
    """So that a rename outlives a crash of the machine; some disks and systems have no such."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _partial_name(path: Path) -> Path:
    token = secrets.token_hex(8)
    return path.with_name(f"{_partial_prefix(path)}{os.getpid()}-{token}{_partial_suffix(path)}")


def _partial_prefix(path: Path) -> str:
    # Folders may be shared: a process number means something on its own machine only.
    return f".{cut_name(path.stem, _LONGEST_STEM)}.{socket.gethostname()}-"


def _partial_suffix(path: Path) -> str:
    return f".partial{cut_name(path.suffix, _LONGEST_SUFFIX)}"


def cut_name(name: str, size: int) -> str:
    """As much of a file's name as so many bytes hold, on a disk, in whole characters."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= size else encoded[:size].decode(errors="ignore")


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more left beside ``path``, where that is allowed."""
    prefix, suffix = _partial_prefix(path), _partial_suffix(path)
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(prefix) and name.endswith(suffix):
                number, _, rest = name[len(prefix) : -len(suffix)].partition("-")
                if rest and number.isdecimal() and not _runs(int(number)):
                    abandoned = path.with_name(name)
                    if abandoned.is_dir() and not abandoned.is_symlink():
                        shutil.rmtree(abandoned, ignore_errors=True)
                    else:
                        abandoned.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is such a process; True where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
