"""What every reader and every simulator of LiDAR sweeps with camera images hands out.

A *frame* is a LiDAR sweep, the image of a camera that looks at the same scene, and for each point the place in the
image where it is seen. Readers list their frames in a fixed order and read any one of them;
``isthmus.data.frame_store`` turns them once, with as many processes as wanted, into a memory-mapped store. Points that
the camera does not see are left out by the reader, unless there is no image at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from isthmus.data.clouds import Part, Unreadable

NO_LABEL = 255
"""The label of a point that carries none."""


class Frame(NamedTuple):
    """One sweep as it was read.

    ``points`` is ``(N, 3)`` float32 in metres in the LiDAR's own coordinates; ``labels`` ``(N,)`` uint8, class indices
    or :data:`NO_LABEL`, or None for a frame without labels; ``image`` ``(H, W, 3)`` uint8 RGB, or None; ``pixels``
    ``(N, 2)`` float32, row and column of each point in pixels, where the centre of the upper left pixel is (0.5, 0.5),
    or None without an image; ``intensity`` ``(N,)`` float32 in the sensor's own unit, or None; ``projection``
    ``(3, 4)`` float64 from homogeneous points to ``(column * depth, row * depth, depth)``, or None where it is not
    known; ``name`` is unique within the data set; ``part`` the split it belongs to; ``group`` what must not be torn
    apart by a split or a resampling (a scene, a sequence), or ``""``.
    """

    points: np.ndarray
    pixels: np.ndarray | None
    image: np.ndarray | None
    labels: np.ndarray | None
    name: str
    part: Part
    group: str = ""
    intensity: np.ndarray | None = None
    projection: np.ndarray | None = None


PER_POINT: dict[str, tuple[str, tuple[int, ...]]] = {
    "points": ("float32", (3,)),
    "pixels": ("float32", (2,)),
    "labels": ("uint8", ()),
    "intensity": ("float32", ()),
}
"""The arrays of a frame that have a row for each point: type, and shape of a row."""


class FrameReader(Protocol):
    """A data set of frames, listed in a fixed order and read one by one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Everything the frames depend on, as JSON values; equal ones mean equal frames."""
        ...

    def entries(self) -> Sequence[Any]:
        """What :meth:`read` takes, one for each frame of all parts, always in the same order; cheap beside reading.

        Raises:
            DataError: something that all frames depend on is missing or broken.
        """
        ...

    def read(self, entry: Any) -> Frame | Unreadable:
        """One frame, whatever was read before it, and in whichever process.

        Raises:
            DataError: something that other frames depend on as well is missing or broken.
        """
        ...


def frames(reader: FrameReader) -> Iterator[Frame | Unreadable]:
    """All frames of a data set, one after the other.

    Raises:
        DataError: see :class:`FrameReader`.
    """
    for entry in reader.entries():
        yield reader.read(entry)


def settings_alone(reader: Any) -> dict[str, Any]:
    """The fields of a dataclass: what of a reader goes to another process, where it loads files for itself.

    Serves as ``__getstate__`` of readers that keep the content of large files.
    """
    return {field.name: getattr(reader, field.name) for field in dataclasses.fields(reader)}
