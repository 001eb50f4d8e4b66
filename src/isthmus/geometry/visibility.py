"""Which points of a cloud are seen from a viewpoint, where no surface is known that could hide them.

Katz, Tal, Basri, "Direct visibility of point sets", SIGGRAPH 2007: flip every point to the outside of a sphere
around the eye, ``p' = p + 2 (R - |p|) p / |p|``; those on the convex hull of the flipped points and the eye are
seen.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from isthmus.errors import DataError


def hidden_point_removal(points: np.ndarray, eye: np.ndarray, exponent: float = 2.2) -> np.ndarray:
    """Return which points of a cloud are seen from ``eye``.

    Args:
        points: (n, 3), n at least 4, not all in one plane with the eye.
        eye: (3,), not itself one of the points.
        exponent: the radius of the flipping sphere is ``10 ** exponent`` times the largest distance from the
            eye; larger sees more in hollows, and more of what is hidden. From 2.3 a cloud of 2,000 points shows some
            of its far side; below 2 hollows and thin parts are lost.

    Returns:
        Ascending indices (m,) of the visible points.

    Raises:
        DataError: the points have no convex hull.
    """
    seen_from = points.astype(np.float64) - eye
    distance = np.linalg.norm(seen_from, axis=1, keepdims=True)
    radius = distance.max() * 10**exponent
    flipped = seen_from + 2 * (radius - distance) * seen_from / np.maximum(distance, 1e-12)
    try:
        hull = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))]))
    except (QhullError, ValueError) as error:
        raise DataError(f"points: expected some with a convex hull, found {points.shape}: {error}") from error
    visible = np.unique(hull.vertices)
    return visible[visible < len(points)]
