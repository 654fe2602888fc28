"""The photographs of a folder, whose they are, and what their crops are called."""

import logging
from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.folder import identity_folders, without_known
from arcface_cakd.data.image_files import files_directly_in, some_of
from arcface_cakd.data.image_tree import image_tree

logger = logging.getLogger("arcface_cakd")

_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Photograph:
    """A photograph.

    Attributes:
        path: where it is.
        name: its path below the folder, with slashes.
        crop: the path of its crop below the folder that is written, with slashes.
        person: the subfolder that it is in, None without labels.
    """

    path: str
    name: str
    crop: str
    person: str | None


def find_photographs(folder: Path, label_free: bool) -> list[Photograph]:
    """The photographs of a folder, in order of path.

    A crop is called as its photograph is, with ``.jpg`` behind names that end otherwise.

    Args:
        folder: of one subfolder per person; or any, ``label_free``.
        label_free: whether whose they are is not asked.

    Raises:
        DataError: as ``identity_folders``, or ``image_tree``.
    """
    found: list[tuple[Path, str | None]]
    if label_free:
        images, others = image_tree(folder)
        if others := without_known(others):
            logger.warning(
                "%s: left out: %d files that are no images (%s)",
                folder,
                len(others),
                some_of(others, folder),
            )
        found = [(path, None) for path in images]
    else:
        _refuse_unsorted(folder)
        people = identity_folders(folder)
        people.warn_of_left_out()
        found = [(path, person) for person, paths in people.identities for path in paths]
    names = [path.relative_to(folder).as_posix() for path, _ in found]
    kept = {name for name in names if name.lower().endswith(_JPEG)}
    photographs = []
    for (path, person), name in zip(found, names, strict=True):
        crop = name
        if name not in kept:
            while crop == name or crop in kept:
                crop += ".jpg"
            kept.add(crop)
        photographs.append(Photograph(str(path), name, crop, person))
    return photographs


def _refuse_unsorted(folder: Path) -> None:
    """Raise DataError where photographs lie in the folder itself and in no subfolder."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; it should hold a folder of photographs a person"
        )
    beside, subfolders = files_directly_in(folder)
    if beside.images and not subfolders:
        raise DataError(
            f"{folder}: {len(beside.images)} photographs in no person's folder: make a folder a "
            "person, or take them without labels by --label-free"
        )
