"""A morphable head: a mean shape of smooth analytic parts, and modes that deform it linearly.

The head is a sheet lofted through horizontal sections (``_SECTIONS``, roughly an adult's proportions), with the relief
of a face laid on its front, and two ears. As in a 3D morphable model (Blanz and Vetter, SIGGRAPH 1999) a face is the
mean plus a weighted sum of modes; here modes are formulas instead of principal components, so nothing has to be loaded.
Identity modes have unit standard deviation, expression modes run from 0 to 1.

Head frame, centimetres: x to the person's left (to the right in a frontal picture), y up, z out of the face; the origin
lies between the ears at the height of the pupils. Every place on the sheet has *face coordinates* that deformation does
not change: ``across`` (the mean head's x), ``level`` (the y where its section crosses the middle of the face; 0 at the
pupils, -6.9 between the lips, -11.2 under the chin) and ``round`` (the angle about the vertical: 0 in front, positive
to the person's left). Paint, parts and keypoints are functions of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from isthmus.geometry.meshes import Mesh, grid

# From the crown to the base of the neck: y and z in front; half the width, y and z at the side; y and z behind.
_SECTIONS = np.array(
    [
        [11.6, -1.0, 0.0, 11.6, -1.0, 11.6, -1.0],
        [11.3, 2.0, 3.4, 11.0, -1.0, 11.2, -4.2],
        [10.3, 4.9, 5.7, 9.6, -1.0, 10.1, -6.6],
        [8.7, 7.1, 7.0, 7.5, -1.0, 8.2, -8.3],
        [6.5, 8.7, 7.5, 5.4, -0.9, 5.8, -9.2],
        [4.2, 9.35, 7.5, 3.4, -0.7, 3.4, -9.5],
        [2.0, 9.5, 7.2, 1.6, -0.4, 1.2, -9.3],
        [0.2, 9.2, 7.0, 0.0, 0.0, -1.0, -8.8],
        [-2.0, 9.1, 6.8, -1.8, 0.4, -3.0, -8.0],
        [-4.2, 9.05, 6.5, -3.6, 0.6, -5.0, -7.0],
        [-6.4, 8.95, 6.15, -5.4, 0.6, -7.0, -6.3],
        [-8.5, 8.7, 5.6, -7.0, 0.5, -9.0, -6.1],
        [-10.2, 8.3, 5.05, -8.3, 0.3, -11.0, -6.2],
        [-11.1, 7.2, 4.8, -9.2, -0.1, -12.0, -6.3],
        [-11.6, 5.4, 4.65, -10.1, -0.8, -13.0, -6.5],
        [-12.3, 3.7, 4.6, -11.3, -1.5, -14.0, -6.8],
        [-13.8, 2.9, 4.6, -13.3, -2.0, -15.5, -7.2],
        [-16.5, 2.6, 4.9, -16.3, -2.3, -17.3, -7.8],
        [-20.0, 3.0, 6.8, -20.0, -2.6, -20.0, -8.6],
    ]
)

MOUTH_LEVEL = -6.9
MOUTH_HALF_WIDTH = 2.55
EYE = (3.15, 1.45)
"""Centre and half the width of an eye's opening, in ``across``."""
CHIN_LEVEL = -11.0
"""Where the face ends and the underside of the jaw begins."""

KEYPOINTS: tuple[str, ...] = (
    "left_brow_outer",
    "left_brow_inner",
    "right_brow_inner",
    "right_brow_outer",
    "left_eye_outer",
    "left_eye_centre",
    "left_eye_inner",
    "right_eye_inner",
    "right_eye_centre",
    "right_eye_outer",
    "left_ear",
    "right_ear",
    "nose_bridge",
    "nose_tip",
    "left_nose_wing",
    "right_nose_wing",
    "left_mouth_corner",
    "right_mouth_corner",
    "upper_lip",
    "lower_lip",
    "chin",
)
"""Names of the keypoints; ``left_*`` is the person's left."""

