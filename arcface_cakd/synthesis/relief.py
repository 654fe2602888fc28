"""What stands out of the skull: slopes of nose, brows, sockets, cheeks, lips and chin."""

import numpy as np

from arcface_cakd.synthesis.canvas import Surface
from arcface_cakd.synthesis.head import Head, look_up
from arcface_cakd.synthesis.identity import Identity
from arcface_cakd.synthesis.shapes import F32

# Hills are tabulated every millimetre, about half a pixel, on the right half of the face.
XS = np.arange(0.0, 90.0, dtype=F32)
YS = np.arange(-66.0, 160.0, dtype=F32)
REACH = 1.9  # half-sizes at which a hill ends


def relief_slopes(surface: Surface, head: Head, person: Identity) -> tuple[np.ndarray, np.ndarray]:
    """dz/dx and dz/dy (h, w) of what stands out of the skull.

    The nose is where rays meet it, too; the rest is low and only turns the normals.
    """
    table_x, table_y = _slope_tables(_hills(head, person))
    row = (surface.y - F32(YS[0] - 0.5)).clip(0, len(YS) - 1).astype(np.int32)
    at = (np.abs(surface.x) + F32(0.5)).clip(0, len(XS) - 1).astype(np.int32)
    at += row * len(XS)
    at = at.astype(np.intp)
    dx, dy = look_up(table_x, at), look_up(table_y, at)
    dx *= np.sign(surface.x)
    window = surface.window(-30, 30, -15, person.bones.nose_y + 20)
    if window:
        x, y = surface.x[window], surface.y[window]
        step = F32(0.5)
        here = head.nose(x, y)
        dx[window] += (head.nose(x + step, y) - here) / step
        dy[window] += (head.nose(x, y + step) - here) / step
    return dx, dy


def _hills(head: Head, person: Identity) -> list[tuple[float, float, float, float, float]]:
    """x, y, half-width, half-height and height of each; there are two of one whose x is not 0."""
    b, looks = person.bones, person.looks
    mouth, fat = head.mouth_y, looks.weight
    return [
        (b.eye_x * 0.78, b.brow_y + 4, 21, 9, b.brow_ridge),
        (b.eye_x, -2, 19, 13, -b.socket - 1.5),
        (b.eye_x, 1, 12, 9, 2.6),
        (b.cheek_width * 0.62, 30, 20, 15, b.cheekbone + 0.4 * max(fat, 0.0)),
        (b.cheek_width * 0.62, 60, 18, 20, 0.35 * fat - 1.0),
        (b.nose_wings - 4.0, b.nose_y + 3, 6.5, 7.0, 5.0),
        (0, b.nose_y - 1, 1.15 * b.nose_tip, 9.0, 2.5),
        (0, mouth, 30, 19, 4.0),
        (0, mouth - 0.6 * b.upper_lip, 0.75 * head.mouth_width, 4.5, 1.5),
        (0, mouth + 0.55 * b.lower_lip, 0.6 * head.mouth_width, 5.5, 2.2),
        (0, mouth + b.lower_lip + 5, 20, 5.5, -2.4),
        (0, head.chin_y - 15, 17, 13, 4.5),
        (0, b.nose_y + 17, 4.0, 9.0, -b.philtrum),
        (0, head.chin_y - 15, 4.0, 6.0, -0.9 * max(b.chin_cleft, 0.0)),
    ]


def _slope_tables(hills) -> tuple[np.ndarray, np.ndarray]:
    """dz/dx and dz/dy (rows of ``YS``, columns of ``XS``) of the sum of Gaussian hills."""
    dx = np.zeros((len(YS), len(XS)), F32)
    dy = np.zeros_like(dx)
    for at_x, at_y, half_width, half_height, height in hills:
        if abs(height) < 0.05:
            continue
        rows = _part(at_y - YS[0], REACH * half_height)
        v = (YS[rows] - F32(at_y)) * F32(1 / half_height)
        tall = F32(-2 * height) * np.exp(-v * v)
        tall_v = tall * v * F32(1 / half_height)
        for centre in (at_x, -at_x) if at_x else (0.0,):
            columns = _part(centre, REACH * half_width)
            u = (XS[columns] - F32(centre)) * F32(1 / half_width)
            wide = np.exp(-u * u)
            dx[rows, columns] += np.multiply.outer(tall, wide * u * F32(1 / half_width))
            dy[rows, columns] += np.multiply.outer(tall_v, wide)
    return dx, dy


def _part(centre: float, reach: float) -> slice:
    """The entries of a table, one per millimetre, that lie within reach."""
    return slice(max(int(centre - reach), 0), max(int(centre + reach) + 1, 0))
