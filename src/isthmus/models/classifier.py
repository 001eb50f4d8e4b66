"""An encoder of clouds with a classification head."""

from __future__ import annotations

from torch import Tensor, nn


class PointClassifier(nn.Module):
    """``encoder`` then ``head`` on its pooled features. Shape: ``(B, N, 3)`` to ``(B, K)``."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, points: Tensor) -> Tensor:
        """Logits. Shape: ``(B, N, 3)`` to ``(B, K)``."""
        logits: Tensor = self.head(self.encoder(points).pooled)
        return logits
