"""What people sit and lie on: beds, chairs, sofas."""

from __future__ import annotations

import numpy as np

from isthmus.data.simulators.shapes.draw import Draw, Parts, legs
from isthmus.geometry.meshes import arch, ball, box, cylinder, four_corners, grid, moved, rod, rotated, tube, turned


def bed(draw: Draw) -> Parts:
    """Divan, framed, slatted and poster beds; rarely bunk beds, canopies, cots, day beds and round beds."""
    kind = draw.pick(("divan", "framed", "framed", "sleigh"), ("bunk", "canopy", "day bed", "cot", "mattress"))
    width, length = draw.pick((0.95, 1.4, 1.65, 1.9)) * draw.between(0.95, 1.05), draw.between(1.95, 2.15)
    if kind in ("bunk", "day bed"):
        width = draw.between(0.85, 1.05)
    if kind == "cot":
        width, length = draw.between(0.65, 0.75), draw.between(1.2, 1.4)
    under, frame, thick = draw.between(0.12, 0.28), draw.between(0.1, 0.2), draw.between(0.14, 0.28)
    head = length / 2

    def berth(z: float) -> Parts:
        berth_parts = [
            box(width, length, frame, z=z),
            ball(width * 0.97, length * 0.97, thick * 1.5, 9, z=z + frame * 0.5),
        ]
        top = z + frame * 0.5 + thick * 1.5
        pillows = 2 if width > 1.2 else 1
        for i in range(pillows if draw.chance(0.85) else 0):
            x = (i - (pillows - 1) / 2) * width / pillows
            pillow = ball(width / pillows * 0.85, 0.42, draw.between(0.12, 0.18), 3.5, x, head - 0.3, top - 0.03)
            berth_parts.append(rotated(pillow, 0, draw.between(0, 20), (x, head - 0.3, top)))
        if draw.chance(0.4):
            cover = draw.between(0.45, 0.75) * length
            berth_parts.append(ball(width * 1.05, cover, thick, 8, 0, -head + cover / 2 - 0.02, top - thick + 0.05))
        return berth_parts

    def board(y: float, height: float, style: str) -> Parts:
        if style == "panel":
            return [box(width, 0.06, height, y=y)]
        if style == "curved":
            x = np.linspace(-width / 2, width / 2, 12)
            top = height * (0.75 + 0.25 * np.cos(np.pi * x / width))
            rows = [
                np.stack([x, np.full(12, y + dy), z], axis=1)
                for dy, z in ((-0.03, 0 * x), (-0.03, top), (0.03, top), (0.03, 0 * x))
            ]
            return [grid(np.stack(rows))]
        bars = [box(0.06, 0.06, height * 1.05, sx * (width / 2 - 0.03), y) for sx in (-1, 1)]
        bars.append(box(width, 0.05, 0.07, y=y, z=height * 0.95))
        xs = np.linspace(-width / 2, width / 2, draw.count(5, 11))[1:-1]
        bars.extend(box(0.03, 0.03, height * 0.7, x, y, height * 0.27) for x in xs)
        return bars

    style = draw.pick(("panel", "slats", "curved"))
    if kind == "mattress":
        return berth(0.02)
    if kind == "bunk":
        second = draw.between(1.2, 1.45)
        parts = berth(under + 0.1) + berth(second)
        parts += [box(0.07, 0.07, second + 0.55, x, y) for x, y in four_corners(width, length)]
        parts += [box(0.03, length * 0.7, 0.06, sx * width / 2, 0.1 * length, second + 0.4) for sx in (-1, 1)]
        x, ladder = width / 2 + 0.05, -length / 2 + 0.25
        parts += [box(0.04, 0.04, second + 0.3, x, ladder + dy) for dy in (-0.18, 0.18)]
        parts += [box(0.04, 0.36, 0.04, x, ladder, z) for z in np.arange(0.25, second, 0.28)]
        return parts
    if kind == "cot":
        height = draw.between(0.85, 1.0)
        parts = berth(draw.between(0.3, 0.45))
        for sign in (-1, 1):
            parts += board(sign * length / 2, height, "slats")
            parts.append(box(0.04, length, 0.05, sign * width / 2, 0, height * 0.95))
            ys = np.linspace(-length / 2, length / 2, 12)[1:-1]
            parts += [box(0.025, 0.025, height * 0.8, sign * width / 2, y, height * 0.17) for y in ys]
        return parts
    parts = berth(under)
    if kind == "divan" or draw.chance(0.3):
        parts.append(box(width * 0.94, length * 0.94, under))
    else:
        parts += legs(draw, width, length, under, 0.09)
    height = draw.between(0.75, 1.2)
    if kind == "day bed":
        parts += board(head, height * 0.8, style) + board(-head, height * 0.8, style)
        parts.append(box(0.07, length, height * 0.85, width / 2))
        parts += [
            rotated(
                ball(0.16, 0.5, 0.42, 3, width / 2 - 0.15, y, under + frame + thick),
                1,
                15,
                (width / 2, y, under),
            )
            for y in (-0.5, 0.1, 0.6)[: draw.count(1, 3)]
        ]
        return parts
    if kind != "divan" or draw.chance(0.8):
        parts += board(head, height, style)
    if kind == "sleigh":
        parts += [rotated(part, 0, 8, (0, -head, 0)) for part in board(-head, height * 0.7, "curved")]
    elif kind == "framed" and draw.chance(0.6):
        parts += board(-head, under + frame + draw.between(0.1, 0.3), style)
    if kind == "canopy":
        top = draw.between(1.8, 2.2)
        parts += [box(0.06, 0.06, top, x, y) for x, y in four_corners(width, length)]
        parts += [box(width, 0.05, 0.05, y=sy * length / 2, z=top - 0.05) for sy in (-1, 1)]
        parts += [box(0.05, length, 0.05, x=sx * width / 2, z=top - 0.05) for sx in (-1, 1)]
        if draw.chance(0.4):
            parts.append(box(width, length, 0.02, z=top))
    if draw.chance(0.3):
        x = width / 2 + draw.between(0.3, 0.4)
        parts.append(box(0.42, 0.4, draw.between(0.4, 0.6), x, head - 0.25))
    return parts


