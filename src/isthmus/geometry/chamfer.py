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
    if a.dtype != torch.float64 or b.dtype != torch.float64:
        a, b = a.float(), b.float()
    there = _one_way(a, b, mask_a, mask_b)
    back = _one_way(b, a, mask_b, mask_a)
    return there + back


def _one_way(start: Tensor, goal: Tensor, start_mask: Tensor | None, goal_mask: Tensor | None) -> Tensor:
    index = nearest(start, goal, goal_mask)
    found = goal.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
    distance = (start - found).square().sum(dim=-1)
    if start_mask is None and goal_mask is None:
        return distance.mean(dim=1)
    weight = distance.new_ones(()) if start_mask is None else _checked(start_mask, start).to(distance.dtype)
    weight = weight.expand_as(distance)
    if goal_mask is not None:
        weight = weight * goal_mask.any(dim=1, keepdim=True)
    return (distance * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _checked(mask: Tensor, points: Tensor) -> Tensor:
    if mask.shape != points.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool {tuple(points.shape[:2])}, found {mask.dtype} {tuple(mask.shape)}")
    return mask
