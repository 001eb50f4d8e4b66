"""Frames made by hand for tests."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.data.clouds import Unreadable
from isthmus.data.frames import NO_LABEL, Frame

CLASSES = ("road", "car", "tree")


def frame(index: int, points: int = 12, size: tuple[int, int] | None = (8, 12), part: str = "train") -> Frame:
    """A frame whose pixels, labels and image are functions of the index."""
    random = np.random.default_rng(index)
    labels = random.integers(0, len(CLASSES), points).astype(np.uint8)
    labels[0] = NO_LABEL
    image = pixels = None
    if size is not None:
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels = (random.random((points, 2)) * size).astype(np.float32)
        pixels = np.minimum(pixels, np.nextafter(np.float32(size), np.float32(0)))
    return Frame(
        points=random.normal(size=(points, 3)).astype(np.float32),
        pixels=pixels,
        image=image,
        labels=labels,
        name=f"{index:03d}",
        part=part,  # type: ignore[arg-type]
        group=f"street{index // 2}",
        projection=np.arange(12, dtype=np.float64).reshape(3, 4) if size is not None else None,
    )


@dataclass(frozen=True)
class Frames:
    """A reader of given frames."""

    given: tuple[Frame | Unreadable, ...]
    classes: tuple[str, ...] = CLASSES
    version: int = 0

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "frames of a test", "version": self.version, "count": len(self.given)}

    def entries(self) -> range:
        return range(len(self.given))

    def read(self, entry: int) -> Frame | Unreadable:
        return self.given[entry]
