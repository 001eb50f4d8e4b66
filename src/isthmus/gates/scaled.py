"""No gate, but the same mean weight: the control for the fact that a gate also shrinks the self-supervised loss."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.gates.base import Evidence, Gate


class ScaledWeight(Gate):
    """Every scored sample takes part with weight ``keep``."""

    def measure(self, evidence: Evidence) -> Tensor:
        """Zero for every sample: nothing is ranked. Shape: ``(B,)``."""
        return torch.zeros(len(evidence.points), device=evidence.points.device)

    def select(self, scores: Tensor, fraction: float = 0.0) -> Tensor:
        """All samples. Shape: ``(B,)`` bool."""
        return torch.ones_like(scores, dtype=torch.bool)

    def participation(self, scores: Tensor, fraction: float = 0.0) -> Tensor:
        """``keep`` for a sample with a score, 1 for the others. Shape: ``(B,)``."""
        return torch.where(scores.isfinite(), self.keep_at(fraction), 1.0)
