"""What every reader and every simulator of labelled images hands out.

A reader yields :class:`ImageSample` after sample in a fixed order; ``isthmus.data.image_store`` turns them once into a
memory-mapped store. Each image carries labels of some tasks; a task's label that is missing is simply not there. A
*pixel* (or point) without a label inside a label that is there is written as the value that :data:`ENCODINGS` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from isthmus.data.clouds import Part, Unreadable

DenseTaskName = Literal["segmentation", "parts", "depth", "inverse_depth", "normals", "saliency", "edges", "keypoints"]


class Encoding(NamedTuple):
    """How a label lies in a sample and in a store: dtype, trailing channels (0: none), and what "no label" is.

    A label is a map ``(H, W[, channels])``, or with ``points`` a list ``(K, channels)`` with a row for each of the
    task's class names, whatever the size of the image.
    """

    dtype: str
    channels: int
    invalid: float
    points: bool = False


ENCODINGS: dict[str, Encoding] = {
    "segmentation": Encoding("uint8", 0, 255),
    "parts": Encoding("uint8", 0, 255),
    "depth": Encoding("float32", 0, 0.0),
    "inverse_depth": Encoding("float32", 0, 0.0),
    "normals": Encoding("float16", 3, 0.0),
    "saliency": Encoding("uint8", 0, 255),
    "edges": Encoding("uint8", 0, 255),
    "keypoints": Encoding("float32", 3, math.nan, points=True),
}
"""Labels by task.

``segmentation`` and ``parts``: class index, ``(H, W)``; ``depth``: metres, ``inverse_depth``: in the data set's own
unit (MTAN's Cityscapes: 0 to 0.49), ``(H, W)``; ``normals``: unit vectors ``(H, W, 3)`` in the camera frame, x to the
right (a horizontal flip negates x), the zero vector is "no label"; ``saliency`` and ``edges``: 0 or 1, ``(H, W)``.

``keypoints``: ``(K, 3)``, for each named point its column u and row v as shares of the image's width and height (0 is
the left or top border, 1 the right or bottom one, so that resizing changes nothing), and its depth z away from the
camera, relative to the mean of the labelled points, as a share of the image's *width*. A row of NaN is "no label", as
a point outside the image has none. Points of the person's left and right are named ``left_*`` and ``right_*``.
"""

LEFT, RIGHT = "left_", "right_"


class ImageSample(NamedTuple):
    """One image as it was read.

    ``image`` is ``(H, W, 3)`` uint8 RGB; ``labels`` maps a task to its label, encoded as :data:`ENCODINGS` says;
    ``name`` is unique within the data set; ``part`` the split it belongs to; ``group`` what must not be torn apart by a
    split or a resampling (a room, a street), or ``""``.
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


def mirror_partners(names: Sequence[str]) -> tuple[int, ...]:
    """For each point, the one whose place it takes in a mirrored image: ``left_*`` for ``right_*``, others themselves.

    Raises:
        ValueError: a point of one side has no partner on the other.

    Example:
        >>> mirror_partners(["left_eye", "nose", "right_eye"])
        (2, 1, 0)
    """
    place = {name: index for index, name in enumerate(names)}
    partners = []
    for name in names:
        other = name
        for side, opposite in ((LEFT, RIGHT), (RIGHT, LEFT)):
            if name.startswith(side):
                other = opposite + name.removeprefix(side)
        if other not in place:
            raise ValueError(f"expected a partner {other!r} of {name!r} among the points, found none")
        partners.append(place[other])
    return tuple(partners)


def valid_pixels(task: str, label: np.ndarray) -> np.ndarray:
    """Which pixels of label maps, or which points, carry a label.

    Shape: ``(..., H, W[, 3])`` to ``(..., H, W)`` bool; of points ``(..., K, 3)`` to ``(..., K)`` bool.
    """
    encoding = ENCODINGS[task]
    if encoding.points:
        known: np.ndarray = np.isfinite(label).all(axis=-1)
        return known
    if task == "normals":
        return (label != 0).any(axis=-1)
    valid: np.ndarray = label != encoding.invalid
    return valid & np.isfinite(label) if encoding.dtype == "float32" else valid
