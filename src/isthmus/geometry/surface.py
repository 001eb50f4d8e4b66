"""What a cloud tells about the surface that it was sampled from: normals, curvature, density, spacing.

Normals and curvature come from the principal axes of each point's neighbourhood: Hoppe et al., "Surface
reconstruction from unorganized points", SIGGRAPH 1992 (normals); Pauly, Gross, Kobbelt, "Efficient simplification of
point-sampled surfaces", IEEE Visualization 2002 (surface variation). Nothing here carries a gradient: these are
targets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from isthmus.geometry.knn import MAX_BLOCK, knn

FLAT = 1e-5
"""Neighbourhoods whose second variance is below this share of the first lie on a line: they span no plane."""

MAX_MATRICES = 2**15
"""Most 3 x 3 matrices decomposed at once: cuSOLVER's workspace is about 1 KiB for each."""


class Surface(NamedTuple):
    """``normals`` ``(B, N, 3)`` and ``curvature`` ``(B, N)``, see :func:`surface`."""

    normals: Tensor
    curvature: Tensor


@torch.no_grad()
def surface(points: Tensor, k: int = 20) -> Surface:
    """Normal and surface variation of each point, from its ``k`` nearest neighbours, itself among them.

    The normal is the direction of least spread, of length 1 and of arbitrary sign; where the neighbours lie on a line
    or all in one place there is none, and the vector is zero. Surface variation is the least variance as a share of
    all three, from 0 (a plane, a line or one place) to 1/3 (the same spread in all directions). A cloud that is not
    finite gets NaN everywhere.

    Args:
        points: coordinates in any unit.
        k: number of neighbours, at least 1; all points of clouds that have fewer.

    Raises:
        ValueError: if the shape is not (B, N, 3), or ``k`` is less than 1.

    Shape:
        - points: (B, N, 3), floating
        - returns: :class:`Surface` of (B, N, 3) and (B, N), float32, or float64 for float64 points

    Example:
        >>> square = torch.tensor([[[0.0, 0, 5], [1, 0, 5], [0, 1, 5], [1, 1, 5]]])
        >>> surface(square, 4).normals[0, 0].abs().tolist()
        [0.0, 0.0, 1.0]
    """
    points = _checked(points)
    index = knn(points, min(k, points.shape[1]))
    near = _at(points, index)
    near = near - near.mean(dim=2, keepdim=True)
    with torch.autocast(points.device.type, enabled=False):
        covariance = near.transpose(-1, -2) @ near / index.shape[-1]
    finite = (points.isfinite().flatten(1).all(dim=1) & covariance.isfinite().flatten(1).all(dim=1))[:, None]
    # The solver refuses what is not finite; such a cloud is for the caller's loss to report.
    matrices = covariance.where(finite[..., None, None], 0.0).flatten(0, 1)
    values, vectors = (torch.cat(p) for p in zip(*map(torch.linalg.eigh, matrices.split(MAX_MATRICES)), strict=True))
    values, axis = values.clamp(min=0).unflatten(0, points.shape[:2]), vectors[..., 0].unflatten(0, points.shape[:2])
    spans = values[..., 1] > FLAT * values[..., 2]
    total = values.sum(dim=-1)
    curvature = torch.where(spans, values[..., 0] / total.where(total > 0, 1.0), 0.0)
    missing = points.new_tensor(torch.nan)
    return Surface((axis * spans.unsqueeze(-1)).where(finite.unsqueeze(-1), missing), curvature.where(finite, missing))


def normals(points: Tensor, k: int = 20) -> Tensor:
    """The normals of :func:`surface`. Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
    return surface(points, k).normals


@torch.no_grad()
def cardinality(points: Tensor, radius: float) -> Tensor:
    """How many other points of the same cloud lie within ``radius`` of each point, the border included.

    Distances are held in blocks of at most ``MAX_BLOCK`` entries.

    Args:
        points: coordinates, finite.
        radius: greater than 0, in the unit of the points.

    Raises:
        ValueError: if the shape is not (B, N, 3), or the radius is not greater than 0.

    Shape:
        - points: (B, N, 3), floating
        - returns: (B, N), int64, from 0 to N - 1

    Example:
        >>> cardinality(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]]), 2.0).tolist()
        [[1, 2, 1]]
    """
    points = _checked(points)
    if not radius > 0:
        raise ValueError(f"radius must be greater than 0, found {radius}")
    size = points.shape[1]
    clouds, rows = max(1, MAX_BLOCK // (size * size)), max(1, MAX_BLOCK // size)

    def count(some: Tensor, cloud: Tensor) -> Tensor:
        # Not by a matrix product: its rounding is as large as the square of a small radius in a large cloud.
        distance = torch.cdist(some, cloud, compute_mode="donot_use_mm_for_euclid_dist")
        return (distance <= radius).sum(dim=-1) - 1

    return torch.cat(
        [torch.cat([count(some, part) for some in part.split(rows, dim=1)], dim=1) for part in points.split(clouds)]
    )


@torch.no_grad()
def spacing(points: Tensor, k: int = 3) -> Tensor:
    """Mean distance of each point from the ``k`` other points nearest to it; copies of it are at distance 0.

    Args:
        points: coordinates in any unit.
        k: number of neighbours, at least 1; all others of clouds that have fewer.

    Raises:
        ValueError: if the shape is not (B, N, 3) with N at least 2, or ``k`` is less than 1.

    Shape:
        - points: (B, N, 3), floating
        - returns: (B, N), in the unit of the points

    Example:
        >>> spacing(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [4, 0, 0]]]), 2).tolist()
        [[2.5, 2.0, 3.5]]
    """
    points = _checked(points)
    if points.shape[1] < 2 or k < 1:
        raise ValueError(f"spacing needs at least 2 points and k at least 1, found {points.shape[1]} and {k}")
    near = _at(points, knn(points, min(k + 1, points.shape[1])))
    # The nearest is the point itself, or a copy of it, which is as far.
    distance = (near - points.unsqueeze(2)).norm(dim=-1).sort(dim=-1).values
    return distance[..., 1:].mean(dim=-1)


def _checked(points: Tensor) -> Tensor:
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
        raise ValueError(f"points must be (B, N, 3) with at least one point, found shape {tuple(points.shape)}")
    points = points.detach()
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def _at(points: Tensor, index: Tensor) -> Tensor:
    """Points (B, N, 3) looked up at ``index`` (B, N, k): (B, N, k, 3)."""
    rows = torch.arange(len(points), device=points.device)[:, None, None]
    return points[rows, index]
