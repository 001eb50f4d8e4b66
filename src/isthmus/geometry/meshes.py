"""Triangle meshes: building blocks, rigid motions, and points spread over a surface.

Lengths are metres and z points up, as everywhere; nothing else here knows what a mesh stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Vector = Sequence[float] | np.ndarray


class Mesh(NamedTuple):
    """Triangles: ``vertices`` (v, 3) float64 in metres, ``faces`` (f, 3) int64 indices into them."""

    vertices: np.ndarray
    faces: np.ndarray


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
