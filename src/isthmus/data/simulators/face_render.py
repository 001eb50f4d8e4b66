"""One head to an image's worth of colour, parts and normals, by ray casting.

Labels come from the ray through a pixel's centre; colour is the mean over four rays. Normals are those of the smooth
surface that the mesh samples (interpolated between vertices), as in all models of faces, and are bent towards the
viewer where interpolation would turn them away. Ambient occlusion is cast from the centre's place and shared by the
pixel's four rays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter

from isthmus.data.simulators import face_shape
from isthmus.data.simulators.face_light import FaceLight
from isthmus.data.simulators.face_paint import Gaze, Look, Places, hair_thickness, painted, parts
from isthmus.data.simulators.face_view import View
from isthmus.data.simulators.lowpoly import blob
from isthmus.data.simulators.rays import Rays
from isthmus.data.simulators.textures import Colour

# Centimetres above the surface at which shadow rays start.
_LIFT = 0.08
# How far away something still darkens a place, centimetres.
_REACH = 6.0
_AROUND = 8
# Offsets of the spots of a lamp that a pixel's rays look at: it is about 5 degrees wide.
_SPOTS = 0.04 * np.array([(-1.0, -0.5, 0.5), (-0.3, 1.0, -0.6), (1.0, 0.3, 0.6), (0.3, -0.8, -0.5)])
_SUBPIXELS = ((0.125, 0.375), (0.375, 0.875), (0.625, 0.125), (0.875, 0.625))


class FaceLayers(NamedTuple):
    """What a camera sees of a head.

    ``part`` (H, W) uint8 index of ``FACE_PARTS``; ``face`` (H, W) bool, where a face model would be; ``depth`` (H, W)
    centimetres along the optical axis, ``inf`` where there is nothing; ``normals`` (H, W, 3) unit vectors in the
    camera's frame, zero where there is no head.
    """

    part: np.ndarray
    face: np.ndarray
    depth: np.ndarray
    normals: np.ndarray


class _Hits(NamedTuple):
    """Where rays meet the scene: indices of rays that do, points, normals, and face coordinates or clothes."""

    ray: np.ndarray
    point: np.ndarray
    normal: np.ndarray
    clothes: np.ndarray
    places: Places


class Head:
    """A head in front of a camera.

    Args:
        identity: (m,) weights of ``IDENTITY_MODES``.
        expression: (e,) weights of ``EXPRESSION_MODES``.
        look: its paint and hair.
        gaze: eyes and mouth.
        view: pose and camera.

    Attributes:
        points: (K, 3) where the ``KEYPOINTS`` are, head frame; on the skin, also under hair.
    """

    def __init__(self, identity: np.ndarray, expression: np.ndarray, look: Look, gaze: Gaze, view: View) -> None:
        head = face_shape.template()
        self.look, self.gaze, self.view = look, gaze, view
        skin = face_shape.shaped(identity, expression)
        self._places = Places(head.across, head.level, np.abs(head.round), head.ear)
        normals = face_shape.vertex_normals(skin)
        surface = skin
        if look.hair is not None:
            surface = skin + hair_thickness(look, self._places)[:, None] * normals
            normals = face_shape.vertex_normals(surface)
        self.points = face_shape.keypoints(skin)
        self._vertices = view.seen(surface)
        self._normals = normals @ view.turn.T
        # Shoulders do not turn with the head; they stay below its pivot.
        pivot = view.seen(np.array([[0.0, -14.0, -3.0]]))[0]
        body = blob((44.0, 18.0, 40.0), segments=24, rows=12, power=0.8)
        shoulders = np.stack([body.vertices[:, 0], -body.vertices[:, 2] + 40.0, -body.vertices[:, 1]], axis=1)
        triangles = np.concatenate([self._vertices[head.faces], (shoulders + pivot + [0, 1.5, 0])[body.faces]])
        self._triangles, self._skin = triangles, len(head.faces)
        self._rays = Rays(triangles)
        self._centre = self._hits(self._directions(0.5, 0.5))

    def layers(self) -> FaceLayers:
        """Return what is where, from the rays through the pixels' centres."""
        size = self.view.camera.size
        hits = self._centre
        part, face = np.zeros(size, np.uint8), np.zeros(size, bool)
        depth, normals = np.full(size, np.inf), np.zeros((*size, 3))
        depth.reshape(-1)[hits.ray] = hits.point[:, 2]
        on = ~hits.clothes
        found, facing = parts(self.look, self.gaze, hits.places)
        part.reshape(-1)[hits.ray[on]] = found[on]
        face.reshape(-1)[hits.ray[on]] = facing[on]
        normals.reshape(-1, 3)[hits.ray[on]] = hits.normal[on]
        return FaceLayers(part, face, depth, normals)

    def picture(self, light: FaceLight, background: np.ndarray, clothes: Colour) -> tuple[np.ndarray, float]:
        """Return the light that reaches every pixel, (H, W, 3) linear RGB, and a fitting exposure for it.

        The exposure goes by the light that falls on the head, and only partly by what it reflects.
        """
        camera, centre = self.view.camera, self._centre
        count = camera.size[0] * camera.size[1]
        openness = np.ones(count, np.float32)
        openness[centre.ray] = self._openness(centre)
        blur = 0.35 * self.view.shift[2] / camera.focal
        near = np.zeros(camera.size, bool)
        near.reshape(-1)[centre.ray] = True
        near = maximum_filter(near, 3)
        pixel = np.flatnonzero(near)
        directions = np.concatenate([self._directions(dy, dx)[pixel] for dy, dx in _SUBPIXELS])
        hits = self._hits(directions)
        owner = np.tile(pixel, len(_SUBPIXELS))
        at = owner[hits.ray]
        albedo, gloss = painted(self.look, self.gaze, hits.places, blur)
        albedo[hits.clothes], gloss[hits.clothes] = clothes, 0.0
        lit = self._lit(hits, hits.ray // len(pixel), light)
        arriving, shine = self._shaded(hits, directions[hits.ray], light, openness[at], lit)
        colour = background.reshape(-1, 3)[owner]
        colour[hits.ray] = albedo * arriving + gloss[:, None] * shine
        picture = background.reshape(-1, 3).copy()
        picture[pixel] = colour.reshape(len(_SUBPIXELS), -1, 3).mean(axis=0)
        on_head = arriving[~hits.clothes].mean(axis=1)
        typical = 0.5 * on_head.mean() + 0.5 * np.quantile(on_head, 0.95) if len(on_head) else 1.0
        # Partly for the skin as well, as cameras do: dark skin stays dark, but not as dark.
        skin = float(np.dot(self.look.skin, [0.2126, 0.7152, 0.0722]) / 0.4)
        return picture.reshape(*camera.size, 3), float(0.85 / max(typical, 1e-3)) * skin**-0.3

    def _directions(self, dy: float, dx: float) -> np.ndarray:
        height, width = self.view.camera.size
        rows, columns = np.mgrid[:height, :width]
        return self.view.camera.rays(rows.ravel() + dy, columns.ravel() + dx)

    def _hits(self, directions: np.ndarray) -> _Hits:
        distance, triangle = self._rays.first(np.zeros_like(directions), directions)
        ray = np.flatnonzero(triangle >= 0)
        triangle = triangle[ray]
        point = directions[ray] * distance[ray, None]
        share = _shares(self._triangles[triangle], point)
        clothes = triangle >= self._skin
        # Clothes get the coordinates of some place on the head, which nobody looks at.
        corner = face_shape.template().faces[np.where(clothes, 0, triangle)]
        normal = np.einsum("nc,nci->ni", share, self._normals[corner])
        flat = self._triangles[triangle[clothes]]
        normal[clothes] = -np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])
        normal[clothes] *= np.where(np.einsum("ni,ni->n", normal[clothes], point[clothes]) > 0, -1, 1)[:, None]
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        # A smooth normal may point away at an outline: it is laid across the ray.
        away = np.einsum("ni,ni->n", normal, directions[ray]) + 1e-3
        normal -= np.maximum(away, 0)[:, None] * directions[ray]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        across, level, turn = (
            np.einsum("nc,nc->n", share, values[corner])
            for values in (self._places.across, self._places.level, self._places.round)
        )
        return _Hits(ray, point, normal, clothes, Places(across, level, turn, self._places.ear[corner[:, 0]]))

    def _openness(self, hits: _Hits) -> np.ndarray:
        """Return how much of what is around reaches each place, 0 to 1, (n,)."""
        start = hits.point + _LIFT * hits.normal
        free = np.zeros(len(start), np.float32)
        reach = np.full(len(start), _REACH, np.float32)
        for i in range(_AROUND):
            # Cosine-weighted: a point on the unit sphere around the tip of the normal. The same points for all places
            # leave no noise; the sphere is smooth enough for eight of them.
            height, angle = 1 - 2 * (i + 0.5) / _AROUND, 2 * np.pi * 0.618034 * i
            flat = np.sqrt(1 - height * height)
            towards = hits.normal + np.array([flat * np.cos(angle), flat * np.sin(angle), height])
            towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-3)
            free += ~self._rays.blocked(start, towards, reach)
        openness: np.ndarray = 0.3 + 0.7 * free / _AROUND
        return openness

    def _lit(self, hits: _Hits, ray: np.ndarray, light: FaceLight) -> np.ndarray:
        """Return which places each lamp reaches, (lamps, n) float32.

        A pixel's four rays look at different spots of the lamp, which so has an extent and casts soft shadows.
        """
        start = hits.point + _LIFT * hits.normal
        far = np.full(len(start), 200.0, np.float32)
        lit = np.empty((len(light.lamps), len(start)), np.float32)
        for i, (towards, _) in enumerate(light.lamps):
            lit[i] = ~self._rays.blocked(start, (_SPOTS + towards)[ray], far)
        return lit

    def _shaded(
        self, hits: _Hits, rays: np.ndarray, light: FaceLight, openness: np.ndarray, lit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the light that falls on places and the highlights of a mirror-like coat, (n, 3) each."""
        up = (0.5 - 0.5 * hits.normal[:, 1])[:, None]
        arriving = openness[:, None] * (up * np.array(light.above) + (1 - up) * np.array(light.below))
        shine = np.zeros_like(arriving)
        for (towards, power), free in zip(light.lamps, lit):
            cosine = np.maximum(hits.normal @ np.array(towards), 0) * free
            half = np.array(towards) - rays
            half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
            glint = np.maximum(np.einsum("ni,ni->n", half, hits.normal), 0) ** 24 * (cosine > 0)
            arriving += cosine[:, None] * np.array(power)
            shine += glint[:, None] * np.array(power)
        return arriving, shine


def _shares(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return barycentric coordinates (n, 3) of points (n, 3) in triangles (n, 3, 3), kept within 0 to 1."""
    e1, e2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    q = points - triangles[:, 0]
    a, b, c = (np.einsum("ni,ni->n", u, v) for u, v in ((e1, e1), (e1, e2), (e2, e2)))
    x, y = np.einsum("ni,ni->n", q, e1), np.einsum("ni,ni->n", q, e2)
    det = np.maximum(a * c - b * b, 1e-12)
    second = np.clip((c * x - b * y) / det, 0, 1)
    third = np.clip((a * y - b * x) / det, 0, 1 - second)
    return np.stack([1 - second - third, second, third], axis=1)
