"""Where patches and local centres lie on the face, and how far apart they are.

Places are (x, y) in pixels of the aligned 112x112 crop, x to the right and y down, with the
middle of the top left pixel at (0, 0), as the landmarks of the ArcFace template are given; so
grids of different size compare. Distances are float64, in units of ``UNIT`` pixels.

``landmarks`` are those of the ArcFace template where none are given, or (B, 5, 2) float64 of a
batch of faces, in the template's order; what depends on them then has a leading dimension B.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.arrays import map_array
from arcface_cakd.config import ConfigError
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE, IMAGE_CENTER

FaceDistance = Literal["relative", "saliency"] | None
Anchor = Literal["nose", "center", "landmarks"]
Placing = Literal["grid", "landmarks"]

# One step of the 7x7 grid, on which the final features of Swin and IResNet lie. Fixed, so that a
# distance of 3 means the same on every grid.
UNIT = CROP_SIZE / 7
# From the middle patch to a corner patch of that grid, in units: what facial distances, which
# have no unit of their own, are scaled to.
HALF_DIAGONAL = 3 * math.sqrt(2)
# Spread of the Gaussians of the saliency map, in pixels: an eye or a mouth corner and what is
# around it.
SALIENCY_SIGMA = 12.0

# How far from its landmark the outermost ring of centres lies, in pixels: neighbouring landmarks
# share what lies between them, and every ring stays within the crop. Not one ``UNIT``: of two
# rings the inner one would lie at half a unit, and rounding errors would choose its row.
RING_RADIUS = 15.0

_NOSE = 2
_EYES, _MOUTH = (0, 1), (3, 4)


def patch_places(grid: tuple[int, int], extent: float = CROP_SIZE) -> Tensor:
    """The middles of the patches of a grid, (H * W, 2), row by row.

    Args:
        grid: (H, W).
        extent: pixels that the patches cover from the top left on, in both directions.
            arcface_torch's ViT cuts 12x12 patches of 9 pixels: 108 of 112.
    """
    height, width = grid
    y = (torch.arange(height, dtype=torch.float64) + 0.5) * (extent / height) - 0.5
    x = (torch.arange(width, dtype=torch.float64) + 0.5) * (extent / width) - 0.5
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def patch_shares(
    grid: tuple[int, int],
    extent: float,
    other_grid: tuple[int, int],
    other_extent: float,
) -> tuple[Tensor, Tensor]:
    """How the patches of two grids spread over the cells that both cut the crop into.

    Returns:
        (H * W, M) and (H' * W', M) float64: the share of each patch's area in each of the M cells,
        row by row; rows sum to 1. What attention over patches looks at on the crop compares in
        cells, whatever the grids.
    """

    def edges(patches: int, covered: float) -> Tensor:
        return torch.arange(patches + 1, dtype=torch.float64) * (covered / patches)

    def along(axis: int) -> tuple[Tensor, Tensor]:
        both = edges(grid[axis], extent), edges(other_grid[axis], other_extent)
        cells = torch.cat(both).sort().values
        shares = []
        for at in both:
            low = torch.maximum(at[:-1, None], cells[:-1])
            high = torch.minimum(at[1:, None], cells[1:])
            shares.append((high - low).clamp_min(0) / at.diff()[:, None])
        return shares[0], shares[1]

    down, across = along(0), along(1)
    return torch.kron(down[0], across[0]), torch.kron(down[1], across[1])


def center_places(
    num_centers: int, placing: Placing = "grid", landmarks: Tensor | None = None
) -> Tensor:
    """The places of the local centres, (L, 2) or, at the landmarks of a batch, (B, L, 2).

    ``"grid"`` is a regular square grid over the crop, row by row. ``"landmarks"`` deals the
    centres out to the five landmarks, as evenly as may be and the same left and right: the first
    of each stands on the landmark, the others on rings around it, 6 on the innermost, 12 on the
    next and so on, evenly spaced to ``RING_RADIUS``, the rest on the outermost. Landmark by
    landmark, from the middle out; a ring starts at its top.

    Raises:
        ConfigError: on a grid, ``num_centers`` is not a square number (the nearest ones are
            named); at landmarks, it is below 5.
    """
    if placing == "landmarks":
        return _places_at_landmarks(num_centers, _or_template(landmarks))
    side = math.isqrt(num_centers)
    if side * side != num_centers:
        raise ConfigError(
            f"urfm.num_centers must be a square number, a grid over the face, got {num_centers}: "
            f'the nearest are {side * side} and {(side + 1) ** 2}; or set urfm.placing="landmarks"'
        )
    return patch_places((side, side))


def anchor_places(anchor: Anchor, landmarks: Tensor | None = None) -> Tensor:
    """The anchors of the query's position term, (A, 2) or, by the landmarks of a batch, (B, A, 2).

    ``"nose"`` is the nose tip, ``"center"`` the middle of the crop, ``"landmarks"`` all five
    landmarks.
    """
    if anchor == "center":
        return torch.tensor(IMAGE_CENTER, dtype=torch.float64)[None]
    landmarks = _or_template(landmarks)
    return landmarks[..., _NOSE : _NOSE + 1, :] if anchor == "nose" else landmarks


def euclidean_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance between places (..., n, 2) and (..., m, 2): (..., n, m) in units."""
    return _pairwise(a, b) / UNIT


