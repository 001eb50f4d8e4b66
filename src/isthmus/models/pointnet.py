"""PointNet: the same small network on every point, then the maximum over the cloud.

Qi et al., "PointNet: Deep learning on point sets for 3D classification and segmentation", CVPR 2017, in the form the
domain adaptation literature uses (DefRec, GAST, RefRec): two transform networks, no orthogonality loss.

Differences from the released code of that literature: no bias before BatchNorm, which would remove it (6,080 of 3.47 M
parameters); the transform networks start at the identity, as in PointNet's own code; BatchNorm and ReLU of the
1024-channel layers come after the maximum (see ``isthmus.models.layers``), which changes nothing but the time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isthmus.models.layers import MatrixHead, PointFeatures, PointLayer, PooledPointLayer, scaled


def transform_net(channels: int, width: float) -> nn.Sequential:
    """A small PointNet from features (B, N, channels) to a matrix (B, channels, channels) for each cloud."""
    first, second, third = (scaled(c, width) for c in (64, 128, 1024))
    return nn.Sequential(
        PointLayer(channels, first),
        PointLayer(first, second),
        PooledPointLayer(second, third),
        MatrixHead(third, channels, width=width),
    )


class PointNet(nn.Module):
    """Encoder of clouds with 64-64-64-128-1024 channels.

    ``local`` is the concatenation of the first four layers' features of each point (320 channels), ``pooled`` the
    maximum of the last layer's over the cloud (1024 channels).

    Args:
        width: scales all channel counts, each to a multiple of 8.
        input_transform: learn a 3x3 matrix for the coordinates of each cloud.
        feature_transform: learn a 64x64 matrix for the features of each cloud after the second layer.

    Attributes:
        local_channels, pooled_channels: of the output; slope: of the activations below zero (0: ReLU).

    Shape:
        - input: (B, N, 3), on the unit sphere, z up; B > 1 in training mode
        - output: :class:`PointFeatures` of (B, N, 320) and (B, 1024)

    Example:
        >>> encoder = PointNet(width=0.25).eval()
        >>> features = encoder(torch.zeros(2, 50, 3))
        >>> features.local.shape, features.pooled.shape
        (torch.Size([2, 50, 80]), torch.Size([2, 256]))
    """

    slope = 0.0

    def __init__(self, *, width: float = 1.0, input_transform: bool = True, feature_transform: bool = True) -> None:
        super().__init__()
        first, wide, last = (scaled(c, width) for c in (64, 128, 1024))
        self.input_transform = transform_net(3, width) if input_transform else None
        self.feature_transform = transform_net(first, width) if feature_transform else None
        self.layer1 = PointLayer(3, first)
        self.layer2 = PointLayer(first, first)
        self.layer3 = PointLayer(first, first)
        self.layer4 = PointLayer(first, wide)
        self.layer5 = PooledPointLayer(wide, last)
        self.local_channels = 3 * first + wide
        self.pooled_channels = last

    def forward(self, points: Tensor) -> PointFeatures:
        """Features of every point and of every cloud."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"points must be (B, N, 3), found shape {tuple(points.shape)}")
        if self.input_transform is not None:
            points = points @ self.input_transform(points)
        x1 = self.layer1(points)
        x2 = self.layer2(x1)
        aligned = x2 if self.feature_transform is None else x2 @ self.feature_transform(x2)
        x3 = self.layer3(aligned)
        x4 = self.layer4(x3)
        return PointFeatures(torch.cat([x1, x2, x3, x4], dim=-1), self.layer5(x4))
