"""Photographs with classes per pixel, as frames without a sweep: what the 2D stream alone can learn from.

Every pixel stands for a point that is seen at its centre. A frame's ``points`` are then ``(column, row, 0)`` in pixels;
they place nothing in space, and a 3D stream refuses them (``FrameStore.has_sweeps``). While a store is made, all
photographs are held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isthmus.data.clouds import Unreadable
from isthmus.data.frames import NO_LABEL, Frame, settings_alone
from isthmus.data.images import ENCODINGS, ImageReader, ImageSample
from isthmus.errors import DataError

TASK = "segmentation"
assert ENCODINGS[TASK].invalid == NO_LABEL


@dataclass(frozen=True)
class Photographs:
    """The images of a reader whose task ``segmentation`` gives classes, as a reader of frames.

    Args:
        reader: the images.
        space: what the classes mean; data sets can be adapted to each other only where it is the same.

    Raises:
        DataError: the images carry no segmentation.
    """

    reader: ImageReader
    space: str

    def __post_init__(self) -> None:
        if TASK not in self.reader.tasks:
            raise DataError(f"reader: expected images with {TASK}, found {', '.join(self.reader.tasks) or 'no task'}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the segmentation."""
        return self.reader.tasks[TASK]

    def fingerprint(self) -> dict[str, Any]:
        """The reader's, and that these are photographs."""
        return {"photographs": self.reader.fingerprint(), "version": 1, "space": self.space, "sweeps": False}

    def entries(self) -> range:
        """The numbers of the images, in the reader's order."""
        return range(len(self._samples))

    def read(self, entry: int) -> Frame | Unreadable:
        """One photograph."""
        sample = self._samples[entry]
        return sample if isinstance(sample, Unreadable) else as_frame(sample)

    def __getstate__(self) -> dict[str, Any]:
        return settings_alone(self)

    @cached_property
    def _samples(self) -> tuple[ImageSample | Unreadable, ...]:
        return tuple(self.reader.samples())


def as_frame(sample: ImageSample) -> Frame:
    """One photograph as a frame with a point for every pixel, row by row."""
    height, width = sample.image.shape[:2]
    pixels = np.indices((height, width)).reshape(2, -1).T.astype(np.float32) + np.float32(0.5)
    points = np.concatenate([pixels[:, ::-1], np.zeros((len(pixels), 1), np.float32)], axis=1)
    label = sample.labels.get(TASK)
    labels = None if label is None else label.reshape(-1)
    return Frame(points, pixels, sample.image, labels, sample.name, sample.part, sample.group)
