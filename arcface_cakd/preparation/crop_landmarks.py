"""The landmarks of a folder's crops, for a set that is made of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data.crop_landmarks import crop_landmarks
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import find_landmarks

logger = logging.getLogger("arcface_cakd")


def landmarks_to_pack(
    folder: Path, images: Sequence[Path], taken: Sequence[Path]
) -> np.ndarray | None:
    """The landmarks of those of a folder's crops that are taken; None where there are none.

    Where they do not fit the images, see ``crop_landmarks``, there are none, and the log says so.

    Args:
        folder: of one folder per identity.
        images: all that are in it, in order of path.
        taken: those that are wanted, in order.

    Returns:
        (len(taken), 5, 2) float32, pixels of the crop.
    """
    if find_landmarks(folder) is None:
        return None
    try:
        landmarks = crop_landmarks(folder, images, taken)
        return np.stack([landmarks[position] for position in range(len(taken))])
    except DataError as error:
        logger.warning("%s; the images are taken without landmarks", error)
        return None
