"""A loss as a sum over samples and the number of samples that it counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Loss(NamedTuple):
    """``coefficient * sum / weight`` once ``sum`` and ``weight`` are added up over all processes.

    ``sum`` is a scalar with a graph (or a plain zero when no sample takes part here), ``weight`` a detached count.
    A loss whose weight is zero everywhere vanishes from the step and from the log.
    """

    sum: Tensor
    weight: Tensor
    coefficient: float = 1.0

    @staticmethod
    def of(per_sample: Tensor, weight: Tensor | float, coefficient: float = 1.0) -> Loss:
        """Add up ``per_sample`` ``(B,)``; ``weight`` is the count it is to be divided by."""
        count = torch.as_tensor(weight, dtype=torch.float32, device=per_sample.device).detach()
        return Loss(per_sample.sum(), count, coefficient)

    @staticmethod
    def absent(device: torch.device, coefficient: float = 1.0) -> Loss:
        """No sample here takes part."""
        return Loss(torch.zeros((), device=device), torch.zeros((), device=device), coefficient)
