"""What differs between two pictures of one person: pose, expression, light, camera, mishaps.

Drawn without a look at the person, so that nothing of it says who it is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Colour = tuple[float, float, float]
View = Literal["any", "frontal", "profile"]
CoverKind = Literal["mask", "bar", "hand"]

_COVERS: tuple[CoverKind, ...] = ("mask", "bar", "hand")


@dataclass(frozen=True)
class Expression:
    """Amounts: 0 is at rest. ``gaze`` in millimetres on the eye, ``brows`` in millimetres up."""

    smile: float = 0.0
    mouth_open: float = 0.0
    eye_open: float = 1.0
    brows: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Jitter:
    """How far the crop is off the least-squares alignment: pixels, radians, scale."""

    shift: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Light:
    """A key light from ``direction`` (unit vector in view coordinates) over an ambient one."""

    direction: tuple[float, float, float] = (-0.25, -0.45, 0.86)
    key: float = 0.85
    ambient: float = 0.45
    tint: Colour = (1.0, 1.0, 1.0)
    exposure: float = 1.0


@dataclass(frozen=True)
class Glasses:
    """Frames: half-sizes of a lens and thickness of the rim in millimetres."""

    half_width: float
    half_height: float
    roundness: float
    rim: float
    colour: Colour
    lens: float  # darkness of the lenses


@dataclass(frozen=True)
class Cover:
    """Something before the face: a mask on it, or a bar or fingers across the picture."""

    kind: CoverKind
    colour: Colour
    place: tuple[float, float]
    size: tuple[float, float]
    angle: float


@dataclass(frozen=True)
class Camera:
    """What the picture went through."""

    blur: float = 0.0  # standard deviation in pixels
    noise: float = 0.0  # standard deviation in units of 255
    contrast: float = 1.0
    saturation: float = 1.0
    quality: int = 92  # of JPEG
    seed: int = 0  # of the noise


@dataclass(frozen=True)
class Backdrop:
    """Background colours (rows, columns, 3) as nested tuples, and the clothes' colour."""

    colours: tuple
    sharp: bool = False
    clothes: Colour = (0.2, 0.2, 0.3)


@dataclass(frozen=True)
class Nuisance:
    """All nuisance factors of one picture. Angles in radians; pose is (yaw, pitch, roll)."""

    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    expression: Expression = Expression()
    jitter: Jitter = Jitter()
    light: Light = Light()
    camera: Camera = Camera()
    backdrop: Backdrop = Backdrop((((0.45, 0.48, 0.52),),))
    hair_toss: tuple[float, float] = (0.0, 0.0)  # today's hairline and volume, in millimetres
    glasses: Glasses | None = None
    cover: Cover | None = None


def sample_nuisance(
    rng: np.random.Generator, difficulty: float = 1.0, view: View = "any"
) -> Nuisance:
    """Draw what is particular to one picture.

    Args:
        rng: the picture's own generator.
        difficulty: strength of everything but the backdrop; 0 is a studio portrait.
        view: ``"any"`` pose; ``"frontal"``, mild in everything; or ``"profile"``, turned by 35 to
            55 degrees at difficulty 1.
    """
    mild = 0.7 if view == "frontal" else 1.0
    strength = difficulty * mild
    return Nuisance(
        pose=_sample_pose(rng, difficulty, view),
        expression=_sample_expression(rng, strength),
        jitter=Jitter(
            shift=_pair(_normal(rng, 1.2, 2) * strength),
            rotation=float(_normal(rng, 0.035) * strength),
            scale=float(np.exp(_normal(rng, 0.025) * strength)),
        ),
        light=_sample_light(rng, difficulty * (0.9 if view == "frontal" else 1.0)),
        camera=Camera(
            blur=float(max(0.0, rng.uniform(-0.6, 1.0)) * strength),
            noise=float(rng.uniform(0.0, 6.0) * strength),
            contrast=float(np.exp(_normal(rng, 0.12) * difficulty)),
            saturation=float(np.exp(_normal(rng, 0.22) * difficulty)),
            quality=int(np.clip(94 - rng.uniform(0.0, 28.0) * strength, 30, 95)),
            seed=int(rng.integers(1 << 31)),
        ),
        backdrop=_sample_backdrop(rng),
        hair_toss=_pair(_normal(rng, 2.0, 2) * strength),
        glasses=_sample_glasses(rng) if rng.random() < 0.16 * strength else None,
        cover=_sample_cover(rng)
        if rng.random() < 0.10 * (strength if mild == 1.0 else 0)
        else None,
    )


