"""What lines a street: buildings, walls, poles with signs and lights, trees and hedges.

Classes are the seven categories of Cityscapes: what is built is construction, what stands on a pole is an object, what
grows is nature. Everything stands on ``z = 0``; buildings have their street front in the plane ``y = 0``,
facing ``-y``.
"""

from __future__ import annotations

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators.lowpoly import blob, limb
from isthmus.data.simulators.render import Piece
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, arch, box, cylinder, grid, moved, rotated, tube, turned

CITYSCAPES7 = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")

Thing = list[Piece]


def label(name: str) -> int:
    """Return the index of a class of :data:`CITYSCAPES7`."""
    return CITYSCAPES7.index(name)


def _masonry(rng: np.random.Generator) -> Paint:
    """Plaster, brick, stone or concrete."""
    kind = rng.random()
    if kind < 0.5:
        base = palette.colour(
            rng.choice([0.08, 0.11, 0.13, rng.random()]), rng.uniform(0.03, 0.45), rng.uniform(0.5, 0.95)
        )
        return Paint(base, palette.shade(base, 0.8), "clouds", rng.uniform(0.5, 3.0))
    base = palette.colour(rng.uniform(0.0, 0.1), rng.uniform(0.15, 0.6), rng.uniform(0.3, 0.7))
    if kind < 0.75:
        return Paint(base, palette.shade(base, 0.65), "bricks", rng.uniform(0.4, 0.8))
    grey = palette.colour(rng.uniform(0, 0.7), rng.uniform(0, 0.12), rng.uniform(0.35, 0.8))
    return Paint(grey, palette.shade(grey, 0.7), "tiles", rng.uniform(0.8, 2.5))