def relative_distance(a: Tensor, b: Tensor, landmarks: Tensor | None = None) -> Tensor:
    """Relative distance (RD) between places (..., n, 2) and (..., m, 2): (..., n, m) in units.

    With r(x) the five distances from x to the landmarks,
    RD(i, j) = || r(i)/|r(i)| - r(j)/|r(j)| ||, scaled so that the two landmarks of the ArcFace
    template of most unlike profile are ``HALF_DIAGONAL`` apart: one scale for all faces. The
    paper's formula is not known; this is a choice of this project. Profiles are compared because
    || r(i) - r(nose) || alone is nothing but the Euclidean distance to the nose, rescaled
    (correlation 0.996 on 7x7).
    """
    landmarks = _or_template(landmarks)
    return _pairwise(_profile(a, landmarks), _profile(b, landmarks)) * _profile_scale()


def saliency_distance(
    a: Tensor,
    b: Tensor,
    saliency_map: Tensor | None = None,
    map_extent: float = CROP_SIZE,
    landmarks: Tensor | None = None,
) -> Tensor:
    """Saliency distance (SD) between places (..., n, 2) and (..., m, 2): (..., n, m) in units.

    SD(i, j) = | s(i) - s(j) | ``HALF_DIAGONAL``, s in [0, 1] the saliency at a place. The
    paper's formula is not known; this is a choice of this project.

    Args:
        saliency_map: (H, W) over the crop, see ``read_saliency_map``; None: the sum of
            Gaussians of ``SALIENCY_SIGMA`` at the landmarks, over the largest value that the
            ArcFace template's reach, and no more than 1.
        map_extent: pixels of the crop that the map covers, as for ``patch_places``.
    """
    if saliency_map is None:
        at_a, at_b = (_landmark_saliency(x, _or_template(landmarks)) for x in (a, b))
    else:
        at_a, at_b = (_sample(saliency_map, x, map_extent) for x in (a, b))
    return (at_a[..., :, None] - at_b[..., None, :]).abs() * HALF_DIAGONAL


def facial_distance(
    a: Tensor,
    b: Tensor,
    face_distance: FaceDistance = "relative",
    face_weight: float = 1.0,
    saliency_map: Tensor | None = None,
    map_extent: float = CROP_SIZE,
    landmarks: Tensor | None = None,
) -> Tensor:
    """D(i, j) = D_euclid(i, j) + face_weight * D_face(i, j), (..., n, m) float64 in units.

    Args:
        a: (..., n, 2) and ``b``: (..., m, 2), places in pixels.
        face_distance: which D_face; None leaves the Euclidean distance alone.
        face_weight: the paper's gamma.
        saliency_map: for ``"saliency"``, in place of the landmarks', and ``map_extent``: the
            pixels that it covers.
        landmarks: see above.
    """
    distance = euclidean_distance(a, b)
    if face_distance == "relative":
        distance = distance + face_weight * relative_distance(a, b, landmarks)
    elif face_distance == "saliency":
        face = saliency_distance(a, b, saliency_map, map_extent, landmarks)
        distance = distance + face_weight * face
    return distance


def correlation_with_euclidean(
    a: Tensor,
    b: Tensor,
    face_distance: Literal["relative", "saliency"] = "relative",
    saliency_map: Tensor | None = None,
    landmarks: Tensor | None = None,
) -> float:
    """Pearson's correlation of D_face with D_euclid over all pairs of ``a`` and ``b``.

    Near 1 a facial distance tells a network nothing that the Euclidean one does not.
    """
    if face_distance == "relative":
        face = relative_distance(a, b, landmarks)
    else:
        face = saliency_distance(a, b, saliency_map, landmarks=landmarks)
    pairs = torch.stack([euclidean_distance(a, b).flatten(), face.flatten()])
    return torch.corrcoef(pairs)[0, 1].item()


