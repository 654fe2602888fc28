"""Which files of a folder are images: by suffix, else by their first bytes."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from arcface_cakd.data.errors import DataError

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pnm", ".avif"),
}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_HEAD = 18
_NAMED = 3


def begins_as_image(head: bytes) -> bool:
    """Whether a file that begins so is an image of the formats in ``SUFFIXES``."""
    if head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head[:2] == b"BM":  # too short to tell it from a text
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    if head[:1] == b"P" and head[1:2] in b"2356" and len(head) > 2:
        return head[2:3] in b" \t\r\n#"
    return head[4:12] in (b"ftypavif", b"ftypavis")


@dataclass
class FolderFiles:
    """The files below a folder, each list in order of path.

    Attributes:
        images: what has an image's suffix or begins as an image does.
        others: the other files.
        dangling: links that lead nowhere.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)

    def add(self, more: "FolderFiles") -> None:
        """Take in the files of another folder."""
        self.images += more.images
        self.others += more.others
        self.dangling += more.dangling

    def sort(self) -> "FolderFiles":
        for paths in (self.images, self.others, self.dangling):
            paths.sort()
        return self

    def refuse_dangling(self) -> None:
        """Raise DataError where a link leads nowhere."""
        if self.dangling:
            raise DataError(
                f"{self.dangling[0]}: a link that leads nowhere, {len(self.dangling)} in all: "
                "mend or remove them"
            )


def files_directly_in(folder: Path) -> tuple[FolderFiles, list[Path]]:
    """The files of a folder itself, and its subfolders in order of name.

    Links are followed. Names that begin with a dot are left out.

    Raises:
        DataError: something cannot be read.
    """
    found, folders = FolderFiles(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                path = folder / entry.name
                if entry.is_dir():
                    folders.append(path)
                elif entry.is_file():
                    (found.images if is_image(path) else found.others).append(path)
                else:
                    (found.dangling if entry.is_symlink() else found.others).append(path)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error
    return found.sort(), sorted(folders)


def files_below(folder: Path) -> FolderFiles:
    """The files of a folder and of all folders in it.

    Raises:
        DataError: something cannot be read, or a link leads back to a folder that it is in.
    """
    found = FolderFiles()
    pending = [folder]
    while pending:
        here = pending.pop()
        files, folders = files_directly_in(here)
        found.add(files)
        for inner in folders:
            if inner.is_symlink():
                target = inner.resolve()
                if target in (here.resolve(), *here.resolve().parents):
                    raise DataError(f"{inner}: a link back to a folder that it is in: remove it")
            pending.append(inner)
    return found.sort()


def read_encoded(path: str | Path) -> bytes:
    """The bytes of an image.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error


def some_of(paths: Iterable[Path], root: Path) -> str:
    """The first few of the paths, for a message."""
    names = [path.relative_to(root).as_posix() for path in paths]
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix or, where that is of none, by how it begins.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    with open(path, "rb") as file:
        return begins_as_image(file.read(_HEAD))
