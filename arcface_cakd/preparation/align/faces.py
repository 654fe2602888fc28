"""Faces in a photograph, and which of several is the person's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from arcface_cakd.data.errors import DataError

CHOICES = ("largest", "central", "score", "all")
"""Which of several faces is taken: of the largest box; nearest to the photograph's centre; that of
which the detector is surest; or each of them."""


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Attributes:
        landmarks: (5, 2) float32, pixels of the photograph, in the order of the ArcFace template.
        box: x, y, width and height, pixels of the photograph.
        score: of the detector, None where there was none.
    """

    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    score: float | None = None


class Detector(Protocol):
    """Finds faces. It is pickled to other processes, which load its weights anew.

    Attributes:
        nothing: why a photograph without a face is left out.
    """

    nothing: str

    def faces(self, image: np.ndarray, name: str) -> list[Face]:
        """The faces of a photograph.

        Args:
            image: uint8 (H, W, 3) BGR, upright.
            name: of the photograph, its path below the folder.

        Returns:
            the faces; none where there is none.
        """

    def description(self) -> dict[str, str | float | int]:
        """All on which its result hangs, for what is resumed; values are JSON's."""


def chosen(faces: Sequence[Face], size: tuple[int, int], choice: str) -> list[Face]:
    """The faces of a photograph that are taken.

    Args:
        faces: of the photograph, one or more.
        size: its height and width.
        choice: one of ``CHOICES``.

    Raises:
        DataError: no such choice, or by score where there is none.
    """
    if choice not in CHOICES:
        raise DataError(f"no choice {choice!r} of a face: it must be one of {', '.join(CHOICES)}")
    if choice == "all":
        return list(faces)
    if choice == "largest":
        return [max(faces, key=lambda face: face.box[2] * face.box[3])]
    if choice == "score":
        if any(face.score is None for face in faces):
            raise DataError("faces cannot be chosen by score: what found them gives none")
        return [max(faces, key=lambda face: face.score or 0.0)]
    height, width = size
    return [min(faces, key=lambda face: _off_centre(face.box, width / 2, height / 2))]


def _off_centre(box: tuple[float, float, float, float], x: float, y: float) -> tuple[bool, float]:
    """How far a face is from a point: not around it, and its distance in sides of the face."""
    left, top, width, height = box
    around = left <= x <= left + width and top <= y <= top + height
    off = np.hypot(left + width / 2 - x, top + height / 2 - y)
    return not around, float(off / np.sqrt(width * height))
