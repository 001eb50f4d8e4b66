"""Images and label maps at another size: images bilinear, labels by the nearest pixel, edges by what a pixel covers."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resized_image(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """An image at another size, bilinear and without aliasing. Shape: ``(h, w, 3)`` uint8 to ``(H, W, 3)`` uint8."""
    if size is None or image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resized_label(label: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """The map at another size; each pixel takes the one in which its centre lies."""
    if size is None or label.shape[:2] == tuple(size):
        return label
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(label.shape, size))
    return label[rows[:, None], columns]


def resized_edges(label: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Edges at another size: 1 where an edge lies in what the pixel covers, 0 where another valid pixel does.

    Grown maps take the nearest pixel. Shape: ``(h, w)`` uint8 to ``(H, W)`` uint8.
    """
    if size is None or label.shape == tuple(size):
        return label
    if size[0] > label.shape[0] or size[1] > label.shape[1]:
        return resized_label(label, size)
    # 255 is "no label": as 0 it loses against both, 0 becomes 1 and an edge 2.
    ranks = np.array([1, 2] + [0] * 254, dtype=np.uint8)[label]
    for axis, new in enumerate(size):
        old = label.shape[axis]
        starts = np.arange(new) * old // new
        ranks = np.maximum.reduceat(ranks, starts, axis=axis)
    return np.array([255, 0, 1], dtype=np.uint8)[ranks]
