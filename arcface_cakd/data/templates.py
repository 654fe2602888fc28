"""Sets of templates: people, each several times, and in each template several images of one.

The layout is that in which IJB-B and IJB-C are handed round for arcface_torch's ``eval_ijbc.py``:
below a folder ``loose_crop/`` with images that show a face loosely, and in ``meta/`` tables without
headings, words parted by blanks, whose names begin with the set's, ``ijbb_`` or ``ijbc_``:

- ``*_face_tid_mid.txt``: image, template, media (a still image, or a video with several frames)
- ``*_name_5pts_score.txt``: image, five landmarks x y, the detector's score, 0 or more; the same
  images in the same order
- ``*_template_pair_label.txt``: template, template, 1 where both show one person, else 0

and for identification tables with a heading, parted by commas, whose first columns are template
and person: ``*_1N_gallery_G1.csv`` and ``_G2.csv`` (IJB-B's: ``_S1``, ``_S2``), and
``*_1N_probe_mixed.csv``.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_files import FaceFiles
from arcface_cakd.data.text_lines import read_lines

_COLUMNS = 12  # of name_5pts_score: the image, five points, the score


@dataclass(frozen=True, eq=False)
class TemplateImages:
    """The images of a set, and which template each is in.

    Attributes:
        name: of the set, in lower case: what its tables' names begin with.
        meta: the folder of the tables.
        faces: the N images, aligned when they are read.
        templates: (N,) int64 number of the template.
        medias: (N,) int64 number of the media.
        scores: (N,) float64 of the detector.
    """

    name: str
    meta: Path
    faces: FaceFiles
    templates: np.ndarray
    medias: np.ndarray
    scores: np.ndarray


def read_template_images(folder: Path) -> TemplateImages:
    """The images of a set of templates.

    Args:
        folder: what holds ``meta/`` and ``loose_crop/``.

    Raises:
        DataError: a table or an image that is not there, a table that is not as the layout has
            it, or scores that are no numbers of 0 or more, or all 0 in a template.
    """
    name, meta = _set_in(folder)
    table = _words(meta / f"{name}_face_tid_mid.txt", 3)
    points = _words(meta / f"{name}_name_5pts_score.txt", _COLUMNS)
    images = [row[0] for row in points]
    if [row[0] for row in table] != images:
        rows = zip((row[0] for row in table), images, strict=False)
        line = next((k for k, (a, b) in enumerate(rows) if a != b), min(len(table), len(images)))
        raise DataError(
            f"{meta}: line {line + 1} of {name}_face_tid_mid.txt and of {name}_name_5pts_score.txt "
            "name different images: both tables must list the same ones in one order"
        )
    numbers = _numbers(meta / f"{name}_name_5pts_score.txt", points, slice(1, None), np.float64)
    places = _numbers(meta / f"{name}_face_tid_mid.txt", table, slice(1, None), np.int64)
    _check_scores(meta / f"{name}_name_5pts_score.txt", numbers[:, 10], places[:, 0])
    crops = folder / "loose_crop"
    faces = FaceFiles([crops / image for image in images], numbers[:, :10].reshape(-1, 5, 2))
    return TemplateImages(name, meta, faces, places[:, 0], places[:, 1], numbers[:, 10])


def read_template_pairs(images: TemplateImages) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of templates (P, 2) int64, and whether both show one person, bool (P,).

    Raises:
        DataError: the table is not there or not as the layout has it, names a template of which
            there is no image, or compares one with itself.
    """
    path = images.meta / f"{images.name}_template_pair_label.txt"
    table = _integers(path, 3)
    labels = table[:, 2]
    if not np.isin(labels, (0, 1)).all():
        line = int(np.argmin(np.isin(labels, (0, 1))))
        raise DataError(f"{path}: line {line + 1} has the label {labels[line]}, neither 0 nor 1")
    _refuse_empty(path, table[:, :2], images.templates)
    itself = np.flatnonzero(table[:, 0] == table[:, 1])
    if len(itself):
        raise DataError(
            f"{path}: line {itself[0] + 1} compares template {table[itself[0], 0]} with itself, "
            f"{len(itself)} such lines in all: remove them, for they tell nothing of a model"
        )
    return table[:, :2], labels == 1


