"""The geometry of an aligned face: the ArcFace template and similarity alignment to it.

Coordinates are (x, y) in pixels of the 112x112 crop, x to the right and y down, with integers at
pixel centres.
"""

import numpy as np

CROP_SIZE = 112
"""Side of the aligned crop, in pixels."""

ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
"""(5, 2) places of the left eye, right eye, nose tip, left and right mouth corner (left and right
as the viewer sees them) that every recogniser of the ArcFace family is trained with."""

IMAGE_CENTER = np.array([(CROP_SIZE - 1) / 2, (CROP_SIZE - 1) / 2], dtype=np.float32)
"""(2,) centre of the crop."""

ARCFACE_TEMPLATE.setflags(write=False)
IMAGE_CENTER.setflags(write=False)


_MIRRORED = [1, 0, 2, 4, 3]  # left and right eye and mouth corner change places


def mirror(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (..., 5, 2) of a crop after it was flipped left to right."""
    mirrored = landmarks[..., _MIRRORED, :]
    mirrored[..., 0] = CROP_SIZE - 1 - mirrored[..., 0]
    return mirrored


def estimate_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity transform that takes ``source`` nearest to ``target`` in least squares.

    Args:
        source: (n, 2) points, n >= 2, not all equal.
        target: (n, 2) points.

    Returns:
        (2, 3) float64 matrix of rotation times scale, and translation, without reflection.

    Raises:
        ValueError: the shapes differ or are not (n, 2), or all of ``source`` is one point.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", TPAMI 1991. In two dimensions its singular value decomposition has a closed form,
    because rotation times scale is one complex number.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(f"two (n, 2) point sets expected, got {source.shape} and {target.shape}")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    variance = (a * a).sum()
    if variance == 0:
        raise ValueError("all source points are the same: no scale can be estimated")
    cosine = (a * b).sum() / variance
    sine = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / variance
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) after the affine ``matrix`` (2, 3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of an affine (2, 3) matrix."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])
