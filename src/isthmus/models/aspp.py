"""Atrous spatial pyramid pooling: one feature map seen at several distances at once (DeepLab v3).

Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ASPPHead(nn.Module):
    """From features to the raw outputs of one task, at the size of the features.

    In parallel: a convolution 1x1, one 3x3 for each rate of dilation, and the mean over the image through a 1x1
    convolution. A 1x1 convolution mixes them, then dropout, a convolution 3x3, and a 1x1 to the outputs; BatchNorm and
    ReLU after each but the last.

    Args:
        in_channels, out_channels: before and after.
        hidden: channels between.
        rates: dilations; a rate beyond the size of the features sees the middle only.
        dropout: probability of dropping a value after the mixing, in [0, 1).

    Shape:
        - input: (B, in_channels, H, W)
        - output: (B, out_channels, H, W)
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, hidden: int, rates: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        near = _layer(in_channels, hidden, 1)
        self.branches = nn.ModuleList([near, *(_layer(in_channels, hidden, 3, rate) for rate in rates)])
        self.image = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), PooledNorm(hidden), nn.ReLU(inplace=True)
        )
        self.mix = nn.Sequential(*_layer(hidden * (len(rates) + 2), hidden, 1), nn.Dropout(dropout))
        self.last = _layer(hidden, hidden, 3)
        self.outputs = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Raw outputs."""
        # A plain mean: the gradient of adaptive pooling is not deterministic on every device.
        whole = self.image(features.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *features.shape[-2:])
        seen = [branch(features) for branch in self.branches]
        outputs: Tensor = self.outputs(self.last(self.mix(torch.cat([*seen, whole], dim=1))))
        return outputs


class PooledNorm(nn.BatchNorm2d):
    """BatchNorm of one value per image and channel, which has no variance in a batch of one image.

    Such a batch is normalised with the running statistics, in training mode too, and does not move them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer. Shape: (B, C, 1, 1)."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def _layer(before: int, after: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    conv = nn.Conv2d(before, after, kernel, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
