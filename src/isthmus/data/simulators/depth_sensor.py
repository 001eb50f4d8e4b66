"""A virtual depth camera: scans of meshes by ray casting.

The camera stands where a person would hold one and sees the object from one to three neighbouring places. Its
errors follow published measurements of the first Kinect, in metres, with ``z`` the depth along the optical
axis:

- axial noise ``sigma = 0.0012 + 0.0019 (z - 0.4)^2`` (Nguyen, Izadi, Lovell, "Modeling Kinect sensor noise
  for improved 3D reconstruction and tracking", 3DIM/PVT 2012, eq. 3, without its term for grazing angles);
- depth quantised in disparity, steps of 1/8 pixel at ``f b = 580 px * 0.075 m``, which makes steps of about 3
  mm at 1 m and 26 mm at 3 m (Khoshelham and Oude Elberink, Sensors 12(2), 2012, section 3.2);
- flying points on the straight line between the two sides of a depth edge, pixels lost at random and on
  surfaces seen at a grazing angle, small errors of registration between the views, whole patches missing.

Rays are cast by Embree where its wheel exists (``embreex``) and otherwise by a plain NumPy intersection
(Möller and Trumbore 1997), some hundred times slower; both find the same first hits up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isthmus.errors import DataError
from isthmus.geometry.meshes import Mesh

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ImportError:  # No wheel for this processor.
    EmbreeScene = None

# Focal length times baseline of a Kinect (pixel metres) and the fraction of a pixel it resolves.
FOCAL_BASELINE = 580.0 * 0.075
DISPARITY_STEP = 1 / 8


@dataclass(frozen=True)
class Sensor:
    """How far a camera departs from the ideal; :data:`IDEAL` does not depart at all.

    Attributes:
        noise: factor on the axial noise of a Kinect, 0 or more.
        steps: factor on the width of its quantisation steps, 0 or more.
        flying: share of the pixels on a depth edge that fly, 0 to 1.
        dropout: share of the pixels lost at random, 0 to 1.
        grazing: cosine of the angle of incidence below which nothing is measured, 0 to 1.
        registration: standard deviation of the shift between two views, metres.
    """

    noise: float = 1.0
    steps: float = 1.0
    flying: float = 0.4
    dropout: float = 0.08
    grazing: float = 0.12
    registration: float = 0.008


IDEAL = Sensor(noise=0.0, steps=0.0, flying=0.0, dropout=0.0, grazing=0.0, registration=0.0)


def first_hits(mesh: Mesh, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far every ray goes and which triangle stops it.

    Args:
        mesh: what stands in the way.
        eye: (3,) where all rays start.
        directions: (n, 3) unit vectors.

    Returns:
        Distances (n,) float64, ``inf`` where nothing is hit, and indices of triangles (n,), -1 there.
    """
    if EmbreeScene is None:
        return first_hits_plain(mesh, eye, directions)
    scene = EmbreeScene()
    # Embree works in single precision: with the eye as the origin the error stays relative to the distance.
    TriangleMesh(scene, (mesh.vertices - eye)[mesh.faces].astype(np.float32))
    hits = scene.run(np.zeros((len(directions), 3), np.float32), directions.astype(np.float32), output=True)
    face = np.asarray(hits["primID"], dtype=np.int64)
    return np.where(face >= 0, hits["tfar"], np.inf).astype(np.float64), face


