"""Feature-wise linear modulation (FiLM, Perez et al., AAAI 2018): a scale and a shift per channel, chosen by a code."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Modulation(NamedTuple):
    """``gamma`` and ``beta``, (P, C, 1, 1) each, for the P maps of a batch."""

    gamma: Tensor
    beta: Tensor


class FiLM(nn.Module):
    """Tables of scales and shifts with a row per code: bias-free linear maps of its one-hot vector.

    Scales start at 1 and shifts at 0, so that a new table is the identity for every code.

    Shape:
        - input: (P,) int64, codes from 0 to ``codes`` - 1
        - output: :class:`Modulation` of (P, channels, 1, 1)
    """

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        if codes < 1:
            raise ValueError(f"codes must be at least 1, found {codes}")
        self.gamma = nn.Parameter(torch.ones(codes, channels))
        self.beta = nn.Parameter(torch.zeros(codes, channels))

    def forward(self, code: Tensor) -> Modulation:
        """The scale and shift of each code."""
        # A lookup whose gradient is added up in a fixed order on every device.
        return Modulation(*(F.embedding(code, table)[:, :, None, None] for table in (self.gamma, self.beta)))


def modulate(features: Tensor, modulation: Modulation | None) -> Tensor:
    """``gamma * features + beta``, or the features as they are without a modulation. Shape: (P, C, H, W)."""
    if modulation is None:
        return features
    gamma, beta = (table.to(features.dtype) for table in modulation)
    return torch.addcmul(beta, features, gamma)
