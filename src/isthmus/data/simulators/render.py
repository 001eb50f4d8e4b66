"""A small ray caster: scenes of painted meshes to colour, surface, depth and normals per pixel.

World: metres, z up. Camera frame: x right, y down, z forward. Every pixel is one ray through its centre, and all labels
come from that ray; colour is averaged over four more rays where the picture has an edge, so that edges look like those
of a photograph while labels stay exact. Light comes from lamps, from lit openings, from the sun and from all around;
shadows are cast by rays (several per lamp or opening, so they have soft borders) and corners are darkened by ambient
occlusion. Diffuse reflection is Lambert's, highlights are Blinn's (1977). Light that bounces more than once is only in
the ambient term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from isthmus.data.simulators.rays import Rays
from isthmus.data.simulators.textures import Colour, Paint, surface_colours
from isthmus.geometry.meshes import Mesh, Vector

# Rays that leave a surface start this many metres above it, so that they do not hit it again.
LIFT = 1e-3


class Piece(NamedTuple):
    """A painted mesh of one class.

    ``label`` is the class and ``instance`` the thing it is part of (0 or more, one numbering for the whole scene);
    ``part`` a second class, for parts of bodies (0 where there is none). The paint's pattern is anchored at ``origin``
    and turned with ``yaw`` degrees about z. A piece with ``shadow`` False lets all light through.
    """

    mesh: Mesh
    label: int
    paint: Paint
    instance: int = 0
    part: int = 0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    shadow: bool = True


def placed(piece: Piece, yaw: float, by: Vector) -> Piece:
    """Return ``piece`` turned by ``yaw`` degrees about the z axis and then shifted, its pattern with it."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    shift = np.asarray(by, dtype=np.float64)
    x, y, z = turn @ np.array(piece.origin) + shift
    mesh = Mesh(piece.mesh.vertices @ turn.T + shift, piece.mesh.faces)
    return piece._replace(mesh=mesh, origin=(float(x), float(y), float(z)), yaw=piece.yaw + yaw)


class Lamp(NamedTuple):
    """A glowing ball: ``power`` is the light 1 m away, linear RGB; ``radius`` in metres softens its shadows."""

    position: tuple[float, float, float]
    power: Colour
    radius: float = 0.1


class Opening(NamedTuple):
    """A lit rectangle like a window: ``centre`` plus up to ``across`` and ``up`` each way, shining along ``normal``."""

    centre: tuple[float, float, float]
    across: tuple[float, float, float]
    up: tuple[float, float, float]
    normal: tuple[float, float, float]
    power: Colour


class Sun(NamedTuple):
    """Parallel light: ``towards`` the sun (a unit vector) and its colour on a surface that faces it."""

    towards: tuple[float, float, float]
    power: Colour


@dataclass(frozen=True)
class Lighting:
    """All light of a scene.

    ``sky`` and ``ground`` are the light from above and from below, and ``reach`` how far away (metres) a neighbour
    still darkens it.
    """

    lamps: tuple[Lamp, ...] = ()
    openings: tuple[Opening, ...] = ()
    sun: Sun | None = None
    sky: Colour = (0.3, 0.3, 0.3)
    ground: Colour = (0.2, 0.2, 0.2)
    reach: float = 1.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        eye: where it is, metres.
        turn: (3, 3) world to camera: its rows are the camera's right, down and forward in the world.
        focal: focal length in pixels.
        size: height and width in pixels; the optical axis goes through the middle.
    """

    eye: np.ndarray
    turn: np.ndarray
    focal: float
    size: tuple[int, int]

    def rays(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return unit vectors (n, 3) in the world through places (n,) in the image; pixel centres are ``i + 0.5``."""
        height, width = self.size
        seen = np.stack(
            [
                (columns - width / 2) / self.focal,
                (rows - height / 2) / self.focal,
                np.ones(len(rows)),
            ],
            axis=1,
        )
        seen /= _length(seen)[:, None]
        world: np.ndarray = seen @ self.turn
        return world

    def scaled(self, size: tuple[int, int]) -> Camera:
        """The same view, as wide as before, with another number of pixels."""
        return replace(self, size=size, focal=self.focal * size[1] / self.size[1])


