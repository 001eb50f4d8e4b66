"""Farthest-point sampling: each new point is the one farthest from all taken so far.

Eldar et al., "The farthest point strategy for progressive image sampling", IEEE TIP 1997; as used for point clouds by
PointNet++ (Qi et al., 2017). Exact and greedy, so every prefix of the order is itself a farthest-point sample.

The released code of the point cloud literature starts at a random point; here the start is given or deterministic,
so that a cloud always has the same order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 16
"""Clouds advanced together on the CPU: few enough for their distances to stay in the cache."""


def farthest_point_order(points: Tensor, count: int, start: Tensor | None = None) -> Tensor:
    """Order in which farthest-point sampling takes the first ``count`` points of each cloud.

    Ties go to the lowest index. A cloud with fewer than ``count`` distinct points repeats index after index of
    points already covered once its distinct points are used up.

    Args:
        points: coordinates, finite, any scale.
        count: how many points to take, from 1 to N.
        start: the index to begin with in each cloud; by default the point farthest from the centroid.

    Returns:
        int64 indices into each cloud, in the order taken; ``start`` comes first.

    Raises:
        ValueError: if the shapes do not fit, ``count`` is not between 1 and N, or ``start`` is out of range.

    Shape:
        - points: (B, N, 3), floating
        - start: (B,), int64
        - returns: (B, count), int64

    Example:
        >>> cloud = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [9, 0, 0], [10, 0, 0]]])
        >>> farthest_point_order(cloud, 3).tolist()
        [[0, 3, 1]]
    """
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must be (B, N, 3), found shape {tuple(points.shape)}")
    clouds, size, _ = points.shape
    if not 1 <= count <= size:
        raise ValueError(f"count must be between 1 and the {size} points of a cloud, found {count}")
    points = points.detach()
    if points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    if start is None:
        start = (points - points.mean(dim=1, keepdim=True)).square().sum(dim=-1).argmax(dim=1)
    elif start.shape != (clouds,) or start.dtype != torch.int64:
        raise ValueError(f"start must be int64 ({clouds},), found {start.dtype} {tuple(start.shape)}")
    elif clouds and not (int(start.min()) >= 0 and int(start.max()) < size):
        raise ValueError(f"start must lie in [0, {size}), found {int(start.min())} to {int(start.max())}")
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    if points.device.type == "cpu" and not traced:
        order = np.empty((clouds, count), dtype=np.int64)
        for i in range(0, clouds, BLOCK):
            _order_block(points[i : i + BLOCK].numpy(), start[i : i + BLOCK].numpy(), order[i : i + BLOCK])
        return torch.from_numpy(order)
    return _order_on_device(points, count, start)


def _order_block(points: np.ndarray, start: np.ndarray, order: np.ndarray) -> None:
    """Fill ``order`` for a few clouds; NumPy's small-array overhead and argmax are half of torch's on the CPU."""
    axes = [np.ascontiguousarray(points[..., axis]) for axis in range(3)]
    nearest = np.full_like(axes[0], np.inf)
    distance, square = np.empty_like(nearest), np.empty_like(nearest)
    row = np.arange(len(points))
    taken = start
    for step in range(order.shape[1]):
        order[:, step] = taken
        for i, axis in enumerate(axes):
            into = square if i else distance
            np.subtract(axis, axis[row, taken][:, None], out=into)
            np.multiply(into, into, out=into)
            if i:
                np.add(distance, square, out=distance)
        np.minimum(nearest, distance, out=nearest)
        taken = nearest.argmax(axis=1)


def _order_on_device(points: Tensor, count: int, start: Tensor) -> Tensor:
    axes = points.movedim(-1, 0).contiguous()
    nearest = torch.full_like(axes[0], torch.inf)
    order = torch.empty(points.shape[0], count, dtype=torch.int64, device=points.device)
    taken = start[:, None].to(points.device)
    for step in range(count):
        order[:, step] = taken[:, 0]
        distance = (axes - axes.gather(2, taken.expand(3, -1, -1))).square_().sum(dim=0)
        torch.minimum(nearest, distance, out=nearest)
        taken = nearest.argmax(dim=1, keepdim=True)
    return order
