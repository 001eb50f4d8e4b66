"""Sparse convolution of voxel features in pure PyTorch: gather, one matrix product for each weight, sum.

With the pairs (s, t) of ``isthmus.geometry.kernel_maps`` a sparse convolution is out[t] = sum of x[s] W[tap].
Weight by weight, the rows read are gathered and multiplied, while they are in the cache; at the end the products are
summed by the row they are for. The centre of a submanifold kernel maps every row to itself and is one product
without gathering. The sum goes by ``embedding_bag`` over the pairs of each row, which adds in a fixed order: three
times as fast as ``index_add_`` on the CPU, and deterministic on every device.

The backward pass gathers again instead of keeping what was gathered, so a layer stores its input and nothing else.

Different from SparseConvNet: no bias (xMUDA has none either); products are in the type of the weight, also under
autocast. Double backward is not supported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.geometry.kernel_maps import KernelMap, strided_map, submanifold_map

Convolve = Callable[[Tensor, Tensor], Tensor]
"""Features (V_in, C_in) and weight (volume, C_in, C_out) to features (V_out, C_out), at voxels fixed beforehand."""


@dataclass(frozen=True)
class SparseLevel:
    """What layers need to know of one resolution: its convolutions.

    Attributes:
        same: submanifold 3x3x3.
        down: strided 2x2x2 to the next level; None at the last.
        up: the inverse of ``down``, from the next level to this; None at the last.
    """

    same: Convolve
    down: Convolve | None
    up: Convolve | None


Backend = Callable[[Tensor, int], list[SparseLevel]]
"""Sorted voxels (V, 4) of the finest level, and how many levels, to those levels."""


def torch_levels(coordinates: Tensor, levels: int) -> list[SparseLevel]:
    """Levels whose convolutions are those of this module; each map is built once, here."""
    found = []
    for level in range(levels):
        same = _with(submanifold_map(coordinates))
        if level == levels - 1:
            found.append(SparseLevel(same, None, None))
        else:
            coordinates, strided = strided_map(coordinates)
            found.append(SparseLevel(same, _with(strided), _with(strided.inverse())))
    return found


def sparse_convolution(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """Convolution over the pairs of a kernel map.

    Args:
        features: of the voxels read.
        weight: in the order of the map's taps.
        pairs: what reads what.

    Raises:
        ValueError: if the weight does not fit the map or the features.

    Shape:
        - features: (V_in, C_in)
        - weight: (volume, C_in, C_out)
        - returns: (V_out, C_out)
    """
    if weight.ndim != 3 or weight.shape[0] != pairs.volume or features.shape[1:] != weight.shape[1:2]:
        raise ValueError(
            f"weight must be ({pairs.volume}, {features.shape[-1]}, C_out) for these features and pairs, "
            f"found {tuple(weight.shape)}"
        )
    result: Tensor = _Convolution.apply(features.to(weight.dtype), weight, pairs)
    return result


class SparseConv(nn.Module):
    """A kernel without bias; which kind of convolution it is, is in the ``Convolve`` that it is called with.

    Args:
        in_channels: of the features read.
        out_channels: of the features written.
        volume: number of weights: 27 for submanifold convolutions, 8 for strided ones and their inverse.

    Weights start normal with variance 2 / (volume * in_channels), as in SparseConvNet.
    """

    def __init__(self, in_channels: int, out_channels: int, volume: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(volume, in_channels, out_channels))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (volume * in_channels)))

    def forward(self, features: Tensor, convolve: Convolve) -> Tensor:
        """Features of the voxels read, (V_in, C_in), to features of the voxels written, (V_out, C_out)."""
        return convolve(features, self.weight)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        volume, before, after = self.weight.shape
        return f"{before}, {after}, volume={volume}"


def _with(pairs: KernelMap) -> Convolve:
    return lambda features, weight: sparse_convolution(features, weight, pairs)


class _Convolution(torch.autograd.Function):
    """Tap by tap: what is gathered for one weight stays in the cache, and its memory serves the next."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        kernels = weight.unbind(0)
        products = features.new_empty(len(pairs.source), weight.shape[2])
        for run in pairs.runs:
            torch.mm(features.index_select(0, run.source), kernels[run.tap], out=products[run.start : run.end])
        result = pairs.by_target.total(products)
        return result if pairs.centre is None else result.addmm_(features, kernels[pairs.centre])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        pairs: KernelMap = ctx.pairs
        to_features, to_weight = ctx.needs_input_grad[:2]
        gradient = gradient.contiguous()  # behind a concatenation it is not, and gathering is slow then
        kernels = weight.transpose(1, 2).unbind(0)
        weight_gradient = torch.zeros_like(weight)
        weight_gradients = weight_gradient.unbind(0)
        products = features.new_empty(len(pairs.source) if to_features else 0, features.shape[1])
        for run in pairs.runs:
            outputs = gradient.index_select(0, run.target)
            if to_weight:
                torch.mm(features.index_select(0, run.source).T, outputs, out=weight_gradients[run.tap])
            if to_features:
                torch.mm(outputs, kernels[run.tap], out=products[run.start : run.end])
        feature_gradient = pairs.by_source.total(products) if to_features else None
        if pairs.centre is not None:
            if to_weight:
                torch.mm(features.T, gradient, out=weight_gradients[pairs.centre])
            if feature_gradient is not None:
                feature_gradient.addmm_(gradient, kernels[pairs.centre])
        return feature_gradient, weight_gradient if to_weight else None, None
