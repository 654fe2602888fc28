"""The folder that a data set is written to: what stands there already."""

import logging
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import CVLFACE_FILE, LANDMARKS_FILE

logger = logging.getLogger("arcface_cakd")


def check_vacant(out: str | Path, force: bool) -> None:
    """Refuse to write a data set over another.

    Raises:
        DataError: there is one, and ``force`` is false.
    """
    there = [name for name in ("train.rec", "train.idx") if (Path(out) / name).exists()]
    if there and not force:
        raise DataError(
            f"{Path(out) / there[0]}: a data set is there: choose another folder, or replace it "
            "with --force"
        )


def warn_of_former_landmarks(out: str | Path) -> None:
    """Say in the log which files of landmarks are not of the data set that was just written."""
    for name in (LANDMARKS_FILE, CVLFACE_FILE):
        if (Path(out) / name).exists():
            logger.warning("%s: is of the former data set: remove it", Path(out) / name)
