"""Where the faces of LFW's and CFP's photographs are, and LFW's aligned crops."""

import cv2
import numpy as np

from arcface_cakd.landmarks import (
    ARCFACE_TEMPLATE,
    CROP_SIZE,
    estimate_similarity,
    transform_points,
)
from arcface_cakd.preparation.align.faces import chosen
from arcface_cakd.preparation.align.yunet import Attempt, YuNet

# YuNet misses some faces at its usual threshold, and each of these photographs shows one.
ATTEMPTS = (Attempt(0.6), Attempt(0.25), Attempt(0.25, scale=0.6), Attempt(0.25, border=0.4))
QUALITY = 95  # of the crops' JPEG, as insightface's own tools have it


class FaceFinder:
    """YuNet with ``ATTEMPTS``.

    Raises:
        DataError: the package that brings its weights is not installed.
    """

    def __init__(self) -> None:
        self._detector = YuNet(attempts=ATTEMPTS)

    def landmarks(self, encoded: bytes) -> np.ndarray | None:
        """The five landmarks of the face nearest to the image's centre, or None.

        Args:
            encoded: an image.

        Returns:
            (5, 2) float32, pixels of the image, in the order of the ArcFace template.
        """
        image = decoded(encoded)
        faces = self._detector.faces(image)
        return chosen(faces, image.shape[:2], "central")[0].landmarks if faces else None


def aligned_crop(encoded: bytes, landmarks: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The crop in which the landmarks lie nearest to the ArcFace template.

    Args:
        encoded: an image.
        landmarks: (5, 2), pixels of it.

    Returns:
        the 112 x 112 crop as a JPEG, and (5, 2) float32, the landmarks in its pixels.
    """
    # Not the package's crop, which averages where a face is large: the set was made so.
    matrix = estimate_similarity(landmarks, ARCFACE_TEMPLATE)
    crop = cv2.warpAffine(decoded(encoded), matrix, (CROP_SIZE, CROP_SIZE))
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes(), transform_points(matrix, landmarks).astype(np.float32)


def decoded(encoded: bytes) -> np.ndarray:
    """uint8 (H, W, 3), channels as OpenCV has them."""
    image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "an image of LFW or CFP that OpenCV cannot decode"
    return image
