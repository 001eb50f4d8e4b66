"""Which part of a cloud a deformation touches, and where its points go.

The region types of Achituve et al., "Self-Supervised Learning for Domain Adaptation on Point Clouds" (WACV 2021,
DefRec). Voxel and ball follow the released code. The feature-based and sample-based types were never released and are
our reading of the paper's description: ``feature`` takes the points nearest in feature space to a random one;
``split``, ``gradient`` and ``lambertian`` sample points on one side of a random plane, with a probability that falls
along a random horizontal direction, and by how much the surface faces a random light.

Differences from the released code, on purpose:

- A point on or beyond the surface of the unit cube belongs to the outermost voxel (released: to voxel 0, since its
  clamping constant rounds to 1).
- The voxel order is drawn per sample, so that the result does not depend on the other samples of the batch;
  ``order="batch"`` draws one for the batch, as released.
- A cloud in which no region has enough points gets an empty mask and takes no part (released: a NaN loss).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.knn import knn

RegionKind = Literal["voxel", "ball", "feature", "split", "gradient", "lambertian"]


class Region(NamedTuple):
    """``mask`` ``(B, N)`` bool: the points that are replaced; ``centre`` ``(B, 3)``: where they go."""

    mask: Tensor
    centre: Tensor


def voxel_region(
    points: Tensor,
    random: SampleRandom,
    *,
    voxels: int = 3,
    min_points: int = 40,
    order: Literal["sample", "batch"] = "sample",
) -> Region:
    """The first voxel, in random order, of a ``voxels**3`` grid on [-1, 1]^3 that holds ``min_points`` points."""
    cells = voxels**3
    index = ((points + 1) * (voxels / 2)).floor().long().clamp(0, voxels - 1)
    cell = (index[..., 0] * voxels + index[..., 1]) * voxels + index[..., 2]
    counts = torch.zeros(len(points), cells, dtype=torch.long, device=points.device)
    counts.scatter_add_(1, cell, torch.ones_like(cell))
    rank = random.permutation(cells).to(points.device)
    if order == "batch":
        rank = rank[:1].expand_as(rank)
    chosen = torch.where(counts >= min_points, rank, cells).argmin(dim=1)
    enough = counts.gather(1, chosen[:, None]) >= min_points
    axes = torch.stack([chosen // voxels**2, chosen // voxels % voxels, chosen % voxels], dim=1)
    return Region((cell == chosen[:, None]) & enough, (axes + 0.5) * (2 / voxels) - 1)


def ball_region(
    points: Tensor, random: SampleRandom, *, radius: float = 0.5, min_points: int = 20, tries: int = 8
) -> Region:
    """A ball around a random point of the cloud; the first of ``tries`` points whose ball holds ``min_points``."""
    picks = random.permutation(points.shape[1])[:, :tries].to(points.device)
    centres = points.gather(1, picks[..., None].expand(-1, -1, 3))
    inside = (centres[:, :, None] - points[:, None]).square().sum(-1) <= radius**2
    enough = inside.sum(-1) >= min_points
    first = enough.float().argmax(dim=1)
    rows = torch.arange(len(points), device=points.device)
    return Region(inside[rows, first] & enough.any(1, keepdim=True), centres[rows, first])


def feature_region(points: Tensor, features: Tensor, random: SampleRandom, *, share: float = 0.15) -> Region:
    """The ``share`` of points nearest, in feature space ``(B, N, C)``, to a random point; they go to their mean."""
    count = max(1, round(share * points.shape[1]))
    pick = random.permutation(points.shape[1])[:, :1].to(points.device)
    anchor = features.gather(1, pick[..., None].expand(-1, -1, features.shape[-1]))
    nearest = (features - anchor).square().sum(-1).topk(count, largest=False).indices
    return _region_of(points, nearest)


def sampled_region(
    points: Tensor,
    random: SampleRandom,
    *,
    protocol: Literal["split", "gradient", "lambertian"],
    share: float = 0.15,
) -> Region:
    """A ``share`` of the points drawn without replacement by the protocol's probability; they go to their mean."""
    angle = random.uniform(1).to(points.device) * (2 * torch.pi)
    direction = torch.cat([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=1)[:, None]
    if protocol == "lambertian":
        height = (_normals(points) * direction).sum(-1)
        likelihood = height.abs() + 1e-3  # the sign of an estimated normal is arbitrary
    else:
        height = (points * direction).sum(-1)
        low, high = height.amin(1, keepdim=True), height.amax(1, keepdim=True)
        relative = (height - low) / (high - low).clamp(min=1e-6)
        likelihood = (relative > 0.5).float() + 1e-3 if protocol == "split" else relative + 1e-3
    # The largest of log(likelihood) + Gumbel noise are a draw without replacement.
    noise = -torch.log(-torch.log(random.uniform(points.shape[1]).clamp(1e-7, 1 - 1e-7)))
    drawn = (likelihood.log() + noise.to(points.device)).topk(max(1, round(share * points.shape[1]))).indices
    return _region_of(points, drawn)


def _region_of(points: Tensor, members: Tensor) -> Region:
    mask = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device).scatter_(1, members, True)
    centre = points.gather(1, members[..., None].expand(-1, -1, 3)).mean(dim=1)
    return Region(mask, centre)


def _normals(points: Tensor, neighbours: int = 16) -> Tensor:
    """Direction of least spread of each point's neighbourhood, of arbitrary sign. Shape: ``(B, N, 3)``."""
    index = knn(points, min(neighbours, points.shape[1]))
    rows = torch.arange(len(points), device=points.device)[:, None, None]
    near = points[rows, index]
    near = near - near.mean(dim=2, keepdim=True)
    return torch.linalg.eigh(near.transpose(-1, -2) @ near).eigenvectors[..., 0]


def find_region(
    kind: RegionKind,
    points: Tensor,
    random: SampleRandom,
    features: Callable[[], Tensor],
    *,
    min_points: int,
    voxel_order: Literal["sample", "batch"] = "sample",
) -> Region:
    """The region of type ``kind``; ``features()`` gives per-point features and is called only where needed."""
    if kind == "voxel":
        return voxel_region(points, random, min_points=min_points, order=voxel_order)
    if kind == "ball":
        return ball_region(points, random, min_points=min_points)
    if kind == "feature":
        return feature_region(points, features(), random)
    return sampled_region(points, random, protocol=kind)
