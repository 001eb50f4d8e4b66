"""Keep the samples whose self-supervised gradient agrees best with the oracle gradient. ANALYSIS ONLY.

The oracle gradient is that of the classification loss on *labelled target* samples, so this gate uses target labels.
It is the upper control: what a perfect estimate of the conflict (paper, Section I, ``G_oracle``) would be worth.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from isthmus.gates.base import Evidence, Gate


class CosineGate(Gate):
    """Keeps the ``round(keep * n)`` samples of highest cosine with the oracle gradient; uses target labels."""

    uses_target_labels: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> Tensor:
        """Negative cosine, so that low is kept. Shape: ``(B,)``."""
        assert evidence.agreement is not None
        return -evidence.agreement
