r"""Weights from learned homoscedastic uncertainty (Kendall, Gal and Cipolla, CVPR 2018).

Each task t has a learned :math:`s_t = \log \sigma_t^2` and enters the step as

.. math:: \frac{e^{-s_t}}{c_t} L_t + \frac{s_t}{2},

with :math:`c_t` 1 for tasks with classes and 2 for regression in the form of the paper (``kendall``, as released with
UniversalRepresentations), and 2 for all in MTAN's (``mtan``). The paper has every label of every image. Here both terms
are those of a labelled image and enter with the same factor: of an unlabelled image neither does. Counted in full, the
second term would make a rarely labelled task seem a certain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting

REGRESSION = ("depth", "inverse_depth", "normals")


class Uncertainty(Weighting):
    """Learned uncertainty; the run's optimiser learns it, under the name ``log_variance``.

    A task that no sample of the batch is labelled for, on any process, contributes neither of its terms, so its
    uncertainty does not drift towards what the second term alone would have. The losses of one task in several domains
    share an uncertainty. The second term is a loss of its own, ``uncertainty/<task>/<domain>``.

    Args:
        tasks: names of the tasks.
        form: which constants to divide by, see the module.
        initial: :math:`s_t` before the first step.
        constants: :math:`c_t` by task, in place of those of ``form``.

    Raises:
        ValueError: if a constant is not positive, or is one of no task.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        *,
        form: Literal["kendall", "mtan"] = "kendall",
        initial: float = -0.5,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        given = dict(constants or {})
        if not given.keys() <= set(tasks) or not all(constant > 0 for constant in given.values()):
            raise ValueError(f"constants: expected positive numbers for tasks of {tasks}, found {given}")
        self.constants = {task: 2.0 if form == "mtan" or task in REGRESSION else 1.0 for task in tasks} | given
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.tensor(float(initial))) for task in tasks})

    def forward(self, losses: dict[str, Loss]) -> dict[str, Loss]:
        """Scale the losses of the tasks and add ``uncertainty/<task>/<domain>`` for each."""
        weighted = dict(losses)
        for name, loss in losses.items():
            task = self.task_of(name)
            if task is None:
                continue
            scale = torch.exp(-self.log_variance[task]) / self.constants[task]
            weighted[name] = loss._replace(sum=loss.sum * scale)
            second = self.log_variance[task] / 2 * loss.entering
            weighted[f"uncertainty/{name}"] = Loss(second, loss.weight, 1.0, loss.samples, loss.mass)
        return weighted
