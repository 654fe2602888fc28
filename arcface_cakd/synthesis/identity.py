"""Who a made face is: what stays the same on every picture of one person.

Lengths are in millimetres of a head whose eyes lie at y = 0 and whose symmetry plane is x = 0
(x to the viewer's right, y down, z towards the viewer). Colours are sRGB in [0, 1].
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKIN_TONES = np.array(
    [[0.95, 0.80, 0.71], [0.90, 0.72, 0.60], [0.82, 0.62, 0.48], [0.66, 0.47, 0.35]],
    dtype=np.float32,
)
HAIR_COLOURS = np.array(
    [[0.09, 0.08, 0.08], [0.17, 0.12, 0.09], [0.28, 0.19, 0.12], [0.44, 0.31, 0.19]],
    dtype=np.float32,
)
IRIS_COLOURS = np.array(
    [[0.25, 0.14, 0.07], [0.38, 0.24, 0.12], [0.40, 0.42, 0.24], [0.33, 0.50, 0.66]],
    dtype=np.float32,
)


def span(low: float, high: float):
    """A factor that lies between ``low`` and ``high``, for most people nearer the middle."""
    return dataclasses.field(metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Bones:
    """Geometry that a person keeps for life. ``span`` gives each factor's range over people."""

    # outline
    cheek_width: float = span(64.0, 76.0)  # half-width of the face at the cheekbones
    jaw_square: float = span(1.9, 3.6)  # exponent of the lower outline: oval to square
    chin_taper: float = span(0.40, 0.66)  # exponent of the lower outline: blunt to pointed
    jaw_flare: float = span(-4.0, 6.0)
    temple: float = span(-5.0, 5.0)  # outward bulge of the temples
    chin_y: float = span(102.0, 122.0)
    chin_forward: float = span(-5.0, 8.0)
    forehead_slope: float = span(1.8, 3.2)
    cheekbone: float = span(1.0, 8.0)
    brow_ridge: float = span(0.5, 6.0)
    chin_cleft: float = span(-2.5, 2.5)  # none below 0
    # eyes
    eye_x: float = span(26.5, 36.5)  # half the distance between the eyes
    eye_width: float = span(11.0, 16.5)  # half-width of the opening
    eye_upper: float = span(4.6, 8.0)  # height of the upper lid over the eye's axis
    eye_lower: float = span(2.4, 4.6)
    eye_tilt: float = span(-0.13, 0.26)  # rise of the outer corner, as a slope
    eye_peak: float = span(-0.45, 0.45)  # where the upper lid is highest: inner to outer
    crease: float = span(0.5, 6.5)  # height of the lid's fold; little is a hooded eye
    socket: float = span(0.5, 6.0)  # depth
    iris_radius: float = span(5.3, 6.7)
    lashes: float = span(0.25, 1.0)
    # brows
    brow_y: float = span(-27.0, -15.5)
    brow_inner: float = span(7.0, 17.0)
    brow_outer: float = span(44.0, 56.0)
    brow_thickness: float = span(2.6, 6.4)
    brow_arch: float = span(-1.0, 8.0)
    brow_tilt: float = span(-0.16, 0.20)
    brow_taper: float = span(0.1, 0.9)
    brow_asymmetry: float = span(-2.2, 2.2)
    # nose
    nose_y: float = span(29.0, 45.0)  # the tip
    nose_forward: float = span(13.0, 23.0)
    nose_tip: float = span(7.0, 11.5)  # half-width of the tip
    nose_bridge: float = span(5.5, 10.0)  # half-width of the bridge
    nose_bridge_height: float = span(2.0, 9.0)
    nose_hump: float = span(-3.0, 4.0)
    nose_wings: float = span(10.5, 20.0)  # half-width over the wings
    nostril: float = span(1.8, 3.6)
    nose_bend: float = span(-1.6, 1.6)  # sideways
    # mouth
    mouth_y: float = span(66.0, 80.0)
    mouth_width: float = span(20.0, 31.5)
    upper_lip: float = span(3.0, 9.0)
    lower_lip: float = span(5.0, 12.0)
    cupid: float = span(0.0, 0.55)
    mouth_bow: float = span(-1.2, 3.2)  # rise of the corners at rest
    philtrum: float = span(0.2, 1.6)
    # ears
    ear_y: float = span(8.0, 26.0)
    ear_length: float = span(26.0, 37.0)
    ear_out: float = span(2.0, 10.0)


