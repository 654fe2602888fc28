"""The crop while a face is painted on it: what each pixel sees, and what is put there."""

from dataclasses import dataclass

import numpy as np

from arcface_cakd.landmarks import CROP_SIZE

F32 = np.float32
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
    column = x.astype(np.intp)
    column += pattern * 97 & 1023
    column &= _NOISE_SIZE - 1
    place = y.astype(np.intp)
    place += pattern * 57 >> 3 & 1023
    place &= _NOISE_SIZE - 1
    place *= _NOISE_SIZE
    place += column
    return table.take(place)


def crop_grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y (112, 112) of the crop's pixels."""
    return _COLUMNS, _ROWS


@dataclass
class Surface:
    """What each pixel of the crop sees of the head.

    Attributes:
        x, y, z: (112, 112) head coordinates in millimetres.
        normal: three arrays, unit normals in head coordinates.
        cover: (112, 112) in [0, 1], how much of a pixel the head fills.
        grain: millimetres of surface, along x, that a pixel spans: what lines must not be
            thinner than.
    """

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
        """The part of the crop that shows a part of the face, or None where none does.

        Looked up on every other pixel, with a margin of one, because it is asked for often.
        """
        shown = self._x > left
        shown &= self._x < right
        shown &= self._y > top
        shown &= self._y < bottom
        rows, columns = shown.any(1).nonzero()[0], shown.any(0).nonzero()[0]
        if len(rows) == 0:
            return None
        first, last = 2 * rows[0], 2 * rows[-1] + 2
        left_most, right_most = 2 * columns[0], 2 * columns[-1] + 2
        return slice(max(first - 1, 0), last), slice(max(left_most - 1, 0), right_most)


class Canvas:
    """Skin as it is painted, before light falls on it.

    Attributes:
        albedo: (3, 112, 112) sRGB.
        gloss: (112, 112) strength of the highlights.
        shade: (112, 112) factor for what light hardly reaches.
        glint: (112, 112) added after shading: reflections of the lamp in the eyes.
    """

    def __init__(self, colour):
        shape = (CROP_SIZE, CROP_SIZE)
        self.albedo = np.empty((3, *shape), F32)
        self.albedo[:] = np.array(colour, F32)[:, None, None]
        self.gloss = np.full(shape, 0.16, F32)
        self.shade = np.ones(shape, F32)
        self.glint = np.zeros(shape, F32)

    def mix(self, window: Window, mask: np.ndarray, colour) -> None:
        """Lay a colour, or colours (3, h, w), over a window; ``mask`` (h, w) in [0, 1]."""
        mix(self.albedo[(slice(None), *window)], mask, colour)


def mix(image: np.ndarray, mask: np.ndarray, colour) -> None:
    """Lay ``colour`` over ``image`` (3, h, w) in place, by ``mask`` (h, w) in [0, 1]."""
    colour = np.asarray(colour, F32)
    for channel in range(3):
        part = image[channel]
        part += mask * (colour[channel] - part)


def edge(distance, grain):
    """Coverage in [0, 1] of a shape, from the signed distance into it and a pixel's width."""
    covered = distance / grain
    covered += F32(0.5)
    return np.minimum(np.maximum(covered, 0), 1)


def line(distance, thickness: float, grain):
    """Coverage of a soft line of about ``thickness``; thinner than a pixel it grows fainter."""
    sigma = F32(0.5 * thickness)
    blurred = np.sqrt(sigma * sigma + F32(0.16) * grain * grain)
    u = distance / blurred
    return np.exp(F32(-0.5) * u * u) * np.minimum(sigma / blurred * F32(1.3), 1)
