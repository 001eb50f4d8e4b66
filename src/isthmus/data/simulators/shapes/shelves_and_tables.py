"""What things are put in and on: bookshelves, cabinets, tables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from isthmus.data.simulators.shapes.draw import Draw, Parts, legs
from isthmus.geometry.meshes import Mesh, ball, box, cylinder, four_corners, moved, ring, rod, stack, turned


def _books(draw: Draw, low: float, high: float, depth: float, y: float, z: float, clear: float) -> Parts:
    """Return a row of standing books, now and then a leaning or lying one, between ``low`` and ``high``."""
    parts, x = [], low + draw.between(0.0, 0.1)
    stop = low + (high - low) * min(draw.between(0.45, 1.0), 1.0)
    while x < stop - 0.12:
        if draw.chance(0.15):
            x += draw.between(0.05, 0.2)
            continue
        # A block stands for several books of one height: fewer triangles, the same silhouette.
        width = min(draw.between(0.06, 0.2), stop - x)
        tall = clear * min(draw.between(0.6, 0.9), 0.98)
        deep = depth * draw.between(0.55, 0.85)
        parts.append(box(width, deep, tall, x + width / 2, y + (depth - deep) * 0.2, z))
        x += width
    return parts


def bookshelf(draw: Draw) -> Parts:
    """Upright, low, divided, open-backed shelves, with or without books; rarely ladders, steps, hutches."""
    kind = draw.pick(("upright", "upright", "low", "cubes"), ("ladder", "stepped", "hutch", "narrow", "rack"))
    width, depth, height = draw.between(0.7, 1.2), draw.between(0.25, 0.38), draw.between(1.5, 2.1)
    boards, thick = draw.count(4, 7), draw.between(0.02, 0.04)
    if kind == "low":
        width, height, boards = draw.between(0.9, 1.6), draw.between(0.7, 1.1), draw.count(2, 4)
    elif kind == "narrow":
        width = draw.between(0.3, 0.5)
    elif kind == "cubes":
        width, boards = height * draw.between(0.6, 1.1), draw.count(3, 5)
    levels = np.linspace(draw.between(0.02, 0.1), height - thick, boards)
    clear = float(levels[1] - levels[0]) - thick
    full = draw.pick((0.0, 0.7, 1.0))
    parts: Parts = []
    if kind == "ladder":
        lean = draw.between(0.25, 0.4)
        for sx in (-1, 1):
            parts.append(rod((sx * width / 2, -lean, 0), (sx * width / 2, 0, height), 0.025, 4))
        for z in levels:
            deep = depth * (1.5 - z / height)
            y = -lean * (1 - z / height) + 0.03 - deep / 2 + 0.05
            parts.append(box(width, deep, thick, 0, y, z))
            if draw.chance(full):
                parts += _books(draw, -width / 2, width / 2, deep, y, z + thick, clear)
        return parts
    if kind == "stepped":
        columns = draw.count(3, 4)
        cell = width / columns * 1.3
        for column in range(columns):
            x = (column - (columns - 1) / 2) * cell
            for row in range(column + 1 if draw.chance(0.9) else column):
                z = row * cell
                parts += [box(cell, depth, thick, x, 0, z), box(cell, depth, thick, x, 0, z + cell - thick)]
                parts += [box(thick, depth, cell, x + sx * cell / 2, 0, z) for sx in (-1, 1)]
                if draw.chance(full):
                    parts += _books(draw, x - cell / 2, x + cell / 2, depth, 0, z + thick, cell - 2 * thick)
        return parts
    if kind == "rack":
        parts += [box(0.03, 0.03, height, x, y) for x, y in four_corners(width, depth)]
    else:
        parts += [box(thick, depth, height, sx * (width - thick) / 2) for sx in (-1, 1)]
    uneven = draw.chance(0.3)
    for i, z in enumerate(levels):
        inner = 0 < i < boards - 1
        z = float(z) + (clear * draw.between(-0.12, 0.12) if uneven and inner else 0.0)
        parts.append(box(width, depth, thick, 0, 0, z))
        if i < boards - 1 and draw.chance(full):
            parts += _books(draw, -width / 2 + thick, width / 2 - thick, depth, 0, z + thick, clear * 0.85)
    if kind != "rack" and draw.chance(0.75):
        parts.append(box(width, 0.012, height, 0, depth / 2 - 0.006))
    dividers = draw.count(1, 3) if kind == "cubes" else int(draw.chance(0.25))
    for x in np.linspace(-width / 2, width / 2, dividers + 2)[1:-1]:
        parts.append(box(thick, depth, height - thick - float(levels[0]), x, 0, float(levels[0])))
    if kind == "hutch":
        base = draw.between(0.5, 0.8)
        parts.append(box(width * 1.05, depth * 1.3, base, 0, -depth * 0.15))
        parts += [box(0.02, 0.03, 0.12, sx * 0.05, -depth * 0.8, base * 0.6) for sx in (-1, 1)]
    return parts


def cabinet(draw: Draw) -> Parts:
    """Chests, nightstands, wardrobes, sideboards; rarely filing, open, glazed, rounded, kitchen cabinets."""
    kind = draw.pick(
        ("chest", "nightstand", "wardrobe", "sideboard"), ("filing", "open", "vitrine", "rounded", "kitchen")
    )
    sizes = {
        "chest": ((0.7, 1.2), (0.4, 0.55), (0.7, 1.2)),
        "nightstand": ((0.4, 0.6), (0.35, 0.5), (0.45, 0.7)),
        "wardrobe": ((0.8, 1.6), (0.5, 0.65), (1.7, 2.2)),
        "sideboard": ((1.2, 1.8), (0.38, 0.5), (0.6, 0.9)),
        "filing": ((0.38, 0.5), (0.5, 0.65), (0.7, 1.4)),
        "open": ((0.6, 1.2), (0.35, 0.5), (0.8, 1.9)),
        "vitrine": ((0.7, 1.1), (0.35, 0.45), (1.5, 2.0)),
        "rounded": ((0.5, 0.9), (0.5, 0.7), (0.6, 1.2)),
        "kitchen": ((0.9, 1.8), (0.5, 0.65), (0.85, 0.95)),
    }
    width, depth, height = (draw.between(*span) for span in sizes[kind])
    base = draw.between(0.05, 0.2)
    on_legs = draw.chance(0.45) and kind not in ("filing", "kitchen")
    parts = legs(draw, width, depth, base, 0.05) if on_legs else [box(width * 0.96, depth * 0.9, base, 0, 0.02)]
    body = height - base
    if kind == "rounded":
        half = [ring(width, depth, z, 3.5, 24) for z in (base, height)]
        parts += [stack(half), box(0.02, 0.05, body * 0.3, 0.05, -depth / 2, base + body * 0.4)]
        parts.append(stack([ring(width * 1.06, depth * 1.06, z, 3.5, 24) for z in (height, height + 0.03)]))
        return parts
    front = -depth / 2

    def knob(x: float, z: float, bar: bool) -> Mesh:
        return box(0.12, 0.03, 0.015, x, front - 0.03, z) if bar else ball(0.03, 0.03, 0.03, 2, x, front - 0.035, z)

    def face(low: float, high: float, bottom: float, top: float, drawers: bool) -> Parts:
        """Fill a rectangle of the front with a drawer or a door and its handle."""
        w, h = high - low - 0.015, top - bottom - 0.015
        x = (low + high) / 2
        panel = [box(w, 0.02, h, x, front - 0.01, bottom + 0.0075)]
        if drawers:
            panel.append(knob(x, (bottom + top) / 2, bar))
        else:
            inner = high - 0.05 if x < 0 else low + 0.05
            panel.append(
                box(0.015, 0.03, 0.14, inner, front - 0.03, (bottom + top) / 2 - 0.05)
                if bar
                else knob(inner, (bottom + top) / 2, False)
            )
        if not drawers and draw.chance(0.3):
            panel.append(box(w * 0.7, 0.015, h * 0.75, x, front - 0.025, bottom + h * 0.12))
        return panel

    bar = draw.chance(0.5)
    hollow = kind in ("open", "vitrine")
    if hollow:
        t = 0.025
        parts += [box(t, depth, body, sx * (width - t) / 2, 0, base) for sx in (-1, 1)]
        parts += [box(width, t, body, 0, depth / 2, base), box(width, depth, t, 0, 0, height - t)]
        closed = body * draw.between(0.35, 0.55)
        parts.append(box(width, depth, closed, 0, 0, base))
        parts += face(-width / 2, 0, base, base + closed, False) + face(0, width / 2, base, base + closed, False)
        shelves = np.linspace(base + closed, height, draw.count(2, 4))[1:-1]
        parts += [box(width, depth * 0.9, t, 0, 0, z) for z in shelves]
        if kind == "vitrine":
            for low in (-width / 2, 0.0):
                for x in (low + 0.03, low + width / 2 - 0.03):
                    parts.append(box(0.05, 0.02, body - closed, x, front, base + closed))
                parts += [box(width / 2, 0.02, 0.05, low + width / 4, front, z) for z in (base + closed, height - 0.05)]
        return parts
    parts.append(box(width, depth, body, 0, 0, base))
    columns = max(1, round(width / draw.between(0.4, 0.6)))
    if kind in ("filing", "nightstand"):
        columns = 1
    xs = np.linspace(-width / 2 + 0.01, width / 2 - 0.01, columns + 1)
    split = draw.pick(("drawers", "doors", "mixed"))
    if kind in ("chest", "filing"):
        split = "drawers"
    elif kind == "wardrobe":
        split = draw.pick(("doors", "doors", "mixed"))
    for low, high in pairwise(xs):
        rows = draw.count(2, 5) if kind in ("chest", "filing") else draw.count(1, 3)
        if split == "doors":
            parts += face(low, high, base, height, False)
        elif split == "mixed":
            cut = base + body * 0.7
            parts += face(low, high, cut, height, True) + face(low, high, base, cut, False)
        else:
            zs = np.linspace(base, height, rows + 1)
            for bottom, top in pairwise(zs):
                parts += face(low, high, bottom, top, True)
    if draw.chance(0.5):
        parts.append(box(width + 0.05, depth + 0.05, 0.03, 0, -0.01, height))
    if kind == "kitchen" and draw.chance(0.5):
        parts.append(box(width, 0.02, draw.between(0.1, 0.5), 0, depth / 2, height))
    return parts


def table(draw: Draw) -> Parts:
    """Dining, round, pedestal, trestle, coffee tables, desks; rarely corner desks, picnic tables, drums."""
    kind = draw.pick(
        ("dining", "dining", "round", "pedestal", "trestle", "coffee", "desk"),
        ("corner", "picnic", "cross", "shelf", "drum", "nest", "waterfall"),
    )
    width, depth = draw.between(1.1, 1.9), draw.between(0.65, 0.95)
    height, thick = draw.between(0.7, 0.78), draw.between(0.02, 0.06)
    if kind in ("coffee", "nest", "drum") or (kind in ("shelf", "waterfall") and draw.chance(0.7)):
        width, depth, height = draw.between(0.6, 1.2), draw.between(0.45, 0.65), draw.between(0.35, 0.5)
    if draw.chance(0.25):
        width = depth = draw.between(0.7, 1.0)
    top = draw.pick((40.0, 40.0, 6.0), (2.0, 3.0))
    if kind in ("round", "pedestal", "drum") and draw.chance(0.75):
        width = depth = min(width, draw.between(0.7, 1.2))
        top = 2.0
    deck = height - thick
    parts: Parts = []
    if top == 40.0:
        parts.append(box(width, depth, thick, 0, 0, deck))
    else:
        parts.append(stack([ring(width, depth, z, top, 24) for z in (deck, height)]))
    inset = 0.75 if top < 5 else 1.0
    if kind in ("dining", "round", "coffee", "nest", "shelf"):
        parts += legs(draw, width * inset, depth * inset, deck, draw.between(0.04, 0.09))
        if draw.chance(0.5):
            apron = draw.between(0.05, 0.12)
            parts += [
                box(width * inset * 0.9, 0.02, apron, 0, sy * depth * inset * 0.43, deck - apron) for sy in (-1, 1)
            ]
            parts += [
                box(0.02, depth * inset * 0.86, apron, sx * width * inset * 0.45, 0, deck - apron) for sx in (-1, 1)
            ]
        if kind == "shelf" or (kind == "coffee" and draw.chance(0.4)):
            parts.append(box(width * inset * 0.9, depth * inset * 0.9, 0.02, 0, 0, height * draw.between(0.2, 0.4)))
        if kind == "nest":
            small = height * 0.75
            parts.append(box(width * 0.6, depth * 0.7, 0.02, width * 0.25, -depth * 0.4, small))
            parts += [
                moved(part, (width * 0.25, -depth * 0.4, 0))
                for part in legs(draw, width * 0.6, depth * 0.7, small, 0.04)
            ]
    elif kind == "pedestal":
        column = draw.between(0.04, 0.1)
        foot = draw.pick(("disc", "cross", "cone"))
        if foot == "cone":
            parts.append(turned([(width * 0.28, 0), (column, deck * 0.35), (column, deck * 0.6), (width * 0.2, deck)]))
        else:
            parts.append(cylinder(column, deck))
            if foot == "disc":
                parts.append(stack([ring(width * 0.55, depth * 0.55, z) for z in (0, 0.03)]))
            else:
                parts += [box(width * 0.65, 0.07, 0.06), box(0.07, depth * 0.65, 0.06)]
    elif kind == "trestle":
        for sx in (-1, 1):
            x = sx * width * 0.36
            if draw.chance(0.5):
                parts += [rod((x, sy * depth * 0.4, 0), (x, sy * depth * 0.08, deck), 0.03, 4) for sy in (-1, 1)]
                parts.append(box(0.05, depth * 0.5, 0.04, x, 0, deck * 0.4))
            else:
                parts += [
                    box(0.07, 0.1, deck, x),
                    box(0.08, depth * 0.75, 0.07, x),
                    box(0.08, depth * 0.7, 0.06, x, 0, deck - 0.06),
                ]
        parts.append(box(width * 0.72, 0.04, 0.08, 0, 0, deck * draw.between(0.2, 0.5)))
    elif kind in ("desk", "corner"):
        block = draw.between(0.35, 0.48)
        sides = draw.pick(((-1,), (1,), (-1, 1)))
        for sx in (-1, 1):
            x = sx * (width / 2 - block / 2 - 0.02)
            if sx in sides:
                parts.append(box(block, depth * 0.9, deck, x))
                zs = np.linspace(0.08, deck, draw.count(3, 5))
                for low, high in pairwise(zs):
                    parts.append(box(block * 0.92, 0.02, high - low - 0.02, x, -depth * 0.45 - 0.01, low))
                    parts.append(box(0.1, 0.025, 0.015, x, -depth * 0.45 - 0.03, (low + high) / 2))
            else:
                parts.append(box(0.04, depth * 0.9, deck, sx * (width / 2 - 0.03)))
        if draw.chance(0.6):
            parts.append(box(width * 0.95, 0.02, deck * draw.between(0.4, 0.9), 0, depth * 0.42, deck * 0.1))
        if draw.chance(0.3):
            parts.append(box(width * 0.95, 0.25, draw.between(0.25, 0.5), 0, depth / 2 - 0.14, height))
        if kind == "corner":
            side, reach = draw.pick((-1, 1)), draw.between(0.5, 0.9)
            x, y = side * (width / 2 - 0.3), -depth / 2 - reach / 2
            parts += [box(0.6, reach, thick, x, y, deck), box(0.55, 0.04, deck, x, y - reach / 2 + 0.03)]
    elif kind == "cross":
        for sx in (-1, 1):
            x = sx * width * 0.38
            parts += [rod((x, s * depth * 0.42, 0), (x, -s * depth * 0.42, deck), 0.03, 4) for s in (-1, 1)]
        parts.append(rod((-width * 0.38, 0, deck / 2), (width * 0.38, 0, deck / 2), 0.025))
    elif kind == "picnic":
        parts += [box(width, 0.28, 0.04, 0, sy * (depth / 2 + 0.25), 0.42) for sy in (-1, 1)]
        for sx in (-1, 1):
            x = sx * width * 0.36
            parts.append(box(0.05, depth + 0.75, 0.08, x, 0, 0.34))
            parts += [rod((x, s * (depth / 2 + 0.1), 0), (x, s * depth * 0.2, deck), 0.035, 4) for s in (-1, 1)]
    elif kind == "drum":
        parts.append(
            stack([ring(width * s, depth * s, z, top, 24) for s, z in ((0.9, 0.0), (0.7, deck * 0.5), (0.9, deck))])
        )
    else:
        parts += [box(thick * 1.2, depth, deck, sx * (width - thick) / 2) for sx in (-1, 1)]
    return parts
