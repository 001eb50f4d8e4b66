"""Points to voxels and back: which voxels a batch of point sets occupies, and which points lie in each.

A point p lies in voxel floor(p / voxel_size). Voxels are told apart by exact integer keys, not by hashes, so
coordinates may be negative and as far apart as 2^53 voxels; nothing is shifted to an origin or cut to a field, where
SparseConvNet takes coordinates in a cube of fixed side (xMUDA: 4096) and refuses points outside.

Voxels come sorted by sample, x, y, z. Their order, and with it every sum over voxels, does not depend on the order of
the points, and a shift of all points by whole voxels does not change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_KEY = 2**62
"""Keys stay below this, so that neighbours of a voxel have keys of int64 too."""

MAX_COORDINATE = 2**53
"""Voxel coordinates below this are whole numbers in float64."""


@dataclass(frozen=True)
class Groups:
    """Rows of a tensor, in disjoint groups.

    Attributes:
        rows: the rows, group after group, (P,) int64.
        offsets: where each group begins in ``rows``, and P at the end, (G + 1,) int64. None: one row each, G = P.
    """

    rows: Tensor
    offsets: Tensor | None

    def total(self, values: Tensor) -> Tensor:
        """Sum over the rows of each group: values (R, C) to (G, C). Not differentiable; adds in a fixed order."""
        if self.offsets is None:
            return values.index_select(0, self.rows)
        if not len(self.rows):
            return values.new_zeros(len(self.offsets) - 1, values.shape[1])
        return F.embedding_bag(self.rows, values, self.offsets, mode="sum", include_last_offset=True)


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of a batch of point sets.

    Attributes:
        coordinates: sample, x, y, z of each voxel, (V, 4) int64, sorted.
        points: the rows of (B * N) points that lie in each voxel.
        counts: how many these are, (V,) int64, at least 1.
        shape: B and N.
    """

    coordinates: Tensor
    points: Groups
    counts: Tensor
    shape: tuple[int, int]

    def mean(self, features: Tensor) -> Tensor:
        """Mean over the points of each voxel: features (B, N, C) to (V, C). Differentiable; skips absent rows."""
        pooled: Tensor = _Pool.apply(features.flatten(0, 1), self)
        return pooled / self.counts.to(pooled.dtype).unsqueeze(1)

    def spread(self, features: Tensor) -> Tensor:
        """Each point gets the features of its voxel: (V, C) to (B, N, C), zeros where no point is. Differentiable."""
        spread: Tensor = _Spread.apply(features, self)
        return spread.unflatten(0, self.shape)


@torch.no_grad()
def voxelise(points: Tensor, present: Tensor, voxel_size: float) -> Voxels:
    """Occupied voxels of a batch of point sets.

    Args:
        points: coordinates; what stands in absent rows does not matter.
        present: which rows hold a point. Samples without any are fine.
        voxel_size: edge of a voxel, in the unit of the points.

    Raises:
        ValueError: if shapes or types do not fit, or a point is not finite or lies 2^53 voxels out.

    Shape:
        - points: (B, N, 3), floating
        - present: (B, N), bool

    Example:
        >>> points = torch.tensor([[[0.01, 0.0, 0.0], [0.04, 0.01, 0.02], [-0.01, 0.0, 0.0]]])
        >>> voxelise(points, torch.ones(1, 3, dtype=torch.bool), 0.05).coordinates.tolist()
        [[0, -1, 0, 0], [0, 0, 0, 0]]
    """
    if points.ndim != 3 or points.shape[-1] != 3 or not points.is_floating_point():
        raise ValueError(f"points must be floating (B, N, 3), found {points.dtype} {tuple(points.shape)}")
    if present.shape != points.shape[:2] or present.dtype != torch.bool:
        raise ValueError(
            f"present must be bool {tuple(points.shape[:2])}, found {present.dtype} {tuple(present.shape)}"
        )
    if not voxel_size > 0:
        raise ValueError(f"voxel_size must be greater than 0, found {voxel_size}")
    rows = present.flatten().nonzero().squeeze(1)
    # float64: a quotient of float32 can round up to a border that the point lies below.
    cells = (points.flatten(0, 1).index_select(0, rows).double() / voxel_size).floor()
    if not bool((cells.abs() < MAX_COORDINATE).all()):
        raise ValueError("points must be finite and within 2^53 voxels of the origin where present is true")
    sample = rows.div(max(1, points.shape[1]), rounding_mode="floor")
    coordinates, order, offsets = unique_cells(torch.cat([sample.unsqueeze(1), cells.long()], dim=1))
    shape = (points.shape[0], points.shape[1])
    return Voxels(coordinates, Groups(rows.index_select(0, order), offsets), offsets.diff(), shape)


