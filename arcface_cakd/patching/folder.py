"""A host folder on disk: where it is, what in it may hold lines of ours, how it is written."""

import contextlib
import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.files import atomic_path
from arcface_cakd.patching.blocks import Block, Marker, checksum, file_marker, take_out
from arcface_cakd.patching.edits import SEARCHED
from arcface_cakd.patching.errors import PatchError

_TELLING = ("train_v2.py", "partial_fc_v2.py", "backbones/__init__.py")
_IN_INSIGHTFACE = Path("recognition", "arcface_torch")


@dataclass(frozen=True)
class HostFile:
    """A file of the host.

    Attributes:
        lines: its text, split at the newlines.
        pristine: the same without our blocks.
        marker: that of a file which is ours as a whole, else None.
        damage: what is wrong with its marker lines; then no block is told from its other lines.
    """

    name: str
    lines: list[str]
    pristine: list[str]
    blocks: list[Block]
    marker: Marker | None
    damage: str | None = None

    @property
    def intact(self) -> bool:
        """Whether nobody has edited this file, which is ours as a whole."""
        return self.marker is not None and checksum(self.lines[1:]) == self.marker.checksum

    def says(self, text: str) -> bool:
        """Whether it holds this text; of a file that is ours, whatever its line endings are."""
        if self.marker is None:
            return "\n".join(self.lines) == text
        return self.intact and str(self.marker) == text.partition("\n")[0]


def find_host(directory: str | os.PathLike) -> Path:
    """The arcface_torch folder: ``directory``, or the one inside of a checkout of insightface.

    Raises:
        PatchError: neither is one.
    """
    directory = Path(directory)
    for folder in (directory, directory / _IN_INSIGHTFACE):
        if all((folder / name).is_file() for name in _TELLING):
            return folder
    if not directory.is_dir():
        raise PatchError(f"{directory}: no such folder; give a checkout of arcface_torch")
    missing = [name for name in _TELLING if not (directory / name).is_file()]
    raise PatchError(
        f"{directory}: no arcface_torch folder, it lacks {', '.join(missing)}; give "
        f"insightface's {_IN_INSIGHTFACE}, or the checkout that holds it"
    )


def read_host(root: Path, named: Container[str]) -> dict[str, HostFile]:
    """The files of a host that may hold lines of ours, by their path in it.

    A file that links give several names has one here: that in ``named``, else its own.
    """
    paths = {path for pattern in SEARCHED for path in root.glob(pattern) if path.is_file()}
    names = {
        path.relative_to(root).as_posix(): path.resolve()
        for path in paths
        if not _hidden(root, path)
    }
    own = root.resolve()
    by_file: dict[Path, str] = {}
    for name in sorted(names, key=lambda n: (n not in named, names[n] != own / n, n)):
        by_file.setdefault(names[name], name)
    return {name: _read(root, name) for name in sorted(by_file.values())}


def write_host(root: Path, texts: dict[str, str | None]) -> None:
    """Write the files of a host, those of None removed; each is there whole or as it was.

    All are written beside their places before the first is renamed, so that a full disk changes
    nothing. The permissions of files stay.

    Raises:
        PatchError: a file to write is a link that leads nowhere, or lies behind one: what it
            named would be made, wherever that is. Nothing is changed then. Or one cannot be
            replaced, when others have been.
    """
    for name, text in texts.items():
        if text is not None:
            _refuse_dangling(root, name)
    written: dict[Path, bytes] = {}
    try:
        with contextlib.ExitStack() as renames:
            for name, text in texts.items():
                if text is not None:
                    path = (root / name).resolve()  # a link stays a link
                    written[path] = text.encode("utf-8", "surrogateescape")
                    renames.enter_context(atomic_path(path)).write_bytes(written[path])
    except OSError as error:
        done = [path for path, content in written.items() if _holds(path, content)]
        if not done:
            raise
        raise PatchError(
            f"{error.filename2 or error.filename or root}: {error.strerror}, and {len(done)} files "
            "have been changed: make it possible to replace the others and run this again, or give "
            "--revert"
        ) from error
    for name, text in texts.items():
        if text is None:
            (root / name).unlink(missing_ok=True)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def leads_outside(root: Path, name: str) -> Path | None:
    """The file that a path in the host stands for, where links lead out of the host; else None."""
    target = (root / name).resolve()
    return None if target.is_relative_to(root.resolve()) else target


def _refuse_dangling(root: Path, name: str) -> None:
    path = root / name
    for place in (path, *path.parents):
        if place == root:
            return
        if place.is_symlink() and not place.exists():
            raise PatchError(
                f"{place}: a link to {os.readlink(place)}, which is not there: remove it; nothing "
                "was changed"
            )


def _read(root: Path, name: str) -> HostFile:
    path = root / name
    # What is no UTF-8 must survive, as must a missing newline at the end of the file.
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    marker = file_marker(lines)
    if marker is not None:
        return HostFile(name, lines, [], [], marker)
    try:
        pristine, blocks = take_out(lines, str(path))
    except PatchError as error:
        return HostFile(name, lines, lines, [], None, str(error))
    return HostFile(name, lines, pristine, blocks, None)


def _hidden(root: Path, path: Path) -> bool:
    """Such as what a killed run leaves beside the file that it was writing."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)
