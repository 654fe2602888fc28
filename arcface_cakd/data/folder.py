"""Face images in one folder per identity."""

from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.labels import identity

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def identity_folders(folder: str | Path) -> list[tuple[str, list[Path]]]:
    """Identities and their images: every subfolder, in order of name, with what lies below it.

    Names that begin with a dot are left out.

    Raises:
        DataError: no such folder, none with subfolders, or a subfolder without an image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold train.rec, or identities' folders")
    identities = []
    for subfolder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
        images = sorted(p for p in subfolder.rglob("*") if _is_image(p))
        if not images:
            raise DataError(f"{subfolder}: no image in it: remove the folder, or fill it")
        identities.append((subfolder.name, images))
    if not identities:
        raise DataError(f"{root}: neither train.rec with train.idx nor one folder per identity")
    return identities


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()


class FaceFolder:
    """The images of a folder that holds one folder per identity.

    Labels number the identities in order of name, as torchvision's ImageFolder does.

    Attributes:
        folder: the data set.
        keys: (N,) int64, 0 to N - 1: images in order of identity, then path.
        num_classes: identities.
        num_people: those that have images, which all have.

    Args:
        folder: the data set.
        num_classes: how many identities to allow, where the caller knows.

    Raises:
        DataError: as ``identity_folders``.
    """

    def __init__(self, folder: str | Path, num_classes: int | None = None):
        identities = identity_folders(folder)
        self.folder = Path(folder)
        self.paths = [str(path) for _, images in identities for path in images]
        counts = [len(images) for _, images in identities]
        self._labels = np.repeat(np.arange(len(counts)), counts)
        self.keys = np.arange(len(self.paths), dtype=np.int64)
        self.num_people = len(identities)
        self.num_classes = num_classes or self.num_people

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, position: int) -> tuple[bytes, int]:
        """The encoded image and the label of ``keys[position]``.

        Raises:
            DataError: the file cannot be read, or its label is not one of ``num_classes``.
        """
        label = identity(self._labels[position], self.num_classes)
        try:
            return Path(self.paths[position]).read_bytes(), label
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return self.paths[position]
