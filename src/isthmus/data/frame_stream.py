"""Batches of frames: batch t is a pure function of (seed, t), so a resumed run needs no loader state.

Sweeps differ in length. A batch is padded to its longest one; ``present_points`` says which rows are points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from isthmus.data.batch import Batch
from isthmus.data.frame_augment import FrameAugment
from isthmus.data.frame_store import FrameStore
from isthmus.data.frames import NO_LABEL
from isthmus.data.order import Order
from isthmus.data.randomness import Progress
from isthmus.errors import DataError

LABEL = "segmentation"

PointLabels = Mapping[str, np.ndarray]
"""Labels of all points of a store by name, ``(sum N,)`` uint8, :data:`isthmus.data.frames.NO_LABEL` where none."""


def read_frames(store: FrameStore, rows: np.ndarray, labels: PointLabels, domain: str) -> Batch:
    """Frames of a store with these labels.

    Inputs are ``points`` ``(B, N, 3)`` and ``present_points`` ``(B, N)`` and, where the store has images, ``image``
    ``(B, 3, H, W)`` in [0, 1] and ``pixels`` ``(B, N, 2)``. The N points of a frame are labelled like an image of
    height 1: labels and ``valid`` are ``(B, 1, N)``.
    """
    rows = np.asarray(rows, dtype=np.int64)
    spans = [slice(int(store.offsets[row]), int(store.offsets[row + 1])) for row in rows]
    longest = max(span.stop - span.start for span in spans)

    def padded(values: np.ndarray, blank: float) -> np.ndarray:
        found = np.full((len(rows), longest, *values.shape[1:]), blank, values.dtype)
        for index, span in enumerate(spans):
            found[index, : span.stop - span.start] = values[span]
        return found

    lengths = np.array([span.stop - span.start for span in spans])
    inputs = {
        "points": torch.from_numpy(padded(store.points, 0)),
        "present_points": torch.from_numpy(np.arange(longest) < lengths[:, None]),
    }
    if any(store.size):
        image = torch.from_numpy(np.ascontiguousarray(store.images[rows])).permute(0, 3, 1, 2)
        inputs["image"] = image.float().div_(255).contiguous()
        inputs["pixels"] = torch.from_numpy(padded(store.pixels, 0))
    found, valid, present = {}, {}, {}
    for name, values in labels.items():
        label = padded(values, NO_LABEL)[:, None]
        known = label != NO_LABEL
        found[name] = torch.from_numpy(np.where(known, label, 0).astype(np.int64))
        valid[name] = torch.from_numpy(known)
        present[name] = valid[name].flatten(1).any(dim=1)
    return Batch(domain, inputs, found, present, torch.from_numpy(rows), valid)


@dataclass
class FrameStream:
    """Shuffled, augmented training batches of ``rows`` of a store, with the labels that may be learnt from."""

    domain: str
    store: FrameStore
    rows: np.ndarray
    batch_size: int
    augment: FrameAugment
    labels: PointLabels
    _order: Order = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError(f"{self.store.path}: the {self.domain} domain has no frame to train on")
        self._order = Order(len(self.rows), self.domain)

    def batch(self, progress: Progress, position: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of global step ``position`` on this process."""
        rows = self.rows[self._order.at(position, self.batch_size, progress.seed, rank=rank, world=world)]
        batch = read_frames(self.store, rows, self.labels, self.domain)
        return self.augment(batch, progress.random(f"augment/{self.domain}", rows.tolist()))


def frame_batches(store: FrameStore, rows: np.ndarray, labels: PointLabels, batch_size: int = 8) -> Iterator[Batch]:
    """The frames of ``rows`` in order with these labels, unchanged, in chunks."""
    for start in range(0, len(rows), batch_size):
        yield read_frames(store, rows[start : start + batch_size], labels, "")
