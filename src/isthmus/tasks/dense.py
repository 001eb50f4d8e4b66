"""What a prediction per pixel has to offer beyond :class:`isthmus.tasks.base.Task`.

A data set's score is a function of *sums over samples* of a few statistics per sample (a confusion matrix, a sum of
errors and a count). So accumulation over batches and processes is addition, a score is never an average of averages,
and an interval over rooms resamples rows of the same statistics.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from isthmus.tasks.base import Task


class DenseTask(Task):
    """One kind of prediction per pixel.

    Labels are ``(B, H, W)`` int64 for tasks with classes, ``(B, C, H, W)`` float32 otherwise; ``valid`` is
    ``(B, H, W)`` bool; outputs are raw network outputs ``(B, channels, H, W)``. A sample without a valid pixel has loss
    0, no gradient, and statistics of zeros. (``isthmus.tasks.keypoints`` has points for pixels, and shapes of its own.)

    Attributes:
        classes: names of the classes, empty for a task without.
        headline: the score that stands for the task in tables.
        higher_is_better: its direction.
        heading: its name in a table, with the unit.
        display_factor: what the score is multiplied by in a table (100 for a share shown in percent).
        vector_channels: how many numbers without a place in the image the task needs besides its ``channels`` maps;
            a network appends them to the maps as channels that are constant over the image.
    """

    classes: tuple[str, ...] = ()
    headline: str
    higher_is_better: bool
    heading: str
    display_factor: float = 1.0
    vector_channels: int = 0

    @abstractmethod
    def activate(self, output: Tensor) -> Tensor:
        """From raw outputs to predictions: probabilities, depths, unit normals. Shape: ``(B, channels, H, W)``."""

    @abstractmethod
    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """What :meth:`scores` needs, per sample, to be added up. Shape: ``(B, S)`` float64 on the output's device."""

    @abstractmethod
    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """Scores from sums of statistics, NaN where nothing was measured. Shape: ``(..., S)`` to ``(...)`` each.

        Leading dimensions are resamplings: all scores of a bootstrap come from one call.
        """

    @abstractmethod
    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """A prediction as the input of a cross-task network. Shape: ``(B, channels, H, W)``.

        With ``uniform`` draws in [0, 1) of that shape, a segmentation is a hard straight-through Gumbel-softmax sample
        (temperature 1) instead of its probabilities; other tasks take no notice.
        """

    @abstractmethod
    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """A label in the form of :meth:`prediction_map`, without gradient. Shape: ``(B, channels, H, W)``."""

    def metric(self) -> Metric:
        """An accumulator that is updated with ``(output, label, valid)`` and computes :meth:`scores`."""
        return _Summed(self)


class _Summed(Metric):
    """The sum of a task's statistics over everything it was shown, on all processes."""

    total: Tensor

    def __init__(self, task: DenseTask) -> None:
        super().__init__()
        self.task = task
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Tensor, label: Tensor, valid: Tensor) -> None:
        self.total = self.total + self.task.statistics(output, label, valid).sum(dim=0)

    def compute(self) -> dict[str, Any]:
        return {name: float(value) for name, value in self.task.scores(self.total).items()}
