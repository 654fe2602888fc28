"""Faces from a file that says where their landmarks are."""

import csv
import hashlib
import logging
import os
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, estimate_similarity, transform_points
from arcface_cakd.preparation.align.faces import Face

logger = logging.getLogger("arcface_cakd")

COLUMNS = ("photograph", *(f"{axis}{number}" for number in range(1, 6) for axis in "xy"))
_EXCHANGED = [1, 0, 2, 4, 3]


class LandmarkList:
    """The landmarks that a file gives for each photograph, instead of a detector's.

    A CSV file (or, by the suffix ``.tsv``, one with tabs): a heading, and then a line for a face:
    the photograph's path below the folder, and x and y of left eye, right eye, nose tip, left and
    right mouth corner (left and right as the viewer sees them), pixels of the photograph as it is
    seen, upright by its EXIF orientation. A photograph of several faces has as many lines.

    Args:
        path: of the file.

    Raises:
        DataError: no such file, or it holds something else.
    """

    nothing = "no landmarks are given for it"

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)
        self._faces = _read(self._path)

    def faces(self, image: np.ndarray, name: str) -> list[Face]:
        """The faces of a photograph; see ``Detector``. Their boxes are those of the landmarks."""
        return [_face(landmarks) for landmarks in self._faces.get(name, [])]

    def warn_of_others(self, names: set[str]) -> None:
        """Say in the log which photographs it names that are not among those."""
        others = sorted(set(self._faces) - names)
        if others:
            logger.warning(
                "%s: %d of %d photographs that it names are not there (%s): paths begin below "
                "the folder, as in %s",
                self._path,
                len(others),
                len(self._faces),
                ", ".join(others[:3]),
                min(names, default=""),
            )

    def description(self) -> dict[str, str | float | int]:
        """What its result hangs on; see ``Detector``."""
        return {
            "detector": "landmarks",
            "file": hashlib.sha256(self._path.read_bytes()).hexdigest(),
        }

    def __reduce__(self):
        return type(self), (self._path,)


def _face(landmarks: np.ndarray) -> Face:
    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    return Face(landmarks, (float(left), float(top), float(right - left), float(bottom - top)))


def _read(path: Path) -> dict[str, list[np.ndarray]]:
    faces: dict[str, list[np.ndarray]] = {}
    tabs = path.suffix.lower() == ".tsv"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, dialect="excel-tab" if tabs else "excel")
            heading = [field.strip().lower() for field in next(rows, [])]
            if heading != list(COLUMNS):
                raise DataError(f"{path}: its first line must be {','.join(COLUMNS)}")
            for row in rows:
                if row:
                    landmarks = _numbers(row, f"{path}, line {rows.line_num}")
                    faces.setdefault(Path(row[0]).as_posix(), []).append(landmarks)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV file in UTF-8 ({error})") from error
    if not faces:
        raise DataError(f"{path}: there is no line of a photograph in it")
    _check_units_and_order(path, np.stack([each for several in faces.values() for each in several]))
    return faces


def _numbers(row: list[str], place: str) -> np.ndarray:
    try:
        numbers = np.array(row[1:], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{place}: {error}: it must hold a path and ten numbers") from error
    if len(numbers) != ARCFACE_TEMPLATE.size or not np.isfinite(numbers).all():
        raise DataError(f"{place}: it must hold a path and ten finite numbers")
    return numbers.reshape(ARCFACE_TEMPLATE.shape).astype(np.float32)


def _check_units_and_order(path: Path, landmarks: np.ndarray) -> None:
    """Refuse what is systematically something else than pixels in the template's order."""
    if np.abs(landmarks).max() <= 2:
        raise DataError(
            f"{path}: its numbers go up to {np.abs(landmarks).max():g}, but they must be pixels of "
            "the photograph, not parts of its size"
        )
    sample = landmarks[:: max(1, len(landmarks) // 1000)]
    exchanged = [_misfit(face[_EXCHANGED]) < _misfit(face) for face in sample]
    if np.mean(exchanged) > 0.5:
        raise DataError(
            f"{path}: left and right are exchanged in {sum(exchanged)} of {len(sample)} faces "
            "looked at: left is what the viewer sees on the left"
        )


def _misfit(face: np.ndarray) -> float:
    """How far landmarks are from the template after alignment, in pixels of the crop."""
    try:
        matrix = estimate_similarity(face, ARCFACE_TEMPLATE)
    except ValueError:
        return np.inf
    return float(np.linalg.norm(transform_points(matrix, face) - ARCFACE_TEMPLATE))