def building(width: float, rng: np.random.Generator) -> Thing:
    """Return a house or block ``width`` metres wide, 8 to 12 m deep, with one to eight storeys."""
    storey, floors = (
        rng.uniform(2.8, 3.6),
        int(rng.choice([1, 2, 3, 4, 5, 6, 8], p=[0.06, 0.2, 0.22, 0.2, 0.16, 0.1, 0.06])),
    )
    deep, base = rng.uniform(8, 12), rng.uniform(0.2, 0.6)
    height = floors * storey + base + rng.uniform(0.2, 0.8)
    body = _masonry(rng)
    trim = Paint(palette.colour(0.1, rng.uniform(0, 0.2), rng.uniform(0.3, 0.95)))
    glass = palette.colour(0.58, rng.uniform(0.1, 0.4), rng.uniform(0.08, 0.4))
    pane = Paint(glass, palette.shade(glass, 2.5), "clouds", 6.0, gloss=0.6, mottle=0.15)
    pieces = [Piece(box(width, deep, height, 0, deep / 2), label("construction"), body)]

    def add(mesh: Mesh, paint: Paint) -> None:
        pieces.append(Piece(mesh, label("construction"), paint))

    bays = max(int(width / rng.uniform(1.9, 3.4)), 1)
    wide, tall = rng.uniform(0.4, 0.72) * width / bays, rng.uniform(0.45, 0.68) * storey
    shop = rng.random() < 0.4
    frame = rng.random() < 0.5
    balconies = rng.random() < 0.25
    rail = palette.metal(rng)
    for level in range(floors):
        z = base + level * storey + rng.uniform(0.24, 0.26) * storey
        if level == 0 and shop:
            continue
        for bay in range(bays):
            x = (bay + 0.5) * width / bays - width / 2
            # Panes lie before the wall: a hole would cost more than its shadow shows at this distance.
            if frame:
                add(box(wide + 0.24, 0.08, tall + 0.24, x, -0.02, z - 0.12), trim)
            add(box(wide, 0.1, tall, x, -0.02, z), pane)
            if frame:
                add(box(0.05, 0.13, tall, x, -0.02, z), trim)
            if balconies and level > 0 and bay % 2 == 0:
                add(box(wide + 0.7, 0.9, 0.12, x, -0.45, z - 0.2 * storey), trim)
                add(box(wide + 0.7, 0.05, 0.9, x, -0.9, z - 0.2 * storey), rail)
        # End walls of houses that stand free have windows as well.
        for side in (-1, 1):
            for y in np.linspace(0, deep, 4)[1:-1]:
                add(box(0.1, wide * 0.8, tall, side * width / 2, y, z), pane)
    if shop:
        sign = palette.bright(rng)
        windows = max(int(width / 3.5), 1)
        for i in range(windows):
            x = (i + 0.5) * width / windows - width / 2
            add(box(width / windows * 0.8, 0.1, storey * 0.68, x, -0.03, 0.35), pane)
        add(box(width * 0.94, 0.2, 0.5, 0, -0.06, storey * 0.8), sign)
        if rng.random() < 0.5:
            awning = Mesh(
                np.array(
                    [
                        [-width * 0.45, 0, storey * 0.8],
                        [width * 0.45, 0, storey * 0.8],
                        [width * 0.45, -1.3, storey * 0.64],
                        [-width * 0.45, -1.3, storey * 0.64],
                    ]
                ),
                np.array([[0, 1, 2], [0, 2, 3]]),
            )
            add(awning, palette.cloth(rng)._replace(pattern="stripes", period=0.6))
    else:
        x = (int(rng.integers(bays)) + 0.5) * width / bays - width / 2
        add(box(1.1, 0.14, 2.2, x, -0.04, 0.1), palette.surface(rng))
        add(box(1.5, 0.12, 2.45, x, -0.02, 0.0), trim)
    if rng.random() < 0.6:
        add(box(width + 0.2, 0.35, 0.25, 0, -0.05, base + storey * (1 if floors > 1 else 0.9) - 0.2), trim)
    roof = Paint(
        palette.colour(rng.choice([0.02, 0.05, 0.6]), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.55)), mottle=0.15
    )
    if rng.random() < 0.5 and floors < 6:
        top, out = height + rng.uniform(1.5, 4.0), 0.4
        ends = [
            np.array([[x, -out, height], [x, deep / 2, top], [x, deep + out, height]]) for x in (-width / 2, width / 2)
        ]
        add(grid(np.stack(ends)), roof)
        add(Mesh(np.concatenate(ends), np.array([[0, 1, 2], [3, 4, 5]])), body)
        if rng.random() < 0.6:
            add(box(0.7, 0.7, 1.6, rng.uniform(-0.3, 0.3) * width, deep * 0.35, top - 1.2), roof)
    else:
        add(box(width + 0.3, deep + 0.3, rng.uniform(0.2, 0.6), 0, deep / 2, height), trim)
    return pieces


def wall(length: float, rng: np.random.Generator) -> Thing:
    """Return a garden wall or fence along x, construction."""
    height = rng.uniform(0.7, 2.0)
    if rng.random() < 0.5:
        return [Piece(box(length, 0.25, height, 0, 0.15), label("construction"), _masonry(rng))]
    paint = palette.surface(rng)
    parts = [box(length, 0.05, 0.08, 0, 0.15, z) for z in (0.2, height - 0.2)]
    parts += [box(0.1, 0.06, height, x, 0.12) for x in np.arange(-length / 2 + 0.1, length / 2, rng.uniform(0.16, 0.4))]
    return [Piece(part, label("construction"), paint) for part in parts]


def hedge(length: float, rng: np.random.Generator) -> Thing:
    """Return a hedge along x or a row of bushes, nature."""
    leaf = _leaves(rng)
    if rng.random() < 0.4:
        return [Piece(box(length, 0.7, rng.uniform(0.7, 1.8), 0, 0.4), label("nature"), leaf)]
    x, pieces = -length / 2 + 0.4, []
    while x < length / 2 - 0.3:
        size = rng.uniform(0.6, 1.7)
        pieces.append(Piece(blob((size * 1.2, size, size), (x, 0.5, -0.1), 10, 5), label("nature"), leaf))
        x += size * rng.uniform(0.6, 1.1)
    return pieces