def unique_cells(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct rows of integer cells (M, 4), sorted; the order that sorts the cells; where each distinct one begins.

    Shape:
        - returns: (V, 4), (M,) and (V + 1,), int64
    """
    ordered, order = keys_of(cells)[0].sort(stable=True)
    new = torch.ones(len(cells) + 1, dtype=torch.bool, device=cells.device)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:-1])
    offsets = new.nonzero().squeeze(1) if len(cells) else cells.new_zeros(1)
    return cells.index_select(0, order.index_select(0, offsets[:-1])), order, offsets


def keys_of(cells: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """One integer for each cell (M, 4), in the order of (sample, x, y, z), and what a step in x and in y adds to it.

    A step in z adds 1. Keys of two cells of one sample differ as a step of -1, 0 or 1 along each axis does only if the
    cells differ by that step; the key of a neighbour that would be outside of the field belongs to no cell.

    Raises:
        ValueError: if no such keys fit into int64, which takes more than a million cells spread over all axes.
    """
    if not len(cells):
        return cells.new_zeros(0), (0, 0)
    corner = cells.amin(dim=0)
    extent = [e + 2 for e in (cells.amax(dim=0) - corner).tolist()]
    if extent[0] * extent[1] * extent[2] * extent[3] < MAX_KEY:
        cells = cells - corner
    else:
        cells = torch.stack([_closed_up(axis) for axis in cells.unbind(1)], dim=1)
        extent = [e + 2 for e in cells.amax(dim=0).tolist()]
        if extent[0] * extent[1] * extent[2] * extent[3] >= MAX_KEY:
            raise ValueError(f"{len(cells)} cells are too many, and too far apart, for keys of 64 bits")
    sample, x, y, z = cells.unbind(1)
    step_y = extent[3]
    step_x = extent[2] * step_y
    return sample * (extent[1] * step_x) + x * step_x + y * step_y + z, (step_x, step_y)


def _closed_up(axis: Tensor) -> Tensor:
    """Coordinates (M,) in the same order from 0, differences of 1 kept and all greater ones made 2."""
    values, inverse = axis.unique(return_inverse=True)
    steps = values.diff().clamp(max=2).cumsum(0)
    return torch.cat([steps.new_zeros(1), steps]).index_select(0, inverse)


def _spread(features: Tensor, voxels: Voxels) -> Tensor:
    rows = voxels.points.rows
    every = features.repeat_interleave(voxels.counts, dim=0, output_size=len(rows))
    return features.new_zeros(voxels.shape[0] * voxels.shape[1], features.shape[1]).index_copy_(0, rows, every)


class _Pool(torch.autograd.Function):
    """Sum over points; adjoint of :class:`_Spread`. Neither has an atomic addition, so both are deterministic."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, voxels: Voxels) -> Tensor:
        ctx.voxels = voxels
        return voxels.points.total(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _spread(gradient, ctx.voxels), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, voxels: Voxels) -> Tensor:
        ctx.voxels = voxels
        return _spread(features, voxels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.voxels.points.total(gradient.contiguous()), None
