"""A spinning LiDAR and a pinhole camera on one car, cast into the same scene.

The LiDAR's axes are x forward, y to the left, z up, its origin where its rays start. Camera and LiDAR are rigidly
mounted in different places, so a few points lie on surfaces that the camera cannot see behind something nearer; they
stay, as they do in recorded data, and project onto what hides them. Both measure at one instant: there is no motion
distortion and no delay between sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isthmus.data.simulators.lidar_light import glass
from isthmus.data.simulators.lidar_things import VEGETATION
from isthmus.data.simulators.render import Camera, Piece, Scene

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


class Sensor(NamedTuple):
    """A spinning LiDAR.

    Attributes:
        beams: number of rings, evenly spaced from ``lowest`` to ``highest``.
        lowest: elevation of the lowest ring, degrees.
        highest: elevation of the highest ring, degrees.
        step: degrees between two shots of a ring.
        reach: where nothing is received any more, metres.
        power: distance in metres at which a white surface that faces the sensor returns every other shot.
        range_noise: standard deviation along the ray, metres.
        dropout: share of returns lost for no reason.
        mount: place on the car, metres: forward of the rear axle's middle, left, above the ground.
    """

    beams: int
    lowest: float
    highest: float
    step: float
    reach: float
    power: float
    range_noise: float
    dropout: float
    mount: tuple[float, float, float]


SENSORS: dict[str, Sensor] = {
    "32": Sensor(32, -30.67, 10.67, 0.8, 80.0, 300.0, 0.02, 0.05, (0.95, 0.0, 1.84)),
    "64": Sensor(64, -24.8, 2.0, 0.8, 100.0, 360.0, 0.015, 0.04, (0.95, 0.0, 1.73)),
    "16": Sensor(16, -15.0, 15.0, 0.5, 80.0, 220.0, 0.04, 0.12, (0.8, 0.0, 2.1)),
}
"""Sensors after the data sheets of common ones with so many beams; fewer shots per ring, to suit small images."""

CAMERA_MOUNT = (1.55, 0.06, 1.52)
"""Place of the camera on the car, as :attr:`Sensor.mount`."""

CAMERA_FIELD, CAMERA_SLOPE = 68.0, -2.5
"""Horizontal field of view and pitch of the camera in degrees."""

GLASS_LOST = 0.75
"""Share of shots at a pane that go through it or are mirrored away."""


class Pose(NamedTuple):
    """Where a car is: ``place`` (3,) below the rear axle, ``turn`` (3, 3) from its axes (x forward) to the world."""

    place: np.ndarray
    turn: np.ndarray

    def at(self, mount: tuple[float, float, float]) -> np.ndarray:
        """Return the place (3,) in the world of something mounted on the car."""
        place: np.ndarray = self.place + self.turn @ np.array(mount)
        return place


def pose(x: float, y: float, yaw: float, pitch: float, roll: float) -> Pose:
    """Return a car at ``(x, y)`` that heads for +y, turned to the left, nose up and right side down by degrees."""
    c, s = np.cos(np.radians([90 + yaw, -pitch, roll])), np.sin(np.radians([90 + yaw, -pitch, roll]))
    about_z = np.array([[c[0], -s[0], 0], [s[0], c[0], 0], [0, 0, 1]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_x = np.array([[1, 0, 0], [0, c[2], -s[2]], [0, s[2], c[2]]])
    return Pose(np.array([x, y, 0.0]), about_z @ about_y @ about_x)


def camera_on(car: Pose, size: tuple[int, int]) -> Camera:
    """Return the camera on a car, for images of ``size`` (height, width)."""
    c, s = np.cos(np.radians(CAMERA_SLOPE)), np.sin(np.radians(CAMERA_SLOPE))
    # Rows: right, down and forward in the car's axes.
    own = np.array([[0, -1, 0], [s, 0, -c], [c, 0, s]])
    focal = size[1] / 2 / float(np.tan(np.radians(CAMERA_FIELD) / 2))
    return Camera(car.at(CAMERA_MOUNT), own @ car.turn.T, focal, size)


def projection(car: Pose, camera: Camera, sensor: Sensor) -> np.ndarray:
    """Return the (3, 4) matrix from homogeneous points of the LiDAR to ``(column * depth, row * depth, depth)``."""
    height, width = camera.size
    inner = np.array([[camera.focal, 0, width / 2], [0, camera.focal, height / 2], [0, 0, 1.0]])
    shift = camera.turn @ (car.at(sensor.mount) - camera.eye)
    matrix: np.ndarray = inner @ np.concatenate([camera.turn @ car.turn, shift[:, None]], axis=1)
    return matrix


def pixels_of(points: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column (n, 2) float64 and depth (n,) of points (n, 3); NaN where the depth is not above 0."""
    seen = points.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]
    depth = seen[:, 2]
    return seen[:, 1::-1] / np.where(depth > 0, depth, np.nan)[:, None], depth


