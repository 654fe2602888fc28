"""One picture of many faces, to look at: a row is a person."""

import os
from collections.abc import Sequence

import numpy as np

from arcface_cakd.data.images import decode_image
from arcface_cakd.files import atomic_path

ROWS, COLUMNS = 8, 10
GAP = 4


def write_contact_sheet(path: str | os.PathLike, people: Sequence[Sequence[bytes]]) -> None:
    """Write a PNG of encoded pictures, one row per person, atomically."""
    from PIL import Image

    with atomic_path(path) as partial:
        Image.fromarray(contact_sheet(people)).save(partial)


def contact_sheet(people: Sequence[Sequence[bytes]]) -> np.ndarray:
    """uint8 (height, width, 3) of encoded pictures of one size, one row per person, on white."""
    rows = [[decode_image(jpeg) for jpeg in pictures] for pictures in people]
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full(
        ((height + GAP) * len(rows) + GAP, (width + GAP) * columns + GAP, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = GAP + r * (height + GAP), GAP + c * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet
