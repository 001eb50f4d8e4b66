"""Points with classes as pictures: over the image that they were projected into, or seen from above.

Classes that driving data sets share have bright colours close to SemanticKITTI's, since points lie on photographs; any
other set of classes has the colours of :func:`isthmus.evaluation.dense.pictures.palette`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from isthmus.evaluation.dense.pictures import palette

_KNOWN: dict[str, tuple[int, int, int]] = {
    "road": (255, 0, 255), "driveable_surface": (255, 0, 255), "sidewalk": (139, 60, 190), "parking": (255, 150, 255),
    "terrain": (150, 240, 80), "vegetation": (0, 175, 0), "nature": (0, 175, 0), "vegetation_terrain": (0, 175, 0),
    "building": (255, 200, 0), "manmade": (255, 200, 0), "vehicle": (70, 130, 255), "car": (70, 130, 255),
    "truck": (0, 210, 210), "bike": (0, 235, 170), "two-wheeler": (0, 235, 170), "person": (255, 40, 40),
    "pedestrian": (255, 40, 40), "object": (255, 240, 150), "other-objects": (255, 240, 150),
    "traffic_boundary": (255, 120, 50), "background": (150, 150, 150),
}  # fmt: skip
NO_CLASS = (205, 205, 205)
"""The colour of points without a label."""
DIMMED = 0.55
"""How much of a photograph is left below points."""
SMALLEST = 1.2
"""Radius of a point in pixels."""


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class, always the same for the same classes. Shape: ``(K, 3)`` uint8."""
    if all(name in _KNOWN for name in classes) and len({_KNOWN[name] for name in classes}) == len(classes):
        return np.array([_KNOWN[name] for name in classes], dtype=np.uint8)
    return palette(classes)


def point_colours(classes: Sequence[str], indices: np.ndarray) -> np.ndarray:
    """Colours of points by class; anything beyond the classes is :data:`NO_CLASS`. Shape: ``(N,)`` to ``(N, 3)``."""
    table = np.concatenate([class_colours(classes), np.array([NO_CLASS], dtype=np.uint8)])
    return table[np.where(indices < len(classes), indices, len(classes)).astype(np.int64)]


def over_image(image: np.ndarray, pixels: np.ndarray, colours: np.ndarray, width: int) -> np.ndarray:
    """The dimmed image, ``width`` pixels wide, with a disc at every point.

    Shape: ``(H, W, 3)`` uint8, ``(N, 2)`` rows and columns, ``(N, 3)`` uint8 to ``(H', width, 3)`` uint8.
    """
    picture = photograph(image, width)
    scale = width / image.shape[1]
    grey = np.asarray(picture, dtype=np.float32)
    sheet = Image.fromarray((DIMMED * grey + (1 - DIMMED) * 40).astype(np.uint8))
    # Drawing counts centres of pixels.
    room = float(np.sqrt(sheet.width * sheet.height / max(len(pixels), 1)))
    radius = max(SMALLEST, min(width / 250, 0.3 * room))  # dense sweeps have smaller discs, so that the image is seen
    _discs(sheet, pixels[:, 1] * scale - 0.5, pixels[:, 0] * scale - 0.5, colours, radius)
    return np.asarray(sheet)


def as_map(size: tuple[int, int], pixels: np.ndarray, colours: np.ndarray, width: int) -> np.ndarray:
    """The colour of each pixel, for points that stand for all pixels of a photograph.

    Shape: height and width, ``(H W, 2)`` rows and columns, ``(H W, 3)`` uint8 to ``(H', width, 3)`` uint8.
    """
    sheet = np.zeros((*size, 3), dtype=np.uint8)
    rows, columns = pixels.astype(np.int64).T
    sheet[rows, columns] = colours
    height = max(1, round(size[0] * width / size[1]))
    return np.asarray(Image.fromarray(sheet).resize((width, height), Image.Resampling.NEAREST))


def photograph(image: np.ndarray, width: int) -> Image.Image:
    """The image ``width`` pixels wide."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    way = Image.Resampling.BOX if width < image.shape[1] else Image.Resampling.BICUBIC
    return Image.fromarray(np.ascontiguousarray(image)).resize((width, height), way)


def from_above(points: np.ndarray, colours: np.ndarray, width: int) -> np.ndarray:
    """The sweep from above, as much of it as holds 98 % of the points, the first axis upwards.

    Shape: ``(N, 3)`` metres, ``(N, 3)`` uint8 to ``(width, width, 3)`` uint8.
    """
    sheet = Image.new("RGB", (width, width), (24, 24, 24))
    low, high = np.percentile(points[:, :2], [1, 99], axis=0)
    half = max(float((high - low).max()) / 2, 1.0) * 1.04
    middle = (low + high) / 2
    order = np.argsort(points[:, 2], kind="stable")  # what is higher covers what lies below
    up, right = (points[order, 0] - middle[0]) / half, -(points[order, 1] - middle[1]) / half
    radius = max(0.8, width / 350)
    _discs(sheet, (right + 1) * width / 2 - 0.5, (1 - up) * width / 2 - 0.5, colours[order], radius)
    return np.asarray(sheet)


def _discs(sheet: Image.Image, columns: np.ndarray, rows: np.ndarray, colours: np.ndarray, radius: float) -> None:
    draw = ImageDraw.Draw(sheet)
    inside = (np.abs(columns) < 1e6) & (np.abs(rows) < 1e6)
    for column, row, colour in zip(columns[inside].tolist(), rows[inside].tolist(), colours[inside].tolist()):
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=tuple(colour))