class Surfaces(NamedTuple):
    """What a LiDAR gets back from each piece of a scene: ``reflectance`` (p,) and ``glass`` (p,) bool."""

    reflectance: np.ndarray
    glass: np.ndarray


def surfaces(pieces: Sequence[Piece]) -> Surfaces:
    """Return the near-infrared surfaces of a scene by day: as bright as its colours, but leaves are bright."""
    colours = np.array([[piece.paint.colour, piece.paint.second] for piece in pieces])
    plain = np.array([piece.paint.pattern == "plain" for piece in pieces])
    bright = np.where(plain, colours[:, 0] @ LUMINANCE, (colours @ LUMINANCE).mean(axis=1))
    reflectance = np.clip(0.06 + 0.9 * bright, 0, 1)
    leaves = np.array([piece.label == VEGETATION for piece in pieces])
    reflectance = np.where(leaves, np.maximum(reflectance, 0.45), reflectance)
    return Surfaces(reflectance, np.array([glass(piece) for piece in pieces]))


class Sweep(NamedTuple):
    """What came back: ``points`` (n, 3) float32 in the LiDAR's axes, ``piece`` (n,), ``intensity`` (n,) float32."""

    points: np.ndarray
    piece: np.ndarray
    intensity: np.ndarray


def sweep(scene: Scene, made_of: Surfaces, car: Pose, sensor: Sensor, rng: np.random.Generator) -> Sweep:
    """Return what the part of one turn of a LiDAR that can be in the camera's view brings back.

    A shot is lost for no reason (``dropout``), at glass, and the sooner the weaker it returns: with the square of the
    distance, on dark surfaces and at grazing incidence. Which shots return does not depend on ``range_noise``, and more
    dropout leaves a subset. Intensity is the reflectance times the cosine of incidence, corrected for distance.
    """
    half = CAMERA_FIELD / 2 + 12
    turns = np.arange(-half, half, sensor.step) + rng.uniform(0, sensor.step)
    rings = np.linspace(sensor.lowest, sensor.highest, sensor.beams)
    up, left = (np.radians(a).ravel() for a in np.meshgrid(rings, turns, indexing="ij"))
    own = np.stack([np.cos(up) * np.cos(left), np.cos(up) * np.sin(left), np.sin(up)], axis=1)
    draw, noise, speckle = rng.random((2, len(own))), rng.normal(size=len(own)), rng.normal(size=len(own))
    directions = own @ car.turn.T
    distance, piece, normal = scene.first(car.at(sensor.mount), directions)
    cosine = np.abs(np.einsum("ni,ni->n", normal, directions))
    hit = np.flatnonzero((piece >= 0) & (distance < sensor.reach))
    at, far = piece[hit], distance[hit]
    back = made_of.reflectance[at] * (0.2 + 0.8 * cosine[hit])
    signal = back * (sensor.power / far) ** 2
    returned = signal**2 / (1 + signal**2) * np.where(made_of.glass[at], 1 - GLASS_LOST, 1.0)
    kept = (draw[0, hit] < returned) & (draw[1, hit] >= sensor.dropout)
    hit, far, at = hit[kept], far[kept], at[kept]
    measured = np.maximum(far + sensor.range_noise * noise[hit], 0.1)
    points = (own[hit] * measured[:, None]).astype(np.float32)
    intensity = np.clip(back[kept] * np.exp(0.1 * speckle[hit]), 0, 1).astype(np.float32)
    return Sweep(points, at, intensity)
