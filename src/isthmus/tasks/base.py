"""What a kind of prediction has to offer: channels, a loss per sample, a metric over a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torchmetrics import Metric


class Task(ABC):
    """One kind of prediction.

    ``name`` is the key under which batches carry its labels; ``channels`` is the width of its output.
    """

    name: str
    channels: int

    @abstractmethod
    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Loss of each sample, a mean over its ``valid`` elements. Shape: ``(B, ...)``, ``(B, ...)`` to ``(B,)``.

        ``valid`` masks elements (pixels, points) of a label; a task with one label per sample has none.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh accumulator over a data set, updated with ``(output, label)`` and the mask if there is one."""