def first_hits_plain(mesh: Mesh, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what :func:`first_hits` does, in NumPy, testing every ray against every triangle."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    edge1, edge2, start = b - a, c - a, eye - a
    across = np.cross(start, edge1)
    reach = np.einsum("fi,fi->f", edge2, across)
    distance = np.full(len(directions), np.inf)
    face = np.full(len(directions), -1, dtype=np.int64)
    for low in range(0, len(directions), 256):
        ray = directions[low : low + 256]
        normal = np.cross(ray[:, None], edge2[None])
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / np.einsum("fi,rfi->rf", edge1, normal)
            u = np.einsum("fi,rfi->rf", start, normal) * inverse
            v = ray @ across.T * inverse
            t = reach * inverse
            inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        t = np.where(inside, t, np.inf)
        nearest = t.argmin(axis=1)
        distance[low : low + 256] = t[np.arange(len(ray)), nearest]
        face[low : low + 256] = np.where(np.isfinite(distance[low : low + 256]), nearest, -1)
    return distance, face


def standing_eyes(
    low: np.ndarray,
    high: np.ndarray,
    views: int,
    rng: np.random.Generator,
    floor: float = 0.0,
    spread: float = 180.0,
) -> np.ndarray:
    """Return neighbouring viewpoints of a person looking at a box.

    Args:
        low: (3,) lower corner of the box, metres.
        high: (3,) upper corner.
        views: how many viewpoints, 1 or more, 10 to 40 degrees apart.
        rng: source of the choices.
        floor: height the person stands on, metres.
        spread: the first viewpoint lies within this many degrees of the box's front (``-y``).

    Returns:
        (views, 3); 1.2 to 1.8 m above ``floor``, and so far away that the box fits the view.
    """
    centre, size = (low + high) / 2, np.linalg.norm(high - low)
    azimuth = np.radians(-90 + rng.uniform(-spread, spread))
    turn = rng.choice([-1, 1])
    eyes = []
    for _ in range(views):
        away = rng.uniform(0.6, 1.4) + 0.85 * size
        height = floor + rng.uniform(1.2, 1.8)
        eyes.append([centre[0] + away * np.cos(azimuth), centre[1] + away * np.sin(azimuth), height])
        azimuth += turn * np.radians(rng.uniform(10, 40))
    return np.array(eyes)


def pixel_rays(
    eye: np.ndarray, low: np.ndarray, high: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rays of a pinhole camera that looks at a box and just frames it.

    Args:
        eye: (3,) outside the box.
        low: (3,) lower corner.
        high: (3,) upper corner.
        count: about how many pixels.
        rng: shifts the raster by a part of a pixel.

    Returns:
        Unit directions (rows, columns, 3) and the optical axis (3,).
    """
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    axis = (low + high) / 2 - eye
    axis /= np.linalg.norm(axis)
    right = np.cross(axis, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-6 else np.array([1.0, 0.0, 0.0])
    down = np.cross(axis, right)
    depth = np.maximum((corners - eye) @ axis, 0.1)
    u, v = (corners - eye) @ right / depth, (corners - eye) @ down / depth
    pitch = math.sqrt(max(np.ptp(u) * np.ptp(v), 1e-9) / count)
    columns = np.arange(u.min() + pitch * rng.random(), u.max(), pitch)
    rows = np.arange(v.min() + pitch * rng.random(), v.max(), pitch)
    rays = axis + rows[:, None, None] * down + columns[None, :, None] * right
    return rays / np.linalg.norm(rays, axis=2, keepdims=True), axis


def disturbed_depth(depth: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Return ``depth`` (rows, columns), in metres, ``inf`` where empty, as ``sensor`` would measure it."""
    measured = depth.copy()
    if sensor.flying > 0:
        for axis in (0, 1):
            beside = np.roll(depth, int(rng.choice([-1, 1])), axis=axis)
            both = np.isfinite(depth) & np.isfinite(beside)
            gap = np.where(both, beside, 0) - np.where(both, depth, 0)
            fly = (np.abs(gap) > 0.04) & (rng.random(depth.shape) < sensor.flying)
            measured = np.where(fly, depth + rng.random(depth.shape) * gap, measured)
    near = np.where(np.isfinite(measured), measured, 1.0)
    sigma = sensor.noise * (0.0012 + 0.0019 * (near - 0.4) ** 2)
    near = near + rng.normal(size=depth.shape) * sigma
    if sensor.steps > 0:
        disparity = FOCAL_BASELINE / np.maximum(near, 0.1)
        step = DISPARITY_STEP * sensor.steps
        near = FOCAL_BASELINE / np.maximum(np.round(disparity / step) * step, step)
    return np.where(np.isfinite(measured), near, np.inf)


def scan_mesh(
    mesh: Mesh,
    rng: np.random.Generator,
    *,
    points: int = 2048,
    object_faces: int | None = None,
    eyes: np.ndarray | None = None,
    sensor: Sensor = IDEAL,
    loosen: float = 0.0,
    surroundings: tuple[float, float] = (0.0, 1.0),
    rays: int = 16000,
) -> np.ndarray:
    """Return what a depth camera sees of an object among other things, cropped to the object's bounding box.

    Args:
        mesh: the scene, metres, z up.
        rng: source of all choices.
        points: most points to return.
        object_faces: how many of the mesh's first triangles are the object; None for all.
        eyes: (v, 3) viewpoints; None for one to three at human height around the object.
        sensor: the camera's errors.
        loosen: how far the crop reaches past the object's box, as a share of the box's largest side.
        surroundings: smallest and largest share of the returned points that may lie on the rest of the scene;
            drawn evenly, and not reached where the camera saw too little of it.
        rays: most rays to cast in all; the camera looks coarsely first and then as finely as ``points`` asks
            for.

    Returns:
        (n, 3) float32, n at most ``points``, in the frame of ``mesh``; fewer (even none) when less was seen.

    Raises:
        DataError: an argument is out of range.
    """
    object_faces = len(mesh.faces) if object_faces is None else object_faces
    if not 0 < object_faces <= len(mesh.faces):
        raise DataError(f"object_faces: expected 1 to {len(mesh.faces)}, found {object_faces}")
    if points < 1 or rays < 1:
        raise DataError(f"points and rays: expected at least 1, found {points} and {rays}")
    own = mesh.vertices[np.unique(mesh.faces[:object_faces])]
    low, high = own.min(axis=0), own.max(axis=0)
    margin = loosen * (high - low).max()
    low, high = low - margin, high + margin
    if eyes is None:
        eyes = standing_eyes(low, high, int(rng.integers(1, 4)), rng)
    seen, on_object = [], []
    for view, eye in enumerate(eyes):
        cloud, own_hit = _one_view(
            mesh, object_faces, eye, low, high, points / len(eyes), rays // len(eyes), sensor, rng
        )
        if view and sensor.registration > 0:
            cloud = cloud + rng.normal(size=3) * sensor.registration
        seen.append(cloud)
        on_object.append(own_hit)
    cloud, own_hit = np.concatenate(seen), np.concatenate(on_object)
    inside = ((cloud >= low - 1e-6) & (cloud <= high + 1e-6)).all(axis=1)
    target, rest = np.flatnonzero(inside & own_hit), np.flatnonzero(inside & ~own_hit)
    share = rng.uniform(*surroundings)
    target = rng.permutation(target)[: max(points - min(len(rest), int(share * points)), 0)]
    wanted = int(share / max(1 - share, 1e-9) * len(target)) if share < 1 else points
    rest = rng.permutation(rest)[: min(wanted, points - len(target))]
    return cloud[np.concatenate([target, rest])].astype(np.float32)


def _one_view(
    mesh: Mesh,
    object_faces: int,
    eye: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    points: float,
    rays: int,
    sensor: Sensor,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points one camera measures, (n, 3), and which of them lie on the object, (n,) bool."""
    coarse, _ = pixel_rays(eye, low, high, 400, rng)
    _, face = first_hits(mesh, eye, coarse.reshape(-1, 3))
    filled = max(float(((face >= 0) & (face < object_faces)).mean()), 0.01)
    directions, axis = pixel_rays(eye, low, high, int(min(1.4 * points / filled, rays)), rng)
    flat = directions.reshape(-1, 3)
    distance, face = first_hits(mesh, eye, flat)
    cosine = flat @ axis
    depth = disturbed_depth((distance * cosine).reshape(directions.shape[:2]), sensor, rng).ravel()
    corner = mesh.vertices[mesh.faces[face]]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    incidence = np.abs(np.einsum("ni,ni->n", normal, flat))
    kept = (face >= 0) & (incidence >= sensor.grazing) & (rng.random(len(flat)) >= sensor.dropout)
    cloud = eye + flat[kept] * (depth[kept] / cosine[kept])[:, None]
    return cloud, face[kept] < object_faces


def without_patches(cloud: np.ndarray, rng: np.random.Generator, most: int = 2, radius: float = 0.22) -> np.ndarray:
    """Return ``cloud`` (n, 3) without up to ``most`` balls around points of it.

    The balls measure up to ``radius`` times the diagonal of the cloud. A cloud that would lose more than half
    of its points keeps them all.
    """
    if len(cloud) == 0:
        return cloud
    kept = np.ones(len(cloud), dtype=bool)
    diagonal = np.linalg.norm(np.ptp(cloud, axis=0))
    for _ in range(int(rng.integers(0, most + 1))):
        centre = cloud[rng.integers(len(cloud))]
        kept &= np.linalg.norm(cloud - centre, axis=1) > rng.uniform(0.08, radius) * diagonal
    return cloud[kept] if kept.sum() * 2 >= len(cloud) else cloud


def thinned(cloud: np.ndarray, rng: np.random.Generator, strength: float = 1.5) -> np.ndarray:
    """Return ``cloud`` (n, 3) with a density falling by up to ``exp(strength)`` along a random direction."""
    if len(cloud) == 0:
        return cloud
    direction = rng.normal(size=3)
    along = cloud @ (direction / np.linalg.norm(direction))
    along = (along - along.min()) / max(np.ptp(along), 1e-9)
    return cloud[rng.random(len(cloud)) < np.exp(-rng.uniform(0, strength) * along)]
