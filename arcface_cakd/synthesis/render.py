"""A picture of a made face: rays, paint, light and what stands before and behind it."""

import numpy as np

from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.synthesis.camera import expose
from arcface_cakd.synthesis.canvas import Canvas, Surface, Window, around, crop_grid, mix, within
from arcface_cakd.synthesis.features import paint_face
from arcface_cakd.synthesis.hair import LONG, HairShell
from arcface_cakd.synthesis.head import (
    Head,
    Pose,
    align,
    cast,
    look_up,
    normals,
    rays,
    row,
    unit,
)
from arcface_cakd.synthesis.identity import Identity
from arcface_cakd.synthesis.nuisance import Backdrop, Light, Nuisance
from arcface_cakd.synthesis.occlusion import draw_cover, draw_glasses, paint_mask
from arcface_cakd.synthesis.relief import relief_slopes
from arcface_cakd.synthesis.shapes import F32, bump, edge, positive, smooth

NOSE_STEPS = 10


def render(person: Identity, nuisance: Nuisance) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a person, as a recogniser is given it.

    Returns:
        uint8 (112, 112, 3) RGB, and float32 (5, 2) where its landmarks are, in crop pixels.
    """
    head = Head(person.bones, person.looks.weight, nuisance.expression)
    pose = align(head, nuisance.pose, nuisance.jitter)
    light = _Lamp(nuisance.light, pose)
    image = _backdrop(nuisance.backdrop)
    image *= np.array(nuisance.light.tint, F32)[:, None, None] * F32(nuisance.light.exposure**0.5)

    hair = person.looks.hair
    shell = HairShell(hair, head, nuisance.hair_toss, pose)
    lit_hair = None
    if shell.region is not None:
        lit_hair = light.fall(shell.colour, shell.normal, None, None)
        mix(within(image, shell.region), shell.back, F32(0.30) * lit_hair)
    _neck(image, pose, head, person, nuisance, light)
    ears = [_Ear(side, head, pose) for side in (-1, 1)]
    for ear in ears:
        if not ear.near:
            ear.draw(image, person, light)
    _face(image, head, pose, person, nuisance, light)
    if hair.length > LONG:
        _draw_near(ears, image, person, light)
    if shell.region is not None:
        mix(within(image, shell.region), shell.front, lit_hair)
    if hair.length <= LONG:
        _draw_near(ears, image, person, light)
    if nuisance.glasses is not None:
        draw_glasses(image, nuisance.glasses, head, pose)
    if nuisance.cover is not None:
        draw_cover(image, nuisance.cover)
    return expose(image, nuisance.camera), pose.landmarks.astype(np.float32)


def _face(
    image, head: Head, pose: Pose, person: Identity, nuisance: Nuisance, light: "_Lamp"
) -> None:
    surface = _meet(head, pose)
    if surface is None:
        return
    canvas = Canvas(person.looks.skin, surface.x.shape)
    paint_face(canvas, surface, head, person, nuisance.expression)
    slopes = relief_slopes(surface, head, person)
    normal = _tilt(surface.normal, *slopes)
    if nuisance.cover is not None and nuisance.cover.kind == "mask":
        paint_mask(canvas, surface, head, nuisance.cover)
    skin = light.fall(canvas.albedo, normal, canvas.gloss, canvas.shade)
    skin += canvas.glint * F32(nuisance.light.exposure)
    mix(within(image, surface.region), surface.cover, skin)


def _meet(head: Head, pose: Pose) -> Surface | None:
    """What the crop shows of the head, or None where it shows nothing of it."""
    nose = _nose_box(head, pose)
    region = around(np.concatenate([head.profile.extent(pose), nose]), 2)
    if region is None:
        return None
    origin, direction = rays(pose, region)
    t, inside = cast(head.profile, origin, direction)
    cover = edge(inside, F32(pose.millimetres))
    x, y, z = (o + t * F32(d) for o, d in zip(origin, direction, strict=True))
    normal = normals(head.profile, x, y, z)
    facing = sum(n * F32(d) for n, d in zip(normal, direction, strict=True))
    grain = F32(pose.millimetres) / np.maximum(facing, F32(0.4))
    window = around(nose, 2)
    if window is not None:
        rows, columns = (
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(window, region, strict=True)
        )
        _meet_nose(head, (rows, columns), origin, direction, t, cover)
        x, y, z = (o + t * F32(d) for o, d in zip(origin, direction, strict=True))
    return Surface(region, x, y, z, normal, cover, grain)


def _nose_box(head: Head, pose: Pose) -> np.ndarray:
    """Crop pixels (n, 2) between which the nose lies."""
    b = head.bones
    corners = np.array(
        [[x, y, 0.0] for x in (-21, 21) for y in (-12, 0.5 * b.nose_y, b.nose_y + 14)]
        + [[b.nose_bend, b.nose_y, 3.0]]
    )
    corners[:, 2] += head.front(corners[:, 0], corners[:, 1])
    return pose.project(corners)


def _meet_nose(head: Head, window: Window, origin, direction, t, cover) -> None:
    """Move hits to the nose, in place, where it stands before what the ray met first."""
    height = head.bones.nose_forward * 1.1
    x0, y0, z0 = (o[window] for o in origin)
    dx, dy, dz = (F32(d) for d in direction)
    start = t[window]
    reach = F32(min(height / max(float(dz), 0.3), 50.0))
    step = reach / F32(NOSE_STEPS)
    depths = reach - step * np.arange(NOSE_STEPS + 1, dtype=F32)[:, None, None]
    at = start + depths  # (steps, h, w), from the viewer inwards
    gap = z0 + at * dz - head.front(x0 + at * dx, y0 + at * dy)
    below = gap <= 0
    first = np.maximum(below.argmax(0), 1)[None]
    deep, before = (np.take_along_axis(gap, first - k, 0)[0] for k in (0, 1))
    back = np.clip(deep / (deep - before - F32(1e-6)), 0, 1)  # share of the step gone too deep
    found = start + reach - step * (first[0].astype(F32) - back)
    risen = below.any(0) & (found > start)
    t[window] = np.where(risen, found, start)
    nose = head.nose(x0 + found * dx, y0 + found * dy)
    cover[window] = np.where(risen & (nose > 1.5), 1, cover[window])


def _tilt(normal, slope_x, slope_y):
    """Normals of a surface with a relief on it, whose height along z has the given slopes."""
    nx, ny, nz = normal
    front = positive(nz)
    return unit(nx - front * slope_x, ny - front * slope_y, nz)


class _Lamp:
    """Light on the head: Lambert that wraps around (more in red, as in skin), and highlights."""

    def __init__(self, light: Light, pose: Pose):
        towards = np.array(light.direction)
        half = towards + np.array([0.0, 0.0, 1.0])
        self.light = light
        self._up = [F32(-v) for v in pose.turn[1]]
        self._towards = [F32(v) for v in pose.turn.T @ towards]
        self._tint = np.array(light.tint, F32)[:, None, None] * F32(light.exposure)
        self._half = [F32(v) for v in pose.turn.T @ (half / np.linalg.norm(half))]

    def fall(self, albedo, normal, gloss, shade) -> np.ndarray:
        """Linear radiance (3, ...) of sRGB ``albedo`` under this light."""
        light = self.light
        facing = _dot(normal, self._towards)
        sky = _dot(normal, self._up)
        sky *= F32(0.22 * light.ambient)
        sky += F32(0.82 * light.ambient)
        radiance = albedo * albedo
        for channel, wrap in enumerate((0.32, 0.22, 0.17)):
            lit = facing + F32(wrap)
            lit *= F32(light.key / (1 + wrap))
            lit = positive(lit)
            lit += sky
            if shade is not None:
                lit *= shade
            radiance[channel] *= lit
        mirror = positive(_dot(normal, self._half))
        mirror *= mirror
        broad = mirror * mirror
        sharp = broad * broad
        sharp *= sharp * sharp
        broad *= F32(0.12 * light.key)
        sharp *= F32(0.75 * light.key)
        sharp += broad
        sharp *= F32(0.05) if gloss is None else gloss
        radiance += sharp
        radiance *= self._tint
        return radiance


def _dot(normal, vector):
    return normal[0] * vector[0] + normal[1] * vector[1] + normal[2] * vector[2]


def _backdrop(backdrop: Backdrop) -> np.ndarray:
    """Linear (3, 112, 112): patches of colour, drawn out softly or with edges."""
    colours = np.array(backdrop.colours, F32)
    weights = []
    for count in colours.shape[:2]:
        centres = (np.arange(count, dtype=F32) + F32(0.5)) * F32(CROP_SIZE / count)
        distance = np.abs(np.arange(CROP_SIZE, dtype=F32)[:, None] - centres)
        near = np.exp(-((distance / F32(CROP_SIZE / count * 0.6)) ** (8 if backdrop.sharp else 2)))
        weights.append(near / (near.sum(1, keepdims=True) + F32(1e-6)))
    image = weights[0] @ colours.transpose(2, 0, 1) @ weights[1].T
    image *= image
    return image


def _neck(
    image, pose: Pose, head: Head, person: Identity, nuisance: Nuisance, light: _Lamp
) -> None:
    """Neck and clothes, as flat shapes behind the head that stay upright when it turns."""
    scale = 1 / pose.millimetres
    top = pose.project(np.array([[0.0, 60.0, -20.0]]))[0]
    first = int(np.clip(top[1], 0, CROP_SIZE - 1))
    columns = np.arange(CROP_SIZE, dtype=F32)
    rows = np.arange(first, CROP_SIZE, dtype=F32)[:, None]
    image = image[:, first:]
    half = 0.70 * head.bones.cheek_width * scale
    u = ((columns - F32(top[0])) / F32(half)).clip(-1.6, 1.6)
    below = rows - F32(top[1])
    mask = edge((1 - np.abs(u) + F32(0.0025) * positive(below - 20)) * F32(half), 1.0)
    mask *= below > 0
    nz = np.sqrt(np.maximum(1 - u * u, F32(0.05)))
    normal = [(u * F32(a) + nz * F32(b))[None] for a, b in zip(*pose.turn[[0, 2]], strict=True)]
    skin = np.broadcast_to(np.array(person.looks.skin, F32)[:, None, None], (3, 1, CROP_SIZE))
    chin = pose.project(np.array([[0.0, head.chin_y, 40.0]]))[0, 1]
    shadow = F32(0.42) + F32(0.35) * smooth((rows - F32(chin)) / F32(26.0))
    mix(image, mask, light.fall(skin, normal, None, None) * shadow)
    collar = edge(rows - F32(chin + 17) + F32(7.0) * (1 - u * u).clip(0, 1), 1.5)
    cloth = np.array(nuisance.backdrop.clothes, F32) ** 2 * np.array(light.light.tint, F32)
    fold = F32(0.75) + F32(0.25) * np.cos(u * F32(2.2))
    mix(image, collar, cloth[:, None, None] * fold)


class _Ear:
    """One ear: a leaf that stands out from the side of the head."""

    def __init__(self, side: int, head: Head, pose: Pose):
        b = head.bones
        width = float(look_up(head.profile.width, row(np.array(b.ear_y))))
        base = np.array([side * (width - 3.0), b.ear_y, -4.0])
        out = np.array([side * (b.ear_out + 4.0), -1.0, -15.0])
        along = np.array([0.0, b.ear_length, -4.0]) * 0.95
        points = pose.project(np.stack([base, base + out, base + along]))
        self._base, self._axes = points[0], (points[1:] - points[0]).T
        self._normal = np.array([side * 0.9, 0.0, 0.45])
        self._side, self._pose = side, pose
        self._area = float(np.linalg.det(self._axes)) * side
        self.near = float(pose.turn[2] @ self._normal) > 0.25

    def draw(self, image, person: Identity, light: _Lamp) -> None:
        if self._area < 12:  # square pixels: edge-on or behind the head
            return
        corners = np.array([[-0.6, -1.0], [1.3, -1.0], [-0.6, 1.0], [1.3, 1.0]])
        window = around(self._base + corners @ self._axes.T, 2)
        if window is None:
            return
        columns, rows = crop_grid()
        inverse = np.linalg.inv(self._axes)
        x, y = columns[window] - F32(self._base[0]), rows[window] - F32(self._base[1])
        out = F32(inverse[0, 0]) * x + F32(inverse[0, 1]) * y
        along = F32(inverse[1, 0]) * x + F32(inverse[1, 1]) * y
        along = along.clip(-1.2, 1.2)
        u = ((out - F32(0.35)) / (F32(0.70) - F32(0.22) * along)).clip(-1.5, 1.5)
        r = np.sqrt(u * u + along * along * F32(1.1))
        grain = F32(2.4 / np.sqrt(self._area))
        mask = edge(1 - r, grain)
        hollow = smooth((F32(0.80) - r) / F32(0.25)) * (F32(0.75) + F32(0.4) * along)
        hollow -= F32(0.5) * bump(r, 0.45, 0.13) * (along < 0.3)
        skin = np.array(person.looks.skin, F32) * np.array([1.0, 0.90, 0.88], F32)
        skin = np.broadcast_to(skin[:, None, None], (3, *r.shape))
        normal = [F32(n) + u * F32(0.5 * self._side * (i == 0)) for i, n in enumerate(self._normal)]
        lit = light.fall(skin, normal, None, 1 - F32(0.45) * hollow)
        mix(within(image, window), mask, lit)


def _draw_near(ears, image, person: Identity, light: _Lamp) -> None:
    for ear in ears:
        if ear.near:
            ear.draw(image, person, light)
