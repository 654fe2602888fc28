"""The crop while a face is painted on it: what each pixel sees, and what is put there."""

import math
from dataclasses import dataclass

import numpy as np

from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.synthesis.shapes import F32

Window = tuple[slice, slice]
_ROWS, _COLUMNS = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE].astype(F32)


def _noise_table(size: int, blur: int) -> np.ndarray:
    # The tables are the same for everyone; who someone is chooses the stretch that is shown.
    table = np.random.default_rng(20230614).normal(size=(size, size))
    kernel = np.hanning(2 * blur + 1)
    spectrum = np.fft.rfft(kernel / kernel.sum(), size)
    table = np.fft.irfft(np.fft.rfft(table, axis=1) * spectrum, size, axis=1)
    table = np.fft.irfft(np.fft.rfft(table, axis=0) * spectrum[:, None], size, axis=0)
    return (table / table.std()).astype(F32)


_NOISE_SIZE = 512
_FINE_NOISE = _noise_table(_NOISE_SIZE, 2)
_COARSE_NOISE = _noise_table(_NOISE_SIZE, 10)


def noise(x, y, pattern: int, fine: bool) -> np.ndarray:
    """Smooth noise of unit variance; its grain is about 2 (fine) or 10 units of x and y."""
    table = _FINE_NOISE if fine else _COARSE_NOISE
    # A column past the last is the first of the next row, where the noise is nearly the same.
    place = y.astype(np.int32)
    place *= _NOISE_SIZE
    place += x.astype(np.int32)
    place += (pattern * 57 >> 3 & 1023) * _NOISE_SIZE + (pattern * 97 & 1023)
    place &= table.size - 1
    return table.take(place.astype(np.intp), mode="wrap")


def crop_grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y (112, 112) of the crop's pixels."""
    return _COLUMNS, _ROWS


def around(points: np.ndarray, margin: float) -> Window | None:
    """The part of the crop within ``margin`` pixels of the box of ``points`` (n, 2), if any."""
    left, top = (points.min(axis=0) - margin).tolist()
    right, bottom = (points.max(axis=0) + margin).tolist()
    rows = slice(max(math.ceil(top), 0), min(math.floor(bottom) + 1, CROP_SIZE))
    columns = slice(max(math.ceil(left), 0), min(math.floor(right) + 1, CROP_SIZE))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return rows, columns


def within(image: np.ndarray, window: Window) -> np.ndarray:
    """A window of an image (3, h, w), a view."""
    rows, columns = window
    return image[:, rows, columns]


@dataclass
class Surface:
    """What each pixel of a part (h, w) of the crop sees of the head.

    Attributes:
        region: the part, which holds all of the head that shows.
        x, y, z: (h, w) head coordinates in millimetres.
        normal: three arrays, unit normals in head coordinates.
        cover: (h, w) in [0, 1], how much of a pixel the head fills.
        grain: millimetres of surface, along x, that a pixel spans: what lines must not be
            thinner than.
    """

    region: Window
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    normal: list[np.ndarray]
    cover: np.ndarray
    grain: np.ndarray

    def __post_init__(self):
        every = (slice(None, None, 2), slice(None, None, 2))
        seen = (self.z[every] > 0) & (self.cover[every] > 0)
        self._x = np.where(seen, self.x[every], F32(np.inf))
        self._y = np.ascontiguousarray(self.y[every])

    def window(self, left: float, right: float, top: float, bottom: float) -> Window | None:
        """The part of the region that shows a part of the face, or None where none does.

        Looked up on every other pixel, with a margin of one, because it is asked for often.
        """
        shown = self._x > left
        shown &= self._x < right
        shown &= self._y > top
        shown &= self._y < bottom
        # find and rfind of bytes beat numpy's nonzero on arrays this short.
        rows = np.logical_or.reduce(shown, axis=1).tobytes()
        first = rows.find(1)
        if first < 0:
            return None
        columns = np.logical_or.reduce(shown, axis=0).tobytes()
        return (
            slice(max(2 * first - 1, 0), 2 * rows.rfind(1) + 2),
            slice(max(2 * columns.find(1) - 1, 0), 2 * columns.rfind(1) + 2),
        )


class Canvas:
    """Skin as it is painted, before light falls on it.

    Attributes:
        albedo: (3, h, w) sRGB.
        gloss: (h, w) strength of the highlights.
        shade: (h, w) factor for what light hardly reaches.
        glint: (h, w) added after shading: reflections of the lamp in the eyes.
    """

    def __init__(self, colour, shape: tuple[int, int]):
        self.albedo = np.empty((3, *shape), F32)
        self.albedo[:] = np.array(colour, F32)[:, None, None]
        self.gloss = np.full(shape, 0.16, F32)
        self.shade = np.ones(shape, F32)
        self.glint = np.zeros(shape, F32)

    def mix(self, window: Window, mask: np.ndarray, colour) -> None:
        """Lay a colour, or colours (3, h, w), over a window; ``mask`` (h, w) in [0, 1]."""
        mix(within(self.albedo, window), mask, colour)

    def darken(self, window: Window, amount: np.ndarray) -> None:
        """Take a share ``amount`` (h, w) of the light from a window; the array is used up."""
        np.subtract(1, amount, out=amount)
        self.shade[window] *= amount


def mix(image: np.ndarray, mask: np.ndarray, colour) -> None:
    """Lay ``colour`` over ``image`` (3, h, w) in place, by ``mask`` (h, w) in [0, 1]."""
    colour = np.asarray(colour, F32)
    if colour.ndim == 1:
        colour = colour[:, None, None]
    change = colour - image
    change *= mask
    image += change
