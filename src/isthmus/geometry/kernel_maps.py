"""Kernel maps: which voxel a sparse convolution reads, for which it writes, through which weight.

Graham, Engelcke, van der Maaten, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", CVPR 2018.
A *submanifold* convolution of 3x3x3 writes only where its input has voxels; a *strided* one of 2x2x2 writes every
voxel of the next level (coordinates // 2) that has an occupied child; its *inverse* goes back to exactly those
children. The rule book of either is a list of pairs (row read, row written) for each of the 27 or 8 weights, which
depends on the voxels alone: one for a level serves all layers of that level, and both directions.

Sorted keys replace the usual hash table. Voxels are sorted by (sample, x, y, z), so the three neighbours at z - 1, z,
z + 1 in a given column are consecutive; one binary search finds them, four columns give one half of the 26 neighbours
and the other half is the mirror image: 4 searches a voxel instead of 26. Exact for all int64 coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isthmus.geometry.voxels import Groups, keys_of, unique_cells

COLUMNS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Steps in x and y to those neighbouring columns that come later in the order."""


class Run(NamedTuple):
    """The pairs ``start`` to ``end`` of a map, which one weight connects: rows read and rows written."""

    tap: int
    start: int
    end: int
    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class KernelMap:
    """Pairs of rows, sorted by the weight that connects them.

    Attributes:
        source: rows read, (P,) int64.
        target: rows written, (P,) int64.
        taps: the weights, in the order of the pairs.
        counts: pairs of each of these weights; their sum is P.
        centre: the weight that maps each row to itself and whose pairs are left out; None where there is none.
        by_source: the pairs that read each row.
        by_target: the pairs that write each row.
    """

    source: Tensor
    target: Tensor
    taps: tuple[int, ...]
    counts: tuple[int, ...]
    centre: int | None
    by_source: Groups
    by_target: Groups

    @property
    def volume(self) -> int:
        """How many weights the kernel has."""
        return len(self.taps) + (self.centre is not None)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The pairs by weight, without weights that have none."""
        ends = [*accumulate(self.counts)]
        parts = zip(self.taps, ends, self.source.split(self.counts), self.target.split(self.counts), strict=True)
        return tuple(Run(tap, end - len(read), end, read, written) for tap, end, read, written in parts if len(read))

    def inverse(self) -> KernelMap:
        """The same pairs, read where this map writes."""
        return KernelMap(self.target, self.source, self.taps, self.counts, self.centre, self.by_target, self.by_source)


@torch.no_grad()
def submanifold_map(coordinates: Tensor) -> KernelMap:
    """The 3x3x3 neighbourhood among sorted distinct voxels.

    Weight ``9 (dx + 1) + 3 (dy + 1) + (dz + 1)`` belongs to the neighbour at (dx, dy, dz) of the voxel written:
    cross-correlation, the order of ``torch.nn.functional.conv3d``.

    Args:
        coordinates: sample, x, y, z, as :func:`isthmus.geometry.voxels.voxelise` gives them, (V, 4) int64.

    Example:
        >>> pairs = submanifold_map(torch.tensor([[0, 5, 5, 5], [0, 5, 5, 6], [0, 5, 5, 9]]))
        >>> [(tap, count) for tap, count in zip(pairs.taps, pairs.counts) if count], pairs.source.tolist()
        ([(14, 1), (12, 1)], [1, 0])
    """
    keys, (step_x, step_y) = keys_of(coordinates)
    voxels = len(keys)
    steps = keys.new_tensor([x * step_x + y * step_y for x, y in COLUMNS]).unsqueeze(1)
    wanted = keys + steps - 1
    position = _search(keys, wanted)
    padded = torch.cat([keys, keys.new_full((1,), torch.iinfo(torch.int64).max)])
    own = torch.arange(voxels, device=keys.device)
    found, partner = [(padded[1:] == keys + 1).unsqueeze(0)], [(own + 1).unsqueeze(0)]
    columns: list[tuple[Tensor, Tensor]] = []
    for _ in range(3):
        here = padded.take(position) == wanted
        columns.append((here, position))
        # Consecutive rows hold consecutive z, so the next one is where this one is, or right behind it.
        position, wanted = position + here, wanted + 1
    found.append(torch.stack([here for here, _ in columns], dim=1).flatten(0, 1))
    partner.append(torch.stack([rows for _, rows in columns], dim=1).flatten(0, 1))
    # Flat positions 13 halves x voxels, so ordered by tap and then by row.
    flat = torch.cat(found).flatten().nonzero().squeeze(1)
    earlier, later = flat % max(1, voxels), torch.cat(partner).take(flat)
    ends = torch.searchsorted(flat, torch.arange(14, device=flat.device) * voxels)
    counts = tuple(ends.diff().tolist())
    target, source = torch.cat([earlier, later]), torch.cat([later, earlier])
    by_target = _groups(target, voxels)
    half = len(earlier)
    rows = by_target.rows
    # The mirror image of a pair reads what this one writes, and lies half the list away.
    by_source = Groups(torch.where(rows < half, rows + half, rows - half), by_target.offsets)
    taps = (*range(14, 27), *range(12, -1, -1))
    return KernelMap(source, target, taps, counts + counts, 13, by_source, by_target)


@torch.no_grad()
def strided_map(coordinates: Tensor) -> tuple[Tensor, KernelMap]:
    """The next level and the 2x2x2 convolution of stride 2 that leads there.

    Weight ``4 (x % 2) + 2 (y % 2) + (z % 2)`` belongs to the child at x, y, z.

    Args:
        coordinates: sample, x, y, z of sorted distinct voxels, (V, 4) int64.

    Returns:
        The occupied voxels of the next level, sorted, (W, 4) int64, and the map to them.

    Example:
        >>> strided_map(torch.tensor([[0, -1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]))[0].tolist()
        [[0, -1, 0, 0], [0, 0, 0, 0]]
    """
    parents = coordinates >> coordinates.new_tensor([0, 1, 1, 1])
    coarse, order, offsets = unique_cells(parents)
    octant = ((coordinates[:, 1:] & 1) * coordinates.new_tensor([4, 2, 1])).sum(dim=1)
    source = octant.argsort(stable=True)
    place = torch.empty_like(source)
    place[source] = torch.arange(len(source), device=source.device)
    parent = torch.empty_like(source)
    parent[order] = torch.arange(len(coarse), device=source.device).repeat_interleave(
        offsets.diff(), output_size=len(source)
    )
    counts = tuple(torch.bincount(octant, minlength=8).tolist())
    by_target = Groups(place.index_select(0, order), offsets)
    pairs = KernelMap(source, parent[source], (*range(8),), counts, None, Groups(place, None), by_target)
    return coarse, pairs


def _search(keys: Tensor, wanted: Tensor) -> Tensor:
    if keys.device.type != "cpu":
        return torch.searchsorted(keys, wanted)
    # NumPy starts from the last answer where the values ascend, as they do in each of our rows: 3 times as fast.
    return torch.from_numpy(np.searchsorted(keys.numpy(), wanted.numpy()))


def _groups(rows: Tensor, count: int) -> Groups:
    """Which entries of ``rows`` name each of the rows 0 to ``count`` - 1."""
    offsets = rows.new_zeros(count + 1)
    torch.cumsum(torch.bincount(rows, minlength=count), dim=0, out=offsets[1:])
    # Radix sort of half the bytes takes half the time.
    return Groups(rows.int().argsort(stable=True), offsets)
