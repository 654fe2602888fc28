"""The head in three dimensions: its shape, where rays meet it, and where its landmarks are.

The skull is a stack of ellipses, half as wide as ``width(y)`` and half as deep as ``depth(y)``;
the nose stands on it as a relief. Both are tables over y, so a head costs little to build. See
``identity`` for the coordinates; view coordinates are the head's, turned by the pose and seen
along z without perspective.
"""

from dataclasses import dataclass

import numpy as np

from arcface_cakd.landmarks import (
    ARCFACE_TEMPLATE,
    estimate_similarity,
    invert_affine,
    transform_points,
)
from arcface_cakd.synthesis.canvas import Window
from arcface_cakd.synthesis.identity import Bones
from arcface_cakd.synthesis.nuisance import Expression
from arcface_cakd.synthesis.shapes import F32, bump, positive, smooth

Y_FIRST, Y_LAST, STEP = -150.0, 260.0, 0.5
YS = np.arange(Y_FIRST, Y_LAST, STEP, dtype=F32)
FACE_DEPTH = 88.0
CHEEK_Y = 18.0
SKULL_TOP = -112.0
THINNEST = 0.5


@dataclass(frozen=True)
class Profile:
    """Half-widths and half-depths over ``YS``, their inverses and logarithmic derivatives."""

    width: np.ndarray
    depth: np.ndarray
    narrow: np.ndarray
    shallow: np.ndarray
    widening: np.ndarray
    deepening: np.ndarray

    @classmethod
    def of(cls, width: np.ndarray, depth: np.ndarray) -> "Profile":
        width = np.maximum(width, THINNEST).astype(F32)
        depth = np.maximum(depth, THINNEST).astype(F32)
        narrow, shallow = 1 / width, 1 / depth
        return cls(width, depth, narrow, shallow, _slope(width) * narrow, _slope(depth) * shallow)

    def extent(self, pose: "Pose", lowest: float = Y_LAST) -> np.ndarray:
        """(2, 2) least and greatest x, y in crop pixels of all that lies above y = ``lowest``."""
        right, down, forward = (pose.camera[:, :2] @ pose.turn[:2]).T.astype(F32)[:, :, None]
        shown = (self.width > THINNEST) & (F32(lowest) > YS)
        reach = np.sqrt(
            np.square(right * self.width[shown]) + np.square(forward * self.depth[shown])
        )
        middle = down * YS[shown] + pose.camera[:, 2:].astype(F32)
        return np.stack([(middle - reach).min(axis=1), (middle + reach).max(axis=1)])


def _slope(values: np.ndarray) -> np.ndarray:
    slope = np.zeros_like(values)
    slope[1:-1] = (values[2:] - values[:-2]) * F32(0.5 / STEP)
    return slope.clip(-3, 3, out=slope)


def row(y):
    """Index into the tables for heights ``y``; beyond their ends, too: see ``look_up``."""
    # By way of int32, since numpy converts floats to int64 one by one.
    return ((y - F32(Y_FIRST)) * F32(1 / STEP)).astype(np.int32).astype(np.intp)


def look_up(table: np.ndarray, at) -> np.ndarray:
    """The table's values at rows, its first and last value beyond its ends."""
    return table.take(at, mode="clip")


