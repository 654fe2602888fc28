"""Painting on skin: eyes, brows, nose, mouth, beard, marks, years; in millimetres of the head."""

import numpy as np

from arcface_cakd.synthesis.canvas import Canvas, Surface, noise
from arcface_cakd.synthesis.head import Head
from arcface_cakd.synthesis.identity import Identity
from arcface_cakd.synthesis.nuisance import Expression
from arcface_cakd.synthesis.shapes import F32, bump, edge, hill, length, line, smooth

LASH = (0.06, 0.045, 0.04)
SCLERA = (0.90, 0.88, 0.86)


def paint_face(
    canvas: Canvas, surface: Surface, head: Head, person: Identity, expression: Expression
) -> None:
    """Paint everything that lies on the skin, from the skin itself to the lashes."""
    _skin(canvas, surface, head, person)
    _years(canvas, surface, head, person, expression)
    _beard(canvas, surface, head, person)
    _nose(canvas, surface, head, person)
    _mouth(canvas, surface, head, person, expression)
    _eyes(canvas, surface, person, expression)
    _brows(canvas, surface, person, expression)
    _spots(canvas, surface, person)


def _skin(canvas: Canvas, surface: Surface, head: Head, person: Identity) -> None:
    b, looks = person.bones, person.looks
    x, y = surface.x, surface.y
    ax = np.abs(x)
    red = hill(ax, y, (0.6 * b.cheek_width, 42.0), (19.0, 19.0))
    window = surface.window(-2 * b.nose_wings, 2 * b.nose_wings, b.nose_y - 24, b.nose_y + 24)
    if window:
        red[window] += hill(x[window], y[window], (0.0, b.nose_y), (b.nose_wings, 12.0))
    red *= F32(0.75 * looks.ruddy)
    mottle = noise(1.2 * x, 1.2 * y, looks.pattern, fine=False)
    mottle *= F32(0.14 * looks.mottle)
    red += mottle
    pores = noise(2.0 * x, 2.0 * y, looks.pattern + 5, fine=True)
    pores *= F32(0.016)
    pores += 1
    for channel, amount in enumerate((0.03, -0.12, -0.11)):
        tint = F32(amount) * red
        tint += pores
        canvas.albedo[channel] *= tint
    window = surface.window(-70, 70, -14, 66)
    if window and looks.freckles > 0:
        dots = noise(x[window], y[window], looks.pattern + 11, fine=True)
        where = hill(ax[window], y[window], (22.0, 26.0), (26.0, 20.0))
        mask = smooth((dots - F32(0.9)) / F32(0.9)) * where * F32(0.75 * looks.freckles)
        canvas.mix(window, mask, np.array(looks.skin) * (0.66, 0.5, 0.42))
    # Light hardly reaches the inner corners of the eyes, the underside of the jaw and the nose.
    window = surface.window(-b.eye_x - 17, b.eye_x + 17, -25, 15)
    if window:
        corner = hill(ax[window], y[window], (b.eye_x - 9, -5.0), (13.0, 10.0))
        canvas.darken(window, F32(0.035 * b.socket + 0.06) * corner)
    window = surface.window(-2 * b.nose_wings, 2 * b.nose_wings, b.nose_y + 2, b.nose_y + 22)
    if window:
        under = hill(x[window], y[window], (0.0, b.nose_y + 12), (b.nose_wings, 5.0))
        canvas.darken(window, F32(0.18) * under)
    window = surface.window(-200, 200, head.chin_y - 9, 400)
    if window:
        jaw = smooth((y[window] - F32(head.chin_y - 9)) / F32(12.0))
        canvas.darken(window, F32(0.45) * jaw)


