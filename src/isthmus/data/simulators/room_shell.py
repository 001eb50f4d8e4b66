"""An empty room: floor, walls with windows and doors, ceiling.

The floor is the rectangle ``width`` by ``depth`` around the origin at ``z = 0``. Wall ``k`` (0 to 3) has a frame of its
own, in which the wall is the plane ``y = 0`` seen from ``-y``, with x along it from its middle; :func:`on_wall` carries
things from there into the room.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators.furniture import Thing, arranged, curtain, label
from isthmus.data.simulators.render import Piece
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, box, cylinder


class Hole(NamedTuple):
    """A window's place in its wall: from ``left`` to ``right`` and from ``low`` to ``high``, metres."""

    wall: int
    left: float
    right: float
    low: float
    high: float


class Shell(NamedTuple):
    """An empty room. ``things`` are whole things (a window is one); ``doors`` are wall, left and right of each door."""

    width: float
    depth: float
    height: float
    things: list[Thing]
    windows: list[Hole]
    doors: list[tuple[int, float, float]]
    tint: np.ndarray

    def length(self, wall: int) -> float:
        """Length of a wall, metres."""
        return self.width if wall % 2 == 0 else self.depth

    def reach(self, wall: int) -> float:
        """Distance of a wall from the middle of the room, metres."""
        return (self.depth if wall % 2 == 0 else self.width) / 2


def on_wall(shell: Shell, wall: int, thing: Thing, x: float, y: float = 0.0, z: float = 0.0) -> Thing:
    """Return a thing moved to ``(x, y, z)`` in the frame of a wall, in the room's frame."""
    return arranged(arranged(thing, 0, x, y + shell.reach(wall), z), -90.0 * wall, 0, 0)


def _sheet(corners: list[tuple[float, float, float]]) -> Mesh:
    """Return the quadrilateral through four corners."""
    return Mesh(np.array(corners, dtype=np.float64), np.array([[0, 1, 2], [0, 2, 3]]))


def _wall_with(holes: list[Hole], length: float, height: float) -> list[Mesh]:
    """Return a wall in its own frame as rectangles around its holes."""
    xs = sorted({-length / 2, length / 2, *(x for hole in holes for x in (hole.left, hole.right))})
    zs = sorted({0.0, height, *(z for hole in holes for z in (hole.low, hole.high))})
    sheets = []
    for x0, x1 in pairwise(xs):
        for z0, z1 in pairwise(zs):
            x, z = (x0 + x1) / 2, (z0 + z1) / 2
            if not any(hole.left < x < hole.right and hole.low < z < hole.high for hole in holes):
                sheets.append(_sheet([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]))
    return sheets


