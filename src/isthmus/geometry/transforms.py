"""Rigid motions and normalisation of point clouds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Move the mean of a cloud to the origin and scale its farthest point to radius 1.

    A cloud whose points all coincide has no radius: it is centred and keeps scale 1. Works in float64 inside, so the
    result does not depend on how far from the origin the cloud was recorded.

    Args:
        points: coordinates of one cloud, finite, in any unit.

    Returns:
        float32 coordinates with mean 0 and largest radius 1 (or 0).

    Raises:
        ValueError: if the shape is not (n, 3) with n >= 1.

    Shape:
        - points: (n, 3)
        - returns: (n, 3), float32

    Example:
        >>> unit_sphere(np.array([[0.0, 0, 5], [4.0, 0, 5]])).tolist()
        [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError(f"points must be (n, 3) with at least one point, found shape {points.shape}")
    centred = points.astype(np.float64)
    centred -= centred.mean(axis=0)
    radius = np.sqrt(np.square(centred).sum(axis=1).max())
    return (centred / (radius if radius > 0 else 1.0)).astype(np.float32)


def rotate_z(points: Tensor, angle: Tensor) -> Tensor:
    """Turn each cloud about the upright axis, counter-clockwise seen from above. Differentiable.

    Args:
        points: coordinates, z up.
        angle: one angle per cloud, in radians.

    Raises:
        ValueError: if the shapes do not fit together.

    Shape:
        - points: (B, N, 3)
        - angle: (B,)
        - returns: (B, N, 3)

    Example:
        >>> rotate_z(torch.tensor([[[1.0, 0, 7]]]), torch.tensor([torch.pi / 2])).round(decimals=3).tolist()
        [[[-0.0, 1.0, 7.0]]]
    """
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must be (B, N, 3), found shape {tuple(points.shape)}")
    if angle.shape != points.shape[:1]:
        raise ValueError(f"angle must be ({len(points)},), one for each cloud, found {tuple(angle.shape)}")
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y, z = points.unbind(dim=-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
