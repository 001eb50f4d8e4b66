"""How a head is held and where the camera stands.

The camera's frame is that of all images here (x right, y down, z forward); the head's frame is that of ``face_shape``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from isthmus.data.simulators.render import Camera
from isthmus.errors import DataError

Framing = Literal["head", "face"]
FRAMINGS: tuple[Framing, ...] = get_args(Framing)

# Head frame to camera frame for a head that looks into the camera.
_FACING = np.diag([1.0, -1.0, -1.0])

# What the picture is centred on (head frame), and the height and width that fit into it at zoom 1; centimetres.
_FRAMES: dict[Framing, tuple[tuple[float, float, float], float, float]] = {
    "head": ((0.0, -1.2, 2.0), 26.5, 22.0),
    "face": ((0.0, -3.6, 8.0), 11.9, 10.4),
}


class Pose(NamedTuple):
    """Degrees: ``yaw`` positive to the right of the picture, ``pitch`` positive up, ``roll`` positive clockwise."""

    yaw: float
    pitch: float
    roll: float

    def matrix(self) -> np.ndarray:
        """Return the rotation (3, 3) of columns of the head frame."""
        yaw, pitch, roll = np.radians(self)
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
        shake = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        turned: np.ndarray = tilt @ shake @ nod
        return turned


class PoseRange(NamedTuple):
    """A distribution of poses, degrees.

    Yaw is uniform within ``yaw``, or normal with that deviation if ``uniform`` is False, cut off at ``most_yaw``; pitch
    and roll are normal and cut off at 2.5 deviations. What lies beyond a limit is drawn again.
    """

    uniform: bool
    yaw: float
    most_yaw: float
    pitch: float
    roll: float

    def draw(self, rng: np.random.Generator) -> Pose:
        """Return a pose."""
        yaw = rng.uniform(-self.yaw, self.yaw) if self.uniform else _cut_normal(rng, self.yaw, self.most_yaw)
        return Pose(
            float(yaw), *(_cut_normal(rng, deviation, 2.5 * deviation) for deviation in (self.pitch, self.roll))
        )


TURNING = PoseRange(uniform=True, yaw=65.0, most_yaw=65.0, pitch=14.0, roll=9.0)
FRONTAL = PoseRange(uniform=False, yaw=9.0, most_yaw=22.5, pitch=6.0, roll=4.0)


class View(NamedTuple):
    """A pose and a camera: ``turn`` (3, 3) and ``shift`` (3,) take columns of the head frame to the camera's."""

    pose: Pose
    turn: np.ndarray
    shift: np.ndarray
    camera: Camera

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, 3) of the head frame in the camera's, centimetres."""
        moved: np.ndarray = points @ self.turn.T + self.shift
        return moved

    def keypoints(self, points: np.ndarray) -> np.ndarray:
        """Return points (K, 3) of the head frame as a keypoint label, (K, 3) float32.

        Columns and rows as shares of width and height; depth from the mean of the labelled points as a share of the
        width, at the scale that the picture has at that mean (weak perspective). Points outside the image are NaN.
        """
        x, y, z = self.seen(points).T
        height, width = self.camera.size
        u = 0.5 + self.camera.focal * x / z / width
        v = 0.5 + self.camera.focal * y / z / height
        inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        middle = z[inside].mean() if inside.any() else 1.0
        label = np.stack([u, v, (z - middle) * self.camera.focal / middle / width], axis=1).astype(np.float32)
        label[~inside] = np.nan
        return label


def viewed(pose: Pose, framing: Framing, size: tuple[int, int], rng: np.random.Generator) -> View:
    """Return a camera 70 to 200 cm away that has the head, or only the face, in its picture."""
    if framing not in _FRAMES:
        raise DataError(f"framing: expected one of {', '.join(FRAMINGS)}, found {framing!r}")
    centre, high, wide = _FRAMES[framing]
    loose = 1.0 if framing == "head" else 0.4
    zoom = 1 + loose * rng.uniform(-0.1, 0.14)
    distance = rng.uniform(70, 200)
    per_centimetre = zoom * min(size[0] / high, size[1] / wide)
    turn = _FACING @ pose.matrix()
    jitter = loose * rng.uniform(-1, 1, size=2) * [1.0, 0.8]
    shift = np.array([*jitter, distance]) - turn @ np.array(centre)
    return View(pose, turn, shift, Camera(np.zeros(3), np.eye(3), per_centimetre * distance, size))


def _cut_normal(rng: np.random.Generator, deviation: float, most: float) -> float:
    while True:
        value = float(rng.normal(0, deviation))
        if abs(value) <= most:
            return value
