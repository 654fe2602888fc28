"""Face images of nobody in particular, in whatever folders they lie."""

import logging
import os
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.folder import refuse_records, without_known
from arcface_cakd.data.image_files import FolderFiles, files_directly_in, read_encoded, some_of

logger = logging.getLogger("arcface_cakd")


def image_tree(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The images below a folder, at any depth, and the other files; each in order of path.

    Images are told by suffix, and where that is of none, by content. Links are followed, and a
    folder that several lead to is read once. Names that begin with a dot are left out of both
    lists.

    Raises:
        DataError: no such folder, one without an image, a link that leads nowhere, or something
            that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold train.rec, or images")
    found = FolderFiles()
    seen = set()
    pending = [root]
    while pending:
        place = pending.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        files, folders = files_directly_in(place)
        found.add(files)
        pending += reversed(folders)  # the first by name is read next, with all that is in it
    found.sort().refuse_dangling()
    if not found.images:
        refuse_records(root)
        raise DataError(f"{root}: neither train.rec with train.idx nor an image in any folder")
    return found.images, found.others


class ImageTree:
    """The images below a folder, however it is divided, as one set without labels.

    It says in the log how many there are, and what was left out.

    Attributes:
        folder: the data set.
        keys: (N,) int64, 0 to N - 1: images in order of path.
        num_classes, num_people: None, as nobody is told apart.

    Args:
        folder: the data set.

    Raises:
        DataError: as ``image_tree``.
    """

    num_classes: int | None = None
    num_people: int | None = None

    def __init__(self, folder: str | Path):
        images, others = image_tree(folder)
        self.folder = Path(folder)
        self.paths = [str(path) for path in images]
        self.keys = np.arange(len(images), dtype=np.int64)
        others = without_known(others)
        left_out = ""
        if others:
            named = some_of(others, self.folder)
            left_out = f"; left out: {len(others)} that are no images ({named})"
        folders = len({path.parent for path in images})
        logger.info(
            "%s: %d images in %d folder(s), one set without labels%s",
            folder,
            len(images),
            folders,
            left_out,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, position: int) -> tuple[bytes, int]:
        """The encoded image of ``keys[position]``, and 0 for a label.

        Raises:
            DataError: the file cannot be read.
        """
        return read_encoded(self.paths[position]), 0

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return self.paths[position]
