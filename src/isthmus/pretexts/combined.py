"""Several self-supervised tasks as one: the weighted sum of their losses, sample by sample.

GAST (Zou et al., ICCV 2021) is :class:`~isthmus.pretexts.distortion_location.DistortionLocation` with weight 0.5 and
:class:`~isthmus.pretexts.mixed_rotation.MixedRotation` with 0.2. A gate sees the sum, so a sample takes part in all
tasks or in none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.pretexts.base import Pretext

GAST_WEIGHTS = {"distortion": 0.5, "rotation": 0.2}
"""Published weights of GAST's tasks; that of classification is 0.5."""


class Combined(Pretext):
    """Weighted sum of tasks under one name. Every task passes the encoder by itself.

    The tasks draw from one stream of random numbers one after the other, so their order is part of the recipe; a weight
    of 0 still draws, and still passes the encoder, so that it changes nothing else.

    Args:
        name: the name of the whole, under which the loss is logged.
        parts: tasks and their weights, at least one, with names of their own.

    Attributes:
        means: mean loss of each task over the latest batch, unweighted, by name; detached scalars, empty before.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Pretext, float]]) -> None:
        super().__init__()
        names = [part.name for part, _ in parts]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"parts: expected at least one, with names of their own, found {names}")
        self.name = name
        self.parts = nn.ModuleDict({part.name: part for part, _ in parts})
        self.weights = {part.name: weight for part, weight in parts}
        self.means: dict[str, Tensor] = {}

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """The weighted sum of each sample. Shape: ``(B, N, 3)`` to ``(B,)``."""
        total = torch.zeros(len(points), device=points.device)
        for name, part in self.parts.items():
            assert isinstance(part, Pretext)
            per_sample = part.loss(encoder, points, random)
            self.means[name] = per_sample.detach().mean()
            total = total + self.weights[name] * per_sample
        return total

    def measures(self) -> dict[str, float]:
        """The means by ``<name>/<task>``, for the log."""
        return {f"{self.name}/{task}": float(mean) for task, mean in self.means.items()}
