"""A self-supervised task on point clouds, with one loss per sample so that any gate applies."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom


class Pretext(nn.Module, ABC):
    """A self-supervised task; owns its head, shares the encoder it is given."""

    name: str

    @abstractmethod
    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """Loss of each sample. Shape: ``(B, N, 3)`` to ``(B,)``."""

    def measures(self) -> dict[str, float]:
        """Numbers about the latest batch that are no losses, for the log."""
        return {}
