"""The batches of one domain: batch t is a pure function of (seed, t), so a resumed run needs no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from isthmus.data.augment import Augment
from isthmus.data.batch import Batch
from isthmus.data.clouds import NO_POINT_LABEL
from isthmus.data.order import Order
from isthmus.data.randomness import Progress
from isthmus.data.store import CloudStore
from isthmus.errors import DataError


@dataclass(frozen=True)
class KnownLabels:
    """Labels of some samples of a domain by sample id: true ones of a source, or pseudo-labels of a target.

    ``labels`` ``(n,)`` int64 and ``present`` ``(n,)`` bool cover all n samples of the store.
    """

    labels: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class KnownPointLabels:
    """Labels of the points of some samples by sample id: true ones of a source, or pseudo-labels of a target.

    ``labels`` ``(n, size)`` uint8 covers all points of the n samples of the store, in their order there;
    :data:`isthmus.data.clouds.NO_POINT_LABEL` where there is none. A sample carries a label if one of its points does.
    """

    labels: np.ndarray

    def of(self, rows: np.ndarray, points: int) -> tuple[Tensor, Tensor]:
        """Labels, 0 where there is none, and which points have one, of the first ``points`` points of ``rows``.

        The points of a cloud are labelled like an image of height 1. Shape: ``(len(rows), 1, points)`` twice, int64
        and bool.
        """
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[rows, :points])).long()[:, None]
        valid = labels != NO_POINT_LABEL
        return labels.where(valid, 0), valid


@dataclass
class Stream:
    """Shuffled, augmented training batches of ``rows`` of a store.

    ``known`` maps a task to the labels that its samples, or their points, carry; without an entry no label file is ever
    opened. Every process takes its own slice of the same global batch of ``batch_size * world`` samples. A batch may
    span two epochs.
    """

    domain: str
    store: CloudStore
    rows: np.ndarray
    batch_size: int
    points: int
    augment: Augment
    known: dict[str, KnownLabels | KnownPointLabels] = field(default_factory=dict)
    _order: Order = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError(f"{self.store.path}: the {self.domain} domain has no sample to train on")
        if self.points > self.store.size:
            raise DataError(
                f"{self.store.path}: points: expected at most {self.store.size} as prepared, found {self.points}"
            )
        self._order = Order(len(self.rows), self.domain)

    def batch(self, progress: Progress, position: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of global step ``position`` on this process."""
        rows = self.rows[self._order.at(position, self.batch_size, progress.seed, rank=rank, world=world)]
        points = torch.from_numpy(np.ascontiguousarray(self.store.points[rows, : self.points]))
        points = self.augment(points, progress.random(f"augment/{self.domain}", rows.tolist()))
        labels, present, valid = {}, {}, {}
        for task, known in self.known.items():
            if isinstance(known, KnownPointLabels):
                # Augmentation moves points and never reorders them, so their labels stay with them.
                labels[task], valid[task] = known.of(rows, self.points)
                present[task] = valid[task].flatten(1).any(dim=1)
            else:
                labels[task] = torch.from_numpy(known.labels[rows])
                present[task] = torch.from_numpy(known.present[rows])
        return Batch(self.domain, {"points": points}, labels, present, torch.from_numpy(rows), valid)


def clouds(store: CloudStore, rows: np.ndarray, points: int, batch_size: int = 64) -> Iterator[Tensor]:
    """The clouds of ``rows`` in order, unaugmented, in chunks. Shape: ``(<= batch_size, points, 3)``."""
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        yield torch.from_numpy(np.ascontiguousarray(store.points[chunk, :points]))