def chair(draw: Draw) -> Parts:
    """Dining, office and cantilever chairs, at times with arms; rarely lounge, shell, folding, bar chairs."""
    kind = draw.pick(
        ("dining", "dining", "dining", "office", "cantilever"),
        ("lounge", "shell", "wing", "folding", "disc", "bar"),
    )
    width, depth = draw.between(0.4, 0.52), draw.between(0.4, 0.5)
    seat, rise, thick = draw.between(0.42, 0.48), draw.between(0.38, 0.58), draw.between(0.025, 0.07)
    if kind == "bar":
        seat, rise, width, depth = draw.between(0.65, 0.8), draw.between(0.1, 0.35), 0.38, 0.38
    if kind in ("lounge", "wing"):
        width, depth, seat, rise = (
            draw.between(0.6, 0.8),
            draw.between(0.6, 0.8),
            draw.between(0.36, 0.44),
            draw.between(0.4, 0.65),
        )
        parts = legs(draw, width, depth, seat * 0.4, 0.06)
        parts += [
            box(width, depth, seat * 0.35, 0, 0, seat * 0.4),
            ball(width * 0.75, depth * 0.9, 0.18, 6, 0, -0.03, seat * 0.72),
        ]
        rest = box(width, 0.14, rise + seat * 0.4, 0, depth / 2 - 0.07, seat * 0.6)
        parts.append(rotated(rest, 0, -draw.between(5, 15), (0, depth / 2, seat)))
        for sx in (-1, 1):
            high = rise + 0.1 if kind == "wing" else 0.22
            parts.append(
                box(
                    0.1,
                    depth * (0.45 if kind == "wing" else 0.95),
                    high,
                    sx * (width / 2 - 0.03),
                    depth * (0.25 if kind == "wing" else 0),
                    seat * 0.75,
                )
            )
            if kind == "wing":
                parts.append(box(0.1, depth * 0.9, 0.2, sx * (width / 2 - 0.03), 0, seat * 0.75))
        return parts
    tilt = draw.between(3, 14)
    pivot = (0.0, depth / 2, seat)
    parts = []
    if kind == "shell":
        t = np.linspace(0, 1, 12)
        spine = arch((0, -depth / 2, 0), (0, depth * 0.75, -0.03), (0, depth * 0.55, rise), 12)
        half = width / 2 * (1 - 0.25 * t[:, None] ** 2)
        across = np.linspace(-1, 1, 9)[None, :]
        curl = draw.between(0.05, 0.16)
        bent = np.stack(
            [
                np.broadcast_to(half * across, (12, 9)),
                spine[:, 1:2] - curl * across**2 * t[:, None],
                spine[:, 2:3] + curl * across**2 * (1 - t[:, None]) + seat,
            ],
            axis=2,
        )
        parts.append(grid(bent))
    elif draw.chance(0.25) and kind != "folding":
        parts.append(moved(turned([(width / 2, 0), (width / 2, thick)], 20), (0, 0, seat - thick)))
    elif draw.chance(0.4):
        parts.append(ball(width, depth, thick * 1.6, 6, 0, 0, seat - thick))
    else:
        parts.append(box(width, depth, thick, 0, 0, seat - thick))
    if kind != "shell":
        style = draw.pick(("solid", "slats", "ladder", "curved"), ("frame", "fan"))
        back: Parts = []
        top, y = seat + rise, depth / 2 - 0.015
        if style == "solid":
            gap = draw.between(0.0, 0.15)
            back.append(box(width * 0.95, draw.between(0.02, 0.06), rise - gap, 0, y, seat + gap))
            if gap > 0.02:
                back += [box(0.035, 0.03, gap + 0.02, sx * width * 0.38, y, seat) for sx in (-1, 1)]
        elif style == "curved":
            across = np.linspace(-1, 1, 10)
            bow = y - draw.between(0.03, 0.12) * across**2
            low = seat + draw.between(0.02, 0.18)
            rows = [
                np.stack([across * width / 2, bow + dy, np.full(10, z)], axis=1)
                for dy, z in ((0, low), (0, top), (0.025, top), (0.025, low), (0, low))
            ]
            back.append(grid(np.stack(rows)))
            back += [box(0.03, 0.03, low - seat + 0.03, sx * width * 0.25, y, seat) for sx in (-1, 1)]
        else:
            back += [box(0.035, 0.035, rise, sx * (width / 2 - 0.02), y, seat) for sx in (-1, 1)]
            back.append(box(width, 0.03, draw.between(0.04, 0.1), 0, y, top - 0.07))
            if style == "slats":
                xs = np.linspace(-width / 2, width / 2, draw.count(4, 8))[1:-1]
                back += [box(0.022, 0.018, rise, x, y, seat) for x in xs]
            elif style == "ladder":
                back += [box(width, 0.02, 0.05, 0, y, z) for z in np.linspace(seat, top, draw.count(4, 6))[1:-1]]
            elif style == "fan":
                back += [
                    rod((x * 0.3, y, seat), (x, y, top - 0.04), 0.009) for x in np.linspace(-0.9, 0.9, 6) * width / 2
                ]
        parts += [rotated(part, 0, -tilt, pivot) for part in back]
    if kind == "office":
        spokes, reach = draw.count(4, 6), draw.between(0.26, 0.33)
        parts.append(cylinder(0.03, seat - 0.1, z=0.08))
        for angle in np.linspace(0, 2 * np.pi, spokes, endpoint=False):
            foot = float(reach * np.cos(angle)), float(reach * np.sin(angle))
            parts += [rod((0, 0, 0.11), (*foot, 0.07), 0.02), ball(0.05, 0.05, 0.06, 2, *foot)]
    elif kind == "disc" or (kind == "bar" and draw.chance(0.5)):
        parts += [cylinder(draw.between(0.2, 0.26), 0.02), cylinder(draw.between(0.02, 0.06), seat - thick)]
    elif kind == "cantilever":
        for sx in (-1, 1):
            x, f, b = sx * width / 2, -depth / 2, depth / 2
            path = np.array(
                [
                    [x, b, 0.02],
                    [x, f + 0.05, 0.02],
                    [x, f, 0.07],
                    [x, f, seat - 0.05],
                    [x, f + 0.05, seat],
                    [x, b, seat],
                ]
            )
            parts.append(tube(path, 0.014))
        parts.append(rod((-width / 2, depth / 2, 0.02), (width / 2, depth / 2, 0.02), 0.014))
        if draw.chance(0.4):
            parts += [
                rod((sx * width / 2, depth / 2, 0.02), (sx * width / 2, depth / 2, seat), 0.014) for sx in (-1, 1)
            ]
    elif kind == "folding":
        for sx in (-1, 1):
            x = sx * width * 0.47
            parts += [
                rod((x, -depth / 2, 0), (x, depth / 2, seat + 0.05), 0.014),
                rod((x * 0.9, depth / 2, 0), (x * 0.9, -depth / 2, seat), 0.014),
            ]
    else:
        parts += legs(draw, width, depth, seat - thick, draw.between(0.03, 0.05))
        if draw.chance(0.4) or kind == "bar":
            z = seat * draw.between(0.25, 0.5)
            parts += [box(0.02, depth * 0.85, 0.025, sx * width * 0.44, 0, z) for sx in (-1, 1)]
            parts.append(box(width * 0.88, 0.02, 0.025, 0, 0, z))
    if kind != "bar" and draw.chance(0.6 if kind == "office" else 0.35):
        arm = draw.between(0.18, 0.25)
        for sx in (-1, 1):
            x = sx * (width / 2 + 0.02)
            parts.append(box(0.045, depth * 0.75, 0.03, x, 0.04, seat + arm))
            parts.append(box(0.03, 0.03, arm + thick, x, -depth * 0.25, seat - thick))
            if draw.chance(0.5):
                parts.append(box(0.03, 0.03, arm + thick, x, depth * 0.35, seat - thick))
    return parts


