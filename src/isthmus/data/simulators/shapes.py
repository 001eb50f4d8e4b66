"""Parametric meshes of the ten PointDA classes.

Everything stands in metres with z up, on or above ``z = 0``, and faces ``-y``. A shape is a list of parts (a
leg, a cushion, a leaf); :func:`build_shape` draws one and hands out its parts, :func:`join` makes a single
mesh of them. Every class has several structural variants, not only other proportions of one of them, and some
variants sit deliberately between two classes (a cabinet with open shelves, a desk with drawers, a day bed, an
armchair).

The random choices go through :class:`Draw`: a *wide* draw takes its lengths from wider ranges and picks the
rarer variants more often, which is what separates a mixed web collection from a curated one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

Vector = Sequence[float] | np.ndarray
T = TypeVar("T")


class Mesh(NamedTuple):
    """Triangles: ``vertices`` (v, 3) float64 in metres, ``faces`` (f, 3) int64 indices into them."""

    vertices: np.ndarray
    faces: np.ndarray


class Draw:
    """Random choices of one shape; ``wide`` widens every range and makes the rare variants common."""

    def __init__(self, rng: np.random.Generator, wide: bool) -> None:
        self.rng = rng
        self.wide = wide

    def between(self, low: float, high: float) -> float:
        """Return a number from ``[low, high]``; a wide draw stretches the range by 40 % on either side."""
        margin = 0.4 * (high - low) if self.wide else 0.0
        return float(self.rng.uniform(max(low - margin, 0.6 * low), high + margin))

    def count(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, common: Sequence[T], rare: Sequence[T] = ()) -> T:
        """Return one of ``common`` or, half of the time when wide and else seldom, one of ``rare``."""
        if rare and self.chance(0.5 if self.wide else 0.2):
            return rare[int(self.rng.integers(len(rare)))]
        return common[int(self.rng.integers(len(common)))]


Parts = list[Mesh]

# Building blocks

_BOX_CORNERS = np.array([[x, y, z] for z in (0, 1) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
_BOX_FACES = np.array(
    [
        [0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4],
        [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5],
    ]
)  # fmt: skip


def box(width: float, depth: float, height: float, x: float = 0, y: float = 0, z: float = 0) -> Mesh:
    """Return a box standing with its base centred on ``(x, y, z)``; 12 triangles, normals outward."""
    return Mesh(_BOX_CORNERS * [width, depth, height] + [x, y, z], _BOX_FACES)


def grid(rows: np.ndarray, closed: bool = False) -> Mesh:
    """Return the sheet through ``rows`` (m, n, 3); ``closed`` also joins the last column to the first."""
    m, n = rows.shape[:2]
    index = np.arange(m * n).reshape(m, n)
    right = np.roll(index, -1, axis=1)
    if not closed:
        index, right = index[:, :-1], right[:, :-1]
    a, b, c, d = index[:-1].ravel(), right[:-1].ravel(), right[1:].ravel(), index[1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    return Mesh(rows.reshape(-1, 3).astype(np.float64), faces)


def ring(width: float, depth: float, z: float, power: float = 2.0, segments: int = 20) -> np.ndarray:
    """Return a superellipse, (segments, 3): an ellipse at ``power`` 2, close to a rectangle from about 10."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False) + np.pi / segments
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** (2 / power) * width / 2
    y = np.sign(sin) * np.abs(sin) ** (2 / power) * depth / 2
    return np.stack([x, y, np.full(segments, z)], axis=1)


def stack(rings: Sequence[np.ndarray]) -> Mesh:
    """Return the tube through ``rings``, all (segments, 3), closed at both ends by fans to their centres."""
    first = np.broadcast_to(rings[0].mean(axis=0), rings[0].shape)
    last = np.broadcast_to(rings[-1].mean(axis=0), rings[-1].shape)
    return grid(np.stack([first, *rings, last]), closed=True)


def turned(profile: Sequence[tuple[float, float]], segments: int = 16) -> Mesh:
    """Return the solid turned from ``profile``, pairs of radius and height from one end to the other."""
    return stack([ring(2 * radius, 2 * radius, z, segments=segments) for radius, z in profile])


def cylinder(radius: float, height: float, x: float = 0, y: float = 0, z: float = 0) -> Mesh:
    """Return an upright cylinder standing on ``(x, y, z)``."""
    return moved(turned([(radius, 0), (radius, height)]), (x, y, z))


