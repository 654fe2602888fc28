"""Places and distances on the face, pair by pair, in python floats."""

import math
from functools import cache

import numpy as np

# As the template stores them.
LANDMARKS = [
    (float(np.float32(x)), float(np.float32(y)))
    for x, y in (
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    )
]
HALF_DIAGONAL = math.hypot(3, 3)


def places(height, width, extent=112):
    return [
        ((column + 0.5) * extent / width - 0.5, (row + 0.5) * extent / height - 0.5)
        for row in range(height)
        for column in range(width)
    ]


def profile(p, landmarks=LANDMARKS):
    r = [math.dist(p, landmark) for landmark in landmarks]
    return [value / math.hypot(*r) for value in r]


def gaussians(p, landmarks=LANDMARKS):
    return sum(math.exp(-(math.dist(p, landmark) ** 2) / (2 * 12**2)) for landmark in landmarks)


@cache
def largest():
    return max(gaussians((x, y)) for x in range(112) for y in range(112))


def bilinear(values, p, extent=112):
    """The value of a map (H, W) over the first ``extent`` pixels, its border kept beyond it."""
    height, width = values.shape
    x = min(max((p[0] + 0.5) * width / extent - 0.5, 0), width - 1)
    y = min(max((p[1] + 0.5) * height / extent - 0.5, 0), height - 1)
    x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
    u, v = x - x0, y - y0
    top = (1 - u) * values[y0, x0] + u * values[y0, x0 + 1]
    bottom = (1 - u) * values[y0 + 1, x0] + u * values[y0 + 1, x0 + 1]
    return (1 - v) * top + v * bottom


def brute_force(a, b, kind, weight, saliency=None, landmarks=LANDMARKS):
    """D(i, j); ``saliency`` of a place, in place of the landmarks'."""
    scale = HALF_DIAGONAL / max(
        math.dist(profile(p), profile(q)) for p in LANDMARKS for q in LANDMARKS
    )
    saliency = saliency or (lambda p: min(gaussians(p, landmarks) / largest(), 1))
    s = {p: saliency(p) for p in {*a, *b}} if kind == "saliency" else {}
    out = np.empty((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            face = 0.0
            if kind == "relative":
                face = math.dist(profile(p, landmarks), profile(q, landmarks)) * scale
            elif kind == "saliency":
                face = abs(s[p] - s[q]) * HALF_DIAGONAL
            out[i, j] = math.dist(p, q) / 16 + weight * face
    return out


def row_of(distance, pif):
    """The row of a table that a distance looks up."""
    if distance <= pif.alpha:
        return int(np.rint(distance))
    slope = (pif.beta - pif.alpha) / math.log(pif.gamma / pif.alpha)
    return int(min(pif.beta, np.rint(pif.alpha + math.log(distance / pif.alpha) * slope)))
