"""What is put on top of a point cloud encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.layers import PointFeatures, PointLayer, scaled


class ClassificationHead(nn.Module):
    """Classifier of clouds: 512-256-classes with BatchNorm, (leaky) ReLU and dropout.

    Args:
        in_channels: the encoder's ``pooled_channels``.
        classes: number of classes, at least 1.
        width: scales the two hidden layers, each to a multiple of 8.
        dropout: probability of dropping a hidden unit, in [0, 1).
        slope: of the activation below zero; the encoders carry theirs as ``slope``.

    Shape:
        - input: (B, in_channels); B > 1 in training mode
        - output: (B, classes), logits
    """

    def __init__(
        self, in_channels: int, classes: int, *, width: float = 1.0, dropout: float = 0.5, slope: float
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, found {classes}")
        first, second = scaled(512, width), scaled(256, width)
        self.layer1 = PointLayer(in_channels, first, slope=slope)
        self.layer2 = PointLayer(first, second, slope=slope)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(second, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of each cloud."""
        hidden = self.dropout(self.layer1(pooled))
        return self.logits(self.dropout(self.layer2(hidden)))


class PointReconstructionHead(nn.Module):
    """Moves every point back to where it was before the cloud was deformed (DefRec, WACV 2021): 256-256-128-3.

    Each point sees its own features and those of its cloud. The first layer is linear, so the cloud's part of it is
    computed once for the cloud and added to each point instead of being computed for each point.

    Args:
        local_channels: the encoder's.
        pooled_channels: the encoder's.
        width: scales the three hidden layers, each to a multiple of 8.
        slope: of the activation below zero.

    Shape:
        - input: :class:`PointFeatures` of (B, N, local_channels) and (B, pooled_channels)
        - output: (B, N, 3), coordinates
    """

    def __init__(self, local_channels: int, pooled_channels: int, *, width: float = 1.0, slope: float = 0.0) -> None:
        super().__init__()
        first, third = scaled(256, width), scaled(128, width)
        self.layer1 = PointLayer(local_channels + pooled_channels, first, slope=slope)
        self.layer2 = PointLayer(first, first, slope=slope)
        self.layer3 = PointLayer(first, third, slope=slope)
        self.coordinates = nn.Linear(third, 3, bias=False)
        self.local_channels = local_channels

    def forward(self, features: PointFeatures) -> Tensor:
        """Coordinates of every point."""
        weight = self.layer1.linear.weight
        of_points = F.linear(features.local, weight[:, : self.local_channels])
        of_cloud = F.linear(features.pooled, weight[:, self.local_channels :])
        hidden = self.layer1.activate(of_points + of_cloud.unsqueeze(1))
        return self.coordinates(self.layer3(self.layer2(hidden)))