class Head:
    """The shape of one person with one expression.

    Attributes:
        profile: of the skull and jaw.
        chin_y, mouth_y, mouth_width: where the expression has moved them.
    """

    def __init__(self, bones: Bones, weight: float, expression: Expression):
        self.bones = bones
        self.chin_y = bones.chin_y + 9.0 * expression.mouth_open
        self.mouth_y = bones.mouth_y + 2.0 * expression.mouth_open
        self.mouth_width = bones.mouth_width * (
            1.0 + 0.16 * expression.smile - 0.07 * expression.mouth_open
        )
        self.mouth_rise = bones.mouth_bow + 4.5 * expression.smile
        self.profile = self._skull(weight)
        self._nose_height, self._nose_narrow = self._nose()

    def _skull(self, weight: float) -> Profile:
        b = self.bones
        down = np.clip((YS - CHEEK_Y) / (self.chin_y - CHEEK_Y), 0.0, 1.0)
        up = np.clip((CHEEK_Y - YS) / (CHEEK_Y - SKULL_TOP), 0.0, 1.0)
        lower = (1.0 - down**b.jaw_square) ** b.chin_taper
        upper = np.sqrt(1.0 - up**2.6)
        width = b.cheek_width * np.where(YS > CHEEK_Y, lower, upper)
        width = width + b.jaw_flare * bump(down, 0.58, 0.2) * lower
        width = width + weight * bump(down, 0.42, 0.26) * lower
        width = width + b.temple * bump(up, 0.42, 0.16)
        depth = FACE_DEPTH * np.where(
            YS > CHEEK_Y,
            np.sqrt(1.0 - down**9),
            (1.0 - up ** (b.forehead_slope + 1.0)) ** 0.5,
        )
        depth = depth + b.chin_forward * bump(down, 0.88, 0.13)
        return Profile.of(width, depth)

    def _nose(self) -> tuple[np.ndarray, np.ndarray]:
        b = self.bones
        along = np.clip((YS + 6.0) / (b.nose_y + 6.0), 0.0, 1.0)
        under = np.clip((YS - b.nose_y + 1.0) / 12.0, 0.0, 1.0)
        height = (
            b.nose_bridge_height * smooth(along / 0.35)
            + (b.nose_forward - b.nose_bridge_height) * along**1.6
        )
        height = height + b.nose_hump * bump(along, 0.55, 0.16)
        height = height * (1.0 - smooth(under))
        width = b.nose_bridge + (b.nose_tip - b.nose_bridge) * along**2 + 3.0 * under
        kernel = np.hanning(8 / STEP + 1).astype(F32)  # rounds the tip over 8 mm
        height = np.convolve(height, kernel / kernel.sum(), mode="same")
        return height.astype(F32), (1.0 / width**2).astype(F32)

    def nose(self, x, y):
        """Height in mm of the nose over the skull at (x, y), bent sideways as the bones say."""
        centred = x - F32(self.bones.nose_bend / 40.0) * y.clip(0, 40)
        squared = centred * centred
        at = row(y + F32(0.035) * squared)  # the tip hangs lower than the wings
        squared = squared * look_up(self._nose_narrow, at)
        return look_up(self._nose_height, at) * np.exp(-squared)

    def front(self, x, y):
        """z in mm of the surface that the viewer sees at yaw 0, skull and nose."""
        at = row(y)
        across = x * look_up(self.profile.narrow, at)
        inside = positive(1.0 - across * across)
        return look_up(self.profile.depth, at) * np.sqrt(inside) + self.nose(x, y)

    def landmarks(self) -> np.ndarray:
        """(5, 3) float64 head coordinates of eyes, nose tip and mouth corners, in mm."""
        b = self.bones
        tip_x = b.nose_bend / 40.0 * b.nose_y
        corner_y = self.mouth_y - self.mouth_rise
        points = np.array(
            [
                [-b.eye_x, 0.0],
                [b.eye_x, 0.0],
                [tip_x, b.nose_y],
                [-self.mouth_width, corner_y],
                [self.mouth_width, corner_y],
            ]
        )
        return np.column_stack([points, self.front(points[:, 0], points[:, 1])])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) float64 matrix from head to view coordinates; angles in radians."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


