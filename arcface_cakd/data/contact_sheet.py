"""One picture of many faces, to look at: a row is a person."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import CROP, decode_image
from arcface_cakd.files import atomic_path

ROWS, COLUMNS = 8, 10
GAP = 4
GREY = 160


def write_contact_sheet(path: str | os.PathLike, people: Sequence[Sequence[bytes]]) -> None:
    """Write a PNG of encoded pictures, one row per person, atomically.

    Raises:
        DataError: see ``check_sheet``.
    """
    from PIL import Image

    check_sheet(path)
    with atomic_path(path) as partial:
        Image.fromarray(contact_sheet(people)).save(partial)


def check_sheet(path: str | os.PathLike) -> None:
    """Refuse, before any work, a name that does not say PNG.

    Raises:
        DataError: it does not end in .png, or a folder is there.
    """
    if Path(path).suffix.lower() != ".png":
        raise DataError(f"contact sheet {path}: its name must end in .png")
    if Path(path).is_dir():
        raise DataError(f"contact sheet {path}: a folder: name a file in it")


def contact_sheet(people: Sequence[Sequence[bytes]]) -> np.ndarray:
    """uint8 (height, width, 3) of encoded pictures, one row per person, on white.

    A picture that is not 112 x 112 is shrunk or enlarged to fit; one that does not decode is grey.
    """
    rows = [[_cell(encoded) for encoded in pictures] for pictures in people]
    height, width = CROP[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full(
        ((height + GAP) * len(rows) + GAP, (width + GAP) * columns + GAP, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = GAP + r * (height + GAP), GAP + c * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet


def _cell(encoded: bytes) -> np.ndarray:
    """uint8 (112, 112, 3) of a picture."""
    try:
        image = decode_image(encoded)
    except DataError:
        return np.full(CROP, GREY, np.uint8)
    if image.shape == CROP:
        return image
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(image), CROP[:2], color="white"))
