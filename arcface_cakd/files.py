"""Files that appear whole or not at all: written beside and renamed."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; rename it to ``path`` when the block succeeds.

    The parent folder is made if it is missing. If the block raises, the partial file is removed
    and whatever stood at ``path`` is left as it was; if the process is killed, the next one on
    this machine that writes ``path`` removes it. The suffix is kept, because some writers
    (numpy, matplotlib) choose or append by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    partial = path.with_name(f"{_partial_prefix(path)}{os.getpid()}{_partial_suffix(path)}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename == str(partial):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _partial_prefix(path: Path) -> str:
    # Folders may be shared: a process number means something on its own machine only.
    return f".{path.stem}.{socket.gethostname()}-"


def _partial_suffix(path: Path) -> str:
    return f".partial{path.suffix}"


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more left beside ``path``, where that is allowed."""
    prefix, suffix = _partial_prefix(path), _partial_suffix(path)
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(prefix) and name.endswith(suffix):
                number = name[len(prefix) : -len(suffix)]
                if number.isdecimal() and not _runs(int(number)):
                    path.with_name(name).unlink(missing_ok=True)


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
