"""Heads of self-supervised tasks that answer for every point of a cloud, or for any place in space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.layers import PointFeatures, PointLayer, scaled


class PointHead(nn.Module):
    """Numbers for every point of a cloud: 256-256-128, the layout of DefRec's reconstruction head (WACV 2021).

    Each point sees its own features and those of its cloud. The first layer is linear, so the cloud's part of it is
    computed once for the cloud and added to each point instead of being computed for each point.

    Args:
        local_channels: the encoder's.
        pooled_channels: the encoder's.
        out_channels: numbers for each point.
        width: scales the three hidden layers, each to a multiple of 8.
        slope: of the activation below zero; the encoders carry theirs as ``slope``.

    Shape:
        - input: :class:`PointFeatures` of (B, N, local_channels) and (B, pooled_channels)
        - output: (B, N, out_channels)
    """

    def __init__(
        self, local_channels: int, pooled_channels: int, out_channels: int, *, width: float = 1.0, slope: float = 0.0
    ) -> None:
        super().__init__()
        first, third = scaled(256, width), scaled(128, width)
        self.layer1 = PointLayer(local_channels + pooled_channels, first, slope=slope)
        self.layer2 = PointLayer(first, first, slope=slope)
        self.layer3 = PointLayer(first, third, slope=slope)
        self.output = nn.Linear(third, out_channels)
        self.local_channels = local_channels

    def forward(self, features: PointFeatures) -> Tensor:
        """The numbers of every point."""
        weight = self.layer1.linear.weight
        of_points = F.linear(features.local, weight[:, : self.local_channels])
        of_cloud = F.linear(features.pooled, weight[:, self.local_channels :])
        hidden = self.layer1.activate(of_points + of_cloud.unsqueeze(1))
        return self.output(self.layer3(self.layer2(hidden)))


class QueryHead(nn.Module):
    """One number for any place in the space around a cloud: 512-256-128-1 with ReLU, without normalisation.

    The decoder of implicit fields (ImplicitPCDA, CVPR 2022): input is the cloud's pooled feature and the place, 1027
    numbers for an encoder of 1024. As in :class:`PointHead`, the cloud's part of the first layer is computed once.
    Without BatchNorm the answer for one cloud does not depend on the others.

    Args:
        pooled_channels: the encoder's.
        width: scales the three hidden layers, each to a multiple of 8.

    Shape:
        - input: (B, pooled_channels) and places (B, Q, 3)
        - output: (B, Q)
    """

    def __init__(self, pooled_channels: int, *, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (scaled(c, width) for c in (512, 256, 128))
        self.layer1 = nn.Linear(pooled_channels + 3, first)
        self.rest = nn.Sequential(
            nn.Linear(first, second), nn.ReLU(), nn.Linear(second, third), nn.ReLU(), nn.Linear(third, 1)
        )
        self.pooled_channels = pooled_channels

    def forward(self, pooled: Tensor, places: Tensor) -> Tensor:
        """The number at every place."""
        weight = self.layer1.weight
        of_cloud = F.linear(pooled, weight[:, : self.pooled_channels], self.layer1.bias)
        of_place = F.linear(places, weight[:, self.pooled_channels :])
        number: Tensor = self.rest(F.relu(of_place + of_cloud.unsqueeze(1)))
        return number.squeeze(-1)
