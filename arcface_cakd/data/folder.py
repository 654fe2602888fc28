"""Face images in one folder per identity."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.image_files import files_below, files_directly_in, read_encoded, some_of
from arcface_cakd.data.labels import identity
from arcface_cakd.data.people_names import warn_of_alike

logger = logging.getLogger("arcface_cakd")

# What our tools and insightface's put beside the images of a set.
_BESIDE = {"property", "labels.tsv", "train_landmarks.npy", "ldmk_5points.csv", "aligned.tsv"}
# Names of folders that divide a set and are no people's.
_PARTS = {
    *("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"),
    *("images", "image", "imgs", "img", "faces", "crops", "data", "dataset"),
    *("query", "gallery", "probe"),
}


@dataclass(frozen=True)
class IdentityFolders:
    """A folder of one folder per identity.

    Attributes:
        identities: name and images of each, in order of name; images in order of path.
        loose: images that lie beside the identities' folders.
        others: files that are no images.
    """

    root: Path
    identities: list[tuple[str, list[Path]]]
    loose: list[Path]
    others: list[Path]

    def left_out(self) -> str | None:
        """What is no image of an identity, for messages; None where there is nothing."""
        parts = []
        if self.loose:
            parts.append(
                f"{len(self.loose)} images beside the identities' folders "
                f"({some_of(self.loose, self.root)})"
            )
        if self.others:
            parts.append(
                f"{len(self.others)} files that are no images ({some_of(self.others, self.root)})"
            )
        return "; ".join(parts) or None

    def warn_of_left_out(self) -> None:
        """Say in the log what is left out, if anything is, and whose names are nearly one."""
        if left_out := self.left_out():
            logger.warning("%s: left out: %s", self.root, left_out)
        warn_of_alike(self.root, (name for name, _ in self.identities))


def identity_folders(folder: str | Path) -> IdentityFolders:
    """Identities and their images: every subfolder, in order of name, with what lies below it.

    Images are told by suffix, and where that is of none, by content. Links are followed. Names
    that begin with a dot are left out.

    Raises:
        DataError: no such folder, none with subfolders, a subfolder without an image, a link
            that leads nowhere or back, one identity alone, or subfolders that are no people but
            folders of people.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold train.rec, or identities' folders")
    beside, subfolders = files_directly_in(root)
    identities, empty = [], []
    others = without_known(beside.others)
    for subfolder in subfolders:
        files = files_below(subfolder)
        beside.dangling += files.dangling
        others += files.others
        if files.images:
            identities.append((subfolder.name, files.images))
        else:
            empty.append(subfolder)
    beside.refuse_dangling()
    if identities and (people := people_below(root, identities)):
        names = ", ".join([name for name, _ in identities][:3])
        raise DataError(
            f"{root}: its folders ({names}) hold folders, not one person's images: give {people}"
        )
    if empty:
        raise DataError(f"{empty[0]}: no image in it: remove the folder, or fill it")
    if not identities:
        refuse_records(root)
        raise DataError(f"{root}: neither train.rec with train.idx nor one folder per identity")
    if len(identities) == 1:
        raise DataError(
            f"{root}: one identity alone, {identities[0][0]}, and there must be others to tell it "
            "from: give a folder of several people's folders"
        )
    return IdentityFolders(root, identities, beside.images, others)


def refuse_records(root: Path) -> None:
    """Raise DataError where a folder without images holds records, for one that reads images."""
    if (root / "train.rec").exists():
        raise DataError(
            f"{root}: holds records, and folders of images are what is read here: give the folder "
            "that they were packed of"
        )


def without_known(paths: Iterable[Path]) -> list[Path]:
    """Files that are no images, but for those that belong to a set."""
    return [path for path in paths if path.name not in _BESIDE and path.suffix != ".bin"]


def people_below(root: Path, identities: list[tuple[str, list[Path]]]) -> Path | None:
    """A folder further down that holds the people's; None where ``root`` does.

    Args:
        root: the folder.
        identities: its folders' names, and the images below each.
    """
    if any(path.parent == root / name for name, images in identities for path in images):
        return None
    names = [name for name, _ in identities]
    if len(names) > 1 and not all(name.lower() in _PARTS for name in names):
        return None  # people, whose images are in folders of their own
    name, images = next((each for each in identities if each[0].lower() == "train"), identities[0])
    people = root / name
    while True:
        inner = {path.relative_to(people).parts[0] for path in images}
        if len(inner) > 1 or any(path.parent.parent == people for path in images):
            return people
        people /= inner.pop()


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
        found = identity_folders(folder)
        identities = found.identities
        if num_classes is None:  # else it was said
            found.warn_of_left_out()
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
        return read_encoded(self.paths[position]), label

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return self.paths[position]
