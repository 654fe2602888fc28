"""What stands before a face: glasses, masks, bars, hands."""

import numpy as np

from arcface_cakd.synthesis.canvas import Canvas, Surface, around, crop_grid, mix, noise, within
from arcface_cakd.synthesis.head import Head, Pose, rays
from arcface_cakd.synthesis.nuisance import Cover, Glasses
from arcface_cakd.synthesis.shapes import F32, bump, edge, length, positive


def draw_glasses(image: np.ndarray, glasses: Glasses, head: Head, pose: Pose) -> None:
    """Draw glasses on linear ``image`` (3, 112, 112), fitted to the head's eyes, in place."""
    b, millimetres = head.bones, pose.millimetres
    eye_z = float(head.front(np.array(b.eye_x), np.array(0.0)))
    reach = b.eye_x + 1.5 + glasses.half_width + glasses.rim
    corners = [[x, y, z] for x in (-reach, reach) for y in (-24, 28) for z in (0, eye_z + 15)]
    region = around(pose.project(np.array(corners)), 2)
    if region is None:
        return
    image = within(image, region)
    origin, direction = rays(pose, region)
    plane = F32(eye_z + 15.0)
    t = (plane - origin[2]) / F32(direction[2])
    x, y = origin[0] + t * F32(direction[0]), origin[1] + t * F32(direction[1]) - F32(2.0)
    centre = b.eye_x + 1.5
    half_width = min(glasses.half_width, centre - 5.0)
    radius = glasses.roundness * min(half_width, glasses.half_height)
    across = np.abs(np.abs(x) - F32(centre)) - F32(half_width - radius)
    up = np.abs(y) - F32(glasses.half_height - radius)
    outside = length(positive(across), positive(up)) + np.minimum(np.maximum(across, up), 0)
    distance = F32(radius) - outside  # into the lens
    colour = np.array(glasses.colour, F32) ** 2
    lens = edge(distance, millimetres)
    mix(image, F32(glasses.lens) * lens, (0.01, 0.01, 0.012))
    streak = bump(x - y * 0.7, 0.55 * centre, 7.0) + bump(x - y * 0.7, -1.5 * centre, 7.0)
    mix(image, F32(0.10) * lens * streak, (1.0, 1.0, 1.0))
    width = F32(max(glasses.rim, 0.55 * millimetres))
    rim = edge(width - np.abs(distance), millimetres)
    bridge = edge(width - np.abs(y + F32(4.0) - F32(0.04) * x * x), millimetres)
    rim = np.maximum(rim, bridge * (np.abs(x) < centre - half_width))
    mix(image, F32(0.93) * rim, colour)
    for side in (-1, 1):
        outward = side * direction[0]
        if outward < 0.12:
            continue
        hinge = F32(side * (centre + half_width))
        t = (hinge - origin[0]) / F32(direction[0])
        z = origin[2] + t * F32(direction[2])
        y = origin[1] + t * F32(direction[1])
        arm = edge(width + F32(0.4) - np.abs(y + F32(3.0)), millimetres)
        mix(image, F32(0.93) * arm * ((z > 0) & (z < plane)), colour)


def paint_mask(canvas: Canvas, surface: Surface, head: Head, cover: Cover) -> None:
    """Put a face mask over nose, mouth and chin, before light falls on them."""
    b = head.bones
    x, y = surface.x, surface.y
    top = F32(b.nose_y - 17) + F32(0.002) * x * x
    mask = edge(y - top, surface.grain)
    mask *= edge(F32(head.chin_y + 30) - y, surface.grain)
    back = F32(26) + F32(0.012) * (y - F32(head.mouth_y - 8)) ** 2  # z where its sides end
    mask *= edge(surface.z - back, 2 * surface.grain)
    folds = 1 + F32(0.05) * np.cos(y * F32(0.6)) + F32(0.02) * noise(x, y, 3, fine=True)
    canvas.mix((slice(None), slice(None)), mask, [F32(c) * folds for c in cover.colour])
    canvas.shade += mask * (F32(0.95) - canvas.shade)
    canvas.gloss *= 1 - mask


def draw_cover(image: np.ndarray, cover: Cover) -> None:
    """Draw a bar or fingers over linear ``image`` (3, 112, 112), in place; masks are painted."""
    if cover.kind == "mask":
        return
    columns, rows = crop_grid()
    x, y = columns - F32(cover.place[0]), rows - F32(cover.place[1])
    cosine, sine = F32(np.cos(cover.angle)), F32(np.sin(cover.angle))
    u, v = x * cosine + y * sine, y * cosine - x * sine
    width, height = cover.size
    colour = np.array(cover.colour, F32)[:, None, None] ** 2
    if cover.kind == "bar":
        distance = np.minimum(F32(width) - np.abs(u), F32(height) - np.abs(v))
        light = 1 - F32(0.35) * (v / F32(height)) ** 2
    else:
        # The hand reaches in from the edge: its fingers point towards smaller u.
        finger = F32(0.5 * height)
        which = np.clip(np.floor(v / finger), -2, 1)
        across = v - (which + F32(0.5)) * finger
        tip = F32(-0.6 * width) + F32(0.10 * width) * np.abs(which + F32(0.5)) ** 2
        beyond = np.maximum(tip - u, 0)
        distance = F32(0.5) * finger - length(beyond, across)
        light = 1 - F32(2.2) * (across / finger) ** 2 * F32(0.8)
        light *= 1 - F32(0.12) * np.exp(-(((u - tip - F32(0.35 * width)) / F32(1.2)) ** 2))
    mix(image, edge(distance, 1.5), colour * light)
