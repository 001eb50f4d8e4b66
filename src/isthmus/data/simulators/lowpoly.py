"""Meshes of few triangles for scenes with thousands of parts: limbs and blobs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from isthmus.geometry.meshes import Mesh, Vector, grid


@lru_cache(maxsize=32)
def _unit_limb(sides: int) -> tuple[np.ndarray, np.ndarray]:
    """Return per vertex which of six rings it is in and its place on the unit circle (v, 3), and the faces."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rings = np.stack([np.concatenate([np.full((sides, 1), i), circle], axis=1) for i in range(6)])
    mesh = grid(rings, closed=True)
    return mesh.vertices, mesh.faces


def limb(start: Vector, end: Vector, first: float, last: float, sides: int = 7) -> Mesh:
    """Return a tapering bar with slightly rounded ends, ``first`` and ``last`` its radii."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    length = max(float(np.sqrt((b - a) @ (b - a))), 1e-9)
    x, y, z = (b - a) / length
    # Any two directions across will do: the first is level unless the limb is upright.
    flat = float(np.hypot(x, y))
    across = np.array([y / flat, -x / flat, 0.0]) if flat > 0.1 else np.array([z, 0.0, -x]) / float(np.hypot(x, z))
    other = np.array([y * across[2] - z * across[1], z * across[0] - x * across[2], x * across[1] - y * across[0]])
    places, faces = _unit_limb(sides)
    ring = places[:, 0].astype(np.int64)
    along = np.array([-0.4 * first, -0.4 * first, 0, length, length + 0.4 * last, length + 0.4 * last])[ring]
    radius = np.array([0, 0.7 * first, first, last, 0.7 * last, 0])[ring]
    flat_part = places[:, 1:2] * across + places[:, 2:] * other
    return Mesh(a + along[:, None] * np.array([x, y, z]) + radius[:, None] * flat_part, faces)


@lru_cache(maxsize=32)
def _unit_blob(segments: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    height = np.linspace(-np.pi / 2, np.pi / 2, rows + 2)[:, None]
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None, :]
    rings = np.stack(
        [np.cos(height) * np.cos(angle), np.cos(height) * np.sin(angle), np.sin(height) * np.ones_like(angle)], axis=2
    )
    mesh = grid(rings, closed=True)
    return mesh.vertices / 2 + [0, 0, 0.5], mesh.faces


def blob(size: Vector, place: Vector = (0.0, 0.0, 0.0), segments: int = 8, rows: int = 4, power: float = 1.0) -> Mesh:
    """Return an ellipsoid of ``size`` (width, depth, height) standing on ``place``; ``power`` below 1 squares it."""
    vertices, faces = _unit_blob(segments, rows)
    if power != 1.0:
        centred = 2 * (vertices - [0, 0, 0.5])
        vertices = np.sign(centred) * np.abs(centred) ** power / 2 + [0, 0, 0.5]
    return Mesh(vertices * np.asarray(size) + np.asarray(place), faces)