def read_template_people(
    images: TemplateImages, parts: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Templates (T,) and their people (T,), int64, of each part that is there, by its name.

    Args:
        images: of the set.
        parts: ends of the tables' names, such as ``1N_probe_mixed``.

    Raises:
        DataError: a table is not as the layout has it, or names a template of which there is no
            image, or one template for two people.
    """
    found = {}
    for part in parts:
        path = images.meta / f"{images.name}_{part}.csv"
        if not path.is_file():
            continue
        rows = [line.split(",")[:2] for line in _lines(path)[1:]]
        table: np.ndarray = np.unique(_numbers(path, rows, slice(None), np.int64, 2), axis=0)
        templates, counts = np.unique(table[:, 0], return_counts=True)
        if (counts > 1).any():
            raise DataError(f"{path}: template {templates[counts > 1][0]} is of several people")
        _refuse_empty(path, templates, images.templates)
        found[part] = (table[:, 0], table[:, 1])
    return found


def _set_in(folder: Path) -> tuple[str, Path]:
    meta = folder / "meta"
    ending = "_face_tid_mid.txt"
    found = sorted(meta.glob(f"*{ending}"))
    if len(found) != 1 or not (folder / "loose_crop").is_dir():
        inner = sorted(path.parent.parent for path in folder.glob(f"*/meta/*{ending}"))
        hint = f"; give {inner[0]}" if inner else ""
        raise DataError(
            f"{folder}: no set of templates: it should hold loose_crop/ and one "
            f"meta/*{ending}, as IJB-B and IJB-C are handed round{hint}"
        )
    return found[0].name.removesuffix(ending), meta


def _check_scores(path: Path, scores: np.ndarray, templates: np.ndarray) -> None:
    """Refuse scores (N,) by which images of templates (N,) cannot be weighed."""
    usable = np.isfinite(scores) & (scores >= 0)
    if not usable.all():
        line = int(np.argmin(usable))
        raise DataError(
            f"{path}: line {line + 1} has the score {scores[line]:g}, and it must be 0 or more; "
            f"{np.count_nonzero(~usable)} such lines in all: detect these faces anew"
        )
    # One image of score 0 is left out of its template; of such images alone nothing is left.
    nothing = np.setdiff1d(templates, templates[scores > 0])
    if len(nothing):
        more = f", and of {len(nothing) - 1} others" if len(nothing) > 1 else ""
        raise DataError(
            f"{path}: all images of template {nothing[0]}{more} have the score 0, by which they "
            "count for nothing: detect these faces anew"
        )


def _refuse_empty(path: Path, named: np.ndarray, filled: np.ndarray) -> None:
    empty = np.setdiff1d(named, filled)
    if len(empty):
        more = f", and so have {len(empty) - 1} others" if len(empty) > 1 else ""
        raise DataError(f"{path}: template {empty[0]} has no image in face_tid_mid.txt{more}")


def _lines(path: Path) -> list[str]:
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: there is nothing in it")
    return lines


def _words(path: Path, columns: int) -> list[list[str]]:
    """The lines of a table, split; as many words in each as it has columns."""
    rows = [line.split() for line in _lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != columns:
            raise DataError(f"{path}: line {number} has {len(row)} words, and must have {columns}")
    return rows


def _numbers(
    path: Path, rows: list[list[str]], part: slice, dtype: type, columns: int | None = None
) -> np.ndarray:
    """Words of split lines as numbers."""
    words = [row[part] for row in rows]
    try:
        table: np.ndarray = np.array(words, dtype=dtype)
        if columns is None or (table.ndim == 2 and table.shape[1] == columns):
            return table
    except ValueError:
        pass
    for number, row in enumerate(words, start=1):
        try:
            if columns is not None and len(row) != columns:
                raise ValueError
            np.array(row, dtype=dtype)
        except ValueError:
            raise DataError(f"{path}: line {number} of its rows is no numbers: {row}") from None
    raise DataError(f"{path}: there are no rows in it")


def _integers(path: Path, columns: int) -> np.ndarray:
    """A table of integers alone, (rows, columns) int64: millions of rows in a second or two."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text of numbers") from error
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what stops it short is a warning only
        try:
            flat = np.fromstring(text, dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            flat = np.empty(0, dtype=np.int64)
    if not flat.size or flat.size % columns or flat.size != columns * _rows(text):
        raise DataError(f"{path}: must have {columns} integers in each line, and nothing else")
    return flat.reshape(-1, columns)


def _rows(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))
