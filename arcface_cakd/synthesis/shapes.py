"""Soft steps, lines and hills: the shapes that everything on a face is put together from.

All take float32 arrays and return new ones. They are called some hundred times per picture, so
they reuse their temporaries, and clip where a maximum with a scalar would be slower.
"""

import numpy as np

F32 = np.float32


def edge(distance, grain):
    """Coverage in [0, 1] of a shape, from the signed distance into it and a pixel's width."""
    covered = distance / grain
    covered += F32(0.5)
    return covered.clip(0, 1, out=covered)


def line(distance, thickness: float, grain):
    """Coverage of a soft line of about ``thickness``; thinner than a pixel it grows fainter."""
    sigma = F32(0.5 * thickness)
    blurred = np.square(grain)
    blurred *= F32(0.16)
    blurred += sigma * sigma
    np.sqrt(blurred, out=blurred)
    u = distance / blurred
    u *= u
    u *= F32(-0.5)
    covered = np.exp(u, out=u)
    np.divide(sigma * F32(1.3), blurred, out=blurred)
    covered *= blurred.clip(0, 1, out=blurred)
    return covered


def bump(x, centre: float, width: float):
    """Gaussian of height 1."""
    u = (x - centre) * (1.0 / width)
    return np.exp(-u * u)


def hill(x, y, centre: tuple[float, float], size: tuple[float, float]):
    """Gaussian of height 1 in two dimensions: a bump in x times a bump in y."""
    u = (x - centre[0]) * (1.0 / size[0])
    v = (y - centre[1]) * (1.0 / size[1])
    u *= u
    v *= v
    u += v
    return np.exp(np.negative(u, out=u), out=u)


def smooth(x):
    """The cubic step from 0 at x <= 0 to 1 at x >= 1."""
    x = x.clip(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def positive(x):
    """x where it is positive, else 0."""
    return x.clip(0.0, np.inf)


def length(u, v):
    """sqrt(u^2 + v^2); ``np.hypot`` guards against overflow, which is far away, at some cost."""
    squared = u * u
    squared += v * v
    return np.sqrt(squared, out=squared)