def _leaves(rng: np.random.Generator) -> Paint:
    green = palette.colour(rng.uniform(0.17, 0.36), rng.uniform(0.3, 0.8), rng.uniform(0.22, 0.55))
    if rng.random() < 0.12:
        green = palette.colour(rng.uniform(0.04, 0.14), rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.8))
    return Paint(green, palette.shade(green, 0.35), "clouds", rng.uniform(0.2, 0.6), mottle=0.25)


def tree(rng: np.random.Generator) -> Thing:
    """Return a broad-leaved tree, a poplar or a conifer, nature."""
    height = rng.uniform(3.5, 10)
    bark = Paint(palette.colour(0.08, rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4)), mottle=0.2)
    leaf = _leaves(rng)
    radius, clear = height * rng.uniform(0.012, 0.022) + 0.05, height * rng.uniform(0.22, 0.4)
    kind = rng.random()
    trunk = limb((0, 0, -0.1), (rng.normal() * 0.1, rng.normal() * 0.1, height * 0.6), radius, radius * 0.5, 7)
    pieces = [Piece(trunk, label("nature"), bark)]
    if kind < 0.15:
        profile = [
            (height * 0.2, clear * 0.6),
            (height * 0.13, height * 0.5),
            (height * 0.05, height * 0.85),
            (0.02, height),
        ]
        pieces.append(Piece(turned(profile, 10), label("nature"), leaf))
        return pieces
    wide = height * (rng.uniform(0.15, 0.22) if kind < 0.28 else rng.uniform(0.42, 0.7))
    for _ in range(int(rng.integers(4, 9))):
        size = wide * rng.uniform(0.45, 0.8)
        x, y = rng.normal(size=2) * wide * 0.24
        z = clear + rng.uniform(0, 1) * (height - clear - size * 0.7)
        crown = blob((size, size * rng.uniform(0.8, 1.1), size * rng.uniform(0.7, 1.1)), (x, y, z), 9, 5)
        # A crown is not a sphere: push its vertices about, but not the poles, which many share.
        middle = (crown.vertices.min(axis=0) + crown.vertices.max(axis=0)) / 2
        rough = 1 + 0.13 * rng.normal(size=(len(crown.vertices), 1))
        rough[:9] = rough[-9:] = 1.0
        leaves = Mesh(middle + (crown.vertices - middle) * rough, crown.faces)
        pieces.append(Piece(leaves, label("nature"), leaf))
    return pieces


def lamp_post(rng: np.random.Generator) -> Thing:
    """Return a street lamp whose arm reaches towards ``-y``, an object."""
    height, paint = rng.uniform(4.5, 8), palette.metal(rng)
    reach = rng.uniform(0.3, 1.8)
    head = Paint((0.8, 0.8, 0.75), glow=0.2)
    parts = [(limb((0, 0, 0), (0, 0, height - 0.5), rng.uniform(0.07, 0.12), 0.06), paint)]
    parts.append((tube(arch((0, 0, height - 0.5), (0, 0, height), (0, -reach, height), 6), 0.05), paint))
    parts.append((box(0.25, 0.7, 0.14, 0, -reach - 0.2, height - 0.08), head))
    if rng.random() < 0.3:
        parts.append((box(0.7, 0.05, 1.0, 0, -0.1, height * 0.45), palette.bright(rng)))
    return [Piece(mesh, label("object"), p) for mesh, p in parts]