def _sample_pose(rng, difficulty: float, view: View) -> tuple[float, float, float]:
    yaw_sd, pitch_sd, roll_sd = (8.0, 4.5, 4.0) if view == "frontal" else (20.0, 7.0, 7.0)
    yaw, pitch, roll = _normal(rng, 1.0, 3) * (yaw_sd, pitch_sd, roll_sd) * difficulty
    if view == "profile":
        yaw = rng.choice([-1, 1]) * rng.uniform(35.0, 55.0) * difficulty
    return _triple(
        np.radians([np.clip(yaw, -58, 58), np.clip(pitch, -18, 18), np.clip(roll, -30, 30)])
    )


def _sample_expression(rng, strength: float) -> Expression:
    smile = max(0.0, rng.uniform(-0.7, 1.0)) * strength
    mouth_open = max(0.0, rng.uniform(-1.0, 1.0)) * strength
    blink = rng.random() < 0.05 * strength
    return Expression(
        smile=float(min(smile, 1.0)),
        mouth_open=float(min(mouth_open, 1.0)),
        eye_open=0.12 if blink else float(np.clip(1.0 + _normal(rng, 0.13) * strength, 0.5, 1.3)),
        brows=float(_normal(rng, 1.5) * strength),
        gaze=_pair(_normal(rng, 1.0, 2) * (1.9, 0.8) * strength),
    )


def _sample_light(rng, strength: float) -> Light:
    direction = np.array([0.0, -0.45, 0.9]) + _normal(rng, 1.0, 3) * (0.8, 0.35, 0.15) * strength
    direction[2] = max(direction[2], 0.15)
    direction /= np.linalg.norm(direction)
    warmth = _normal(rng, 0.17) * strength
    green = _normal(rng, 0.05) * strength
    return Light(
        direction=_triple(direction),
        key=float(0.85 * np.exp(_normal(rng, 0.2) * strength)),
        ambient=float(0.42 * np.exp(_normal(rng, 0.25) * strength)),
        tint=_triple(np.exp([warmth, green, -warmth])),
        exposure=float(np.exp(_normal(rng, 0.26) * strength - 0.03)),
    )


def _sample_backdrop(rng) -> Backdrop:
    rows, columns = (int(v) for v in rng.integers(1, 5, 2))
    base = rng.uniform(0.08, 0.9) + rng.normal(0.0, 0.09, 3)
    spread = rng.uniform(0.02, 0.16)
    patches = rng.normal(0.0, spread, (rows, columns, 1)) + rng.normal(
        0.0, 0.4 * spread, (rows, columns, 3)
    )
    colours = np.clip(base + patches, 0.02, 0.97)
    return Backdrop(
        colours=tuple(tuple(_triple(c) for c in row) for row in colours),
        sharp=bool(rng.random() < 0.3),
        clothes=_triple(rng.uniform(0.05, 0.9, 3)),
    )


def _sample_glasses(rng) -> Glasses:
    dark = rng.random() < 0.7
    return Glasses(
        half_width=float(rng.uniform(19.0, 26.0)),
        half_height=float(rng.uniform(13.0, 20.0)),
        roundness=float(rng.uniform(0.3, 1.0)),
        rim=float(rng.uniform(0.8, 2.4)),
        colour=_triple(rng.uniform(0.02, 0.15, 3) if dark else rng.uniform(0.2, 0.75, 3)),
        lens=float(rng.uniform(0.7, 0.92)) if rng.random() < 0.12 else float(rng.uniform(0, 0.12)),
    )


def _sample_cover(rng) -> Cover:
    kind = _COVERS[rng.choice(len(_COVERS), p=[0.4, 0.3, 0.3])]
    colour = rng.uniform(0.05, 0.95, 3)
    if kind == "mask":
        colour = rng.choice([[0.62, 0.78, 0.86], [0.93, 0.94, 0.94], [0.10, 0.10, 0.12]])
    elif kind == "hand":
        colour = np.array([0.80, 0.60, 0.48]) * rng.uniform(0.65, 1.1)
    edge = rng.uniform(0.0, 2 * np.pi)
    return Cover(
        kind=kind,
        colour=_triple(colour),
        place=_pair(56 + np.array([np.cos(edge), np.sin(edge)]) * rng.uniform(42.0, 56.0)),
        size=_pair(rng.uniform((30.0, 5.0), (70.0, 10.0)))
        if kind == "bar"
        else _pair(rng.uniform((22.0, 11.0), (34.0, 16.0))),
        angle=float(rng.uniform(0.0, np.pi) if kind == "bar" else edge + rng.normal(0.0, 0.4)),
    )


def _normal(rng, sd: float, size: int | None = None):
    """Normal, cut at two standard deviations, so that no picture is beyond use."""
    if size is None:
        return min(max(rng.standard_normal(), -2.0), 2.0) * sd
    return rng.standard_normal(size).clip(-2.0, 2.0) * sd


def _pair(values) -> tuple[float, float]:
    first, second = values
    return float(first), float(second)


def _triple(values) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)
