"""Hair: a second shell around the skull, cut out where the face shows."""

import numpy as np

from arcface_cakd.synthesis.canvas import around, noise
from arcface_cakd.synthesis.head import (
    CHEEK_Y,
    FACE_DEPTH,
    STEP,
    YS,
    Head,
    Pose,
    Profile,
    cast,
    look_up,
    normals,
    rays,
    row,
)
from arcface_cakd.synthesis.identity import Hair
from arcface_cakd.synthesis.shapes import F32, edge, smooth

LONG = 60.0  # hair that falls below this y hangs down beside the face


class HairShell:
    """Hair of one person on one day, as the rays of a crop meet it.

    Attributes:
        region: the part (h, w) of the crop that holds all of it, or None where none shows; then
            there are no other attributes.
        front: (h, w) in [0, 1], hair before the head.
        back: (h, w) in [0, 1], hair that shows behind head and neck.
        colour: (3, h, w) sRGB with strands, not yet shaded.
        normal: three arrays of unit normals.
    """

    def __init__(self, hair: Hair, head: Head, toss, pose: Pose):
        volume = max(hair.volume + toss[1], 0.8)
        millimetres = pose.millimetres
        profile = _shell(hair, head, volume)
        lowest = max(hair.length, 12.0, hair.hairline + toss[0] + 120 * hair.sweep)
        lowest += 10 + 24 * hair.curl  # of which strands hang out of the edge
        extent = profile.extent(pose, lowest)
        self.region = around(extent, 2 + 12 * hair.curl / millimetres)
        if self.region is None:
            return
        origin, direction = rays(pose, self.region)
        t, inside = cast(profile, origin, direction)
        x, y, z = (o + t * F32(d) for o, d in zip(origin, direction, strict=True))
        self.normal = normals(profile, x, y, z)
        facing = sum(n * F32(d) for n, d in zip(self.normal, direction, strict=True))
        grain = F32(millimetres) / np.maximum(facing, F32(0.35))
        azimuth = z * look_up(profile.shallow, row(y))  # its cosine: 1 in front, 0 at the ears

        coarse = noise(0.8 * x, 0.8 * y, int(hair.phase), fine=False)
        strands = _strands(hair, x, y, azimuth)
        ragged = F32(1.0 + 2.0 * hair.curl) * strands + F32(4.0 * hair.curl) * coarse
        lower = _lower_edge(hair, x, azimuth, toss[0])
        cut = edge(lower + ragged - y, 1.6 * grain)
        inside = inside + F32(2.0 * hair.curl) * (coarse + F32(0.6) * strands)
        outline = edge(inside, F32(millimetres) * 1.3)
        # Cropped hair lets the scalp shine through.
        opacity = min(1.0, 0.62 + 0.08 * volume)
        self.front = cut * outline * F32(opacity)
        self.back = outline * edge(F32(hair.length) + ragged - y, 2 * grain)
        self.back *= F32(min(1.0, 0.12 * volume))
        self.colour = np.array(hair.colour, F32)[:, None, None] * (
            1 + F32(0.24 - 0.2 * hair.colour[1]) * strands
        )
        root = 1 - F32(0.35) * (1 - (lower - y) * F32(1 / 9.0)).clip(0, 1)
        self.colour *= root


def _shell(hair: Hair, head: Head, volume: float) -> Profile:
    # The skull, blown up about the cheeks so that hair stands as high as it stands out.
    shrunk = CHEEK_Y + (YS - CHEEK_Y) * (1 - volume / 135.0)
    at = row(shrunk + F32(0.5 * STEP))
    width = look_up(head.profile.width, at) + F32(0.7 * volume)
    depth = look_up(head.profile.depth, at) + F32(0.7 * volume)
    if hair.length > LONG:
        hang = YS > CHEEK_Y - 20
        fall = np.sqrt(np.clip(1 - np.clip((YS - CHEEK_Y) / (hair.length + 25), 0, 1) ** 6, 0, 1))
        wave = 1 + 0.03 * hair.curl * np.sin(YS / 9.0 + hair.phase)
        width = np.where(hang, np.maximum(width, width.max() * fall * wave), width)
        depth = np.where(hang, np.maximum(depth, (FACE_DEPTH + 0.7 * volume) * fall), depth)
    return Profile.of(width, depth)


def _lower_edge(hair: Hair, x, azimuth, toss: float):
    """y of the lower edge of the hair, by where one stands around the head."""
    away = np.abs(x - F32(hair.part))
    front = F32(hair.hairline + toss) + F32(hair.sweep) * away
    front -= F32(hair.recede) * smooth((np.abs(x) - F32(14.0)) / F32(22.0))
    side = hair.length if hair.length > LONG else 12.0
    beside = smooth((F32(hair.framing + 0.14) - azimuth) / F32(0.20))
    behind = smooth((F32(0.10) - azimuth) / F32(0.22))
    lower = front + (F32(side) - front) * beside
    return lower + (F32(hair.length) - lower) * behind


def _strands(hair: Hair, x, y, azimuth):
    """Lightness of the strands, about unit variance: straight ones run down, curls turn."""
    phase = int(hair.phase) + 19
    if hair.curl > 0.6:
        return noise(0.8 * x, 0.8 * y, phase, fine=True)
    # Strands fan out from the parting, and run down at the sides of the head.
    across = x + F32(0.25) * np.sign(x - F32(hair.part)) * y
    across = across + F32(40.0) * (1 - azimuth) * np.sign(x)
    across = across + F32(3.0 * hair.curl) * np.sin(y * F32(0.16) + F32(hair.phase))
    return noise(0.9 * across, 0.10 * y, phase, fine=True)
