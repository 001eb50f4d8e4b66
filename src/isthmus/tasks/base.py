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
    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Loss of each sample. Shape: ``(B, ...)``, ``(B, ...)`` to ``(B,)``."""

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh accumulator over a data set, updated with ``(output, label)``."""