def read_saliency_map(path: str) -> Tensor:
    """A saliency map from a .npy file: (H, W) float64 in [0, 1], its largest value 1.

    The file holds any two-dimensional map of finite numbers >= 0 over the crop, of any
    resolution, such as a teacher's mean attention.

    Raises:
        ConfigError: no such file, or it holds something else.
    """
    import numpy as np

    where = f"urfm.saliency_map {path}"
    if not Path(path).is_file():
        raise ConfigError(f"{where}: no such file")
    try:
        array = map_array(path)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"of {array.dtype}")
    except ValueError as error:
        raise ConfigError(
            f"{where} is no .npy file of numbers ({error}): save it with numpy.save"
        ) from error
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"{where} has shape {array.shape}: it must be (H, W)")
    values = torch.from_numpy(np.array(array, dtype=np.float64))
    if not values.isfinite().all() or values.min() < 0 or values.max() <= 0:
        raise ConfigError(f"{where} must hold finite numbers >= 0, not all of them 0")
    return values / values.max()


@lru_cache(maxsize=1)
def _template() -> Tensor:
    return torch.tensor(ARCFACE_TEMPLATE, dtype=torch.float64)


def _or_template(landmarks: Tensor | None) -> Tensor:
    return _template() if landmarks is None else landmarks


def _places_at_landmarks(num_centers: int, landmarks: Tensor) -> Tensor:
    each, left = divmod(num_centers, len(ARCFACE_TEMPLATE))
    if not each:
        raise ConfigError(
            'urfm.placing="landmarks" needs a centre for each of the 5 landmarks, but '
            f"urfm.num_centers is {num_centers}: set at least 5"
        )
    more = {*(_EYES if left >= 2 else ()), *(_MOUTH if left >= 4 else ())}
    more |= {_NOSE} if left % 2 else set()
    places = [
        middle[..., None, :] + _rings(each + (number in more)).to(landmarks.device)
        for number, middle in enumerate(landmarks.unbind(-2))
    ]
    return torch.cat(places, dim=-2)


def _rings(count: int) -> Tensor:
    """Offsets of ``count`` places from the first, which is the middle of rings, (count, 2)."""
    offsets = [torch.zeros(1, 2, dtype=torch.float64)]
    sizes: list[int] = []
    left = count - 1
    while left:
        sizes.append(min(left, 6 * (len(sizes) + 1)))
        left -= sizes[-1]
    for number, size in enumerate(sizes, start=1):
        angle = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size) - math.pi / 2
        offsets.append(
            torch.stack([angle.cos(), angle.sin()], dim=1) * (RING_RADIUS * number / len(sizes))
        )
    return torch.cat(offsets)


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    # Differences, not torch.cdist: its matrix-product route gives places that coincide a
    # distance above zero.
    return (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1).sqrt()


def _profile(places: Tensor, landmarks: Tensor) -> Tensor:
    return F.normalize(_pairwise(places, landmarks), dim=-1)


@lru_cache(maxsize=1)
def _profile_scale() -> float:
    profiles = _profile(_template(), _template())
    return HALF_DIAGONAL / _pairwise(profiles, profiles).max().item()


def _gaussians(places: Tensor, landmarks: Tensor) -> Tensor:
    squared = (_pairwise(places, landmarks) / SALIENCY_SIGMA).square()
    return torch.exp(-squared / 2).sum(-1)


@lru_cache(maxsize=1)
def _largest_saliency() -> float:
    return _gaussians(patch_places((CROP_SIZE, CROP_SIZE)), _template()).max().item()


def _landmark_saliency(places: Tensor, landmarks: Tensor) -> Tensor:
    return (_gaussians(places, landmarks) / _largest_saliency()).clamp(max=1)


def _sample(saliency_map: Tensor, places: Tensor, extent: float) -> Tensor:
    """Bilinear values (...) of a map over the crop's first ``extent`` pixels at (..., 2)."""
    at = (places + 0.5) * (2 / extent) - 1
    values = F.grid_sample(
        saliency_map.double()[None, None],
        at.reshape(1, 1, -1, 2),
        padding_mode="border",
        align_corners=False,
    )
    return values.view(places.shape[:-1])