def _years(canvas, surface, head: Head, person: Identity, expression: Expression) -> None:
    b, looks = person.bones, person.looks
    fold = 0.16 + 0.5 * looks.wrinkles + 0.35 * expression.smile
    x, y, grain = np.abs(surface.x), surface.y, surface.grain
    window = surface.window(-56, 56, b.nose_y - 4, head.mouth_y + 16)
    if window:
        wx, wy, wg = x[window], y[window], grain[window]
        start, end = b.nose_wings + 2.5, head.mouth_width + 7.0
        along = (wy - F32(b.nose_y)) / F32(head.mouth_y + 6 - b.nose_y)
        path = start + (end - start) * along.clip(0, 1) ** F32(0.8)
        fade = smooth(along * 4) * smooth((1.15 - along) * 2.5)
        canvas.darken(window, F32(0.36 * fold) * fade * line(wx - path, 3.4, wg))
    window = surface.window(-b.eye_x - 22, b.eye_x + 22, 2, 24)
    if window and looks.bags + looks.wrinkles > 0.05:
        wx, wy = x[window] - F32(b.eye_x), y[window]
        low = b.eye_lower + 5.0 - 0.012 * wx * wx
        bag = line(wy - low, 3.2, grain[window]) * bump(wx, 0.0, b.eye_width * 1.1)
        canvas.darken(window, F32(0.30 * looks.bags + 0.14 * looks.wrinkles) * bag)
    if looks.wrinkles > 0.05:
        window = surface.window(-48, 48, -70, b.brow_y - 4)
        if window:
            wy = y[window] + F32(0.004) * x[window] ** 2 + F32(b.brow_asymmetry)
            ridge = np.cos(wy * F32(2 * np.pi / 9.5)) ** 8 * bump(x[window], 0.0, 30.0)
            ridge *= smooth((b.brow_y - 4 - y[window]) / 6.0)
            canvas.darken(window, F32(0.22 * looks.wrinkles) * ridge)
        outer = b.eye_x + b.eye_width + 8
        window = surface.window(-outer - 9, outer + 9, -12, 14)
        if window:
            wx = np.abs(x[window] - F32(outer)) * F32(0.05)
            fan = np.cos(y[window] * (F32(1.2) - wx)) ** 4
            fan *= hill(x[window], y[window], (outer, 0.0), (6.0, 8.0))
            canvas.darken(window, F32(0.24 * looks.wrinkles) * fan)


def _beard(canvas, surface, head: Head, person: Identity) -> None:
    b, looks = person.bones, person.looks
    if looks.beard <= 0 and looks.moustache <= 0:
        return
    window = surface.window(-90, 90, 8, head.chin_y + 12)
    if window is None:
        return
    x, y = surface.x[window], surface.y[window]
    ax = np.abs(x)
    strands = noise(1.2 * x, 0.7 * y, looks.pattern + 3, fine=True)
    ragged = 1.0 * strands
    jaw = smooth((y - F32(looks.beard_low) - F32(0.012) * (55 - ax) * (ax < 55) + ragged) / 12)
    jaw = np.maximum(
        jaw, smooth((ax - F32(0.78 * b.cheek_width) + ragged) / 12) * smooth((y - 14) / 20)
    )
    around = 1 - edge(1 - length(x / (head.mouth_width + 4), (y - head.mouth_y) / 14.0), 0.3)
    beard = F32(looks.beard) * jaw * around
    lip_top = head.mouth_y - b.upper_lip - F32(2.0)
    droop = F32(0.008) * ax * ax
    strip = smooth((lip_top + droop - y + ragged) / 3.5) * smooth(
        (y - b.nose_y - 11 - 0.2 * ax + ragged) / 4.5
    )
    strip *= smooth((head.mouth_width + 4 - ax) / 8)
    mask = np.maximum(beard, F32(looks.moustache) * strip).clip(0, 1)
    mask *= F32(0.82) + F32(0.10) * strands.clip(-1.4, 1.4)
    canvas.mix(window, mask, np.array(looks.brow) * 1.1)
    canvas.gloss[window] *= 1 - F32(0.8) * mask


def _nose(canvas, surface, head: Head, person: Identity) -> None:
    b = person.bones
    window = surface.window(-b.nose_wings - 8, b.nose_wings + 8, b.nose_y - 12, b.nose_y + 16)
    if window is None:
        return
    x, y, grain = surface.x[window], surface.y[window], surface.grain[window]
    ax = np.abs(x - F32(b.nose_bend))
    nostril_x = 0.52 * b.nose_wings
    u = (ax - F32(nostril_x)) / F32(b.nostril * 1.45)
    v = (y - F32(b.nose_y + 6.5) - F32(0.18) * (ax - nostril_x)) / F32(b.nostril * 0.8)
    hole = edge((1 - length(u, v)) * F32(b.nostril * 0.8), grain)
    canvas.mix(window, F32(0.80) * hole, np.array(person.looks.skin) * (0.24, 0.15, 0.13))
    wing = length((ax - F32(b.nose_wings - 5.5)) / 5.5, (y - F32(b.nose_y + 1.5)) / 8.0)
    crease = line((wing - 1) * 6, 1.8, grain) * smooth((ax - b.nose_wings + 4.0) / 3)
    canvas.darken(window, F32(0.36) * crease)
    canvas.gloss[window] *= 1 + F32(0.8) * hill(x, y, (0.0, b.nose_y - 3), (7.0, 7.0))


