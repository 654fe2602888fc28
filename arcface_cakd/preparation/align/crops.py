"""The aligned crop of a face."""

from dataclasses import dataclass

import cv2
import numpy as np

from arcface_cakd.landmarks import (
    ARCFACE_TEMPLATE,
    CROP_SIZE,
    estimate_similarity,
    transform_points,
)

MARGIN = 2  # pixels beside what a crop shows, for interpolation
MOST_SIDES = 20  # of the photograph that a crop may show: more is no face


@dataclass(frozen=True)
class AlignedCrop:
    """A face as a recogniser is given it.

    Attributes:
        image: uint8 (112, 112, 3), channels as the photograph's.
        landmarks: (5, 2) float32, pixels of the crop.
        side: pixels of the photograph along a side of the crop: below 112 it was magnified.
    """

    image: np.ndarray
    landmarks: np.ndarray
    side: float


def aligned_crop(image: np.ndarray, landmarks: np.ndarray) -> AlignedCrop:
    """The crop in which the landmarks lie nearest to the ArcFace template, in least squares.

    Down to half the photograph's size it is what insightface's ``norm_crop`` makes: bilinear,
    black beside the photograph. Where the face is larger, bilinear interpolation would skip
    pixels, and the crop show noise and false edges: there the photograph is first made smaller
    by the whole number that leaves the face 112 to 224 pixels wide, each pixel the mean of
    those that it stands for (that is ours).

    Args:
        image: uint8 (H, W, 3), the photograph in full resolution.
        landmarks: (5, 2), pixels of it.

    Raises:
        ValueError: the landmarks are all in one point, or lie as no face's do.
    """
    matrix = estimate_similarity(landmarks, ARCFACE_TEMPLATE)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not scale * MOST_SIDES * max(image.shape[:2]) > CROP_SIZE:
        raise ValueError("the landmarks lie as no face's do")
    side = CROP_SIZE / scale
    reduction = int(1 / scale)
    warp = matrix
    if reduction >= 2:
        image, warp = _reduced(image, matrix, reduction)
    crop = cv2.warpAffine(image, warp, (CROP_SIZE, CROP_SIZE))
    return AlignedCrop(crop, transform_points(matrix, landmarks).astype(np.float32), side)


def _reduced(
    image: np.ndarray, matrix: np.ndarray, reduction: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photograph that a crop shows, made smaller, and the matrix from there."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    edge = CROP_SIZE - 1
    corners = np.array([[0, 0], [edge, 0], [0, edge], [edge, edge]], dtype=np.float64)
    seen = (corners - shift) @ np.linalg.inv(linear).T
    spare = MARGIN * reduction
    height, width = image.shape[:2]
    first = np.clip(np.floor(seen.min(axis=0)) - spare, 0, [width, height]).astype(int)
    last = np.clip(np.ceil(seen.max(axis=0)) + spare, 0, [width, height]).astype(int)
    part = image[first[1] : last[1], first[0] : last[0]]
    # Whole blocks, or the scale would not be a whole number; the rest is filled by repetition.
    missing = -np.array(part.shape[:2]) % reduction
    part = cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    size = (part.shape[1] // reduction, part.shape[0] // reduction)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    # Pixel s of it is the mean of those from reduction * s on: their centre is its place.
    origin = first + (reduction - 1) / 2
    return small, np.column_stack([reduction * linear, linear @ origin + shift])
