"""Tells domains apart, patch by patch: the discriminators of AdaptSegNet and of TADA's supplement.

AdaptSegNet (Tsai et al., CVPR 2018) has four 4 x 4 convolutions with stride 2 (64, 128, 256, 512 channels), leaky ReLUs
and a last convolution to one logit per patch, without BatchNorm: ``layers=5``. TADA (Li et al., supplement A.1) has "a
2-layer discriminator with a batchnorm between layers for facial images, and a 5-layer discriminator for indoor scenes"
and adds noise to activations. Neither says what happens on maps that are smaller than a patch; here every convolution
is padded so that a single pixel still gives a logit.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

Noise = Callable[[tuple[int, ...]], Tensor]
"""Standard normal draws for a batch: a shape without the batch dimension to ``(B, *shape)``."""


class PatchDiscriminator(nn.Module):
    """A fully convolutional classifier of two domains.

    Args:
        in_channels: of the map that is judged.
        layers: convolutions, the last to one logit.
        hidden: channels of the first layer; each of the next ones has twice as many, eight times as many at most.
        stride: of all layers but the last.
        batch_norm: BatchNorm between layers.
        activation_noise: standard deviation of the noise that is added behind every layer but the last.

    Shape:
        - input: (B, in_channels, H, W), any H and W
        - output: (B, 1, H', W'), logits of "source"
    """

    def __init__(
        self,
        in_channels: int,
        *,
        layers: int = 5,
        hidden: int = 64,
        stride: int = 2,
        batch_norm: bool = False,
        activation_noise: float = 0.0,
    ) -> None:
        super().__init__()
        if layers < 1 or hidden < 1 or stride < 1:
            raise ValueError(f"layers, hidden and stride must be at least 1, found {layers}, {hidden}, {stride}")
        self.activation_noise = activation_noise
        widths = [in_channels, *(hidden * 2 ** min(index, 3) for index in range(layers - 1))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride, bias=not batch_norm) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:]) if batch_norm else None
        self.logit = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, values: Tensor, noise: Noise | None = None) -> Tensor:
        """One logit per patch; without ``noise`` no activation noise."""
        for index, convolution in enumerate(self.convolutions):
            values = convolution(_padded(values))
            if self.norms is not None:
                values = self.norms[index](values)
            values = F.leaky_relu(values, 0.2)
            if noise is not None and self.activation_noise > 0:
                values = values + self.activation_noise * noise(tuple(values.shape[1:])).to(values)
        logits: Tensor = self.logit(_padded(values))
        return logits


def _padded(values: Tensor) -> Tensor:
    """One pixel more on the left and above, two on the right and below: a 4 x 4 kernel keeps the size (stride 1)."""
    return F.pad(values, (1, 2, 1, 2))
