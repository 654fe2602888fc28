"""The folder that a data set is written to, and how the set takes its place there."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from arcface_cakd.data.bins import people_file
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import CVLFACE_FILE, LANDMARKS_FILE
from arcface_cakd.files import put_folder_in_place, put_in_place, scratch_folder
from arcface_cakd.preparation.labels_table import LABELS_FILE

logger = logging.getLogger("arcface_cakd")

# Without it no reader takes the folder for a data set: removed first and put in place last.
_INDEX = "train.idx"
_OF_A_SET = ("property", "train.sha256", LABELS_FILE, "left_out.tsv", "duplicates.tsv")


def check_vacant(out: str | Path, force: bool) -> None:
    """Refuse to write a data set over another.

    Raises:
        DataError: there is one, and ``force`` is false; or ``out`` is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file: choose a folder")
    there = [name for name in ("train.rec", _INDEX) if (out / name).exists()]
    if there and not force:
        raise DataError(
            f"{out / there[0]}: a data set is there: choose another folder, or replace it "
            "with --force"
        )


def check_beside(out: str | Path, people: str | Path) -> None:
    """Refuse to write below a folder of people's folders, where it would be taken for a person.

    Raises:
        DataError: ``out`` lies in ``people``, links followed; ``people`` itself does not.
    """
    if Path(people).resolve() in Path(out).resolve().parents:
        raise DataError(
            f"{out} lies in {people}, whose folders are taken for people: name a place elsewhere"
        )


@contextlib.contextmanager
def whole_set(out: str | Path, force: bool) -> Iterator[Path]:
    """Yield a folder to write all files of a data set to; they appear in ``out`` together.

    A new folder appears whole. Where ``out`` is there, the set's files replace those of the same
    names one by one, the index last, and tables that only the former set had go; stopped between
    them, even by a kill, ``out`` has no index and nobody takes it for a data set. If the block
    raises, ``out`` is left as it was. Other files in ``out`` stay; the log names landmarks of the
    former set.

    Raises:
        DataError: see ``check_vacant``.
    """
    out = Path(out)
    check_vacant(out, force)
    # Within a folder that is there, for it may be another file system than its parent.
    with scratch_folder(out / "set" if out.is_dir() else out) as scratch:
        yield scratch
        move_set(scratch, out)


def move_set(written: Path, out: Path) -> None:
    """Move a set's files from a folder to ``out``; see ``whole_set``."""
    landmarks = (written / LANDMARKS_FILE).exists()
    if not out.exists():
        put_folder_in_place(written, out)
        return
    names = sorted(os.listdir(written), key=lambda name: name == _INDEX)
    (out / _INDEX).unlink(missing_ok=True)
    for name in set(_OF_A_SET) - set(names):
        (out / name).unlink(missing_ok=True)  # the former set's, and not true of this one
    for name in names:
        if name.endswith(".bin"):  # nobody is to read whom the former one showed
            people_file(out / name).unlink(missing_ok=True)
        put_in_place(written / name, out / name)
    for name in (LANDMARKS_FILE, CVLFACE_FILE):
        if not landmarks and (out / name).exists():
            logger.warning("%s: is of the former data set: remove it", out / name)
