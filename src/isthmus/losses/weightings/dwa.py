r"""Dynamic weight average (Liu, Johns and Davison, CVPR 2019): a task weighs more the slower its loss falls.

.. math:: \lambda_t = K\, \mathrm{softmax}_t(r_t / T), \qquad r_t = \frac{L_t(\tau - 1)}{L_t(\tau - 2)}

The paper takes epochs for :math:`\tau`; here they are windows of a number of steps. MTAN has T = 2, the code around
MTPSL T = 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting


class DWA(Weighting):
    """Weights from the ratio of the mean losses of the last two windows.

    A task that a window does not hold keeps its ratio. A task of which two windows are not known yet has ratio 1, so
    all weights are 1 at first.

    Args:
        tasks: names of the tasks.
        temperature: T; the higher, the more alike the weights.
        interval: steps of a window.

    Raises:
        ValueError: if ``temperature`` or ``interval`` is not positive.
    """

    total: Tensor
    count: Tensor
    steps: Tensor
    windows: Tensor

    def __init__(self, tasks: tuple[str, ...], *, temperature: float = 2.0, interval: int) -> None:
        super().__init__(tasks)
        if not temperature > 0 or interval < 1:
            raise ValueError(f"expected positive temperature and interval, found {temperature} and {interval}")
        self.temperature = temperature
        self.interval = interval
        self.register_buffer("total", torch.zeros(len(tasks)))
        self.register_buffer("count", torch.zeros(len(tasks)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Mean losses of the two last windows that held the task, the older first.
        self.register_buffer("windows", torch.full((2, len(tasks)), torch.nan))

    def weights(self) -> Tensor:
        """The weights, which add up to the number of tasks. Shape: ``(K,)``."""
        ratio = self.windows[1] / self.windows[0]
        ratio = torch.where(ratio.isfinite(), ratio, 1.0)
        return len(self.tasks) * (ratio / self.temperature).softmax(dim=0)

    def forward(self, losses: dict[str, Loss]) -> dict[str, Loss]:
        """Scale the losses of the tasks."""
        weights = dict(zip(self.tasks, self.weights()))
        scaled = {}
        for name, loss in losses.items():
            task = self.task_of(name)
            scaled[name] = loss if task is None else loss._replace(sum=loss.sum * weights[task])
        return scaled

    @torch.no_grad()
    def observe(self, means: Mapping[str, float]) -> None:
        """Take the losses of a step into the window, and close it after ``interval`` of them."""
        for task, mean in means.items():
            # In half precision a loss may overflow; the step is skipped then.
            if torch.isfinite(torch.tensor(mean)):
                self.total[self.tasks.index(task)] += mean
                self.count[self.tasks.index(task)] += 1
        self.steps += 1
        if self.steps < self.interval:
            return
        seen = self.count > 0
        latest = torch.stack([self.windows[1], self.total / self.count.clamp(min=1)])
        self.windows.copy_(torch.where(seen, latest, self.windows))
        for buffer in (self.total, self.count, self.steps):
            buffer.zero_()
