"""Rigid motions between sensors, and where a camera sees a point.

Coordinates of an image are ``(row, column)`` in pixels and count from its upper left corner: the pixel in row r and
column c covers [r, r + 1) x [c, c + 1). Calibrations are taken literally, column = (f x + c_x z) / z, so that the pixel
of a point is the floor of what they say, as in xMUDA's preprocessing. (OpenCV counts from the *centre* of the upper
left pixel; where a calibration was made so, points lie half a pixel too far up and left.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def quaternion_matrix(quaternion: Sequence[float] | np.ndarray) -> np.ndarray:
    """The rotation matrix of a quaternion.

    Args:
        quaternion: ``(w, x, y, z)``, of any length but 0; q and -q are the same rotation.

    Returns:
        ``(3, 3)`` float64.

    Raises:
        ValueError: not four finite numbers, or all are zero.

    Example:
        >>> quaternion_matrix([1, 0, 0, 1]).round(6).tolist()  # a quarter turn about z
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    values = np.asarray(quaternion, dtype=np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or not values.any():
        raise ValueError(f"a quaternion is four finite numbers that are not all zero, found {quaternion!r}")
    w, x, y, z = values / np.linalg.norm(values)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rigid(rotation: Sequence[float] | np.ndarray, translation: Sequence[float] | np.ndarray) -> np.ndarray:
    """The motion p -> R p + t as a matrix.

    Args:
        rotation: a quaternion ``(w, x, y, z)``, or a matrix ``(3, 3)``.
        translation: ``(3,)``, metres.

    Returns:
        ``(4, 4)`` float64.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    turn = np.asarray(rotation, dtype=np.float64)
    if turn.shape != (3, 3):
        turn = quaternion_matrix(turn)
    shift = np.asarray(translation, dtype=np.float64)
    if shift.shape != (3,) or not np.isfinite(shift).all() or not np.isfinite(turn).all():
        raise ValueError(f"a motion has a rotation and three finite numbers, found {rotation!r} and {translation!r}")
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, shift
    return motion


def inverse_rigid(motion: np.ndarray) -> np.ndarray:
    """The motion back. Shape: ``(4, 4)`` to ``(4, 4)``; the rotation is transposed, not inverted."""
    back = np.eye(4)
    back[:3, :3] = motion[:3, :3].T
    back[:3, 3] = -back[:3, :3] @ motion[:3, 3]
    return back


def move(points: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Points after a motion. Shape: ``(N, 3)`` and ``(4, 4)`` to ``(N, 3)`` float64."""
    return points.astype(np.float64) @ motion[:3, :3].T + motion[:3, 3]


def camera_projection(intrinsics: np.ndarray, camera_from_points: np.ndarray) -> np.ndarray:
    """The projection of points that a camera's intrinsics and a motion into its frame make.

    Args:
        intrinsics: ``(3, 3)``, or ``(3, 4)`` as KITTI's ``P2``; the camera's frame is x right, y down, z forward.
        camera_from_points: ``(4, 4)`` motion from the points' frame into the camera's.

    Returns:
        ``(3, 4)`` float64 that takes ``(x, y, z, 1)`` to ``(column * depth, row * depth, depth)``.

    Raises:
        ValueError: another shape.
    """
    matrix = np.asarray(intrinsics, dtype=np.float64)
    if matrix.shape == (3, 3):
        matrix = np.concatenate([matrix, np.zeros((3, 1))], axis=1)
    if matrix.shape != (3, 4) or camera_from_points.shape != (4, 4):
        raise ValueError(
            f"expected intrinsics (3, 3) or (3, 4) and a motion (4, 4), found {matrix.shape} and "
            f"{camera_from_points.shape}"
        )
    return matrix @ camera_from_points


def project(points: np.ndarray, projection: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points lie in an image, whether or not it reaches that far.

    Args:
        points: ``(N, 3)`` metres.
        projection: ``(3, 4)``, see :func:`camera_projection`.

    Returns:
        ``(N, 2)`` float64 row and column, NaN where the depth is not positive, and ``(N,)`` float64 depth.
    """
    homogeneous = points.astype(np.float64) @ projection[:, :3].T + projection[:, 3]
    depth = homogeneous[:, 2]
    front = depth > 0
    pixels = np.full((len(points), 2), np.nan)
    np.divide(homogeneous[:, 1::-1], depth[:, None], out=pixels, where=front[:, None])
    return pixels, depth


def inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels are in an image of ``size`` (height, width). Shape: ``(N, 2)`` to ``(N,)`` bool; NaN is outside."""
    rows, columns = pixels[:, 0], pixels[:, 1]
    return (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])


def visible(points: np.ndarray, projection: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The points in front of a camera and inside its image.

    Occlusion is not looked at: a point that the LiDAR sees past an edge but the camera does not is kept, as in all
    published preprocessing.

    Args:
        points: ``(N, 3)`` metres.
        projection: ``(3, 4)``, see :func:`camera_projection`.
        size: height and width of the image in pixels.

    Returns:
        ``(N,)`` bool, which points these are, and ``(M, 2)`` float32, rows and columns of those M.
    """
    # In float32 already, so that rounding cannot put a point on the far border.
    pixels = project(points, projection)[0].astype(np.float32)
    kept = inside(pixels, size)
    return kept, pixels[kept]


def distort(rays: np.ndarray, coefficients: Sequence[float] | np.ndarray) -> np.ndarray:
    """Lens distortion of Brown and Conrady, in OpenCV's order of coefficients.

    Args:
        rays: ``(..., 2)``, x / z and y / z in the camera's frame.
        coefficients: ``(k1, k2, p1, p2)`` or ``(k1, k2, p1, p2, k3)``.

    Returns:
        ``(..., 2)`` float64, distorted.

    Raises:
        ValueError: another number of coefficients.
    """
    values = np.asarray(coefficients, dtype=np.float64).ravel()
    if len(values) not in (4, 5):
        raise ValueError(f"expected 4 or 5 coefficients of distortion, found {len(values)}")
    k1, k2, p1, p2, k3 = np.append(values, 0.0)[:5]
    x, y = rays[..., 0].astype(np.float64), rays[..., 1].astype(np.float64)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def undistortion_map(
    size: tuple[int, int], original: np.ndarray, coefficients: Sequence[float] | np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """For each pixel of an undistorted image, where it lies in the distorted one.

    Both are indices of pixels (0, 1, ... in the middle of pixels), as OpenCV's ``initUndistortRectifyMap`` has them.

    Args:
        size: height and width of both images.
        original: ``(3, 3)`` intrinsics of the distorted image.
        coefficients: see :func:`distort`.
        wanted: ``(3, 3)`` intrinsics of the undistorted image.

    Returns:
        ``(2, H, W)`` float64, rows and columns.
    """
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(wanted).T
    bent = distort(rays[..., :2] / rays[..., 2:], coefficients)
    found = np.concatenate([bent, np.ones((*size, 1))], axis=-1) @ np.asarray(original, dtype=np.float64).T
    return np.stack([found[..., 1], found[..., 0]])


def in_box(points: np.ndarray, motion: np.ndarray, extent: Sequence[float] | np.ndarray) -> np.ndarray:
    """Which points lie in a box, its surface included.

    Args:
        points: ``(N, 3)``.
        motion: ``(4, 4)`` from the box's frame (its centre is the origin) into that of the points.
        extent: length of the box along its own x, y and z.

    Returns:
        ``(N,)`` bool.
    """
    half = np.asarray(extent, dtype=np.float64) / 2
    # Most points are far off: a ball about the box is cheaper to test than the box.
    near = np.flatnonzero(((points - motion[:3, 3]) ** 2).sum(axis=1) <= (half**2).sum() * (1 + 1e-9))
    found = np.zeros(len(points), dtype=bool)
    found[near] = (np.abs(move(points[near], inverse_rigid(motion))) <= half).all(axis=1)
    return found