def _window(hole: Hole, day: float, rng: np.random.Generator) -> Thing:
    """Return a window in the frame of its wall: pane, frame, bars and, at times, blinds; what is outside is painted."""
    deep, bar = rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.07)
    width, height, middle = hole.right - hole.left, hole.high - hole.low, (hole.left + hole.right) / 2
    sky = palette.colour(rng.uniform(0.5, 0.62), rng.uniform(0, 0.4), rng.uniform(0.8, 1.0))
    ground = palette.colour(rng.uniform(0.05, 0.45), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.6))
    view = Paint(sky, ground, "landscape", glow=rng.uniform(0.8, 2.0) * day + 0.02, gloss=0.5, mottle=0.02)
    frame = palette.lacquer(rng) if rng.random() < 0.7 else palette.wood(rng)
    pane = _sheet(
        [
            (x, deep, z)
            for x, z in ((hole.left, hole.low), (hole.right, hole.low), (hole.right, hole.high), (hole.left, hole.high))
        ]
    )
    pieces = [Piece(pane, label("window"), view, shadow=False)]
    bars = [
        box(width, 0.04, bar, middle, deep - 0.02, hole.low),
        box(width, 0.04, bar, middle, deep - 0.02, hole.high - bar),
        box(bar, 0.04, height, hole.left + bar / 2, deep - 0.02, hole.low),
        box(bar, 0.04, height, hole.right - bar / 2, deep - 0.02, hole.low),
    ]
    for x in np.linspace(hole.left, hole.right, int(rng.integers(1, max(int(width / 0.5), 1) + 2)) + 1)[1:-1]:
        bars.append(box(bar, 0.03, height, x, deep - 0.02, hole.low))
    if rng.random() < 0.35:
        bars.append(box(width, 0.03, bar * 0.7, middle, deep - 0.02, hole.low + height * rng.uniform(0.4, 0.75)))
    if rng.random() < 0.5:
        bars.append(box(width + 0.1, 0.1 + deep, 0.03, middle, deep / 2 - 0.05, hole.low - 0.03))
    if rng.random() < 0.3:
        # A surround, flat on the wall.
        for z in (hole.low - 0.07, hole.high):
            bars.append(box(width + 0.14, 0.03, 0.07, middle, -0.015, z))
        for x in (hole.left - 0.035, hole.right + 0.035):
            bars.append(box(0.07, 0.03, height, x, -0.015, hole.low))
    pieces += [Piece(part, label("window"), frame) for part in bars]
    if rng.random() < 0.2:
        slat = palette.lacquer(rng)
        drop = rng.uniform(0.3, 1.0) * height
        for z in np.arange(hole.high - 0.05, hole.high - drop, -0.09):
            pieces.append(Piece(box(width * 0.98, 0.03, 0.055, middle, deep * 0.3, z), label("window"), slat))
    return pieces


def _reveal(hole: Hole, paint: Paint) -> Thing:
    """Return the four inner sides of a window's hole, in the frame of its wall."""
    corners = [(hole.left, hole.low), (hole.right, hole.low), (hole.right, hole.high), (hole.left, hole.high)]
    sides = [
        _sheet([(a[0], 0, a[1]), (b[0], 0, b[1]), (b[0], 0.22, b[1]), (a[0], 0.22, a[1])])
        for a, b in zip(corners, [*corners[1:], corners[0]])
    ]
    return [Piece(side, label("wall"), paint) for side in sides]


def _door(height: float, rng: np.random.Generator) -> Thing:
    """Return a closed door in its frame, in the frame of a wall; part of the wall."""
    width = rng.uniform(0.75, 0.95)
    leaf, frame = palette.surface(rng), palette.lacquer(rng)
    parts = [box(0.08, 0.06, height + 0.08, sx * (width / 2 + 0.04), -0.03) for sx in (-1, 1)]
    parts.append(box(width, 0.06, 0.08, 0, -0.03, height))
    pieces = [Piece(part, label("wall"), frame) for part in parts]
    pieces.append(Piece(box(width, 0.03, height, 0, -0.015), label("wall"), leaf))
    for low, high in ((0.12, 0.45), (0.52, 0.94))[: int(rng.integers(0, 3))]:
        panel = box(width * 0.7, 0.02, (high - low) * height, 0, -0.035, low * height)
        pieces.append(Piece(panel, label("wall"), leaf._replace(colour=palette.shade(leaf.colour, 0.85))))
    pieces.append(Piece(box(0.12, 0.05, 0.02, width * 0.38, -0.06, 1.02), label("wall"), palette.metal(rng)))
    return pieces