def _mouth(canvas, surface, head: Head, person: Identity, expression: Expression) -> None:
    b, looks = person.bones, person.looks
    width, centre = head.mouth_width, head.mouth_y
    window = surface.window(-width - 8, width + 8, centre - 20, centre + 32)
    if window is None:
        return
    x, y, grain = surface.x[window], surface.y[window], surface.grain[window]
    s = (x / F32(width)).clip(-1.3, 1.3)
    away = np.abs(s)
    inside = (1 - s * s).clip(0, 1)
    rise = F32(head.mouth_rise)
    seam = centre - rise * s * s * away.clip(0, 1)
    gap = F32(11.0 * expression.mouth_open + 1.2 * max(expression.smile - 0.45, 0.0) * 4)
    upper_lip = b.upper_lip * (1 - 0.22 * expression.smile)
    lower_lip = b.lower_lip * (1 - 0.12 * expression.smile)
    bow = 1 - F32(b.cupid) * bump(s, 0.0, 0.14) + F32(0.4 * b.cupid) * bump(away, 0.28, 0.2)
    open_top = seam - F32(0.25) * gap * inside
    open_bottom = seam + F32(0.75) * gap * inside
    top = open_top - F32(upper_lip) * inside ** F32(0.8) * bow
    bottom = open_bottom + F32(lower_lip) * inside ** F32(0.62)
    within = edge((1 - away) * width + 1, grain)
    upper = edge(y - top, grain * 1.2) * edge(seam - y, grain) * within
    lower = edge(bottom - y, grain * 1.6) * edge(y - seam, grain) * within
    texture = 1 + F32(0.05) * noise(3.0 * x, 0.6 * y, looks.pattern + 2, fine=True)
    lip = np.array(looks.lip, F32)
    canvas.mix(window, F32(0.86) * upper, [c * texture for c in 0.84 * lip])
    canvas.mix(window, F32(0.80) * lower, [c * texture for c in 1.02 * lip])
    canvas.gloss[window] += F32(0.22) * lower + F32(0.08) * upper
    if gap > 0:
        cavity = edge(y - open_top, grain) * edge(open_bottom - y, grain) * within
        cavity *= (gap * inside).clip(0, 1)
        canvas.mix(window, cavity, (0.20, 0.06, 0.06))
        teeth_low = open_top + F32(min(0.72 * float(gap), 7.0)) * inside
        teeth = cavity * edge(teeth_low - y, grain) * smooth((F32(0.86) - away) / F32(0.2))
        gaps = 1 - F32(0.10) * np.cos(x * F32(2 * np.pi / 7.5)) ** 12
        canvas.mix(window, F32(0.92) * teeth, [c * gaps for c in (0.86, 0.83, 0.77)])
    closed = 1 - (gap * inside / F32(2.0)).clip(0, 1)
    crack = line(y - seam, 1.9, grain) * within * closed
    canvas.mix(window, F32(0.72) * crack, lip * (0.34, 0.25, 0.25))
    corner = hill(np.abs(x), y, (width + 0.5, centre - head.mouth_rise), (2.6, 2.6))
    canvas.darken(window, F32(0.40) * corner)
    under = bump(x, 0, 0.62 * width) * line(y - bottom - 3.5, 4.0, grain)
    canvas.darken(window, F32(0.24) * under)