@dataclass(frozen=True)
class Hair:
    """Hair on the head. ``length`` is the y to which it falls behind the ears."""

    colour: Colour
    hairline: float  # y over the forehead's middle
    part: float  # x of the parting
    sweep: float  # fall of the hairline away from the parting, as a slope
    recede: float  # rise of the hairline at the temples
    framing: float  # cosine of the azimuth at which side hair begins
    length: float
    volume: float
    curl: float
    phase: float


@dataclass(frozen=True)
class Spot:
    """A mark on the skin: a mole, a scar or a birthmark, as a blurred line."""

    x: float
    y: float
    radius: float
    length: float
    angle: float
    strength: float
    colour: Colour


@dataclass(frozen=True)
class Looks:
    """What years, a barber or the sun may change on a person."""

    skin: Colour
    ruddy: float
    freckles: float
    mottle: float
    pattern: int  # which stretch of the noise tables this skin shows
    lip: Colour
    iris: Colour
    brow: Colour
    weight: float
    bags: float
    wrinkles: float
    moustache: float
    beard: float
    beard_low: float  # y where the beard begins on the cheeks
    hair: Hair
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Identity:
    """All identity factors of one person."""

    bones: Bones
    looks: Looks


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person."""
    return Identity(sample_bones(rng), sample_looks(rng))


def sample_bones(rng: np.random.Generator) -> Bones:
    """Draw the lasting geometry: every factor apart from the others, Beta(2.5, 2.5) in its range.

    That people crowd the middle is what makes them hard to tell apart.
    """
    values = {}
    for field in dataclasses.fields(Bones):
        low, high = field.metadata["low"], field.metadata["high"]
        values[field.name] = float(low + (high - low) * rng.beta(2.5, 2.5))
    return Bones(**values)


def mean_bones() -> Bones:
    """The middle of every range."""
    return Bones(
        **{
            field.name: 0.5 * (field.metadata["low"] + field.metadata["high"])
            for field in dataclasses.fields(Bones)
        }
    )


def sample_looks(rng: np.random.Generator) -> Looks:
    """Draw skin, colours, marks, beard and hair of a young adult.

    Skin and hair tones come from a narrow, shared range, so that they say little about who it is.
    """
    skin = _shade(SKIN_TONES, rng.beta(2.2, 2.6))
    hair_colour = _shade(HAIR_COLOURS, rng.beta(1.1, 2.6))
    bearded = rng.random() < 0.25
    lip = np.array(skin) * rng.uniform((0.82, 0.48, 0.52), (0.98, 0.68, 0.68))
    return Looks(
        skin=skin,
        ruddy=float(rng.uniform(0.1, 1.0)),
        freckles=float(max(0.0, rng.uniform(-2.0, 1.0))),
        mottle=float(rng.uniform(0.2, 1.0)),
        pattern=int(rng.integers(1 << 16)),
        lip=_colour(lip),
        iris=_shade(IRIS_COLOURS, rng.random()),
        brow=_colour(np.array(hair_colour) * rng.uniform(0.55, 1.1)),
        weight=float(rng.uniform(-5.0, 7.0)),
        bags=float(rng.uniform(0.0, 0.6)),
        wrinkles=float(max(0.0, rng.uniform(-0.5, 0.45))),
        moustache=float(rng.uniform(0.35, 0.95)) if bearded and rng.random() < 0.8 else 0.0,
        beard=float(rng.uniform(0.3, 0.95)) if bearded and rng.random() < 0.8 else 0.0,
        beard_low=float(rng.uniform(42.0, 88.0)),
        hair=sample_hair(rng, hair_colour),
        spots=tuple(_sample_spot(rng) for _ in range(int(rng.integers(0, 3)))),
    )


def sample_hair(rng: np.random.Generator, colour: Colour) -> Hair:
    """Draw a haircut of the given colour."""
    style = rng.choice(["cropped", "short", "swept", "fringe", "long", "curly"])
    hair = {
        "hairline": rng.uniform(-76.0, -56.0),
        "part": rng.choice([-1, 1]) * rng.uniform(6.0, 34.0),
        "sweep": rng.uniform(0.0, 0.15),
        "recede": rng.uniform(-6.0, 10.0),
        "framing": rng.uniform(0.22, 0.36),
        "length": rng.uniform(20.0, 45.0),
        "volume": rng.uniform(5.0, 13.0),
        "curl": rng.uniform(0.0, 0.4),
        "phase": rng.uniform(0.0, 100.0),
    }
    if style == "cropped":
        hair |= {"volume": rng.uniform(1.0, 3.0), "recede": rng.uniform(0.0, 16.0)}
    elif style == "swept":
        hair |= {"sweep": rng.uniform(0.3, 0.7), "hairline": rng.uniform(-80.0, -64.0)}
    elif style == "fringe":
        hair |= {"hairline": rng.uniform(-50.0, -34.0), "framing": rng.uniform(0.3, 0.45)}
    elif style == "long":
        hair |= {
            "part": rng.uniform(-20.0, 20.0),
            "sweep": rng.uniform(0.15, 0.55),
            "framing": rng.uniform(0.36, 0.6),
            "length": rng.uniform(90.0, 190.0),
        }
    elif style == "curly":
        hair |= {
            "curl": rng.uniform(0.7, 1.0),
            "volume": rng.uniform(10.0, 20.0),
            "length": rng.uniform(30.0, 130.0),
        }
    return Hair(colour, **{name: float(value) for name, value in hair.items()})


def change_appearance(person: Identity, rng: np.random.Generator) -> Identity:
    """The same person years later: another haircut, greyer, heavier or thinner, wrinkled.

    Bones, iris and marks stay; skin gains wrinkles, bags and a changed tan.
    """
    looks = person.looks
    grey = rng.uniform(0.0, 0.85)
    hair_colour = _mix(looks.hair.colour, (0.66, 0.66, 0.66), grey)
    hair = sample_hair(rng, hair_colour)
    hair = dataclasses.replace(hair, recede=hair.recede + float(rng.uniform(0.0, 10.0)))
    shaved = rng.random() < 0.5
    changed = dataclasses.replace(
        looks,
        skin=_colour(np.array(looks.skin) * rng.uniform(0.88, 1.06)),
        brow=_mix(looks.brow, (0.62, 0.62, 0.62), 0.6 * grey),
        weight=looks.weight + float(rng.uniform(-4.0, 7.0)),
        bags=min(1.0, looks.bags + float(rng.uniform(0.1, 0.5))),
        wrinkles=min(1.0, looks.wrinkles + float(rng.uniform(0.3, 0.7))),
        moustache=0.0 if shaved else looks.moustache,
        beard=float(rng.uniform(0.3, 0.9))
        if rng.random() < 0.2
        else 0.0
        if shaved
        else looks.beard,
        freckles=0.7 * looks.freckles,
        hair=hair,
    )
    return Identity(person.bones, changed)


def _sample_spot(rng: np.random.Generator) -> Spot:
    scar = rng.random() < 0.25
    return Spot(
        x=float(rng.uniform(-50.0, 50.0)),
        y=float(rng.uniform(-45.0, 98.0)),
        radius=float(rng.uniform(0.9, 1.3) if scar else rng.uniform(1.2, 2.4)),
        length=float(rng.uniform(5.0, 14.0)) if scar else 0.0,
        angle=float(rng.uniform(0.0, np.pi)),
        strength=float(rng.uniform(0.35, 0.7) if scar else rng.uniform(0.5, 0.95)),
        colour=(0.93, 0.72, 0.68) if scar else (0.24, 0.14, 0.10),
    )


def _shade(ramp: np.ndarray, position: float) -> Colour:
    """The colour at ``position`` in [0, 1] of a ramp (n, 3)."""
    at = position * (len(ramp) - 1)
    low = min(int(at), len(ramp) - 2)
    return _mix(ramp[low], ramp[low + 1], at - low)


def _mix(a, b, amount: float) -> Colour:
    return _colour((1.0 - amount) * np.asarray(a) + amount * np.asarray(b))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 0.02, 1.0)
    return float(red), float(green), float(blue)
