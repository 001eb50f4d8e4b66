"""Solids put together from rounded pieces, and points on the surface of their union.

A piece is a *rounded cone*: all points within a radius of a segment, where the radius goes evenly from one end to the
other, seen in a space that may be stretched across the segment. A ball, an egg, a limb, a palm and a trunk are pieces.
Whether a point lies inside is a formula, so the surface of the union is sampled without a mesh of it: points on each
piece, without those that lie inside another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from isthmus.geometry.meshes import Vector

_STEPS = 3
_SEGMENTS = 12
_TOUCHING = 1e-5


class Pieces(NamedTuple):
    """P rounded cones.

    ``start`` and ``end`` ``(P, 3)`` are the ends of the segments, ``radii`` ``(P, 2)`` the radii there, ``lateral``
    ``(P, 3)`` unit vectors across them, ``stretch`` ``(P, 2)`` the factors along those and along the third direction,
    ``part`` ``(P,)`` a label.
    """

    start: np.ndarray
    end: np.ndarray
    radii: np.ndarray
    lateral: np.ndarray
    stretch: np.ndarray
    part: np.ndarray


class Surface(NamedTuple):
    """Points ``(n, 3)`` on a surface, unit normals ``(n, 3)`` that point outward, and labels ``(n,)`` int64."""

    points: np.ndarray
    normals: np.ndarray
    part: np.ndarray


class PieceList:
    """Pieces as they are added, one after the other; of two that touch, the earlier one keeps the points there."""

    def __init__(self) -> None:
        self._rows: list[tuple[np.ndarray, np.ndarray, tuple[float, float], np.ndarray, tuple[float, float], int]] = []

    def add(
        self,
        part: int,
        start: Vector,
        end: Vector,
        radii: tuple[float, float],
        lateral: Vector = (1.0, 0.0, 0.0),
        stretch: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """A piece from ``start`` to ``end``, which differ; ``lateral`` is made perpendicular to the segment."""
        first, last = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        axis = last - first
        across = np.asarray(lateral, dtype=np.float64)
        across = across - axis * (across @ axis) / (axis @ axis)
        self._rows.append((first, last, radii, across / np.sqrt(across @ across), stretch, part))

    def pieces(self) -> Pieces:
        """All of them."""
        return Pieces(*(np.array(column) for column in zip(*self._rows)))


class _Frames(NamedTuple):
    axes: np.ndarray  # (3, P, 3): across, across the other way, along
    length: np.ndarray  # (P,)


def _frames(pieces: Pieces) -> _Frames:
    along = pieces.end - pieces.start
    length = np.sqrt((along**2).sum(axis=1))
    along = along / length[:, None]
    return _Frames(np.stack([pieces.lateral, np.cross(along, pieces.lateral), along]), length)


def outside(pieces: Pieces, points: np.ndarray) -> np.ndarray:
    """How far outside each piece a point lies, in the piece's stretched space, negative inside: ``(n, P)``.

    In the precision of the points.
    """
    frames, kind = _frames(pieces), points.dtype
    start = (pieces.start * frames.axes).sum(axis=2).astype(kind)
    across, other, along = (points @ axis.T - from_ for axis, from_ in zip(frames.axes.astype(kind), start))
    length, radii = frames.length.astype(kind), pieces.radii.astype(kind)
    on_segment = np.clip(along, 0, length)
    radius = radii[:, 0] + on_segment * ((radii[:, 1] - radii[:, 0]) / length)
    along -= on_segment
    across *= (1 / pieces.stretch[:, 0]).astype(kind)
    other *= (1 / pieces.stretch[:, 1]).astype(kind)
    across *= across
    other *= other
    along *= along
    across += other
    across += along
    distance: np.ndarray = np.sqrt(across, out=across)
    distance -= radius
    return distance


def union_points(
    pieces: Pieces,
    count: int,
    rng: np.random.Generator,
    chance: Callable[[Surface], np.ndarray] | None = None,
) -> Surface:
    """``count`` points spread evenly over the surface of the union of all pieces.

    Args:
        pieces: at least one.
        count: number of points.
        rng: source of all choices.
        chance: the probability, in [0, 1], with which a point is kept; always, by default.

    Raises:
        ValueError: nearly no point is kept.
    """
    frames = _frames(pieces)
    corners, faces = _template()
    vertices = _placed(pieces, frames, np.arange(len(pieces.part))[:, None], corners[None])
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    order = np.arange(len(pieces.part))
    nearest = np.where(order < order[:, None], _TOUCHING, -_TOUCHING).astype(np.float32)
    np.fill_diagonal(nearest, -np.inf)
    area = np.cumsum(np.sqrt((np.cross(b - a, c - a) ** 2).sum(axis=-1)).ravel())
    kept: list[Surface] = []
    found, total, draw = 0, 0, int(1.8 * count)
    for _ in range(40):
        face = np.searchsorted(area, rng.random(draw) * area[-1], side="right").clip(max=len(area) - 1)
        piece, triangle = np.divmod(face, len(faces))
        root, second = np.sqrt(rng.random((draw, 1))), rng.random((draw, 1))
        first, middle, last = (corners[faces[triangle, i]] for i in range(3))
        place = (1 - root) * first + root * (1 - second) * middle + root * second * last
        place[:, :3] /= np.sqrt((place[:, :3] ** 2).sum(axis=1, keepdims=True))
        surface = Surface(_placed(pieces, frames, piece, place), _normals(pieces, frames, piece, place), piece)
        if chance is not None:
            lucky = rng.random(draw) < chance(surface)
            surface = Surface(*(values[lucky] for values in surface))
        free = (outside(pieces, surface.points.astype(np.float32)) >= nearest[surface.part]).all(axis=1)
        kept.append(Surface(surface.points[free], surface.normals[free], pieces.part[surface.part[free]]))
        found, total = found + int(free.sum()), total + draw
        if found >= count:
            return Surface(*(np.concatenate(values)[:count] for values in zip(*kept)))
        draw = min(20 * count, 64 + int(1.1 * (count - found) * total / max(1, found)))
    raise ValueError(f"expected a surface on which {count} points can be found, found {found}")


def _normals(pieces: Pieces, frames: _Frames, piece: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Outward, as if the two radii of each piece were the same."""
    normals: np.ndarray = sum(
        axis[piece] * (direction / stretch)[:, None]
        for axis, direction, stretch in zip(frames.axes, place.T, (*pieces.stretch[piece].T, 1.0))
    )
    return normals / np.sqrt((normals**2).sum(axis=1, keepdims=True))


