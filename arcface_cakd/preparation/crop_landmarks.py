"""The landmarks of a folder's crops, for a set that is made of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks, find_landmarks
from arcface_cakd.preparation.align.crops_table import CROPS_FILE, crops_in_order
from arcface_cakd.preparation.tables import table_field

logger = logging.getLogger("arcface_cakd")


def crop_landmarks(
    folder: Path, images: Sequence[Path], taken: Sequence[Path]
) -> np.ndarray | None:
    """The landmarks of those of a folder's crops that are taken; None where there are none.

    A folder that ``data align`` wrote says in ``aligned.tsv`` whose each row is, so that crops may
    be removed from it; elsewhere there must be a row for each image. Where that does not hold, the
    log says so.

    Args:
        folder: of one folder per identity.
        images: all that are in it, in order of path.
        taken: those that are wanted, in order.

    Returns:
        (len(taken), 5, 2) float32, pixels of the crop.
    """
    if find_landmarks(folder) is None:
        return None
    try:
        named = crops_in_order(folder)
        if named is None:
            named = [_name(path, folder) for path in images]
        landmarks = FaceLandmarks(folder, len(named))
        row_of = {name: row for row, name in enumerate(named)}
        names = [_name(path, folder) for path in taken]
        unknown = next((name for name in names if name not in row_of), None)
        if unknown is not None:
            raise DataError(f"{folder / CROPS_FILE}: {unknown} is not in it")
        return np.stack([landmarks[row_of[name]] for name in names])
    except DataError as error:
        logger.warning("%s; the images are taken without landmarks", error)
        return None


def _name(path: Path, folder: Path) -> str:
    return table_field(path.relative_to(folder).as_posix())