def sofa(draw: Draw) -> Parts:
    """Two- to four-seaters with boxy or round arms, L-shapes; rarely armless, curved, futon, chesterfield."""
    kind = draw.pick(
        ("straight", "straight", "straight", "corner"),
        ("armless", "curved", "futon", "chesterfield", "single"),
    )
    seats = draw.count(2, 4) if kind != "single" else 1
    width = seats * draw.between(0.55, 0.72)
    depth, seat, rise = draw.between(0.78, 0.98), draw.between(0.36, 0.46), draw.between(0.34, 0.5)
    arm, under = draw.between(0.12, 0.25), draw.between(0.03, 0.14)
    back = draw.between(0.15, 0.25)
    if kind == "curved":
        opening = np.radians(draw.between(70, 150))
        radius = max(width / opening, 0.7)
        angle = np.linspace(-opening / 2, opening / 2, 14)
        parts = []
        for inner, outer, low, high in (
            (0.0, depth, 0.0, seat),
            (depth - back, depth, seat * 0.8, seat + rise),
        ):
            section = [(inner, low), (inner, high), (outer, high), (outer, low), (inner, low)]
            rows = [
                np.stack(
                    [(radius + r) * np.sin(angle), (radius + r) * np.cos(angle) - radius, np.full(14, z)],
                    axis=1,
                )
                for r, z in section
            ]
            parts.append(grid(np.stack(rows)))
        return parts
    raise_by = draw.chance(0.6)
    parts = legs(draw, width, depth, under, 0.06) if raise_by else [box(width * 0.97, depth * 0.95, under)]
    cushion = draw.between(0.1, 0.18)
    frame = seat - cushion - under
    parts.append(box(width, depth, max(frame, 0.05), 0, 0, under))
    level = under + max(frame, 0.05)
    tilt = draw.between(5, 16)
    inside = depth - back

    def backrest(w: float, x: float) -> Parts:
        solid = [box(w, back * 0.7, level - under + rise + cushion * 0.6, x, depth / 2 - back * 0.35, under)]
        return [rotated(part, 0, -tilt * 0.5, (x, depth / 2, level)) for part in solid]

    parts += backrest(width, 0)
    loose = draw.chance(0.75)
    number = seats if draw.chance(0.8) else 1
    for i in range(number):
        w = width / number
        x = (i - (number - 1) / 2) * w
        parts.append(ball(w * 0.99, inside, cushion * 1.2, 8, x, -back / 2, level - 0.01))
        if loose:
            pad = ball(w * 0.96, back, rise + 0.05, 5, x, depth / 2 - back * 1.1, level + cushion * 0.9)
            parts.append(rotated(pad, 0, -tilt, (x, depth / 2 - back, level + cushion)))
    if kind == "futon":
        return parts
    if kind != "armless":
        high = level + draw.between(0.15, 0.32) if kind != "chesterfield" else level + rise + cushion * 0.6
        round_arm = kind == "chesterfield" or draw.chance(0.35)
        for sx in (-1, 1):
            if kind == "corner" and sx == 1 and draw.chance(0.5):
                continue
            x = sx * (width / 2 + arm / 2)
            parts.append(box(arm, depth, high - under * 0.5, x, 0, under * 0.5))
            if round_arm:
                parts.append(rod((x, -depth / 2, high), (x, depth / 2, high), arm * 0.6, 10))
        if kind == "chesterfield":
            parts.append(rod((-width / 2, depth / 2 - 0.05, high), (width / 2, depth / 2 - 0.05, high), arm * 0.6, 10))
    if kind == "corner":
        side = -1 if draw.chance(0.5) else 1
        w, reach = width / seats, draw.between(0.6, 1.3)
        x, y = side * (width - w) / 2, -depth / 2 - reach / 2
        parts += [
            box(w, reach, level - under * 0.5, x, y, under * 0.5),
            ball(w, reach, cushion * 1.2, 8, x, y, level - 0.01),
        ]
        if draw.chance(0.5):
            parts.append(box(back * 0.7, depth + reach, level + rise, side * (width / 2 + back * 0.35), -reach / 2))
    for _ in range(draw.count(0, 2)):
        x = draw.rng.uniform(-0.4, 0.4) * width
        parts.append(rotated(ball(0.42, 0.14, 0.4, 3, x, -0.02, level + cushion), 0, -25, (x, 0, level + cushion)))
    return parts
