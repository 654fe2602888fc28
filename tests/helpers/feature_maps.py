"""Feature maps for tests of losses over them, and what published code made of such maps."""

import numpy as np
import pytest
import torch
from golden.make_feature_losses import cases, fill, inputs, record

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch

__all__ = [
    "agrees",
    "cases",
    "convolve",
    "dims_of",
    "features",
    "fill",
    "hierarchical",
    "ident",
    "nearest",
    "normalise",
    "pooled",
    "random_maps",
    "value",
]


def pooled(x, grid):
    """Adaptive averages of x (..., H, W) on a grid (h, w), float64, by brute force."""
    (height, width), (h, w) = x.shape[-2:], grid
    out = np.empty((*x.shape[:-2], h, w))
    for i in range(h):
        for j in range(w):
            rows = slice(i * height // h, -(-(i + 1) * height // h))
            columns = slice(j * width // w, -(-(j + 1) * width // w))
            out[..., i, j] = x[..., rows, columns].mean((-2, -1))
    return out


def hierarchical(student, teacher):
    """The hierarchical context loss of two maps."""
    weights, parts = [1.0], [((student - teacher) ** 2).mean()]
    for side in (4, 2, 1):
        if side < student.shape[2]:
            difference = pooled(student, (side, side)) - pooled(teacher, (side, side))
            weights.append(weights[-1] / 2)
            parts.append((difference**2).mean())
    return np.average(parts, weights=weights)


def convolve(x, weight, bias=None):
    """A convolution of stride 1 that keeps the grid, by brute force."""
    pad = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(x.shape[2:]):
        patch = padded[:, :, i : i + weight.shape[2], j : j + weight.shape[3]]
        out[:, :, i, j] = np.einsum("bchw,ochw->bo", patch, weight)
    return out if bias is None else out + bias[:, None, None]


def normalise(x, norm):
    """BatchNorm of a map with the weight and bias of a layer."""
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    x = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    weight, bias = (p.detach().numpy()[:, None, None] for p in (norm.weight, norm.bias))
    return x * weight + bias


def nearest(x, grid):
    """A map at a grid (h, w) by nearest neighbours."""
    rows, columns = (np.arange(g) * s // g for g, s in zip(grid, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def features(token_map=None, stages=()):
    """FaceFeatures of the tokens that a map (B, C, H, W) holds, and of stages."""
    some = stages[0] if token_map is None else token_map
    token_map = some[:, :, :1, :1] if token_map is None else token_map
    return FaceFeatures(
        embedding=some.new_zeros(len(some), 2),
        tokens=token_map.flatten(2).transpose(1, 2),
        grid=tuple(token_map.shape[-2:]),
        stages=tuple(stages),
    )


def dims_of(student, teacher):
    """The widths of two FaceFeatures."""
    return FeatureDims(
        2,
        2,
        student.tokens.shape[2],
        teacher.tokens.shape[2],
        tuple(x.shape[1] for x in student.stages),
        tuple(x.shape[1] for x in teacher.stages),
        student_grid=student.grid,
        teacher_grid=teacher.grid,
    )


def value(loss, student, teacher):
    """A loss of two FaceFeatures, which needs nothing else."""
    return loss(student, teacher, LossBatch(labels=None))


def ident(case):
    """A name for a case among the parameters of a test."""
    return f"{case['repository'].split('/')[1]}-{case['seed']}"


def agrees(case, loss, factor=1.0, tolerance=1e-9):
    """Assert that factor * loss(student's maps, teacher's maps) is the case, and its gradient."""
    student, teacher = inputs(case["seed"], case["student"], case["teacher"])
    found = record(lambda: loss(student, teacher), student)
    for key in ("value", "gradient_norm", "gradient"):
        recorded = np.atleast_1d(case[key])
        assert factor * np.atleast_1d(found[key]) == pytest.approx(recorded, rel=tolerance)


def random_maps(seed, *shapes):
    """Maps of standard normal entries, float64."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(shape)) for shape in shapes]