# Face coordinates (across, level) of the keypoints, of the left one of a pair.
_PLACES = {
    "brow_outer": (4.85, 1.75),
    "brow_inner": (1.25, 1.55),
    "eye_outer": (4.6, 0.05),
    "eye_centre": (3.15, 0.05),
    "eye_inner": (1.7, -0.05),
    "nose_bridge": (0.0, 0.1),
    "nose_tip": (0.0, -3.52),
    "nose_wing": (1.6, -3.72),
    "mouth_corner": (2.55, -6.9),
    "upper_lip": (0.0, -6.6),
    "lower_lip": (0.0, -7.5),
    "chin": (0.0, -9.9),
}

IDENTITY_MODES: tuple[str, ...] = (
    "skull_width",
    "skull_height",
    "skull_depth",
    "forehead_slope",
    "face_length",
    "jaw_width",
    "jaw_shift",
    "chin_length",
    "chin_depth",
    "chin_width",
    "cheekbones",
    "cheeks",
    "brow_ridge",
    "brow_height",
    "nose_length",
    "nose_width",
    "nose_depth",
    "nose_bridge",
    "nose_hump",
    "nose_upturn",
    "nose_shift",
    "lips_full",
    "lips_forward",
    "mouth_width",
    "mouth_height",
    "eye_size",
    "eye_spacing",
    "eye_depth",
    "eye_tilt",
    "neck_width",
)
EXPRESSION_MODES: tuple[str, ...] = (
    "smile_left",
    "smile_right",
    "mouth_open",
    "mouth_down",
    "pout",
    "brow_up_left",
    "brow_up_right",
    "brow_frown",
    "cheeks_out",
)


class Template(NamedTuple):
    """The mean head and its modes.

    ``mean`` (v, 3) and ``faces`` (f, 3) hold the sheet and then both ears; ``identity`` (m, v, 3) and ``expression``
    (e, v, 3) what one unit of each mode moves; ``across``, ``level`` and ``round`` (v,) face coordinates; ``ear`` (v,)
    bool; ``shape`` rows and columns of the sheet; ``corners`` (K, 3) and ``shares`` (K, 3) the vertices between which
    each keypoint lies and their weights.
    """

    mean: np.ndarray
    faces: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    across: np.ndarray
    level: np.ndarray
    round: np.ndarray
    ear: np.ndarray
    shape: tuple[int, int]
    corners: np.ndarray
    shares: np.ndarray


@lru_cache(maxsize=1)
def template() -> Template:
    """Return the mean head and its modes; made once per process."""
    level_of_row, round_of_column = _rows(), _columns()
    rows, columns = len(level_of_row), len(round_of_column)
    base = _loft(level_of_row, round_of_column)
    across = base[:, 0].copy()
    level = np.repeat(level_of_row, columns)
    turn = np.tile(round_of_column, rows)
    front = np.clip(np.cos(turn) / 0.35, 0, 1)
    sheet = base.copy()
    sheet[:, 2] = _relief(across, level, base[:, 2], front)
    ears = [_ear(side) for side in (1.0, -1.0)]
    mean = np.concatenate([sheet, *(ear.vertices for ear in ears)])
    identity = _identity(sheet, across, level, turn)
    expression = _expression(sheet, across, level, front)
    # An ear moves with the place where it is attached.
    anchors = [_nearest_vertex(sheet, (side * 7.0, -1.5, -0.6)) for side in (1.0, -1.0)]
    count = len(ears[0].vertices)
    identity, expression = (
        np.concatenate([modes, *(np.repeat(modes[:, [anchor]], count, axis=1) for anchor in anchors)], axis=1)
        for modes in (identity, expression)
    )
    # The sheet runs to the left and down, so its triangles are turned to face outward.
    faces = [grid(sheet.reshape(rows, columns, 3), closed=True).faces[:, ::-1]]
    faces += [ear.faces + len(sheet) + i * count for i, ear in enumerate(ears)]
    side = np.repeat([1.0, -1.0], count)
    across = np.concatenate([across, 8.0 * side])
    level = np.concatenate([level, np.full(2 * count, -1.5)])
    turn = np.concatenate([turn, 0.5 * np.pi * side])
    ear = np.arange(len(mean)) >= len(sheet)
    corners, shares = _keypoints(mean, across[~ear], level_of_row, (rows, columns), count)
    return Template(
        mean,
        np.concatenate(faces),
        identity,
        expression,
        across,
        level,
        turn,
        ear,
        (rows, columns),
        corners,
        shares,
    )