def looking(eye: Vector, target: Vector, field: float, size: tuple[int, int], roll: float = 0.0) -> Camera:
    """Return the camera at ``eye`` that looks at ``target``.

    Args:
        eye: (3,) metres.
        target: (3,), not above or below the eye.
        field: horizontal field of view, degrees.
        size: height and width in pixels.
        roll: turn about the optical axis, degrees.
    """
    at = np.asarray(eye, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - at
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turn = np.stack([c * right + s * down, c * down - s * right, forward])
    return Camera(at, turn, size[1] / 2 / float(np.tan(np.radians(field) / 2)), size)


class Layers(NamedTuple):
    """What a camera sees; ``piece`` is -1, ``depth`` infinite and ``normals`` zero where there is nothing.

    ``piece`` (H, W) int64 indexes the scene's pieces; ``depth`` (H, W) float64 along the optical axis, metres;
    ``normals`` (H, W, 3) float64 unit vectors in the camera frame, towards the camera.
    """

    piece: np.ndarray
    depth: np.ndarray
    normals: np.ndarray


class Scene:
    """Pieces, ready to be looked at from several places.

    Args:
        pieces: at least one.
        plain: do without Embree.
    """

    def __init__(self, pieces: Sequence[Piece], plain: bool = False) -> None:
        triangles = np.concatenate([piece.mesh.vertices[piece.mesh.faces] for piece in pieces])
        normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        sound = length[:, 0] > 1e-12
        owner = np.repeat(np.arange(len(pieces)), [len(piece.mesh.faces) for piece in pieces])[sound]
        triangles = triangles[sound]
        self._normal = normal[sound] / length[sound]
        self._owner = owner
        self._rays = Rays(triangles, plain)
        casting = np.array([piece.shadow for piece in pieces])[owner]
        self._shadows = self._rays if casting.all() else Rays(triangles[casting], plain)
        self.pieces = list(pieces)
        self.label = np.array([piece.label for piece in pieces])
        self.instance = np.array([piece.instance for piece in pieces])
        self.part = np.array([piece.part for piece in pieces])
        self._paints = [piece.paint for piece in pieces]
        self._origin = np.array([piece.origin for piece in pieces], dtype=np.float64)
        yaw = np.radians([piece.yaw for piece in pieces])
        self._cos, self._sin = np.cos(yaw), np.sin(yaw)
        count = [len(piece.mesh.vertices) for piece in pieces]
        whose, start = np.repeat(np.arange(len(pieces)), count), np.cumsum([0, *count[:-1]])
        vertices = np.concatenate([piece.mesh.vertices for piece in pieces])
        own = self._own_frame(vertices - self._origin[whose], whose)
        self._low, self._high = np.minimum.reduceat(own, start), np.maximum.reduceat(own, start)
        self._gloss = np.array([paint.gloss for paint in self._paints])
        self._glow = np.array([paint.glow for paint in self._paints])

    def _own_frame(self, vectors: np.ndarray, piece: np.ndarray | int) -> np.ndarray:
        """Turn vectors (n, 3) from the world into the frame of pieces (n,) or of one piece."""
        c, s = self._cos[piece], self._sin[piece]
        x, y = vectors[:, 0], vectors[:, 1]
        return np.stack([c * x + s * y, c * y - s * x, vectors[:, 2]], axis=1)

    def first(self, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distances (n,), pieces (n,) and normals (n, 3) towards the eye for rays (n, 3) from one place."""
        distance, face = self._rays.first(np.broadcast_to(eye, directions.shape), directions)
        hit = face >= 0
        piece = np.where(hit, self._owner[face], -1)
        normal = np.where(hit[:, None], self._normal[face], 0.0)
        away = _dot(normal, directions) > 0
        return distance, piece, np.where(away[:, None], -normal, normal)

    def layers(self, camera: Camera) -> Layers:
        """Return what is where in the camera's image."""
        rows, columns = _pixels(camera.size)
        directions = camera.rays(rows + 0.5, columns + 0.5)
        distance, piece, normal = self.first(camera.eye, directions)
        shape = camera.size
        return Layers(
            piece.reshape(shape),
            (distance * (directions @ camera.turn[2])).reshape(shape),
            (normal @ camera.turn.T).reshape(*shape, 3),
        )

    def picture(
        self,
        camera: Camera,
        layers: Layers,
        light: Lighting,
        rng: np.random.Generator,
        background: Background | None = None,
    ) -> np.ndarray:
        """Return the light that reaches every pixel, (H, W, 3) float64, linear RGB from 0, without an upper limit.

        Args:
            camera: where from.
            layers: what :meth:`layers` returned for it.
            light: all light there is.
            rng: source of the directions of shadow rays.
            background: what is behind everything; black by default.
        """
        rows, columns = _pixels(camera.size)
        directions = camera.rays(rows + 0.5, columns + 0.5)
        colour = self._shaded(camera, directions, light, rng, 4, 6, background, layers.piece.reshape(-1))
        picture = colour.reshape(*camera.size, 3)
        edge = np.flatnonzero(_uneven(layers))
        fine = np.zeros((len(edge), 3))
        for dy, dx in ((0.125, 0.375), (0.375, 0.875), (0.625, 0.125), (0.875, 0.625)):
            directions = camera.rays(rows[edge] + dy, columns[edge] + dx)
            fine += self._shaded(camera, directions, light, rng, 1, 2, background, None) / 4
        picture.reshape(-1, 3)[edge] = fine
        return picture

    def _shaded(
        self,
        camera: Camera,
        directions: np.ndarray,
        light: Lighting,
        rng: np.random.Generator,
        samples: int,
        around: int,
        background: Background | None,
        smooth: np.ndarray | None,
    ) -> np.ndarray:
        """Return the light (n, 3) that comes along rays; ``smooth`` (n,) says they form the image, and its pieces."""
        distance, piece, normal = self.first(camera.eye, directions)
        colour = np.zeros((len(directions), 3))
        if background is not None and (piece < 0).any():
            colour[piece < 0] = background.colours(directions[piece < 0])
        seen = np.flatnonzero(piece >= 0)
        at, normal, ray = piece[seen], normal[seen], directions[seen]
        point = camera.eye + ray * distance[seen, None]
        own = self._own_frame(point - self._origin[at], at)
        footprint = distance[seen] / camera.focal / np.maximum(np.abs(_dot(normal, ray)), 0.15)
        paint = surface_colours(self._paints, at, own, self._own_frame(normal, at), self._low, self._high, footprint)
        # Light needs no more than single precision, and half the memory makes it faster.
        normal, ray = normal.astype(np.float32), ray.astype(np.float32)
        start = point.astype(np.float32) + np.float32(LIFT) * normal
        openness = self._openness(start, normal, light.reach, around, rng)
        if smooth is not None:
            whole = np.ones(len(directions))
            whole[seen] = openness
            openness = _within(whole.reshape(camera.size), smooth.reshape(camera.size)).ravel()[seen]
        up = 0.5 + 0.5 * normal[:, 2:]
        sky, ground = np.array(light.sky, np.float32), np.array(light.ground, np.float32)
        arriving = openness.astype(np.float32)[:, None] * (up * sky + (1 - up) * ground)
        shine = np.zeros_like(arriving)
        faint = 0.01 * float(np.mean(light.sky))
        for power, rays in self._lights(start, light, samples):
            falling, glint = np.zeros(len(seen), np.float32), np.zeros(len(seen), np.float32)
            for towards, reach, strength in rays:
                cosine = _dot(normal, towards) * strength
                # What adds less than a hundredth of the ambient light is not worth a ray.
                lit = np.flatnonzero(cosine * max(power) > faint / samples)
                lit = lit[~self._shadows.blocked(start[lit], towards[lit], reach[lit])]
                falling[lit] += cosine[lit]
                half = towards[lit] - ray[lit]
                high = np.maximum(_dot(half, normal[lit]) / np.maximum(_length(half), 1e-6), 0)
                glint[lit] += strength[lit] * high**40
            arriving += falling[:, None] * np.array(power, np.float32)
            shine += (glint * self._gloss[at])[:, None] * np.array(power, np.float32)
        colour[seen] = paint * (arriving + self._glow[at, None]) + shine
        return colour

    def _openness(
        self, start: np.ndarray, normal: np.ndarray, reach: float, around: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Return how much of what is around reaches each place, 0 to 1, (n,)."""
        free = np.zeros(len(start))
        turn = rng.random(len(start), dtype=np.float32)
        for i in range(around):
            # A cosine-weighted direction: a point on the unit sphere around the tip of the normal.
            height = 1 - 2 * (i + 0.5) / around
            angle = np.float32(2 * np.pi) * (turn + np.float32(i * 0.618034))
            flat = np.float32(np.sqrt(1 - height * height))
            towards = normal + np.stack(
                [flat * np.cos(angle), flat * np.sin(angle), np.full(len(start), height, np.float32)], axis=1
            )
            towards = towards / np.maximum(_length(towards), np.float32(1e-3))[:, None]
            free += ~self._shadows.blocked(start, towards, np.full(len(start), reach, np.float32))
        return 0.25 + 0.75 * free / around

    def _lights(
        self, start: np.ndarray, light: Lighting, samples: int
    ) -> list[tuple[Colour, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]]:
        """Return every light's colour and rays to it: unit vectors (n, 3), how far to go (n,) and its strength (n,)."""
        found: list[tuple[Colour, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = []
        corners = np.array([(-1, -0.33), (-0.33, 1), (1, 0.33), (0.33, -1)]) if samples > 1 else np.zeros((1, 2))
        for lamp in light.lamps:
            rays = []
            for a, b in corners:
                aim = np.array(lamp.position) + lamp.radius * np.array([a, b, 0.5 * (a - b)])
                towards, reach = _aimed(start, aim)
                rays.append((towards, reach - np.float32(lamp.radius), 1 / (len(corners) * (reach**2 + 0.05))))
            found.append((lamp.power, rays))
        for opening in light.openings:
            rays = []
            area = float(np.linalg.norm(opening.across) * np.linalg.norm(opening.up)) * 4
            for a, b in corners * 0.75:
                aim = np.array(opening.centre) + a * np.array(opening.across) + b * np.array(opening.up)
                towards, reach = _aimed(start, aim)
                facing = np.maximum(-(towards @ np.array(opening.normal, np.float32)), 0)
                strength = facing * np.float32(area / len(corners)) / (reach**2 + np.float32(0.5 * area))
                rays.append((towards, reach - np.float32(2 * LIFT), strength))
            found.append((opening.power, rays))
        if light.sun is not None:
            towards = np.broadcast_to(np.array(light.sun.towards, np.float32), start.shape)
            ones = np.ones(len(start), np.float32)
            found.append((light.sun.power, [(towards, 1e3 * ones, ones)]))
        return found


class Background(ABC):
    """What is behind everything; asked for the colour along rays."""

    @abstractmethod
    def colours(self, directions: np.ndarray) -> np.ndarray:
        """Return linear RGB (n, 3) along unit vectors (n, 3) in the world."""


def _aimed(start: np.ndarray, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors (n, 3) from ``start`` to a point and the distances (n,)."""
    towards = aim.astype(np.float32) - start
    reach = _length(towards)
    return towards / np.maximum(reach, np.float32(1e-6))[:, None], reach


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the inner products of the rows of (n, 3) and (n, 3); much faster than a sum over so short an axis."""
    product: np.ndarray = np.einsum("ni,ni->n", a, b)
    return product


def _length(a: np.ndarray) -> np.ndarray:
    """Return the lengths of the rows of (n, 3)."""
    length: np.ndarray = np.sqrt(_dot(a, a))
    return length


def _pixels(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of every pixel, (H * W,) each."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return rows.ravel().astype(np.float64), columns.ravel().astype(np.float64)


def _within(values: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` (H, W) over each pixel and those of its eight neighbours on the same piece."""
    height, width = values.shape
    padded = np.pad(values, 1)
    owner = np.pad(piece, 1, constant_values=-2)
    total, count = np.zeros_like(values), np.zeros_like(values)
    for dy in range(3):
        for dx in range(3):
            same = owner[dy : dy + height, dx : dx + width] == piece
            total += np.where(same, padded[dy : dy + height, dx : dx + width], 0)
            count += same
    return total / count


def _uneven(layers: Layers) -> np.ndarray:
    """Return which pixels lie on a border of two pieces or in a crease, (H, W) bool."""
    found = np.zeros(layers.piece.shape, dtype=bool)
    for axis in (0, 1):
        one = [slice(None)] * 2
        other = [slice(None)] * 2
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        a, b = tuple(one), tuple(other)
        differ = layers.piece[a] != layers.piece[b]
        differ |= np.einsum("hwi,hwi->hw", layers.normals[a], layers.normals[b]) < 0.8
        found[a] |= differ
        found[b] |= differ
    # Two neighbours in the sky have zero normals, which are not a crease.
    return found & ~((layers.piece < 0) & ~_touches(layers.piece))


def _touches(piece: np.ndarray) -> np.ndarray:
    """Return which pixels have a neighbour above, below, left or right on another piece, (H, W) bool."""
    found = np.zeros(piece.shape, dtype=bool)
    found[1:] |= piece[1:] != piece[:-1]
    found[:-1] |= piece[1:] != piece[:-1]
    found[:, 1:] |= piece[:, 1:] != piece[:, :-1]
    found[:, :-1] |= piece[:, 1:] != piece[:, :-1]
    return found


def borders(thing: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the borders between things, one pixel wide, on the side of whatever is nearer.

    A pixel is on a border if one of its four neighbours belongs to another thing and is farther away (or as far), so
    an outline belongs to what it outlines, and mirroring the image mirrors its borders.

    Args:
        thing: (H, W) integers, equal within a thing.
        depth: (H, W) metres; ``inf`` is allowed.

    Returns:
        (H, W) uint8, 0 or 1.
    """
    found = np.zeros(thing.shape, dtype=np.uint8)
    for one, other in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        found[one] |= (thing[one] != thing[other]) & (depth[one] <= depth[other])
    return found


def developed(light: np.ndarray, exposure: float) -> np.ndarray:
    """Return an 8-bit image of linear light (H, W, 3): exposed, highlights rolled off, sRGB's gamma, uint8.

    Args:
        light: linear RGB from 0.
        exposure: factor on it; a surface that sends 0.18 afterwards is a middle grey.
    """
    x = np.maximum(light * exposure, 0)
    # Linear up to 0.6, then an exponential approach to 1 with the same slope.
    x = np.where(x < 0.6, x, 1 - 0.4 * np.exp(-(x - 0.6) / 0.4))
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055)
    return np.round(255 * np.clip(encoded, 0, 1)).astype(np.uint8)


def automatic_exposure(light: np.ndarray, target: float = 0.2) -> float:
    """Return the exposure that brings the geometric mean of the brightness of ``light`` (H, W, 3) to ``target``."""
    brightness = light @ np.array([0.2126, 0.7152, 0.0722])
    return float(target / np.exp(np.log(np.maximum(brightness, 1e-3)).mean()))
