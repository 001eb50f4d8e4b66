"""The gate of SM-DSB: samples whose saliency map is least skewed take part.

Tang et al., "Locating and Mitigating Gradient Conflicts in Point Cloud Domain Adaptation via Saliency Map Skewness",
Eq. 4 to 7 and Algorithm 1. The paper says once that "high scores will participate" (III-C); Eq. 7, Algorithm 1 and
Sections I and V-C say the opposite, and are what ``keep_side="low"`` does. ``keep_side="high"`` is the ablation.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from isthmus.gates.base import Evidence, Gate, Scope
from isthmus.gates.saliency import Centre, saliency, skewness


class SkewnessGate(Gate):
    """Gate by the skewness of the saliency map; usable alone in any training loop.

    Example:
        >>> import torch
        >>> from isthmus import SkewnessGate
        >>> gate = SkewnessGate(keep=0.75)
        >>> points, gradient = torch.randn(8, 64, 3), torch.randn(8, 64, 3)
        >>> gate(points, gradient).sum().item()
        6
    """

    uses_gradient: ClassVar[bool] = True

    def __init__(
        self,
        keep: float = 0.7,
        *,
        keep_end: float | None = None,
        keep_side: Literal["low", "high"] = "low",
        alpha: float = 1.0,
        centre: Centre = "median",
        scope: Scope = "global",
    ) -> None:
        super().__init__(keep, keep_end=keep_end, scope=scope)
        self.keep_side = keep_side
        self.alpha = alpha
        self.centre: Centre = centre

    def scores(self, points: Tensor, gradient: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Skewness of each sample's saliency map.

        Shape: points and gradient ``(B, N, 3)``, ``valid`` ``(B, N)`` bool, to ``(B,)`` float32; NaN for a sample
        whose gradient is not finite. Neither the loss's reduction nor its scale changes the result.

        Raises:
            ValueError: no gradient, or one of another shape than the points.
        """
        if gradient is None:
            raise ValueError(
                "gradient: expected that of the classification loss by the points, found None; call "
                "points.requires_grad_() before the forward pass, and backward() before the gate"
            )
        return skewness(saliency(points, gradient, alpha=self.alpha, centre=self.centre), valid)

    def __call__(self, points: Tensor, gradient: Tensor | None) -> Tensor:
        """Which samples take part in the self-supervised loss. Shape: ``(B, N, 3)`` twice to ``(B,)`` bool."""
        return self.select(self.scores(points, gradient))

    def measure(self, evidence: Evidence) -> Tensor:
        """Skewness of each sample. Shape: ``(B,)``."""
        assert evidence.gradient is not None
        return self.scores(evidence.points, evidence.gradient, evidence.valid)

    def select(self, scores: Tensor, fraction: float = 0.0) -> Tensor:
        """Which samples take part: the least skewed, or with ``keep_side="high"`` the most skewed."""
        return super().select(scores if self.keep_side == "low" else -scores, fraction)