def shaped(identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Return the vertices (v, 3) of a head without hair, centimetres.

    Args:
        identity: (m,) weights of :data:`IDENTITY_MODES`, standard normal.
        expression: (e,) weights of :data:`EXPRESSION_MODES`, 0 to 1.
    """
    head = template()
    vertices: np.ndarray = (
        head.mean + np.tensordot(identity, head.identity, axes=1) + np.tensordot(expression, head.expression, axes=1)
    )
    return vertices


def vertex_normals(vertices: np.ndarray) -> np.ndarray:
    """Return outward unit normals (v, 3) of a head's vertices: the mean of the triangles around each, by area."""
    faces = template().faces
    corner = vertices[faces]
    flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.empty_like(vertices)
    for axis in range(3):
        normals[:, axis] = np.bincount(faces.ravel(), np.repeat(flat[:, axis], 3), minlength=len(vertices))
    columns = template().shape[1]
    # The first row is one point, the crown.
    normals[:columns] = normals[:columns].sum(axis=0)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return normals


def keypoints(vertices: np.ndarray) -> np.ndarray:
    """Return the places (K, 3) of :data:`KEYPOINTS` on a head of these vertices."""
    head = template()
    points: np.ndarray = np.einsum("kc,kci->ki", head.shares, vertices[head.corners])
    return points


def eye_opening(across: np.ndarray, level: np.ndarray, open_: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how far below the upper lid and above the lower lid places are (centimetres), and where along the eye.

    The last is -1 at the inner and 1 at the outer corner. ``open_`` is 0 for closed eyes, 1 for eyes at rest.
    """
    along = (np.abs(across) - EYE[0]) / EYE[1]
    bow = np.maximum(1 - along**2, 0)
    tilt = 0.05 + 0.05 * along
    low = tilt - 0.42 * bow**0.9
    high = low + open_ * (0.85 * bow**0.75)
    return high - level, level - low, along


def nose_level(level: np.ndarray) -> np.ndarray:
    """Return levels on a scale of the nose's own: 0 at the pupils, -5.1 under it."""
    scaled: np.ndarray = np.where(level < 0, 1.15 * level, level)
    return scaled


def _rows() -> np.ndarray:
    """Levels of the rows from the crown down, closest where the face has most relief."""
    pieces = [
        11.6 - 1.7 * np.linspace(0, 1, 8) ** 2,
        np.arange(9.5, 3.2, -0.5),
        np.arange(3.0, -5.75, -0.2),
        np.arange(-5.8, -6.65, -0.14),
        np.array([-6.7, -6.76, -6.81, -6.85, -6.9, -6.95, -6.99, -7.04, -7.1]),
        np.arange(-7.24, -11.6, -0.2),
        np.arange(-11.75, -13.8, -0.35),
        np.linspace(-14.2, -20.0, 8),
    ]
    return np.concatenate(pieces)


def _columns() -> np.ndarray:
    """Angles of the columns, closest in front; one of them is exactly 0 and the rest come in pairs."""
    half = np.concatenate([np.linspace(0, 1.0, 37)[1:], np.linspace(1.0, 1.9, 15)[1:], np.linspace(1.9, np.pi, 10)[1:]])
    return np.concatenate([-half[::-1][1:], [0.0], half])


def _loft(level: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return the head without its relief, (rows * columns, 3): half an ellipse in front and half of one behind."""
    step = np.sqrt((np.diff(_SECTIONS[:, [0, 1, 2, 4]], axis=0) ** 2).sum(axis=1))
    place = np.concatenate([[0.0], np.cumsum(step)])
    curves = CubicSpline(place, _SECTIONS)
    fine = np.linspace(0, place[-1], 4000)
    at = np.interp(-level, -np.minimum.accumulate(curves(fine)[:, 0]), fine)
    front_y, front_z, width, side_y, side_z, back_y, back_z = curves(at)[:, :, None].transpose(1, 0, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    ahead = cos > 0
    x = np.maximum(width, 0) * sin
    y = side_y + np.where(ahead, front_y - side_y, back_y - side_y) * cos**2
    z = side_z + np.where(ahead, front_z - side_z, side_z - back_z) * cos
    return np.stack([x, y, z], axis=2).reshape(-1, 3)


def _bump(u: np.ndarray, v: np.ndarray, at: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """Return a Gaussian hill of height 1 around ``at`` with standard deviations ``size``."""
    return np.exp(-0.5 * (((u - at[0]) / size[0]) ** 2 + ((v - at[1]) / size[1]) ** 2))


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below ``low``, 1 above ``high``, smooth between; ``low`` may exceed ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _relief(across: np.ndarray, level: np.ndarray, base: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Return z of the face: the loft's with brow, eyes, nose, cheeks, lips and chin laid on it."""
    a, v = np.abs(across), level
    z = np.zeros_like(base)
    # Brow ridge and the dip of the temples.
    ridge = 1.55 + 0.35 * _step(a, 0.5, 3.5) - 0.25 * _step(a, 3.5, 5.5)
    z += 0.36 * np.exp(-0.5 * ((v - ridge) / 0.55) ** 2) * _step(a, 6.2, 3.5)
    z -= 0.35 * _bump(a, v, (5.9, 2.6), (0.9, 1.5))
    z += 0.15 * _bump(a, v, (2.6, 5.2), (1.6, 1.3))
    # Sockets, deepest beside the nose, and the bags below the eyes.
    z -= 0.95 * _bump(a, v, (2.9, 0.25), (1.25, 0.75))
    z -= 0.55 * _bump(a, v, (1.55, 0.2), (0.45, 0.8))
    # Cheekbones, hollow cheeks, the bulge of the teeth behind the lips.
    z += 0.5 * _bump(a, v, (4.3, -2.4), (1.5, 1.1))
    z -= 0.45 * _bump(a, v, (4.7, -6.0), (1.1, 1.5))
    z += 0.75 * _bump(a, v, (0.0, -6.7), (1.7, 1.5))
    # The fold from the wing of the nose to beside the mouth.
    fold = 1.95 + 0.4 * (-4.1 - v)
    z -= 0.16 * np.exp(-0.5 * ((a - fold) / 0.24) ** 2) * _step(v, -7.6, -6.3) * _step(v, -3.3, -4.3)
    # Eyeballs under lids: the higher of socket and ball, rounded where they meet.
    surface = base + front * z
    r2 = (a - EYE[0]) ** 2 + (v - 0.02) ** 2
    near = (r2 < 4) & (front > 0.9)
    ball = 6.72 + np.sqrt(np.maximum(1.36**2 - r2, 0)) - 4 * np.maximum(np.sqrt(r2) - 1.3, 0)
    k = 0.22
    surface = k * np.logaddexp(surface / k, np.where(near, ball, -50.0) / k)
    below, above, _ = eye_opening(across, level, 1.0)
    opening = _step(np.minimum(below, above), -0.08, 0.12)
    fissure = opening * near
    surface -= 0.13 * fissure
    # The crease over the upper lid.
    surface -= 0.10 * np.exp(-0.5 * ((below + 0.28) / 0.10) ** 2) * _step(a, 1.6, 2.2) * _step(a, 4.9, 4.3) * front
    n = nose_level(v)
    # Nose: a ridge that widens and rises to the tip, the ball of the tip, wings and their creases.
    knots = [(-6.2, 0.0), (-5.6, 0.08), (-5.2, 0.55), (-4.85, 1.25), (-4.4, 1.95), (-3.9, 2.2), (-3.2, 1.95)]
    knots += [(-2.2, 1.35), (-1.0, 0.75), (0.0, 0.36), (1.0, 0.25), (2.0, 0.06), (3.0, 0.0)]
    height = PchipInterpolator(*zip(*knots), extrapolate=False)(np.clip(n, -6.2, 3.0))
    breadth = PchipInterpolator([-6.2, -4.4, -3.0, -1.5, 0.0, 1.5, 3.0], [1.15, 1.05, 0.95, 0.82, 0.72, 0.95, 1.4])
    wide = breadth(np.clip(n, -6.2, 3.0))
    nose = height * np.exp(-((a / wide) ** 2) * 0.75)
    nose += 0.42 * _bump(a, n, (0.0, -4.1), (0.62, 0.6))
    nose += 1.05 * _bump(a, n, (1.3, -4.25), (0.4, 0.42))
    nose -= 0.22 * _bump(a, n, (1.98, -4.35), (0.22, 0.55))
    nose -= 0.35 * _bump(a, n, (0.65, -4.95), (0.28, 0.2))
    # Lips: two rolls that thin out to the corners, the furrow of the upper lip, the groove under the lower.
    u = np.clip(a / MOUTH_HALF_WIDTH, 0, 1.3)
    bow = np.maximum(1 - u**2, 0)
    lips = 0.42 * np.sqrt(bow) * np.exp(-0.5 * ((v - MOUTH_LEVEL - 0.33) / 0.27) ** 2)
    lips += 0.52 * np.sqrt(bow) * np.exp(-0.5 * ((v - MOUTH_LEVEL + 0.45) / 0.33) ** 2)
    lips -= 0.30 * np.exp(-0.5 * ((v - MOUTH_LEVEL) / 0.11) ** 2) * _step(u, 1.15, 0.7)
    lips -= 0.22 * _bump(a, v, (2.75, -6.95), (0.28, 0.35))
    lips -= 0.12 * _bump(a, v, (0.0, -5.5), (0.2, 0.5)) - 0.07 * _bump(a, v, (0.42, -5.5), (0.18, 0.5))
    lips -= 0.42 * _bump(a, v, (0.0, -8.5), (1.5, 0.38))
    lips += 0.45 * _bump(a, v, (0.0, -9.8), (1.25, 0.75))
    return surface + front * (nose + lips)


def _ear(side: float) -> Mesh:
    """Return the left (``side`` 1) or right ear: a shell, rounder above, with a hollow on its outer face."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    # Rings from the edge on the head's side over the rim to the middle of the hollow: size, distance from the head.
    profile = [(0.55, -1.0), (0.8, 0.0), (0.97, 0.75), (1.0, 1.05), (0.9, 1.25), (0.76, 1.1), (0.6, 0.85), (0.45, 0.9)]
    profile += [(0.3, 0.6), (0.12, 0.45), (0.0, 0.4)]
    rings = []
    for size, out in profile:
        along = size * 1.55 * np.cos(angle) * (1 + 0.22 * np.sin(angle))
        up = size * 3.05 * np.sin(angle)
        # The rear edge stands farther off the head than the front edge.
        away = 0.8 * out * (0.55 - 0.45 * np.cos(angle)) - 0.25
        x = 7.0 + away
        y = -1.6 + up
        z = -0.9 + along - 0.3 * away + 0.12 * up
        rings.append(np.stack([side * x, y, z], axis=1))
    sheet = np.stack(rings if side < 0 else [ring[::-1] for ring in rings])
    return grid(sheet, closed=True)


def _nearest_vertex(sheet: np.ndarray, place: tuple[float, float, float]) -> int:
    return int(((sheet - place) ** 2).sum(axis=1).argmin())


def _identity(sheet: np.ndarray, across: np.ndarray, level: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return what one standard deviation of each identity mode moves, (m, v, 3)."""
    a, v, side = np.abs(across), level, np.sign(across)
    w = nose_level(level)
    x, y, z = sheet.T
    front = np.clip(np.cos(turn) / 0.35, 0, 1)
    eye = _bump(a, v, (EYE[0], 0.1), (1.2, 0.8)) * front
    nose = _bump(a, w, (0.0, -3.9), (1.2, 1.0)) * front
    wings = _bump(a, w, (1.3, -4.4), (0.7, 0.7)) * front
    chin = _bump(a, v, (0.0, -10.2), (2.2, 1.5)) * front
    jaw = _bump(0 * a, v, (0.0, -9.2), (1.0, 2.2)) * _step(np.cos(turn), -0.6, 0.1)
    mouth = _bump(a, v, (0.0, MOUTH_LEVEL), (2.6, 1.3)) * front
    upper, lower = _step(v, -7.0, -6.4) * mouth, _step(v, -6.8, -7.4) * mouth
    n = np.zeros_like(a)
    moved = {
        "skull_width": (0.035 * x, n, n),
        "skull_height": (n, 0.06 * np.maximum(y - 1.5, 0), n),
        "skull_depth": (n, n, 0.04 * np.minimum(z, 0)),
        "forehead_slope": (n, n, -0.09 * np.clip(v - 2, 0, 6) * front),
        "face_length": (n, 0.045 * np.clip(v, -11.5, 0), n),
        "jaw_width": (0.4 * jaw * side * np.clip(a / 4, 0, 1), n, n),
        "jaw_shift": (0.12 * _bump(0 * a, v, (0.0, -9.5), (1.0, 2.5)) * front, n, n),
        "chin_length": (n, -0.4 * chin, n),
        "chin_depth": (n, n, 0.4 * chin),
        "chin_width": (0.35 * chin * side * np.clip(a / 2, 0, 1), n, n),
        "cheekbones": (
            0.25 * side * _bump(a, v, (5.5, -2.0), (2.0, 1.6)) * front,
            n,
            0.2 * _bump(a, v, (4.4, -2.2), (1.5, 1.2)) * front,
        ),
        "cheeks": (
            0.4 * side * _bump(a, v, (5.2, -6.0), (1.8, 2.2)) * front,
            n,
            0.28 * _bump(a, v, (3.8, -5.6), (1.6, 1.8)) * front,
        ),
        "brow_ridge": (n, n, 0.22 * _bump(a, v, (2.6, 1.7), (2.6, 0.8)) * front),
        "brow_height": (n, 0.22 * _bump(a, v, (2.9, 1.8), (2.4, 0.8)) * front, n),
        "nose_length": (n, -0.32 * _bump(a, w, (0.0, -4.4), (1.7, 1.3)) * front, n),
        "nose_width": (0.2 * side * wings * np.clip(a, 0, 1), n, n),
        "nose_depth": (n, n, 0.32 * nose),
        "nose_bridge": (n, n, 0.2 * _bump(a, w, (0.0, -0.6), (0.7, 1.4)) * front),
        "nose_hump": (n, n, 0.15 * _bump(a, w, (0.0, -2.0), (0.6, 0.9)) * front),
        "nose_upturn": (n, 0.22 * _bump(a, w, (0.0, -3.9), (0.9, 0.7)) * front, n),
        "nose_shift": (0.08 * nose, n, n),
        "lips_full": (n, 0.16 * upper - 0.16 * lower, 0.12 * mouth),
        "lips_forward": (n, n, 0.2 * _bump(a, v, (0.0, MOUTH_LEVEL), (2.0, 1.1)) * front),
        "mouth_width": (0.22 * side * mouth * np.clip(a / 2, 0, 1), n, n),
        "mouth_height": (n, 0.2 * mouth, n),
        "eye_size": (0.1 * (x - side * EYE[0]) * eye, 0.1 * (v - 0.05) * eye, n),
        "eye_spacing": (0.14 * side * eye, n, n),
        "eye_depth": (n, n, -0.2 * eye),
        "eye_tilt": (n, 0.16 * np.clip((a - EYE[0]) / EYE[1], -1.5, 1.5) * eye, n),
        "neck_width": (0.07 * x * _step(v, -10.5, -13.5), n, 0.05 * z * _step(v, -11, -13.5)),
    }
    return np.stack([np.stack(moved[mode], axis=1) for mode in IDENTITY_MODES])


def _expression(sheet: np.ndarray, across: np.ndarray, level: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Return what each expression mode moves when it is fully there, (e, v, 3)."""
    a, v, side = np.abs(across), level, np.sign(across)
    n = np.zeros_like(a)
    left, right = _step(across, -0.6, 0.6), _step(across, 0.6, -0.6)
    corner = _bump(a, v, (2.7, -6.9), (1.0, 1.0)) * front
    cheek = _bump(a, v, (3.9, -3.4), (1.3, 1.2)) * front
    fold = _bump(a, v, (3.5, -6.0), (0.4, 1.0)) * front
    smile = (
        side * (0.6 * corner + 0.15 * cheek),
        0.65 * corner + 0.35 * cheek + 0.12 * _bump(a, v, (3.2, -0.6), (1.3, 0.4)) * front,
        -0.35 * corner + 0.45 * cheek - 0.25 * fold,
    )
    # The jaw turns about the axis through its joints. Between the lips the sheet tears open: rows on both sides of the
    # line part, less so to the corners; farther out the skin stretches.
    u = np.clip(a / MOUTH_HALF_WIDTH, 0, 1)
    tear = np.sqrt(1 - u**2)
    stretch = _step(v, -4.9, -8.9)
    share = (stretch + tear * (_step(v, MOUTH_LEVEL + 0.06, MOUTH_LEVEL - 0.06) - stretch)) * front
    share *= _step(v, -14.5, -11.5)
    angle = 0.24
    gap = np.exp(-0.5 * ((v - MOUTH_LEVEL) / 0.035) ** 2) * tear * front
    upper = tear * _bump(a, v, (0.0, -6.3), (1.6, 0.5)) * _step(v, -6.96, -6.86) * front
    opened = (n, -angle * sheet[:, 2] * share + 0.12 * upper, angle * (sheet[:, 1] + 1.0) * share - 1.6 * gap)
    down = (n, -0.5 * corner, -0.1 * corner)
    lips = _bump(a, v, (0.0, MOUTH_LEVEL), (2.4, 1.1)) * front
    pout = (-0.28 * across * lips, n, 0.55 * _bump(a, v, (0.0, MOUTH_LEVEL), (1.5, 0.9)) * front)
    brow = _bump(a, v, (3.0, 2.0), (2.2, 0.9)) * front
    inner = _bump(a, v, (1.2, 1.6), (1.1, 0.8)) * front
    puffed = _bump(a, v, (4.2, -6.2), (1.4, 1.5)) * front
    moved = {
        "smile_left": tuple(left * part for part in smile),
        "smile_right": tuple(right * part for part in smile),
        "mouth_open": opened,
        "mouth_down": down,
        "pout": pout,
        "brow_up_left": (n, 0.65 * brow * left, n),
        "brow_up_right": (n, 0.65 * brow * right, n),
        "brow_frown": (-0.25 * side * inner * np.clip(a, 0, 1), -0.45 * inner, 0.15 * inner),
        "cheeks_out": (0.4 * side * puffed, n, 0.5 * puffed),
    }
    return np.stack([np.stack(moved[mode], axis=1) for mode in EXPRESSION_MODES])


def _keypoints(
    mean: np.ndarray, across: np.ndarray, level: np.ndarray, shape: tuple[int, int], ear: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return between which vertices the keypoints lie (K, 3) and how (K, 3); ``ear`` is an ear's number of vertices."""
    table = across.reshape(shape)
    middle = int(np.flatnonzero(_columns() == 0)[0])
    corners, shares = [], []
    for name in KEYPOINTS:
        side = -1.0 if name.startswith("right_") else 1.0
        if name.endswith("_ear"):
            first = len(across) + (0 if side > 0 else ear)
            # The place of the ear that is farthest out.
            tip = first + int(np.argmax(np.abs(mean[first : first + ear, 0])))
            corners.append([tip, tip, tip])
            shares.append([1.0, 0.0, 0.0])
            continue
        u, v = _PLACES[name.removeprefix("left_").removeprefix("right_")]
        i = int(np.searchsorted(-level, -v, side="right")) - 1
        # The two triangles of each cell of that row, as ``isthmus.geometry.meshes.grid`` lays them.
        cells = [((i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)) for j in range(middle - 36, middle + 36)]
        for triangle in [corner for a, b, c, d in cells for corner in ((a, b, c), (a, c, d))]:
            places = np.array([[table[p], level[p[0]], 1.0] for p in triangle])
            share = np.linalg.solve(places.T, [side * u, v, 1.0])
            if (share > -1e-9).all():
                corners.append([row * shape[1] + column for row, column in triangle])
                shares.append(share.tolist())
                break
    return np.array(corners, dtype=np.int64), np.array(shares)
