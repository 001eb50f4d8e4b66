"""Keep samples at random: the paper's pilot experiment (Section I, half of the batch) and the control of every gate."""

from __future__ import annotations

from torch import Tensor

from isthmus.gates.base import Evidence, Gate


class RandomGate(Gate):
    """Keeps ``round(keep * n)`` samples at random, drawn from (seed, step, sample id)."""

    def measure(self, evidence: Evidence) -> Tensor:
        """A uniform number per sample. Shape: ``(B,)``."""
        return evidence.random.uniform().to(evidence.points.device)
