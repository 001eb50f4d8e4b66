"""Which library carries out the sparse convolutions of a network: our own PyTorch, or spconv where it is installed.

Both make the same levels from the same voxels, and weights, parameters and results are the same (up to rounding), so a
network trained with one runs with the other. PyTorch is the default. spconv (https://github.com/traveller59/spconv,
wheels for CUDA and for CPU) is taken only where it is asked for by name, and imported only then.

What spconv does wrong without a word is an error here, or does not arise: indices that are not contiguous are never
handed to it, and on the CPU its keys have 32 bits, so that a batch whose bounding box holds 2^31 voxels or more is
refused (a street of 100 m x 100 m x 10 m at 5 cm has 8e8 for each sample). Its CPU build cannot go backward since it
asks for a CUDA stream first; where CUDA is not there, that one function is replaced by one that names no stream.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.errors import RecipeError
from isthmus.models.sparse_conv import Backend, Convolve, SparseLevel, torch_levels

BackendName = Literal["torch", "spconv"]

MAX_CELLS = 2**31
"""Voxels in the bounding box of a batch that spconv can number on the CPU."""


def backend(choice: BackendName | Backend) -> Backend:
    """How a network gets its levels: by name, or a function that makes them, which is handed back.

    Raises:
        RecipeError: if the name is unknown, or spconv is asked for and not installed.

    Example:
        >>> backend("torch") is torch_levels
        True
    """
    if callable(choice):
        return choice
    if choice == "torch":
        return torch_levels
    if choice != "spconv":
        raise RecipeError(f'backend must be "torch" or "spconv", found {choice!r}')
    _spconv()
    return spconv_levels


def spconv_levels(coordinates: Tensor, levels: int) -> list[SparseLevel]:
    """Levels whose convolutions are spconv's; their voxels lie in spconv's own order, but for the finest.

    Args:
        coordinates: sample, x, y, z of distinct voxels, (V, 4) int64.
        levels: how many.

    Raises:
        ValueError: if the bounding box of the batch has too many voxels for spconv.
    """
    if not len(coordinates):
        return torch_levels(coordinates, levels)
    spconv = _spconv()
    unit = 2 ** (levels - 1)
    low = coordinates.amin(dim=0).div(unit, rounding_mode="floor") * unit
    low[0] = 0
    samples, *extent = (coordinates.amax(dim=0) - low + 1).tolist()
    shape = [-(-side // unit) * unit for side in extent]
    cells = samples * shape[0] * shape[1] * shape[2]
    if max(shape) >= MAX_CELLS or (cells >= MAX_CELLS and coordinates.device.type == "cpu"):
        raise ValueError(
            f"spconv cannot tell the {cells} voxels of {samples} x {shape} apart: at most 2^31 - 1 along an axis, and "
            'on the CPU in all; backend "torch" has no such limit'
        )
    indices = (coordinates - low).int().contiguous()
    empty = torch.empty(0, 1, device=coordinates.device)  # features come with each call
    tensors: list[Any] = [spconv.SparseConvTensor(empty, indices, shape, samples), *[None] * (levels - 1)]
    found = []
    for level in range(levels - 1):
        same, down, up = (_convolve(tensors, kind, level) for kind in ("same", "down", "up"))
        found.append(SparseLevel(same, down, up))
    return [*found, SparseLevel(_convolve(tensors, "same", levels - 1), None, None)]


def _convolve(tensors: list[Any], kind: str, level: int) -> Convolve:
    """spconv's layer with our weight; its index pairs go to the dictionary that all levels of a batch share.

    Voxels of the next level are known once ``down`` has run: spconv makes them and their pairs in one go.
    """

    def convolve(features: Tensor, weight: Tensor) -> Tensor:
        tensor = tensors[level + (kind == "up")]
        if tensor is None:
            raise RuntimeError(f"level {level + (kind == 'up')} has no voxels before level {level} was convolved down")
        volume, before, after = weight.shape
        side = 3 if volume == 27 else 2
        own = weight.permute(2, 0, 1).reshape(after, side, side, side, before).contiguous()
        pairs = tensor.indice_dict
        if kind == "down":
            pairs.pop(f"strided{level}", None)  # spconv does not take these up a second time
        inputs = tensor.replace_feature(features.to(weight.dtype).contiguous())
        output = torch.func.functional_call(_layer(kind, level, before, after), {"weight": own}, (inputs,))
        pairs.update(output.indice_dict)
        output.indice_dict = pairs
        if kind == "down":
            tensors[level + 1] = output.replace_feature(output.features.new_empty(0, 1))
        result: Tensor = output.features
        return result

    return convolve


@cache
def _layer(kind: str, level: int, before: int, after: int) -> Any:
    # Always in training mode: in eval mode spconv's GPU kernels give no gradient. Weights come with each call.
    spconv = _spconv()
    with torch.device("meta"):
        if kind == "same":
            return spconv.SubMConv3d(before, after, 3, bias=False, indice_key=f"same{level}")
        if kind == "down":
            return spconv.SparseConv3d(before, after, 2, 2, bias=False, indice_key=f"strided{level}")
        return spconv.SparseInverseConv3d(before, after, 2, bias=False, indice_key=f"strided{level}")


@cache
def _spconv() -> Any:
    try:
        import spconv.pytorch as spconv
        from spconv.pytorch import ops
    except ImportError as error:
        raise RecipeError('backend "spconv" needs spconv: pip install spconv (CPU) or spconv-cu120 (CUDA)') from error
    if not torch.cuda.is_available():
        ops.get_current_stream = lambda: 0
    return spconv
