"""``aligned.tsv``: what each crop of a folder was made of."""

import os
from collections.abc import Mapping
from pathlib import Path

from arcface_cakd.data.crop_landmarks import CROPS_FILE, crops_in_order
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.data.text_lines import table_field
from arcface_cakd.preparation.align.outcome import Outcome
from arcface_cakd.preparation.tables import write_table

# What Finder and Explorer leave in folders that they show.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
_COLUMNS = ("crop", "photograph", "faces", "score", "side", "x", "y", "width", "height")


def write_crops_table(folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Write ``aligned.tsv``: a line for a crop, in order of path, as its landmarks stand.

    Args:
        folder: of the crops.
        outcomes: of each photograph, by its name.
    """
    rows = []
    for name, outcome in outcomes.items():
        for crop in outcome.crops:
            score = "" if crop.score is None else f"{crop.score:.3f}"
            numbers = [f"{number:.1f}" for number in (crop.side, *crop.box)]
            rows.append((crop.file, name, str(outcome.faces), score, *numbers))
    write_table(folder / CROPS_FILE, _COLUMNS, sorted(rows, key=lambda row: Path(row[0])))


def beside_crops(folder: Path) -> list[Path]:
    """What lies in a folder of crops and is not of it, what a folder holds before the folder.

    That is files that ``aligned.tsv`` does not name, links to folders, and folders without a crop.

    Raises:
        DataError: the table is no text, or a folder cannot be read.
    """
    named = {CROPS_FILE, LANDMARKS_FILE, *(crops_in_order(folder) or ())}
    folders: set[str] = set()
    for place in {name.rpartition("/")[0] for name in named}:
        while place and place not in folders:
            folders.add(place)
            place = place.rpartition("/")[0]
    found = []
    for place, subfolders, files in os.walk(folder, topdown=False, onerror=_refuse_unread):
        for name in (*files, *subfolders):
            path = Path(place, name)
            known = folders if path.is_dir() and not path.is_symlink() else named
            if name in _LITTER or table_field(path.relative_to(folder).as_posix()) in known:
                continue
            found.append(path)
    return found


def _refuse_unread(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