def ball(
    width: float, depth: float, height: float, power: float = 2.0, x: float = 0, y: float = 0, z: float = 0
) -> Mesh:
    """Return an ellipsoid (``power`` 2) or cushion (higher) whose lowest point is ``(x, y, z)``."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 8)[1:-1]
    share = np.cos(angle) ** (2 / power)
    level = np.sign(angle) * np.abs(np.sin(angle)) ** (2 / power) / 2 + 0.5
    rings = [ring(width * s, depth * s, height * h, max(power, 2.0), 16) for s, h in zip(share, level)]
    low = np.full_like(rings[0], 0.0)
    high = low + np.array([0, 0, height])
    return moved(grid(np.stack([low, *rings, high]), closed=True), (x, y, z))


def tube(path: np.ndarray, radius: float, sides: int = 6) -> Mesh:
    """Return a round bar along ``path`` (n, 3), n >= 2."""
    path = np.asarray(path, dtype=np.float64)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    # Any direction off the path will do as a start; the axis least parallel to its chord is never degenerate.
    helper = np.eye(3)[np.argmin(np.abs(path[-1] - path[0]))]
    across = np.cross(along, helper)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    upward = np.cross(across, along)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    circle = across[:, None] * np.cos(angle) + upward[:, None] * np.sin(angle)
    return stack(list(path[:, None] + radius * circle))


def rod(start: Vector, end: Vector, radius: float, sides: int = 6) -> Mesh:
    """Return a straight bar from ``start`` to ``end``."""
    return tube(np.array([start, end], dtype=np.float64), radius, sides)


def arch(start: Vector, middle: Vector, end: Vector, steps: int = 8) -> np.ndarray:
    """Return a quadratic Bezier curve, (steps, 3), from ``start`` to ``end`` drawn towards ``middle``."""
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) ** 2 * np.asarray(start) + 2 * t * (1 - t) * np.asarray(middle) + t**2 * np.asarray(end)


def blade(path: np.ndarray, width: float, fold: float = 0.25) -> Mesh:
    """Return a leaf along ``path`` (n, 3), widest in the middle, creased along its midrib by ``fold``."""
    t = np.linspace(0, 1, len(path))[:, None]
    along = np.gradient(path, axis=0)
    side = np.cross(along, [0.0, 0.0, 1.0])
    length = np.linalg.norm(side, axis=1, keepdims=True)
    side = np.where(length > 1e-6, side / np.maximum(length, 1e-6), [1.0, 0.0, 0.0])
    half = width / 2 * np.sin(np.pi * np.clip(t * 0.95 + 0.05, 0, 1)) ** 0.7
    edge = half * side
    lift = half * fold * np.array([0.0, 0.0, 1.0])
    return grid(np.stack([path - edge + lift, path, path + edge + lift], axis=1))


def moved(mesh: Mesh, by: Vector) -> Mesh:
    """Return ``mesh`` shifted by ``by``, three metres."""
    return Mesh(mesh.vertices + np.asarray(by, dtype=np.float64), mesh.faces)


def rotation(axis: int, degrees: float) -> np.ndarray:
    """Return the (3, 3) matrix that turns column vectors about x, y or z (0, 1, 2), counter-clockwise."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def rotated(mesh: Mesh, axis: int, degrees: float, about: Vector = (0.0, 0.0, 0.0)) -> Mesh:
    """Return ``mesh`` turned about a line along x, y or z (0, 1, 2) through the point ``about``."""
    centre = np.asarray(about, dtype=np.float64)
    return Mesh((mesh.vertices - centre) @ rotation(axis, degrees).T + centre, mesh.faces)


