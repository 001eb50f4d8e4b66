"""The batches of one domain: batch t is a pure function of (seed, t), so a resumed run needs no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from isthmus.data.augment import Augment
from isthmus.data.batch import Batch
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


@dataclass
class Stream:
    """Shuffled, augmented training batches of ``rows`` of a store.

    ``known`` maps a task to the labels that its samples carry; without an entry no label file is ever opened. Every
    process takes its own slice of the same global batch of ``batch_size * world`` samples. A batch may span two epochs.
    """

    domain: str
    store: CloudStore
    rows: np.ndarray
    batch_size: int
    points: int
    augment: Augment
    known: dict[str, KnownLabels] = field(default_factory=dict)
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
        return Batch(
            domain=self.domain,
            inputs={"points": points},
            labels={task: torch.from_numpy(known.labels[rows]) for task, known in self.known.items()},
            present={task: torch.from_numpy(known.present[rows]) for task, known in self.known.items()},
            sample_id=torch.from_numpy(rows),
        )


def clouds(store: CloudStore, rows: np.ndarray, points: int, batch_size: int = 64) -> Iterator[Tensor]:
    """The clouds of ``rows`` in order, unaugmented, in chunks. Shape: ``(<= batch_size, points, 3)``."""
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        yield torch.from_numpy(np.ascontiguousarray(store.points[chunk, :points]))
