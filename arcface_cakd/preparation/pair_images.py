"""The images that pairs are made of: those of a record set, or of folders."""

import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from arcface_cakd.data.folder import identity_folders, people_below
from arcface_cakd.data.image_files import SUFFIXES, read_encoded, some_of
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.preparation.labels_table import LABELS_FILE
from arcface_cakd.preparation.record_set import RecordSet

logger = logging.getLogger("arcface_cakd")

_SUFFIX = re.compile(r"\.[A-Za-z]\w{1,4}")  # as .heic, and not the end of J.R._Smith_0001


class PairImages(Protocol):
    """Images that a list of pairs can name."""

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray:
        """Whom each image shows, int64 (N,), to draw pairs; -1 where nothing tells it."""
        ...

    def find(self, text: str) -> list[int]:
        """Positions of the images that a list may mean so: one, none, or several."""
        ...

    def person(self, position: int) -> str | None:
        """The name of whom an image shows, another for each person; None where nothing tells it."""
        ...

    def encoded(self, position: int) -> bytes: ...

    def describe(self, position: int) -> str: ...


def open_pair_images(path: str | Path) -> PairImages:
    """The images of a folder: its record set where it holds one, else its files."""
    path = Path(path)
    if any((path / name).exists() for name in ("train.rec", "train.idx")):
        return RecordImages(path)
    return FolderImages(path)


class RecordImages:
    """Of a record set, named by their keys."""

    def __init__(self, folder: Path):
        self._set = RecordSet(folder)
        people = np.unique(self._set.labels).tolist()
        self._people = self._set.names.apart(people)
        if shared := self._set.names.shared(people):
            logger.warning(
                "%s: %d name(s) stand for several labels, %s first, and each label is taken for a "
                "person of its own",
                *(folder / LABELS_FILE, len(shared), shared[0]),
            )

    def __len__(self) -> int:
        return len(self._set)

    def labels(self) -> np.ndarray:
        return self._set.labels

    def find(self, text: str) -> list[int]:
        if not text.isdecimal():
            return []
        position = int(np.searchsorted(self._set.keys, int(text)))
        there = position < len(self) and self._set.keys[position] == int(text)
        return [position] if there else []

    def person(self, position: int) -> str:
        return self._people[int(self._set.labels[position])]

    def encoded(self, position: int) -> bytes:
        return self._set.encoded(position)

    def describe(self, position: int) -> str:
        return self._set.describe(position)


class FolderImages:
    """Files below a folder, named by their paths in it, with their suffixes or without.

    A suffix may have changed when faces were cropped: where a file is not there, one that differs
    from it by suffixes alone is taken, and the log says so. ``data align`` writes ``1.png.jpg`` of
    ``1.png``, which is meant by ``1.png`` and by ``1``. Unicode's two forms of a letter such as é
    are one.

    Whom one shows is the subfolder that it is in, at whatever depth, or where people's folders are
    further down, the folder there; nobody knows it of files elsewhere.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._paths, _ = image_tree(folder)
        names = [path.relative_to(folder).as_posix() for path in self._paths]
        self._people = [name.partition("/")[0] if "/" in name else None for name in names]
        people = self._people_below()
        if people is not None:
            below = [
                path.relative_to(people).parts if people in path.parents else ()
                for path in self._paths
            ]
            self._people = [parts[0] if len(parts) > 1 else None for parts in below]
        self._places = {name: number for number, name in enumerate(names)}
        self._shorter: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            composed = unicodedata.normalize("NFC", name)
            others = [] if composed == name else [composed]
            for short in (*others, *_without_suffixes(composed)):
                self._shorter.setdefault(short, []).append(number)
        self._said = False

    def __len__(self) -> int:
        return len(self._paths)

    def labels(self) -> np.ndarray:
        found = identity_folders(self.folder)
        found.warn_of_left_out()
        numbers = {
            path: label for label, (_, paths) in enumerate(found.identities) for path in paths
        }
        if again := sorted(numbers.keys() - set(self._paths)):
            logger.warning(
                "%s: left out: %d images in folders that links lead to a second time (%s)",
                *(self.folder, len(again), some_of(again, self.folder)),
            )
        return np.array([numbers.get(path, -1) for path in self._paths], dtype=np.int64)

    def find(self, text: str) -> list[int]:
        exact = Path(text).as_posix()
        name = unicodedata.normalize("NFC", exact)
        for known in (exact, name):
            if known in self._places:
                return [self._places[known]]
        if name in self._shorter:
            return self._shorter[name]
        for short in _without_suffixes(name):
            if found := self._shorter.get(short):
                if len(found) == 1 and not self._said:
                    self._said = True
                    logger.warning(
                        "%s: there is no %s: %s is taken for it, and so are others for images of "
                        "which the suffix alone differs",
                        *(self.folder, text, self.describe(found[0])),
                    )
                return found
        return []

    def person(self, position: int) -> str | None:
        return self._people[position]

    def _people_below(self) -> Path | None:
        """The folder of people's folders where it is further down."""
        below: dict[str, list[Path]] = {}
        for person, path in zip(self._people, self._paths, strict=True):
            if person is not None:
                below.setdefault(person, []).append(path)
        return people_below(self.folder, list(below.items())) if below else None

    def encoded(self, position: int) -> bytes:
        return read_encoded(self._paths[position])

    def describe(self, position: int) -> str:
        return str(self._paths[position])


def _without_suffixes(name: str) -> Iterator[str]:
    """A path without its image's suffix, and where another is before it, without both; of a suffix
    that is no image's the last alone."""
    suffix = PurePosixPath(name).suffix
    if suffix.lower() not in SUFFIXES and _SUFFIX.fullmatch(suffix):
        yield name[: -len(suffix)]
    while (suffix := PurePosixPath(name).suffix).lower() in SUFFIXES:
        name = name[: -len(suffix)]
        yield name
