"""Symmetric Chamfer distance between the masked points of two clouds.

Squared Euclidean distances, as in Fan et al., "A point set generation network", CVPR 2017, restricted to masks and
divided by the number of valid points as in DefRec (Achituve et al., WACV 2021). The nearest points are found without
gradient and then gathered, which gives the same value and the same gradient as the dense (B, N, M, 3) form in a
fraction of its time and memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.geometry.knn import nearest


def chamfer(a: Tensor, b: Tensor, mask_a: Tensor | None = None, mask_b: Tensor | None = None) -> Tensor:
    """Chamfer distance of each pair of clouds.

    For every valid point of ``a`` the squared distance to the nearest valid point of ``b``, averaged over the valid
    points of ``a``, plus the same the other way round. A sample in which either mask is empty counts exactly 0 and
    has exactly zero gradient. Gradient flows into both clouds.

    Args:
        a: points, finite.
        b: points, finite, in the units of ``a``.
        mask_a: which points of ``a`` take part; all by default.
        mask_b: which points of ``b`` take part; all by default.

    Returns:
        one value per sample, in squared units, at least 0; float32, or float64 for float64 points.

    Raises:
        ValueError: if the shapes do not fit together, or a mask is not bool.

    Shape:
        - a: (B, N, 3)
        - b: (B, M, 3)
        - mask_a: (B, N), bool
        - mask_b: (B, M), bool
        - returns: (B,)

    Example:
        >>> a = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
        >>> b = torch.tensor([[[0.0, 0, 2], [1, 0, 0]]])
        >>> chamfer(a, b)  # ((0 + 1) is nearer to the second point) / 2 + (4 + 0) / 2
        tensor([2.5000])
    """
    for name, mask, points in (("mask_a", mask_a, a), ("mask_b", mask_b, b)):
        if mask is not None and (mask.shape != points.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(f"{name} must be bool {tuple(points.shape[:2])}, found {mask.dtype} {tuple(mask.shape)}")
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    return _one_way(a, b, mask_a, mask_b) + _one_way(b, a, mask_b, mask_a)


def _one_way(start: Tensor, goal: Tensor, start_mask: Tensor | None, goal_mask: Tensor | None) -> Tensor:
    index = nearest(start, goal, goal_mask)
    found = goal.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
    distance = (start - found).square().sum(dim=-1)
    counted = torch.ones_like(distance, dtype=torch.bool) if start_mask is None else start_mask
    if goal_mask is not None:
        counted = counted & goal_mask.any(dim=1, keepdim=True)
    return distance.where(counted, 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
