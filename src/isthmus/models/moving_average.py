"""A copy of a network that follows it as a moving average: the teacher of self-distillation."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import nn


class MovingAverage(nn.Module):
    """``network`` holds an average of another network's parameters and float buffers.

    All of its state is buffers: it is saved and moved like weights, and no optimiser, freezing or gradient ever sees
    it. It is always in eval mode.

    Args:
        network: what is copied, with its present weights; not changed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever the method around it does."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, momentum: float) -> None:
        """Move to ``momentum`` times the average plus ``1 - momentum`` times ``network``; 0 copies it exactly.

        Buffers of whole numbers (BatchNorm's count of batches) are copied.
        """
        own = self.network.state_dict()
        for name, value in network.state_dict().items():
            if momentum and own[name].is_floating_point():
                own[name].lerp_(value, 1 - momentum)
            else:
                own[name].copy_(value)
