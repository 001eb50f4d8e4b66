"""Depth in metres."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.tasks.pixels import masked, ratio
from isthmus.tasks.positive import SMALLEST, PositiveMap


class Depth(PositiveMap):
    """Distance along the optical axis, in metres.

    Besides the errors of :class:`isthmus.tasks.positive.PositiveMap` there is ``delta1``, the share of pixels with
    ``max(d / d*, d* / d) < 1.25``, in [0, 1] (Eigen et al., NeurIPS 2014).
    """

    name = "depth"
    heading = "aErr [m]"

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """The base's sums, and the number of pixels within a factor of 1.25. Shape: ``(B, 5)``."""
        found = self.activate(output)[:, 0].double()
        truth = masked(label, valid)[:, 0].double().clamp(min=SMALLEST)
        near = (torch.maximum(found / truth, truth / found) < 1.25) & valid
        return torch.cat([super().statistics(output, label, valid), near.sum(dim=(1, 2))[:, None].double()], dim=1)

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``abs_error`` and ``rmse`` in metres, ``rel_error`` and ``delta1`` as fractions."""
        return super().scores(statistics) | {"delta1": ratio(statistics[..., 4], statistics[..., 3])}
