"""What every reader and every simulator of object clouds hands out.

A reader yields :class:`Sample` after sample in a fixed order; ``isthmus.data.store`` turns them once into a
memory-mapped store. Readers know nothing of recipes, class maps or augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")

POINTDA_CLASSES = (
    "bathtub",
    "bed",
    "bookshelf",
    "cabinet",
    "chair",
    "lamp",
    "monitor",
    "plant",
    "sofa",
    "table",
)


HUMAN_PARTS = ("head", "torso", "upperarm", "lowerarm", "hand", "upperleg", "lowerleg", "foot")
"""The parts of a body; left and right are one class."""

NO_POINT_LABEL = 255
"""The label of a point that carries none."""


class Sample(NamedTuple):
    """One object as it was read.

    ``points`` is ``(n, 3)`` float32, z up, in any unit; ``label`` an index into the reader's ``classes`` or
    -1; ``name`` unique within the data set; ``part`` the split it belongs to; ``group`` what must not be torn
    apart by a split (a room), or ``""``. ``point_labels`` is ``(n,)`` uint8, :data:`NO_POINT_LABEL` for a point
    without a label, or None where points have no labels of their own; where they have, the reader's ``classes``
    are theirs, and ``label`` is -1.
    """

    points: np.ndarray
    label: int
    name: str
    part: Part
    group: str = ""
    point_labels: np.ndarray | None = None


class Unreadable(NamedTuple):
    """One object of a data set that could not be read, and why.

    A reader yields it in the object's place, so that one broken file among thousands is counted and listed
    instead of ending the reading. What is wrong with the data set itself (a missing folder, an unknown class)
    is raised as a ``DataError``.
    """

    name: str
    reason: str


class Reader(Protocol):
    """A data set of labelled clouds, read in a fixed order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels (of objects, or where points are labelled, of points)."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on, as JSON values; equal ones mean equal samples."""
        ...

    def samples(self) -> Iterator[Sample | Unreadable]:
        """All objects of all parts, always in the same order."""
        ...


def eighty_twenty(index: int) -> Part:
    """Train or validation by position in the sorted training list (DefRec: ``index % 10 < 8`` is train)."""
    return "train" if index % 10 < 8 else "val"