def sign(rng: np.random.Generator) -> Thing:
    """Return a traffic sign on its pole, facing ``-y``: disc, triangle, square, arrow board; an object."""
    height, pole = rng.uniform(2.0, 2.7), palette.metal(rng)
    parts: list[tuple[Mesh, Paint]] = [(cylinder(0.04, height + 0.7), pole)]
    red, blue, yellow, white = (0.6, 0.02, 0.02), (0.02, 0.1, 0.5), (0.8, 0.5, 0.02), (0.85, 0.85, 0.85)
    kind, size = rng.integers(5), rng.uniform(0.55, 0.8)
    if kind <= 1:
        sides, rim, face = (20, red, white) if kind == 0 else (3, red, white)
        if rng.random() < 0.3:
            rim, face = (blue, blue) if kind == 0 else (red, yellow)
        for scale, lift, paint in ((1.0, 0.0, rim), (0.76, 0.02, face)):
            plate = turned(
                [
                    (size * scale * (0.5 if sides == 20 else 0.62), 0),
                    (size * scale * (0.5 if sides == 20 else 0.62), 0.025),
                ],
                sides,
            )
            plate = rotated(plate, 2, 0 if sides == 20 else 30)
            parts.append((moved(rotated(plate, 0, 90), (0, -0.05 - lift, height + 0.35)), Paint(paint, mottle=0.02)))
        if rng.random() < 0.7:
            parts.append((box(size * 0.45, 0.02, size * 0.1, 0, -0.1, height + 0.32), Paint((0.02, 0.02, 0.02))))
    elif kind == 2:
        parts.append(
            (box(size, 0.03, size, 0, -0.06, height), Paint(blue if rng.random() < 0.7 else yellow, mottle=0.02))
        )
        parts.append((box(size * 0.5, 0.02, size * 0.5, 0, -0.085, height + size * 0.25), Paint(white)))
    elif kind == 3:
        wide = rng.uniform(1.0, 2.0)
        parts.append(
            (box(wide, 0.04, wide * 0.5, 0, -0.06, height), Paint(blue if rng.random() < 0.5 else (0.02, 0.25, 0.1)))
        )
        for i in range(2):
            parts.append((box(wide * 0.6, 0.02, 0.09, -0.1 * wide, -0.09, height + 0.12 + 0.25 * i), Paint(white)))
    else:
        parts.append((box(1.1, 0.03, 0.25, 0.5, -0.05, height + 0.3), Paint(white if rng.random() < 0.5 else yellow)))
        parts.append((box(0.6, 0.03, 0.25, -0.3, -0.05, height), Paint(white)))
    return [Piece(mesh, label("object"), paint) for mesh, paint in parts]


def traffic_light(rng: np.random.Generator) -> Thing:
    """Return a traffic light that faces ``-y``, at times on an arm over the road (to ``-x``), an object."""
    height, paint = rng.uniform(2.6, 3.4), palette.metal(rng)
    parts: list[tuple[Mesh, Paint]] = [(cylinder(0.07, height + 0.6), paint)]
    black = Paint((0.02, 0.02, 0.02), mottle=0.05)
    lit = int(rng.integers(3))
    places = [(0.0, height - 0.4)]
    if rng.random() < 0.35:
        reach = rng.uniform(2.0, 4.0)
        parts.append((limb((0, 0, height), (-reach, 0, 5.4), 0.07, 0.05), paint))
        places.append((-reach, 4.6))
    for x, z in places:
        parts.append((box(0.34, 0.25, 0.98, x, -0.16, z), black))
        for i, colour in enumerate(((0.8, 0.03, 0.02), (0.8, 0.45, 0.02), (0.05, 0.7, 0.25))):
            disc = moved(rotated(cylinder(0.11, 0.03), 0, 90), (x, -0.28, z + 0.8 - 0.31 * i))
            parts.append(
                (disc, Paint(colour if i == lit else palette.shade(colour, 0.12), glow=2.5 if i == lit else 0.0))
            )
    return [Piece(mesh, label("object"), p) for mesh, p in parts]


def bollard(rng: np.random.Generator) -> Thing:
    """Return a bollard or short post, an object."""
    radius, height = rng.uniform(0.05, 0.11), rng.uniform(0.7, 1.1)
    paint = palette.metal(rng) if rng.random() < 0.6 else Paint((0.6, 0.05, 0.03), (0.8, 0.8, 0.8), "rings", 0.3)
    return [Piece(turned([(radius, 0), (radius, height * 0.95), (radius * 0.6, height)], 10), label("object"), paint)]