@dataclass(frozen=True)
class Pose:
    """How a head stands before the crop.

    Attributes:
        turn: (3, 3) from head to view coordinates.
        camera: (2, 3) from view millimetres to crop pixels.
        landmarks: (5, 2) float64, in crop pixels.
    """

    turn: np.ndarray
    camera: np.ndarray
    landmarks: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Crop pixels (n, 2) of head coordinates (n, 3)."""
        return transform_points(self.camera, (points @ self.turn.T)[:, :2])

    @property
    def millimetres(self) -> float:
        """Millimetres in the view plane per pixel."""
        return float(1.0 / np.hypot(self.camera[0, 0], self.camera[1, 0]))


def align(head: Head, pose: tuple[float, float, float], jitter) -> Pose:
    """Turn the head and align the picture to the template by its landmarks, as ``norm_crop``.

    The crop's jitter turns and scales about the template's centroid and then shifts.
    """
    turn = rotation(*pose)
    seen = (head.landmarks() @ turn.T)[:, :2]
    camera = estimate_similarity(seen, ARCFACE_TEMPLATE)
    cosine, sine = np.cos(jitter.rotation), np.sin(jitter.rotation)
    linear = jitter.scale * np.array([[cosine, -sine], [sine, cosine]])
    centre = ARCFACE_TEMPLATE.mean(axis=0, dtype=np.float64)
    camera = np.column_stack(
        [
            linear @ camera[:, :2],
            linear @ (camera[:, 2] - centre) + centre + np.asarray(jitter.shift),
        ]
    )
    return Pose(turn, camera, transform_points(camera, seen))


def rays(pose: Pose, region: Window) -> tuple[list[np.ndarray], np.ndarray]:
    """The rays of a region's pixels: origins (three arrays) and direction (3,), as for ``cast``."""
    rows, columns = (np.arange(part.start, part.stop, dtype=F32) for part in region)
    from_pixels = pose.turn[:2].T @ invert_affine(pose.camera)
    origin = [
        np.add.outer(F32(down) * rows + F32(start), F32(right) * columns)
        for right, down, start in from_pixels
    ]
    return origin, pose.turn[2]


def cast(profile: Profile, origin, direction) -> tuple[np.ndarray, np.ndarray]:
    """Meet rays with the outside of a stack of ellipses, from the viewer's side.

    Args:
        origin: three arrays (h, w) in head coordinates; the rays are origin + t direction.
        direction: unit vector towards the viewer.

    Returns:
        ``t`` of the nearest hit (of the closest approach where a ray misses), and by how many
        millimetres the ray passes inside the outline (negative outside).
    """
    # With no pitch one step is exact; with pitch the ellipse depends on t, so it is sought
    # again: at first on every other pixel.
    height, width = origin[0].shape
    sparse = [o[::2, ::2].copy() for o in origin]
    t, _ = _approach(profile, sparse, direction, F32(FACE_DEPTH * 0.9))
    for _ in range(2):
        t += F32(0.7) * (_approach(profile, sparse, direction, t)[0] - t)
    t = t.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]
    new, inside = _approach(profile, origin, direction, t)
    return t + F32(0.7) * (new - t), inside


def _approach(profile: Profile, origin, direction, t) -> tuple[np.ndarray, np.ndarray]:
    """As ``cast``, with each ray's ellipse taken from the height that it has at ``t``."""
    x0, y0, z0 = origin
    dx, dy, dz = (F32(v) for v in direction)
    at = row(y0 + t * dy)
    narrow, shallow = look_up(profile.narrow, at), look_up(profile.shallow, at)
    ax, az, bx, bz = dx * narrow, dz * shallow, x0 * narrow, z0 * shallow
    inverse = 1 / (ax * ax + az * az)
    b = ax * bx
    b += az * bz
    towards = b * inverse
    # The squared distance of the closest approach, in units of the ellipse.
    closest = bx * bx
    closest += bz * bz
    closest -= b * towards
    closest = positive(closest)
    new = np.sqrt(positive(1 - closest) * inverse)
    new -= towards
    inside = 1 - np.sqrt(closest, out=closest)
    inside /= np.maximum(narrow, shallow)
    return new, inside


def normals(profile: Profile, x, y, z) -> list[np.ndarray]:
    """Outward unit normals of a stack of ellipses at points of its surface."""
    at = row(y)
    nx = x * np.square(look_up(profile.narrow, at))
    nz = z * np.square(look_up(profile.shallow, at))
    ny = x * nx
    ny *= look_up(profile.widening, at)
    ny += z * nz * look_up(profile.deepening, at)
    np.negative(ny, out=ny)
    return unit(nx, ny, nz)


def unit(x, y, z) -> list[np.ndarray]:
    """Vectors of length 1, as three arrays."""
    squared = x * x
    squared += y * y
    squared += z * z
    squared += F32(1e-12)
    scale = 1 / np.sqrt(squared, out=squared)
    return [x * scale, y * scale, z * scale]
