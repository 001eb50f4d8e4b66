"""Layers on clouds whose channels come last: ``(..., C)`` in, ``(..., C)`` out.

Point networks spend most of their time normalising and differentiating features of which a maximum keeps one in a
thousand. BatchNorm is increasing or decreasing in each channel, by the sign of its weight, and (leaky) ReLU is
increasing, so the maximum, or the minimum, can be taken first:

    max_n act(BN(w . x_n)) = act(BN(max_n w . x_n)) where the weight of BN is >= 0, with min where it is < 0.

The statistics that BatchNorm needs are still those of all rows. They follow from the first two moments of the
layer's input, mean(w . x) = w . mean(x) and var(w . x) = w' cov(x) w, which are small. The result equals the usual
order of operations up to rounding, in the values, in the running statistics and in all gradients, and only the
selected rows are left to be normalised and differentiated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointFeatures(NamedTuple):
    """What an encoder makes of a batch of clouds.

    ``local`` (B, N, C_local) has a row for every point, in the order of the points; ``pooled`` (B, C_pooled) has one
    for every cloud, and does not depend on that order.
    """

    local: Tensor
    pooled: Tensor


def scaled(channels: int, width: float) -> int:
    """``channels * width`` as a multiple of 8, and at least 8.

    Example:
        >>> scaled(64, 0.5), scaled(64, 0.01), scaled(1024, 1.0)
        (32, 8, 1024)
    """
    if not width > 0:
        raise ValueError(f"width must be greater than 0, found {width}")
    return max(8, round(channels * width / 8) * 8)


class Moments(NamedTuple):
    """Mean (C,) and covariance (C, C), both float64, of a number of rows."""

    mean: Tensor
    covariance: Tensor
    rows: int


def moments(rows: Tensor) -> Moments:
    """Moments over all rows of features (B, N, C). Differentiable."""
    centred, origin = centre(rows)
    count = rows.shape[0] * rows.shape[1]
    mean = centred.sum(dim=(0, 1), dtype=torch.float64) / count
    return Moments(mean + origin, product(centred, centred) / count - torch.outer(mean, mean), count)


def centre(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, N, C) about a fixed point near their mean, at least in float32, and that point (C,).

    The moments of the shifted rows lose no digits to the mean; the shift carries no gradient and needs none.
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    origin = rows.detach().mean(dim=(0, 1))
    return rows - origin, origin


def product(a: Tensor, b: Tensor) -> Tensor:
    """Sum over all rows of the outer products of ``a`` (B, N, C) and ``b`` (B, N, D): (C, D), float64.

    Added up in the precision of the rows within a cloud and in float64 over the clouds.
    """
    with torch.autocast(a.device.type, enabled=False):
        return (a.transpose(1, 2) @ b).sum(dim=0, dtype=torch.float64)


def uses_batch_statistics(norm: nn.BatchNorm1d) -> bool:
    """Whether this BatchNorm normalises with the batch, decided as ``torch.nn.BatchNorm1d`` does."""
    if isinstance(norm, nn.SyncBatchNorm):
        raise TypeError("SyncBatchNorm is not supported here: the statistics are those of one process")
    return norm.training or norm.running_mean is None


def direction(norm: nn.BatchNorm1d) -> Tensor:
    """+1 for the channels whose order BatchNorm keeps, -1 for those it reverses."""
    return torch.where(norm.weight.detach() < 0, -1.0, 1.0)


def normalise_selected(norm: nn.BatchNorm1d, selected: Tensor, weight: Tensor, population: Moments | None) -> Tensor:
    """BatchNorm of values ``w . x`` selected from many rows x, with the statistics of all of them.

    Args:
        norm: in training mode its running statistics move as if it had seen all the rows.
        selected: the values, (..., C_out).
        weight: the linear map w, (C_out, C_in).
        population: moments of all x; None where the running statistics are used.
    """
    selected = selected.to(torch.promote_types(selected.dtype, torch.float32))
    if population is None:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
    else:
        exact = weight.double()
        mean = exact @ population.mean
        variance = ((exact @ population.covariance) * exact).sum(dim=1).clamp(min=0)
        if norm.training:
            _move_running_statistics(norm, mean.detach(), variance.detach(), population.rows)
    scale = torch.rsqrt(variance + norm.eps).to(selected.dtype) * norm.weight
    return (selected - mean.to(selected.dtype)) * scale + norm.bias


def _move_running_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    unbiased = variance * (count / max(1, count - 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)


class PointLayer(nn.Module):
    """Linear map of every point, BatchNorm over all points, then (leaky) ReLU.

    What the literature writes as a 1x1 convolution, as a plain matrix product. The map has no bias: BatchNorm would
    remove it.

    Args:
        slope: of the activation below zero; 0 is ReLU.

    Shape:
        - input: (..., in_channels)
        - output: (..., out_channels)
    """

    def __init__(self, in_channels: int, out_channels: int, *, slope: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)
        self.slope = slope

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layer to every point."""
        return self.activate(self.linear(features))

    def activate(self, mapped: Tensor) -> Tensor:
        """BatchNorm and activation of features that the linear map has already produced."""
        normed = self.norm(mapped.flatten(0, -2)).view_as(mapped)
        return F.leaky_relu(normed, self.slope, inplace=True)

    def convolve(self, features: Tensor) -> Tensor:
        """The same layer as the textbook has it: a 1x1 convolution of (B, in_channels, H, W)."""
        mapped = F.conv2d(features, self.linear.weight[:, :, None, None])
        return F.leaky_relu(self.norm(mapped.flatten(2)).view_as(mapped), self.slope)


class PooledPointLayer(PointLayer):
    """A :class:`PointLayer` followed by the maximum over the points, in the cheap order.

    Where several points share the maximum, all of the gradient goes to one of them.

    Shape:
        - input: (B, N, in_channels)
        - output: (B, out_channels)
    """

    def forward(self, features: Tensor) -> Tensor:
        """The maximum of the layer's output over each cloud."""
        weight = self.linear.weight
        with torch.no_grad():
            # One row per channel: on the CPU a maximum along contiguous memory is ten times as fast.
            mapped = (weight * direction(self.norm)[:, None]) @ features.transpose(1, 2)
            index = mapped.max(dim=2).indices
        chosen = features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        selected = (chosen * weight).sum(dim=-1)
        population = moments(features) if uses_batch_statistics(self.norm) else None
        normed = normalise_selected(self.norm, selected, weight, population)
        return F.leaky_relu(normed, self.slope, inplace=True)


class MatrixHead(nn.Module):
    """The last part of a transform network: from a feature of a cloud to a square matrix for it.

    Hidden layers of 512 and 256. Starts at the identity (zero weights), as in PointNet's own code.

    Shape:
        - input: (B, in_channels)
        - output: (B, size, size)
    """

    def __init__(self, in_channels: int, size: int, *, width: float = 1.0, slope: float = 0.0) -> None:
        super().__init__()
        first, second = scaled(512, width), scaled(256, width)
        self.layer1 = PointLayer(in_channels, first, slope=slope)
        self.layer2 = PointLayer(first, second, slope=slope)
        self.offset = nn.Linear(second, size * size)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.size = size

    def forward(self, pooled: Tensor) -> Tensor:
        """One matrix for each cloud."""
        offset = self.offset(self.layer2(self.layer1(pooled))).unflatten(1, (self.size, self.size))
        return offset + torch.eye(self.size, dtype=offset.dtype, device=offset.device)
