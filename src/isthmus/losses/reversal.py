"""Gradient reversal, the layer of domain-adversarial training (Ganin and Lempitsky, ICML 2015)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -ctx.coefficient * gradients[0], None


def reverse_gradient(values: Tensor, coefficient: float = 1.0) -> Tensor:
    """``values`` themselves; their gradient is multiplied by ``-coefficient``. Any shape."""
    result: Tensor = _Reversed.apply(values, coefficient)
    return result


def dann_ramp(progress: float) -> float:
    """How far the reversal is switched on: 2 / (1 + exp(-10 p)) - 1, from 0 at p = 0 to almost 1 at p = 1 (DANN)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1
