"""The landmarks of each image of a training set, from a file beside it."""

import os
import warnings
from pathlib import Path

import numpy as np

from arcface_cakd.arrays import map_array
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.record_layout import image_keys
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE
from arcface_cakd.recordio import MXIndexedRecordIO

LANDMARKS_FILE = "train_landmarks.npy"
CVLFACE_FILE = "ldmk_5points.csv"


class FaceLandmarks:
    """The five landmarks of every image of a data set, in pixels of the 112 x 112 crop.

    ``train_landmarks.npy`` holds them as float32 (N, 5, 2), images in the order of their keys,
    landmarks in that of the ArcFace template; it is mapped, not read. Where it is not there,
    ``ldmk_5points.csv`` is read, as CVLface (Kim et al.) makes it for its training sets: lines of
    an image's number from 0, then x and y of each landmark as parts of the crop's width and
    height, or x, y and a third number, which is dropped. The images of an im2rec set are
    numbered there as the lines of ``train.idx``, whatever their keys.

    It may be handed to workers by fork or pickle.

    Args:
        folder: the data set.
        num_images: N; None: as many as the file has.
        rows: (M,) int64, which of the N the landmarks of each of M images are; None: of all N.

    Raises:
        DataError: neither file is there, or it holds something else.
        RecordIOError: the csv is there, and ``train.idx`` or ``train.rec`` is damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        num_images: int | None = None,
        rows: np.ndarray | None = None,
    ):
        self._arguments = folder, num_images, rows
        self._rows = rows
        found = find_landmarks(folder)
        if found is None:
            raise DataError(
                f"{Path(folder) / LANDMARKS_FILE}: no such file, which should hold the landmarks "
                f"of every image in pixels, float32 (N, 5, 2); nor is there CVLface's "
                f"{CVLFACE_FILE}"
            )
        self.path = found
        self._landmarks = (_mapped if found.name == LANDMARKS_FILE else _read_cvlface)(found)
        count = self._landmarks.shape[:1] if num_images is None else (num_images,)
        expected = (*count, *ARCFACE_TEMPLATE.shape)
        if self._landmarks.shape != expected:
            raise DataError(
                f"{self.path}: shape {self._landmarks.shape} instead of {expected}: there must be "
                "a row for each image"
            )
        in_csv = found.name == CVLFACE_FILE
        first = self._landmarks[:1000]
        finite = first[np.isfinite(first)]
        if finite.size and not 2 < np.median(finite) < 2 * CROP_SIZE:
            unit = "pixels of the 112x112 crop"
            if in_csv:
                unit, finite = "parts of the crop's width and height", finite / CROP_SIZE
            around = f"{np.median(finite):.3g}"
            raise DataError(f"{self.path}: coordinates around {around}, but they must be in {unit}")
        if in_csv:
            self._landmarks = _by_key(self._landmarks, Path(folder))

    def __len__(self) -> int:
        return len(self._landmarks if self._rows is None else self._rows)

    def __getitem__(self, position: int) -> np.ndarray:
        """The landmarks of the image at that place among the keys, (5, 2) float32.

        Raises:
            DataError: one is not finite.
        """
        row = position if self._rows is None else self._rows[position]
        landmarks = np.array(self._landmarks[row])
        if not np.isfinite(landmarks).all():
            raise DataError(f"row {row} of {self.path} is not finite: detect this face anew")
        return landmarks

    def __reduce__(self):
        # A mapped array would be pickled with all that it maps.
        return type(self), self._arguments


def find_landmarks(folder: str | os.PathLike) -> Path | None:
    """The file that holds the landmarks of a data set's images, None where there is none."""
    paths = (Path(folder) / name for name in (LANDMARKS_FILE, CVLFACE_FILE))
    return next((path for path in paths if path.is_file()), None)


def _mapped(path: Path) -> np.ndarray:
    try:
        landmarks = map_array(path)
    except ValueError as error:
        raise DataError(
            f"{path}: no .npy file of numbers ({error}): save it with numpy.save"
        ) from error
    if landmarks.dtype != np.float32:
        raise DataError(f"{path}: {landmarks.dtype} instead of float32")
    return landmarks


def _read_cvlface(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no data, which the shape tells
            table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())[:100]
        raise DataError(f"{path}: not the numbers that CVLface writes ({text})") from error
    if table.shape[1] not in (11, 16):
        raise DataError(
            f"{path}: {table.shape[1]} columns, or no row: it must have 11, an image's number and "
            "x and y of its five landmarks, or 16, with a third number for each"
        )
    misplaced = np.flatnonzero(table[:, 0] != np.arange(len(table)))
    if len(misplaced):
        raise DataError(
            f"{path}: row {misplaced[0]} is of image {table[misplaced[0], 0]:g}: after a line of "
            "column names there must be a row for each image, numbered from 0 on"
        )
    points = table[:, 1:].reshape(len(table), len(ARCFACE_TEMPLATE), -1)[..., :2]
    return (points * CROP_SIZE).astype(np.float32)


def _by_key(landmarks: np.ndarray, folder: Path) -> np.ndarray:
    """Rows of images in CVLface's order, which is arcface_torch's, in the order of their keys."""
    paths = folder / "train.idx", folder / "train.rec"
    if not all(path.is_file() for path in paths):
        return landmarks
    reader = MXIndexedRecordIO(*paths, "r")
    images, _ = image_keys(reader)
    in_file = np.fromiter(reader.idx, dtype=np.int64, count=len(reader.idx))
    reader.close()
    # Where record 0 is no image, they go through the keys from 1 on, not through the file.
    return landmarks[np.argsort(in_file)] if len(images) == len(in_file) else landmarks
