"""Tells whether two feature maps come from the same image: the discriminator loss of MTPSL.

Li et al., "Learning multiple dense prediction tasks from partially annotated data", CVPR 2022, Section 3.2,
"Alternative loss and regularization strategies". The paper says no more than that it is a convolutional network on
positive and negative pairs, and it was never released: the layers are ours. No BatchNorm, so that a pair's logit does
not depend on the pairs beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairDiscriminator(nn.Module):
    """A small convolutional network on two feature maps side by side, averaged over positions.

    Args:
        channels: of each map.
        hidden: of the two layers between.

    Shape:
        - input: (P, channels, H, W) twice, any H and W
        - output: (P,), logits of "same image"
    """

    def __init__(self, channels: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.logit = nn.Linear(hidden, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """One logit for each pair."""
        if first.shape != second.shape:
            raise ValueError(f"both maps must have one shape, found {tuple(first.shape)} and {tuple(second.shape)}")
        pooled = self.layers(torch.cat([first, second], dim=1)).mean(dim=(2, 3))
        logits: Tensor = self.logit(pooled).squeeze(1)
        return logits