def join(parts: Sequence[Mesh]) -> Mesh:
    """Return one mesh of all ``parts``."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)]),
    )


def four_corners(width: float, depth: float) -> list[tuple[float, float]]:
    """Return the corners ``(x, y)`` of a rectangle centred on the origin."""
    return [(sx * width / 2, sy * depth / 2) for sx in (-1, 1) for sy in (-1, 1)]


def legs(draw: Draw, width: float, depth: float, height: float, thickness: float) -> Parts:
    """Return four legs under a rectangle: square, round, tapered or splayed."""
    kind = draw.pick(("square", "round", "tapered"), ("splayed", "turned"))
    inner = thickness * 1.2
    parts = []
    for x, y in four_corners(width - inner, depth - inner):
        if kind == "square":
            parts.append(box(thickness, thickness, height, x, y))
        elif kind == "round":
            parts.append(cylinder(thickness / 2, height, x, y))
        elif kind == "tapered":
            parts.append(moved(turned([(thickness * 0.3, 0), (thickness * 0.65, height)], 8), (x, y, 0)))
        elif kind == "splayed":
            parts.append(rod((x * 1.12, y * 1.12, 0), (x * 0.8, y * 0.8, height), thickness * 0.4))
        else:
            bulge = [(0.4, 0), (0.6, 0.1), (0.35, 0.2), (0.6, 0.5), (0.35, 0.75), (0.6, 0.85), (0.6, 1)]
            parts.append(moved(turned([(r * thickness, h * height) for r, h in bulge], 10), (x, y, 0)))
    return parts


# The ten classes


def bathtub(draw: Draw) -> Parts:
    """Free-standing oval, clawfoot, slipper, built-in with an apron; rarely corner and round tubs."""
    kind = draw.pick(("oval", "clawfoot", "built-in", "built-in"), ("slipper", "corner", "round", "trough"))
    length, width, height = draw.between(1.4, 1.9), draw.between(0.68, 0.9), draw.between(0.45, 0.62)
    if kind == "round":
        length = width = draw.between(1.2, 1.6)
    wall, floor = draw.between(0.04, 0.07), draw.between(0.06, 0.14)
    outer_power, inner_power, foot = 2.3, 2.3, draw.between(0.65, 0.85)
    if kind in ("built-in", "trough"):
        outer_power, inner_power, foot = 16.0, draw.between(2.5, 6.0), 1.0
        wall = draw.between(0.06, 0.12)
    if kind == "trough":
        inner_power, wall, foot = 12.0, 0.05, draw.between(0.75, 0.95)

    def level(share: float, z: float, power: float) -> np.ndarray:
        edge = ring(length * share, width * share, z, power, 28)
        if kind == "corner":
            # Cutting one corner off by pulling it to the centre gives the pentagon of a corner tub.
            diagonal = np.clip((edge[:, 0] / length + edge[:, 1] / width) - 0.15, 0, None)
            edge[:, 0] -= diagonal * length * 0.35
            edge[:, 1] -= diagonal * width * 0.35
        if kind == "slipper":
            edge[:, 2] += z / height * 0.45 * height * np.clip(edge[:, 0] / length + 0.1, 0, None) ** 1.5 * 2
        return edge

    if kind == "corner":
        outer_power, inner_power, foot = 12.0, 4.0, 1.0
        length = width = draw.between(1.2, 1.5)
    rim = 1 - 2 * wall / width
    flare = [level(foot + (1 - foot) * t**0.6, height * t, outer_power) for t in (0.0, 0.25, 0.6, 1.0)]
    lip = [level(rim, height, inner_power)]
    basin_foot = draw.between(0.62, 0.85)
    basin = [
        level(rim * (basin_foot + (1 - basin_foot) * t**0.5), floor + (height - floor) * t, inner_power)
        for t in (0.6, 0.2, 0.0)
    ]
    parts = [stack([*flare, *lip, *basin])]
    if kind == "clawfoot" or (kind == "slipper" and draw.chance(0.5)):
        lift = draw.between(0.1, 0.18)
        parts = [moved(parts[0], (0, 0, lift))]
        for x, y in four_corners(length * 0.62, width * 0.6):
            parts.append(moved(turned([(0.045, 0), (0.025, lift * 0.4), (0.06, lift * 1.3)], 8), (x, y, 0)))
    if draw.chance(0.5):
        top = max(part.vertices[:, 2].max() for part in parts)
        x, reach = -length / 2 + wall * 0.5, draw.between(0.1, 0.2)
        parts.append(tube(arch((x, 0, top - 0.05), (x, 0, top + reach * 1.5), (x + reach, 0, top + 0.03)), 0.018))
        parts.extend(cylinder(0.025, 0.06, x, y, top) for y in (-0.09, 0.09))
    return parts


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


def _shade(draw: Draw, z: float, radius: float, height: float) -> Mesh:
    """Return a lamp shade whose lower rim is at ``z``: cone, drum, dome or globe."""
    kind = draw.pick(("cone", "drum", "dome"), ("globe", "pagoda", "box"))
    if kind == "globe":
        return ball(radius * 1.5, radius * 1.5, radius * 1.5, z=z)
    if kind == "box":
        return box(radius * 1.5, radius * 1.5, height * 1.2, z=z)
    profiles = {
        "cone": [(1.0, 0.0), (0.5, 1.0)],
        "drum": [(1.0, 0.0), (0.92, 1.0)],
        "dome": [(1.0, 0.0), (0.95, 0.3), (0.75, 0.65), (0.4, 0.9), (0.08, 1.0)],
        "pagoda": [(1.0, 0.0), (0.6, 0.3), (0.4, 0.7), (0.3, 1.0)],
    }
    rings = [ring(2 * r * radius, 2 * r * radius, z + h * height, segments=20) for r, h in profiles[kind]]
    return grid(np.stack(rings), closed=True)


def lamp(draw: Draw) -> Parts:
    """Floor, table, desk and pendant lamps; rarely arc lamps, tripods, chandeliers, torches and lanterns."""
    kind = draw.pick(
        ("floor", "table", "table", "desk", "pendant"),
        ("arc", "tripod", "chandelier", "torch", "lantern", "twin"),
    )
    radius, shade = draw.between(0.14, 0.24), draw.between(0.16, 0.3)
    if kind in ("floor", "torch", "twin"):
        height = draw.between(1.3, 1.7)
        parts = [cylinder(draw.between(0.12, 0.18), 0.03), rod((0, 0, 0.03), (0, 0, height), 0.014)]
        if kind == "torch":
            bowl = [(0.02, height - 0.05), (radius * 0.7, height + 0.02), (radius * 1.2, height + 0.14)]
            parts.append(grid(np.stack([ring(2 * r, 2 * r, z) for r, z in bowl]), closed=True))
        elif kind == "twin":
            for sx, z in ((-1, height * 0.95), (1, height * 0.8)):
                end = np.array([sx * 0.25, 0, z])
                parts += [tube(arch((0, 0, z - 0.2), (sx * 0.2, 0, z - 0.05), end), 0.012)]
                parts.append(moved(rotated(_shade(draw, 0, 0.09, 0.15), 1, sx * -30), end - [0, 0, 0.12]))
        else:
            parts.append(_shade(draw, height - shade, radius, shade * 1.1))
        return parts
    if kind == "table":
        height = draw.between(0.25, 0.42)
        body = draw.pick(("vase", "column", "bottle"), ("figure", "ball"))
        r = draw.between(0.05, 0.1)
        profiles = {
            "vase": [(0.6, 0), (1.0, 0.3), (1.1, 0.55), (0.5, 0.85), (0.25, 1)],
            "column": [(1.3, 0), (1.3, 0.06), (0.25, 0.1), (0.25, 1)],
            "bottle": [(1.0, 0), (1.0, 0.5), (0.3, 0.7), (0.25, 1)],
            "figure": [(1.2, 0), (0.4, 0.15), (0.8, 0.35), (0.3, 0.5), (0.7, 0.75), (0.2, 1)],
            "ball": [(0.5, 0), (1.1, 0.25), (1.4, 0.5), (1.1, 0.75), (0.25, 1)],
        }
        parts = [turned([(p * r, h * height) for p, h in profiles[body]])]
        parts += [rod((0, 0, height), (0, 0, height + shade * 0.8), 0.008)]
        parts.append(_shade(draw, height + 0.02, radius, shade))
        return parts
    if kind == "desk":
        first, second = draw.between(0.28, 0.42), draw.between(0.25, 0.4)
        lean, bend = np.radians(draw.between(55, 85)), np.radians(draw.between(-10, 35))
        elbow = np.array([0, -first * np.cos(lean) * -1, 0.02 + first * np.sin(lean)])
        hand = elbow + np.array([0, -second * np.cos(bend), second * np.sin(bend)])
        parts = [cylinder(draw.between(0.08, 0.12), 0.025)]
        if draw.chance(0.35):
            parts.append(tube(arch((0, 0, 0.02), (0, 0.1, elbow[2] * 1.5), hand, 10), 0.01))
        else:
            parts += [
                rod((0, 0, 0.02), elbow, 0.01),
                rod(elbow, hand, 0.01),
                ball(0.035, 0.035, 0.035, 2, *(elbow - [0, 0, 0.017])),
            ]
        cone = grid(
            np.stack([ring(2 * r, 2 * r, z) for r, z in ((0.085, -0.13), (0.07, -0.06), (0.03, 0.0), (0.02, 0.03))]),
            closed=True,
        )
        parts.append(moved(rotated(cone, 0, -draw.between(0, 45)), hand))
        return parts
    if kind in ("pendant", "lantern"):
        cord = draw.between(0.4, 0.9)
        size = draw.between(0.16, 0.3)
        parts = [rod((0, 0, shade), (0, 0, shade + cord), 0.006), cylinder(0.05, 0.025, z=shade + cord)]
        if kind == "lantern":
            parts += [box(0.015, 0.015, shade, x, y) for x, y in four_corners(size, size)]
            parts += [
                box(size, size, 0.02),
                box(size * 1.15, size * 1.15, 0.03, z=shade),
                cylinder(0.03, shade * 0.6),
            ]
        else:
            parts.append(_shade(draw, 0, size, shade))
        return parts
    if kind == "chandelier":
        arms, reach = draw.count(4, 8), draw.between(0.25, 0.45)
        cord = draw.between(0.3, 0.7)
        parts = [
            rod((0, 0, 0.1), (0, 0, 0.3 + cord), 0.01),
            ball(0.1, 0.1, 0.14),
            cylinder(0.05, 0.02, z=0.3 + cord),
        ]
        for angle in np.linspace(0, 2 * np.pi, arms, endpoint=False):
            end = np.array([reach * np.cos(angle), reach * np.sin(angle), 0.16])
            parts.append(tube(arch((0, 0, 0.08), (*(end[:2] * 0.7), -0.05), end), 0.009))
            cup = ring(0.1, 0.1, 0.26, segments=10), ring(0.05, 0.05, 0.16, segments=10)
            parts.append(moved(grid(np.stack(cup), closed=True), (end[0], end[1], 0)))
        return parts
    if kind == "arc":
        height, reach = draw.between(1.6, 2.0), draw.between(0.7, 1.2)
        path = arch((0, 0, 0.04), (0, 0, height * 1.6), (reach, 0, height * 0.72), 14)
        parts = [cylinder(draw.between(0.15, 0.2), 0.05), tube(path, 0.013)]
        parts.append(moved(_shade(draw, -shade * 0.8, radius, shade * 0.8), path[-1]))
        return parts
    height = draw.between(1.0, 1.4)
    spread = draw.between(0.25, 0.4)
    parts = [
        rod((spread * np.cos(a), spread * np.sin(a), 0), (0, 0, height), 0.014) for a in np.radians([30, 150, 270])
    ]
    parts.append(_shade(draw, height - 0.05, radius * 1.1, shade))
    return parts


def monitor(draw: Draw) -> Parts:
    """Flat panels on several stands and old tube screens; rarely curved, twin, laptops, televisions."""
    kind = draw.pick(("flat", "flat", "flat", "tube"), ("curved", "arm", "laptop", "twin", "television", "keyboard"))
    width = draw.between(0.42, 0.62)
    height = width * draw.pick((0.58, 0.65, 0.78)) * draw.between(0.96, 1.04)
    thick, lift = draw.between(0.025, 0.06), draw.between(0.07, 0.14)
    tilt = draw.between(-3, 12)
    if kind == "tube":
        width, height = draw.between(0.38, 0.5), draw.between(0.34, 0.42)
        deep = draw.between(0.3, 0.45)
        front = ring(width, height, 0, 14, 24)[:, [0, 2, 1]]
        section = ((0.86, 0.04), (0.9, 0.0), (1, 0), (1, 0.3), (0.75, 0.65), (0.6, 1))
        case = stack([front * s + np.array([0, y * deep, lift * 0.6 + height / 2]) for s, y in section])
        foot = ((width * 0.36, 0), (width * 0.34, 0.02), (width * 0.15, 0.03), (width * 0.2, lift * 0.6))
        return [case, moved(turned(foot), (0, deep * 0.45, 0))]
    if kind == "television":
        width, thick = draw.between(0.9, 1.4), draw.between(0.04, 0.08)
        height = width * 0.58
    if kind == "laptop":
        width, deep = draw.between(0.3, 0.4), draw.between(0.21, 0.27)
        lid = rotated(box(width, 0.01, deep, 0, 0, 0.015), 0, -draw.between(5, 40), (0, 0, 0.015))
        return [box(width, deep, 0.02, 0, -deep / 2), lid, box(width * 0.85, deep * 0.4, 0.004, 0, -deep * 0.4, 0.02)]
    panels: Parts = []
    if kind == "curved":
        x = np.linspace(-1, 1, 13)
        bow = -draw.between(0.05, 0.1) * x**2
        width *= 1.3
        outline = ((0, 0), (0, height), (thick, height), (thick, 0), (0, 0))
        rows = [np.stack([x * width / 2, bow + dy, np.full(13, z)], axis=1) for dy, z in outline]
        panels.append(moved(grid(np.stack(rows)), (0, 0, lift)))
    else:
        panels.append(box(width, thick, height, z=lift))
        bezel = draw.between(0.012, 0.03)
        for sign in (-1, 1):
            panels.append(box(bezel, 0.012, height, sign * (width - bezel) / 2, -thick / 2, lift))
            panels.append(box(width, 0.012, bezel, 0, -thick / 2, lift + (height - bezel) * (sign > 0)))
        if draw.chance(0.5):
            panels.append(box(width * 0.5, 0.04, height * 0.5, 0, thick / 2 + 0.02, lift + height * 0.2))
    parts = [rotated(panel, 0, -tilt, (0, 0, lift)) for panel in panels]
    if kind == "twin":
        pair = []
        for sx in (-1, 1):
            pair += [moved(rotated(part, 2, -sx * 15), (sx * width * 0.51, 0, 0)) for part in parts]
        parts = pair
    stand = draw.pick(("plate", "disc", "vee", "sheet"), ("hoop", "feet"))
    if kind == "television":
        stand = draw.pick(("feet", "plate"))
    back, deep = thick / 2 + 0.025, draw.between(0.16, 0.24)
    if kind == "arm":
        z = lift + height / 2
        parts += [rod((0, back, z), (0.12, 0.2, z), 0.02), rod((0.12, 0.2, z), (0, 0.38, z), 0.02)]
        parts += [box(0.12, 0.03, 0.12, 0, back, z - 0.06), box(0.1, 0.02, 0.25, 0, 0.39, z - 0.12)]
        return parts
    if stand == "feet":
        for sx in (-1, 1):
            parts.append(box(0.03, deep, 0.015, sx * width * 0.35))
            parts.append(rod((sx * width * 0.35, 0, 0.01), (sx * width * 0.35, 0, lift + 0.02), 0.012))
        return parts
    if stand == "hoop":
        parts.append(tube(arch((-width * 0.25, -0.08, 0.012), (0, 0.32, 0.012), (width * 0.25, -0.08, 0.012)), 0.012))
        parts.append(rod((0, 0.12, 0.012), (0, back, lift + height * 0.3), 0.015))
        return parts
    if stand == "plate":
        parts.append(box(width * draw.between(0.35, 0.55), deep, 0.015))
    elif stand == "disc":
        parts.append(stack([ring(width * 0.5, deep * 1.1, z) for z in (0, 0.015)]))
    elif stand == "vee":
        parts += [rod((0, 0.06, 0.012), (sx * width * 0.28, -0.12, 0.012), 0.012) for sx in (-1, 1)]
    else:
        parts.append(box(width * 0.3, deep, 0.01))
    parts.append(box(width * 0.3 if stand == "sheet" else draw.between(0.04, 0.1), 0.03, lift + height * 0.35, 0, back))
    if kind == "keyboard":
        parts += [box(0.42, 0.14, 0.02, 0, -0.3), ball(0.06, 0.1, 0.035, 2.5, 0.3, -0.3)]
    return parts


def plant(draw: Draw) -> Parts:
    """Potted grasses, rosettes, bushes, trees, palms; rarely cacti, troughs, flowers, hanging ones."""
    kind = draw.pick(("blades", "rosette", "bush", "tree", "palm"), ("cactus", "trough", "vase", "pot-less", "hanging"))
    radius, pot = draw.between(0.1, 0.2), draw.between(0.18, 0.36)
    rng = draw.rng
    parts: Parts = []
    style = draw.pick(("cone", "cone", "square"), ("urn", "bowl"))
    profiles = {
        "cone": ((0.65, 0), (1.0, 0.9), (1.08, 0.9), (1.08, 1), (0.9, 1), (0.85, 0.88)),
        "urn": ((0.7, 0), (0.35, 0.15), (0.4, 0.3), (1.0, 0.75), (0.9, 0.9), (1.1, 1), (0.8, 1), (0.8, 0.9)),
        "bowl": ((0.5, 0), (1.0, 0.4), (1.15, 0.8), (1.0, 1), (0.9, 1), (0.9, 0.9)),
        "vase": ((0.4, 0), (0.7, 0.3), (0.65, 0.6), (0.3, 0.85), (0.42, 1)),
    }
    if kind == "trough":
        length = draw.between(0.5, 0.9)
        parts.append(box(length, radius * 1.4, pot * 0.7))
        pot *= 0.7
    elif kind == "pot-less":
        pot = 0.0
    elif style == "square" and kind != "vase":
        parts += [box(radius * 1.8, radius * 1.8, pot), box(radius * 2, radius * 2, 0.03, z=pot - 0.03)]
    else:
        profile = profiles["vase" if kind == "vase" else style]
        parts.append(turned([(r * radius, h * pot) for r, h in profile]))

    def leaf(root: np.ndarray, angle: float, length: float, rise: float, droop: float, width: float) -> Mesh:
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        middle = root + out * length * 0.35 + [0, 0, rise * length]
        tip = root + out * length * 0.8 + [0, 0, (rise - droop) * length]
        return blade(arch(root, middle, tip, 6), width)

    def crown(centre: np.ndarray, size: Vector, leaves: int, width: float) -> Parts:
        """Scatter leaves over an ellipsoid, all pointing outward and a little up."""
        direction = rng.normal(size=(leaves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        reach = rng.uniform(0.45, 1.0, size=(leaves, 1)) ** 0.5
        roots = centre + direction * reach * np.asarray(size)
        ends = roots + (direction + np.array([0, 0, 0.2])) * width * rng.uniform(1.0, 2.0, size=(leaves, 1))
        side = np.cross(ends - roots, rng.normal(size=(leaves, 3)))
        side *= width / 2 / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
        middle = (roots + ends) / 2
        vertices = np.stack([roots, middle + side, ends, middle - side], axis=1).reshape(-1, 3)
        first = np.arange(leaves)[:, None] * 4
        return [Mesh(vertices, np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])]))]

    top = np.array([0.0, 0.0, pot * 0.92])
    if kind in ("blades", "trough", "vase"):
        leaves, length = draw.count(9, 22), draw.between(0.4, 0.85)
        width, droop, rise = draw.between(0.03, 0.09), draw.between(0.0, 0.5), draw.between(0.6, 1.1)
        for _ in range(leaves):
            root = top + rng.uniform(-0.4, 0.4, 3) * [radius, radius, 0]
            if kind == "trough":
                root[0] = rng.uniform(-0.42, 0.42) * length
            parts.append(
                leaf(
                    root,
                    rng.uniform(0, 2 * np.pi),
                    length * rng.uniform(0.6, 1.1),
                    rise,
                    droop * rng.uniform(0.5, 1.5),
                    width,
                )
            )
            if kind == "vase":
                tip = parts[-1].vertices[-2]
                parts.append(ball(0.08, 0.08, 0.06, 2, *tip))
    elif kind == "rosette":
        tiers, length = draw.count(2, 4), draw.between(0.25, 0.5)
        for tier in range(tiers):
            number = draw.count(5, 8)
            for angle in np.linspace(0, 2 * np.pi, number, endpoint=False) + tier * 0.4:
                rise = 0.25 + 0.35 * tier
                stem = top + np.array([0, 0, 0.03 * tier])
                parts.append(
                    leaf(
                        stem,
                        angle,
                        length * rng.uniform(0.8, 1.1),
                        rise,
                        draw.between(0.1, 0.5),
                        length * draw.between(0.28, 0.45),
                    )
                )
    elif kind in ("bush", "hanging"):
        size = np.array([draw.between(0.2, 0.4), 0, draw.between(0.2, 0.45)])
        size[1] = size[0]
        centre = top + np.array([0, 0, size[2] * 0.9])
        if kind == "hanging":
            centre = top - [0, 0, size[2] * 0.3]
            hook = draw.between(0.4, 0.7)
            parts += [
                rod((radius * np.cos(a), radius * np.sin(a), pot), (0, 0, pot + hook), 0.006) for a in (0, 2.1, 4.2)
            ]
        else:
            parts.append(rod(top, centre, 0.02))
        parts += crown(centre, size, draw.count(90, 220), draw.between(0.05, 0.11))
    elif kind in ("tree", "pot-less"):
        height = draw.between(0.6, 1.2)
        bend = rng.uniform(-0.12, 0.12, 2)
        tip = top + np.array([*bend, height])
        parts.append(tube(arch(top * [1, 1, 0.9], top + np.array([0, 0, height / 2]), tip), draw.between(0.015, 0.035)))
        for _ in range(draw.count(2, 5)):
            blob = draw.between(0.16, 0.3)
            start = top + (tip - top) * rng.uniform(0.5, 0.9)
            centre = tip + rng.normal(size=3) * [0.16, 0.16, 0.12]
            parts.append(rod(start, centre, 0.012))
            parts += crown(centre, (blob, blob, blob * 0.8), draw.count(35, 70), draw.between(0.06, 0.11))
    elif kind == "palm":
        height, length = draw.between(0.3, 0.9), draw.between(0.4, 0.7)
        tip = top + np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), height])
        parts.append(tube(arch(top * [1, 1, 0.9], top + np.array([0, 0, height / 2]), tip), draw.between(0.02, 0.05)))
        for angle in np.linspace(0, 2 * np.pi, draw.count(7, 12), endpoint=False):
            out, rise, droop = length * rng.uniform(0.8, 1.1), draw.between(0.3, 0.7), draw.between(0.3, 0.9)
            parts.append(leaf(tip, angle + rng.uniform(-0.2, 0.2), out, rise, droop, draw.between(0.08, 0.16)))
    else:
        height, r = draw.between(0.3, 0.8), draw.between(0.06, 0.11)
        parts.append(
            moved(turned([(r, 0), (r * 1.1, height * 0.5), (r * 0.9, height * 0.9), (r * 0.4, height)], 12), top)
        )
        for sx in (-1, 1)[: draw.count(0, 2)]:
            z, out = height * draw.between(0.3, 0.5), r + draw.between(0.08, 0.15)
            path = arch((0, 0, z), (sx * out * 1.3, 0, z), (sx * out, 0, z + height * 0.35))
            parts.append(moved(tube(path, r * 0.5), top))
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


_BUILDERS: dict[str, Callable[[Draw], Parts]] = {
    builder.__name__: builder
    for builder in (bathtub, bed, bookshelf, cabinet, chair, lamp, monitor, plant, sofa, table)
}


def build_shape(name: str, rng: np.random.Generator, wide: bool) -> Parts:
    """Return the parts of a random shape of the class ``name``.

    Args:
        name: one of ``POINTDA_CLASSES``.
        rng: source of all choices.
        wide: draw from wider ranges, and the rare variants half of the time.

    Returns:
        At least one part; metres, z up, facing ``-y``, the lowest vertex at ``z = 0``.

    Raises:
        KeyError: the class is not known.
    """
    parts = _BUILDERS[name](Draw(rng, wide))
    lowest = min(part.vertices[:, 2].min() for part in parts)
    return [moved(part, (0, 0, -lowest)) for part in parts]


def surface_points(mesh: Mesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` points spread evenly over the surface, (count, 3) float32.

    Triangles are drawn in proportion to their area, then a point uniformly in each: ``P = (1 - sqrt(r1)) A +
    sqrt(r1) (1 - r2) B + sqrt(r1) r2 C`` (Osada et al., "Shape distributions", 2002, eq. 1).

    Raises:
        ValueError: the mesh has no area.
    """
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not area[-1] > 0:
        raise ValueError("mesh: expected triangles with some area, found an area of 0")
    chosen = np.searchsorted(area, rng.random(count) * area[-1], side="right").clip(max=len(area) - 1)
    root, second = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - root) * a[chosen] + root * (1 - second) * b[chosen] + root * second * c[chosen]
    return points.astype(np.float32)
