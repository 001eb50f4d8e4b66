"""What every reader and every simulator of labelled images hands out.

A reader yields :class:`ImageSample` after sample in a fixed order; ``isthmus.data.image_store`` turns them once into a
memory-mapped store. Each image carries labels of some tasks; a task's label that is missing is simply not there. A
*pixel* without a label inside a label that is there is written as the value that :data:`ENCODINGS` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from isthmus.data.clouds import Part, Unreadable

DenseTaskName = Literal["segmentation", "parts", "depth", "inverse_depth", "normals", "saliency", "edges"]


class Encoding(NamedTuple):
    """How a label map lies in a sample and in a store: dtype, trailing channels (0: none), and what "no label" is."""

    dtype: str
    channels: int
    invalid: float


ENCODINGS: dict[str, Encoding] = {
    "segmentation": Encoding("uint8", 0, 255),
    "parts": Encoding("uint8", 0, 255),
    "depth": Encoding("float32", 0, 0.0),
    "inverse_depth": Encoding("float32", 0, 0.0),
    "normals": Encoding("float16", 3, 0.0),
    "saliency": Encoding("uint8", 0, 255),
    "edges": Encoding("uint8", 0, 255),
}
"""Label maps by task.

``segmentation`` and ``parts``: class index, ``(H, W)``; ``depth``: metres, ``inverse_depth``: in the data set's own
unit (MTAN's Cityscapes: 0 to 0.49), ``(H, W)``; ``normals``: unit vectors ``(H, W, 3)`` in the camera frame, x to the
right (a horizontal flip negates x), the zero vector is "no label"; ``saliency`` and ``edges``: 0 or 1, ``(H, W)``.
"""


class ImageSample(NamedTuple):
    """One image as it was read.

    ``image`` is ``(H, W, 3)`` uint8 RGB; ``labels`` maps a task to its map, encoded as :data:`ENCODINGS` says; ``name``
    unique within the data set; ``part`` the split it belongs to; ``group`` what must not be torn apart by a split or a
    resampling (a room, a street), or ``""``.
    """

    image: np.ndarray
    labels: dict[str, np.ndarray]
    name: str
    part: Part
    group: str = ""


class ImageReader(Protocol):
    """A data set of images with labels for some tasks, read in a fixed order."""

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The tasks that images may carry, each with its class names (empty for a task without classes)."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on, as JSON values; equal ones mean equal samples."""
        ...

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """All images of all parts, always in the same order."""
        ...


def valid_pixels(task: str, label: np.ndarray) -> np.ndarray:
    """Which pixels of label maps carry a label. Shape: ``(..., H, W[, 3])`` to ``(..., H, W)`` bool."""
    encoding = ENCODINGS[task]
    if task == "normals":
        return (label != 0).any(axis=-1)
    valid: np.ndarray = label != encoding.invalid
    return valid & np.isfinite(label) if encoding.dtype == "float32" else valid
