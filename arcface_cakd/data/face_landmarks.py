"""The landmarks of each image of a training set, from a file beside it."""

from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE

LANDMARKS_FILE = "train_landmarks.npy"
CVLFACE_FILE = "ldmk_5points.csv"


class FaceLandmarks:
    """The five landmarks of every image of a data set, in pixels of the 112 x 112 crop.

    ``train_landmarks.npy`` holds them as float32 (N, 5, 2), images in the order of their keys,
    landmarks in that of the ArcFace template; it is mapped, not read. Where it is not there,
    ``ldmk_5points.csv`` is read, as CVLface (Kim et al.) makes it for its training sets: lines of
    an image's number from 0, then x and y of each landmark as parts of the crop's width and
    height.

    It may be handed to workers by fork or pickle.

    Args:
        folder: the data set.
        num_images: N.

    Raises:
        DataError: neither file is there, or it holds something else.
    """

    def __init__(self, folder: str | Path, num_images: int):
        self._arguments = folder, num_images
        found = find_landmarks(folder)
        if found is None:
            raise DataError(
                f"{Path(folder) / LANDMARKS_FILE}: no such file, which should hold the landmarks "
                f"of every image in pixels, float32 (N, 5, 2); nor is there CVLface's "
                f"{CVLFACE_FILE}"
            )
        self.path = found
        self._landmarks = (_mapped if found.name == LANDMARKS_FILE else _read_cvlface)(found)
        expected = (num_images, *ARCFACE_TEMPLATE.shape)
        if self._landmarks.shape != expected:
            raise DataError(
                f"{self.path}: shape {self._landmarks.shape} instead of {expected}: there must be "
                "a row for each image"
            )
        if np.nan_to_num(np.abs(self._landmarks[:1000])).max(initial=0) <= 2:
            raise DataError(
                f"{self.path}: its first landmarks all lie within 2 pixels of the corner: they "
                f"must be in pixels, 0 to {CROP_SIZE - 1}, not parts of the width"
            )

    def __len__(self) -> int:
        return len(self._landmarks)

    def __getitem__(self, position: int) -> np.ndarray:
        """The landmarks of the image at that place among the keys, (5, 2) float32.

        Raises:
            DataError: one is not finite.
        """
        landmarks = np.array(self._landmarks[position])
        if not np.isfinite(landmarks).all():
            raise DataError(f"row {position} of {self.path} is not finite: detect this face anew")
        return landmarks

    def __reduce__(self):
        # A mapped array would be pickled with all that it maps.
        return type(self), self._arguments


def find_landmarks(folder: str | Path) -> Path | None:
    """The file that holds the landmarks of a data set's images, None where there is none."""
    paths = (Path(folder) / name for name in (LANDMARKS_FILE, CVLFACE_FILE))
    return next((path for path in paths if path.is_file()), None)


def _mapped(path: Path) -> np.ndarray:
    try:
        landmarks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: no .npy file of numbers: save it with numpy.save") from error
    if landmarks.dtype != np.float32:
        raise DataError(f"{path}: {landmarks.dtype} instead of float32")
    return landmarks


def _read_cvlface(path: Path) -> np.ndarray:
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: not the numbers that CVLface writes ({error})") from error
    if table.shape[1] != 11 or not np.array_equal(table[:, 0], np.arange(len(table))):
        raise DataError(
            f"{path}: must have 11 columns, an image's number from 0 on and x and y of its five "
            f"landmarks; it has {table.shape[1]}, or misses an image"
        )
    return (table[:, 1:].reshape(-1, *ARCFACE_TEMPLATE.shape) * CROP_SIZE).astype(np.float32)
