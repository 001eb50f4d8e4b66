"""Rays against a fixed set of triangles, asked many times.

Embree answers where its wheel exists (``embreex``), a plain NumPy intersection (Möller and Trumbore 1997) elsewhere,
several hundred times slower. Both work from the same triangles and find the same first hits up to single precision.
"""

from __future__ import annotations

import numpy as np

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ImportError:  # No wheel for this processor.
    EmbreeScene = None


class Rays:
    """A set of triangles to cast rays at.

    Args:
        triangles: (f, 3, 3) corners, metres, best near the origin: Embree computes in single precision.
        plain: do without Embree even where there is one.
    """

    def __init__(self, triangles: np.ndarray, plain: bool = False) -> None:
        self._triangles = np.asarray(triangles, dtype=np.float64)
        self._scene = None
        if EmbreeScene is not None and not plain and len(triangles):
            self._scene = EmbreeScene()
            TriangleMesh(self._scene, np.ascontiguousarray(triangles, dtype=np.float32))

    def first(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far every ray goes and which triangle stops it.

        Args:
            origins: (n, 3), metres.
            directions: (n, 3) unit vectors.

        Returns:
            Distances (n,) float64, ``inf`` where nothing is hit, and indices of triangles (n,) int64, -1 there.
        """
        if self._scene is None:
            return _first_plain(self._triangles, origins, directions)
        hits = self._scene.run(_single(origins), _single(directions), output=True)
        face = hits["primID"].astype(np.int64)
        return np.where(face >= 0, hits["tfar"], np.inf).astype(np.float64), face

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Return which rays meet a triangle nearer than ``reach`` (n,) metres, (n,) bool."""
        if self._scene is None:
            return _first_plain(self._triangles, origins, directions)[0] < reach
        answer = self._scene.run(
            _single(origins), _single(directions), dists=np.ascontiguousarray(reach, np.float32), query="OCCLUDED"
        )
        blocked: np.ndarray = answer == 0
        return blocked


def _single(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _first_plain(triangles: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what :meth:`Rays.first` does, testing every ray against every triangle."""
    distance = np.full(len(directions), np.inf)
    face = np.full(len(directions), -1, dtype=np.int64)
    if not len(triangles):
        return distance, face
    corner = triangles[:, 0]
    edge1, edge2 = triangles[:, 1] - corner, triangles[:, 2] - corner
    for low in range(0, len(directions), 256):
        origin, ray = origins[low : low + 256, None], directions[low : low + 256, None]
        across = np.cross(ray, edge2[None])
        start = origin - corner[None]
        turn = np.cross(start, edge1[None])
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (edge1[None] * across).sum(axis=2)
            u = (start * across).sum(axis=2) * inverse
            v = (ray * turn).sum(axis=2) * inverse
            t = (edge2[None] * turn).sum(axis=2) * inverse
            inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        t = np.where(inside, t, np.inf)
        nearest = t.argmin(axis=1)
        rows = np.arange(len(nearest))
        distance[low : low + 256] = t[rows, nearest]
        face[low : low + 256] = np.where(np.isfinite(t[rows, nearest]), nearest, -1)
    return distance, face