def _eyes(canvas, surface, person: Identity, expression: Expression) -> None:
    b, looks = person.bones, person.looks
    half = b.eye_width
    outer = b.eye_x + half + 9
    window = surface.window(-outer, outer, -18, 14)
    if window is None:
        return
    # Both eyes at once: x grows outwards from the middle of each.
    side, grain = np.sign(surface.x[window]), surface.grain[window]
    x = np.abs(surface.x[window]) - F32(b.eye_x)
    y = surface.y[window] + F32(b.eye_tilt) * x
    fine = np.minimum(grain, F32(3.0))
    s = x / F32(half)
    away = np.abs(s)
    inside = (1 - s * s).clip(0, 1)
    peak = (1 + F32(b.eye_peak) * s) * inside ** F32(0.75)
    openness = expression.eye_open
    squint = 1 - 0.25 * expression.smile
    top = F32(-b.eye_upper * openness) * peak
    bottom = F32(b.eye_lower * squint * min(openness, 1.0)) * inside
    rest = F32(-b.eye_upper) * peak
    opening = edge(y - top, fine) * edge(bottom - y, fine) * edge((1 - away) * half, fine)

    lid = edge(rest - F32(b.crease) - y, fine * 2)  # above the fold
    between = (1 - lid) * edge(top - y, fine) * bump(s, 0, 0.9)
    canvas.darken(window, F32(0.10 - 0.012 * b.crease) * between)
    fold = line(y - rest + F32(b.crease), 1.5, fine) * smooth((F32(1.25) - away) / F32(0.4))
    canvas.darken(window, F32(0.5) * fold)

    canvas.mix(window, opening, SCLERA)
    canvas.mix(window, opening * bump(s, -1.0, 0.16), np.array(looks.lip))
    gaze_x, gaze_y = expression.gaze
    u, v = x - F32(gaze_x) * side, surface.y[window] - F32(gaze_y)
    radius = length(u, v)
    iris = opening * edge(F32(b.iris_radius) - radius, fine)
    pale = 0.75 + 0.5 * (v / F32(b.iris_radius)).clip(-0.6, 1)
    canvas.mix(window, iris, [pale * F32(c) for c in looks.iris])
    rim = line(radius - F32(b.iris_radius - 0.5), 1.5, fine) * opening
    canvas.mix(window, F32(0.65) * rim, (0.07, 0.06, 0.06))
    pupil = edge(F32(0.44 * b.iris_radius) - radius, fine) * opening
    canvas.mix(window, pupil, (0.015, 0.012, 0.012))
    canvas.darken(window, F32(0.45) * opening * (1 - (y - top) / F32(3.6)).clip(0, 1))
    canvas.gloss[window] *= 1 - opening
    glint = length(u * side + F32(1.9), v + F32(1.9))
    canvas.glint[window] += F32(0.85) * edge(F32(1.35) - glint, fine) * opening

    thick = 1.3 + 1.6 * b.lashes
    reach = smooth((F32(1.12) - np.abs(s + F32(0.04))) / F32(0.2))
    upper = line(y - top + F32(0.3 * thick), thick, fine) * reach
    canvas.mix(window, F32(0.93) * (upper * 1.15).clip(0, 1), LASH)
    lower = line(y - bottom, 1.0, fine) * smooth((F32(1.0) - away) / F32(0.2))
    canvas.mix(window, F32(0.25 + 0.4 * b.lashes) * lower, np.array(looks.skin) * 0.35)


def _brows(canvas, surface, person: Identity, expression: Expression) -> None:
    b, looks = person.bones, person.looks
    outer = b.brow_outer + 6
    middle, askew = b.brow_y - expression.brows, 0.5 * b.brow_asymmetry
    window = surface.window(-outer, outer, middle - 20 - abs(askew), middle + 15 + abs(askew))
    if window is None:
        return
    side, grain = np.sign(surface.x[window]), surface.grain[window]
    x, y = np.abs(surface.x[window]), surface.y[window]
    centre = F32(middle) + F32(askew) * side
    s = (x - F32(b.brow_inner)) / F32(b.brow_outer - b.brow_inner)  # 0 inside to 1 outside
    arch = F32(b.brow_arch) * bump(s, 0.62, 0.42)
    path = centre - arch - F32(b.brow_tilt) * (x - F32(b.eye_x))
    # 97 apart in the noise, so that the brows do not mirror each other.
    strands = noise(1.1 * (x + y) + F32(97.0) * side, 0.8 * y, looks.pattern + 7, fine=True)
    thickness = F32(b.brow_thickness) * (1 - F32(b.brow_taper) * np.square(s.clip(0, 1)))
    ends = smooth((s + F32(0.06)) / F32(0.14)) * smooth((F32(1.05) - s) / F32(0.2))
    hair = edge(thickness * F32(0.62) - np.abs(y - path) + F32(0.45) * strands, grain * 1.5) * ends
    density = F32(0.82) + F32(0.13) * strands.clip(-1.5, 1.3)
    canvas.mix(window, (hair * density).clip(0, 1), looks.brow)
    canvas.gloss[window] *= 1 - F32(0.8) * hair


def _spots(canvas, surface, person: Identity) -> None:
    for spot in person.looks.spots:
        reach = spot.radius + spot.length + 4
        window = surface.window(spot.x - reach, spot.x + reach, spot.y - reach, spot.y + reach)
        if window is None:
            continue
        x, y = surface.x[window] - F32(spot.x), surface.y[window] - F32(spot.y)
        cosine, sine = F32(np.cos(spot.angle)), F32(np.sin(spot.angle))
        along, across = x * cosine + y * sine, y * cosine - x * sine
        beyond = np.maximum(np.abs(along) - F32(0.5 * spot.length), 0)
        distance = F32(spot.radius) - length(beyond, across)
        mask = F32(spot.strength) * edge(distance, np.maximum(surface.grain[window], 1.0))
        canvas.mix(window, mask, spot.colour)
