"""Two ways to the gradient of the classification loss by the points.

``coupled``: it falls out of the backward pass that training does anyway. The pass is run at once, for points and
parameters together; the parameter gradients ride back into the step on the loss value. Nearly free. BatchNorm in
training mode couples samples: row b is then the derivative of *all* samples' losses by cloud b, not the per-sample
quantity of the paper's Eq. 4 (with BatchNorm in eval mode or without it the two agree).

``separate``: a forward and backward pass of its own with every layer in eval mode (running statistics, no dropout),
which is exact per sample, deterministic, and what Zheng et al.'s code does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.models.modes import evaluating


class _Carried(torch.autograd.Function):
    """A loss value whose parameter gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(upstream[0] * gradient for gradient in ctx.saved_tensors))


def coupled(loss: Tensor, leaf: Tensor, parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Differentiate ``loss`` now, by ``leaf`` and ``parameters`` in one pass.

    Returns a loss of the same value whose later ``backward`` adds the stored parameter gradients (times the incoming
    one, so that weights and loss scaling work, and data-parallel hooks fire as usual), and the gradient by ``leaf``.
    The graph of ``loss`` is freed. Not possible under FSDP, whose sharded parameters cannot be differentiated inside
    a forward pass.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    by_leaf, *by_parameter = torch.autograd.grad(loss, [leaf, *trained], allow_unused=True)
    if by_leaf is None:
        raise ValueError("coupled saliency: the loss does not depend on the points")
    used = [(p, g) for p, g in zip(trained, by_parameter) if g is not None]
    carried = _Carried.apply(loss.detach(), [g for _, g in used], *[p for p, _ in used])
    return carried, by_leaf


def separate(network: nn.Module, points: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of ``loss_of(leaf)``, a scalar sum over samples, by the points with ``network`` in eval mode.

    Shape: ``(B, N, 3)`` to ``(B, N, 3)``. Modes, buffers and parameter gradients of ``network`` are left as found.
    """
    with evaluating(network), torch.enable_grad():
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(leaf), leaf)
    return gradient
