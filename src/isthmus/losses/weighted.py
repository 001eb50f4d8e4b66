"""A loss as a sum over samples and the number of samples that it counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Loss(NamedTuple):
    """``coefficient * sum / weight`` once ``sum`` and ``weight`` are added up over all processes.

    ``sum`` is a scalar with a graph (or a plain zero when no sample takes part here), ``weight`` a detached count of
    the samples that it is a mean over. ``samples`` counts those that really take part, where that is another number: a
    task's loss may be a mean over all images of the batch, labelled for the task or not. ``mass`` adds up the factors
    with which they enter ``sum``, where those are not 1 or not all count, so that ``sum / mass`` is the mean loss of a
    sample that takes part. A loss that no sample takes part in anywhere vanishes from the step and from the log.
    """

    sum: Tensor
    weight: Tensor
    coefficient: float = 1.0
    samples: Tensor | None = None
    mass: Tensor | None = None

    @property
    def entering(self) -> Tensor:
        """The factors of all samples, added up: what ``sum`` is divided by for the mean of those that take part."""
        return self.weight if self.mass is None else self.mass

    @property
    def taking_part(self) -> Tensor:
        """How many samples take part on this process."""
        return self.weight if self.samples is None else self.samples

    @staticmethod
    def of(
        per_sample: Tensor,
        weight: Tensor | float,
        coefficient: float = 1.0,
        samples: Tensor | float | None = None,
        mass: Tensor | float | None = None,
    ) -> Loss:
        """Add up ``per_sample`` ``(B,)``; ``weight`` is the count it is to be divided by."""
        device = per_sample.device

        def number(value: Tensor | float) -> Tensor:
            return torch.as_tensor(value, dtype=torch.float32, device=device).detach()

        return Loss(
            per_sample.sum(),
            number(weight),
            coefficient,
            None if samples is None else number(samples),
            None if mass is None else number(mass),
        )

    @staticmethod
    def absent(device: torch.device, coefficient: float = 1.0, weight: Tensor | float = 0.0) -> Loss:
        """No sample here takes part; ``weight`` of them are here none the less."""
        return Loss.of(torch.zeros(0, device=device), weight, coefficient, samples=0.0, mass=0.0)