def empty_room(day: float, rng: np.random.Generator) -> Shell:
    """Return a room without furniture; ``day`` is how bright it is outside, 0 to 1."""
    width, depth, height = rng.uniform(2.8, 6.5), rng.uniform(2.8, 6.0), rng.uniform(2.3, 3.1)
    main, ground, above = palette.wall(rng), palette.floor(rng), palette.ceiling(rng)
    accent = palette.wall(rng) if rng.random() < 0.35 else main
    accent_wall = int(rng.integers(4))
    shell = Shell(width, depth, height, [], [], [], np.array(main.colour))
    for wall in range(4):
        if rng.random() < 0.33:
            free = shell.length(wall) - 0.5
            wide = min(rng.uniform(0.7, 2.0), free)
            middle = rng.uniform(-(free - wide) / 2, (free - wide) / 2)
            low = rng.uniform(0.05, 0.3) if rng.random() < 0.2 else rng.uniform(0.7, 1.1)
            high = rng.uniform(1.95, height - 0.12)
            shell.windows.append(Hole(wall, middle - wide / 2, middle + wide / 2, low, high))
        elif rng.random() < 0.55:
            middle = rng.uniform(-1, 1) * (shell.length(wall) / 2 - 0.7)
            shell.doors.append((wall, middle - 0.55, middle + 0.55))
            shell.things.append(on_wall(shell, wall, _door(rng.uniform(1.95, 2.1), rng), middle))
    w, d = width / 2, depth / 2
    base: Thing = [Piece(_sheet([(-w, -d, 0), (w, -d, 0), (w, d, 0), (-w, d, 0)]), label("floor"), ground)]
    top: Thing = [
        Piece(_sheet([(-w, -d, height), (w, -d, height), (w, d, height), (-w, d, height)]), label("ceiling"), above)
    ]
    if rng.random() < 0.12:
        beam = palette.wood(rng)
        for x in np.arange(-w + 0.5, w, rng.uniform(0.7, 1.4)):
            top.append(Piece(box(0.12, depth, 0.14, x, 0, height - 0.14), label("ceiling"), beam))
    walls: Thing = []
    skirting = palette.lacquer(rng) if rng.random() < 0.75 else None
    cornice = rng.random() < 0.2
    for wall in range(4):
        paint = accent if wall == accent_wall else main
        holes = [hole for hole in shell.windows if hole.wall == wall]
        own: Thing = [Piece(sheet, label("wall"), paint) for sheet in _wall_with(holes, shell.length(wall), height)]
        for hole in holes:
            own += _reveal(hole, palette.lacquer(rng) if rng.random() < 0.4 else paint)
        if skirting is not None:
            own.append(Piece(box(shell.length(wall), 0.02, 0.09, 0, -0.01), label("wall"), skirting))
        if cornice:
            own.append(Piece(box(shell.length(wall), 0.07, 0.07, 0, -0.035, height - 0.07), label("wall"), above))
        walls += on_wall(shell, wall, own, 0)
    if rng.random() < 0.2:
        # A chimney breast or a shaft in one corner.
        size = rng.uniform(0.3, 0.8, 2)
        corner = rng.choice([-1, 1], 2)
        shaft = box(size[0], size[1], height, corner[0] * (w - size[0] / 2), corner[1] * (d - size[1] / 2))
        walls.append(Piece(shaft, label("wall"), main))
    for hole in shell.windows:
        shell.things.append(on_wall(shell, hole.wall, _window(hole, day, rng), 0))
        if rng.random() < 0.45:
            cloth = palette.cloth(rng)
            drop = hole.high + 0.1 if rng.random() < 0.6 else hole.high - hole.low + 0.2
            for side, x in ((-1, hole.left), (1, hole.right)):
                sheet = curtain(rng, rng.uniform(0.2, 0.5), drop, cloth)
                at = x + side * 0.05
                shell.things.append(on_wall(shell, hole.wall, sheet, at, -0.09, hole.high + 0.1 - drop + 0.001))
            rod = box(hole.right - hole.left + 0.8, 0.02, 0.02, (hole.left + hole.right) / 2, -0.09, hole.high + 0.09)
            shell.things.append(on_wall(shell, hole.wall, [Piece(rod, label("objects"), palette.metal(rng))], 0))
    # The shell's own surfaces come first: everything else stands before them.
    shell.things[:0] = [base, top, walls]
    return shell


def ceiling_light(height: float, rng: np.random.Generator) -> Thing:
    """Return a flat lamp below the ceiling at the origin, an object that glows."""
    paint = Paint(palette.colour(0.12, rng.uniform(0, 0.2), 1.0), glow=2.0)
    radius = rng.uniform(0.12, 0.3)
    part = (
        cylinder(radius, 0.08, z=height - 0.08)
        if rng.random() < 0.6
        else box(radius * 2, radius * 2, 0.06, z=height - 0.06)
    )
    return [Piece(part, label("objects"), paint, shadow=False)]
