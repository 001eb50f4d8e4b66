"""Named points on a picture, the person's left and right in colours of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from isthmus.data.images import LEFT, RIGHT

SIDES = {"person's left": (86, 180, 233), "person's right": (230, 159, 0), "neither": (255, 255, 255)}
"""Colours of points by their side, which is that of the person and not of the picture."""
INK = (20, 20, 20)
SMALLEST = 2.5
"""Radius of a point in pixels, on pictures up to 180 pixels wide."""


def point_colours(names: Sequence[str]) -> np.ndarray:
    """A colour for each point, by its side. Shape: ``(K, 3)`` uint8."""
    left, right, neither = SIDES.values()
    colours = [left if name.startswith(LEFT) else right if name.startswith(RIGHT) else neither for name in names]
    return np.array(colours, dtype=np.uint8)


def with_points(
    rgb: np.ndarray, points: np.ndarray, names: Sequence[str], valid: np.ndarray | None = None
) -> np.ndarray:
    """The picture with a ringed disc at each point that is valid.

    Shape: ``(H, W, 3)`` uint8, ``(K, 2 or more)`` (columns and rows as shares of the picture's width and height),
    ``(K,)`` bool, to ``(H, W, 3)`` uint8.
    """
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    draw = ImageDraw.Draw(picture)
    radius = max(SMALLEST, picture.width / 72)
    for index, (point, colour) in enumerate(zip(points, point_colours(names).tolist())):
        if (valid is None or valid[index]) and np.isfinite(point[:2]).all():
            # A pixel's centre lies half a pixel from its corner, and drawing counts centres.
            column, row = point[0] * picture.width - 0.5, point[1] * picture.height - 0.5
            box = (column - radius, row - radius, column + radius, row + radius)
            draw.ellipse(box, fill=tuple(colour), outline=INK)
    return np.asarray(picture)
