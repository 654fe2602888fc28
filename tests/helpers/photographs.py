"""Photographs of made faces, whose place in them is known."""

import cv2
import numpy as np

from arcface_cakd.synthesis.dataset import training_identity
from arcface_cakd.synthesis.nuisance import View, sample_nuisance
from arcface_cakd.synthesis.render import render


def made_face(
    person: int, picture: int = 0, difficulty: float = 0.2, view: View = "frontal"
) -> tuple[np.ndarray, np.ndarray]:
    """A face: uint8 (112, 112, 3) RGB, and its landmarks (5, 2) in pixels."""
    rng = np.random.default_rng([person, picture])
    nuisance = sample_nuisance(rng, difficulty, view)
    image, landmarks = render(training_identity(1, person), nuisance)
    return image, landmarks.astype(np.float64)


def placed(
    image: np.ndarray,
    landmarks: np.ndarray,
    centre: tuple[float, float],
    scale: float,
    degrees: float,
    photograph: np.ndarray,
) -> np.ndarray:
    """Draw a face into a photograph, in place, by a similarity transform.

    Returns:
        float64 (5, 2), where its landmarks are in the photograph.
    """
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array(centre) - linear @ np.array([55.5, 55.5])
    cv2.warpAffine(
        image,
        np.column_stack([linear, shift]),
        (photograph.shape[1], photograph.shape[0]),
        dst=photograph,
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_TRANSPARENT,
    )
    return landmarks @ linear.T + shift


def canvas(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): a soft background in which nobody is."""
    coarse = np.random.default_rng(seed).integers(60, 180, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
