"""The landmarks of a folder's crops: which row of the file is whose."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE, FaceLandmarks, find_landmarks
from arcface_cakd.data.text_lines import read_lines, table_field

CROPS_FILE = "aligned.tsv"


def crop_landmarks(
    folder: str | Path, images: Sequence[str | Path], taken: Sequence[str | Path] | None = None
) -> FaceLandmarks:
    """The landmarks of the images of a folder.

    A folder that ``data align`` wrote says in ``aligned.tsv`` whose each row is, so that crops may
    be removed from it. Elsewhere, and where the file was made anew for fewer or more images than
    the table names, there must be a row for each image.

    Args:
        folder: of crops.
        images: all that are in it, in order of path.
        taken: those that are wanted, in order; None: all of them.

    Returns:
        those of ``taken``, in its order.

    Raises:
        DataError: no landmarks, landmarks that do not fit, an image that the table lacks, or two
            that it names alike.
    """
    folder = Path(folder)
    named = _named_by_row(folder)
    if named is None and taken is None:
        return FaceLandmarks(folder, len(images))
    wanted = [_name(path, folder) for path in (images if taken is None else taken)]
    if named is None:
        named = [_name(path, folder) for path in images]
    row_of = {name: row for row, name in enumerate(named)}
    if len(row_of) < len(named):
        raise DataError(
            f"{folder / CROPS_FILE}: names two crops alike, and landmarks go by their names: give "
            "them names without tabs and backslashes, and align them anew"
        )
    unknown = [name for name in wanted if name not in row_of]
    if unknown:
        raise DataError(
            f"{folder / CROPS_FILE}: {unknown[0]} is not in it, {len(unknown)} images in all, and "
            "landmarks go by it: take them out, or write their names in place of those that they "
            f"had, or, where the rows of {LANDMARKS_FILE} stand in the order of the images, remove "
            f"{CROPS_FILE}"
        )
    rows = np.array([row_of[name] for name in wanted], dtype=np.int64)
    return FaceLandmarks(folder, len(named), rows)


def crops_in_order(folder: Path) -> list[str] | None:
    """The crops of a folder as ``aligned.tsv`` names them, in the order of their landmarks.

    None where there is no such table. What names hold that no text has is escaped, as
    ``table_field`` does.

    Raises:
        DataError: the table is no text.
    """
    if not (folder / CROPS_FILE).is_file():
        return None
    lines = read_lines(folder / CROPS_FILE)
    return [line.split("\t")[0] for line in lines[1:] if line]


def _named_by_row(folder: Path) -> list[str] | None:
    """Whose each row of the landmarks is, None where no table says so."""
    found = find_landmarks(folder)
    if found is None or found.name != LANDMARKS_FILE:
        return None
    named = crops_in_order(folder)
    return named if named is not None and len(named) == len(FaceLandmarks(folder)) else None


def _name(path: str | Path, folder: Path) -> str:
    return table_field(Path(path).relative_to(folder).as_posix())
