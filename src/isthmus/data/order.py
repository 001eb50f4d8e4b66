"""The order in which training visits samples: a function of the seed, so a resumed run needs no sampler state."""

from __future__ import annotations

import numpy as np

from isthmus.data.randomness import shuffled


class Order:
    """Visits ``length`` samples epoch after epoch, each epoch in an order of its own; a batch may span two epochs."""

    def __init__(self, length: int, purpose: str) -> None:
        self.length = length
        self.purpose = purpose
        self._epoch: tuple[int, int, np.ndarray] | None = None

    def at(self, position: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> np.ndarray:
        """Samples of the batch of global step ``position`` on process ``rank`` of ``world``. Shape: ``(batch_size,)``.

        Every process takes its own slice of the same global batch of ``batch_size * world`` samples.
        """
        first = position * batch_size * world + rank * batch_size
        positions = np.arange(first, first + batch_size)
        result = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(positions // self.length).tolist():
            if self._epoch is None or self._epoch[:2] != (seed, epoch):
                order = shuffled(self.length, seed=seed, epoch=epoch, purpose=self.purpose)
                self._epoch = (seed, epoch, order)
            here = positions // self.length == epoch
            result[here] = self._epoch[2][positions[here] % self.length]
        return result