def lowest(pieces: Pieces) -> float:
    """The height of the lowest point of all pieces, to about a hundredth of their radii."""
    corners, _ = _template()
    rows = np.arange(len(pieces.part))[:, None]
    return float(_placed(pieces, _frames(pieces), rows, corners[None])[..., 2].min())


def _placed(pieces: Pieces, frames: _Frames, piece: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Points of pieces: ``place`` (..., 4) has a direction and the share of the way from start to end."""
    share = place[..., 3]
    radius = pieces.radii[piece, 0] + (pieces.radii[piece, 1] - pieces.radii[piece, 0]) * share
    offsets = (
        pieces.stretch[piece, 0] * radius * place[..., 0],
        pieces.stretch[piece, 1] * radius * place[..., 1],
        frames.length[piece] * share + radius * place[..., 2],
    )
    points: np.ndarray = pieces.start[piece] + sum(
        axis[piece] * offset[..., None] for axis, offset in zip(frames.axes, offsets)
    )
    return points


def _template() -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 4) of a ball cut open at its equator, and triangles (F, 3) on it and across the cut."""
    half = np.linspace(0, np.pi / 2, _STEPS + 1)
    latitude = np.concatenate([half - np.pi / 2, half])
    share = np.repeat([0.0, 1.0], _STEPS + 1)
    angle = np.linspace(0, 2 * np.pi, _SEGMENTS, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    corners = np.empty((len(latitude), _SEGMENTS, 4))
    corners[..., :2] = np.cos(latitude)[:, None, None] * ring
    corners[..., 2] = np.sin(latitude)[:, None]
    corners[..., 3] = share[:, None]
    index = np.arange(corners.shape[0] * _SEGMENTS).reshape(corners.shape[:2])
    right = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1].ravel(), right[:-1].ravel(), right[1:].ravel(), index[1:].ravel()
    return corners.reshape(-1, 4), np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
