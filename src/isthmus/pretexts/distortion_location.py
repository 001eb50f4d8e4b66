"""Distortion location: distort one part of a cloud, and tell which.

One of the two tasks of Zou et al., "Geometry-Aware Self-Training for Unsupervised Domain Adaptation on Object Point
Clouds" (ICCV 2021, GAST). The points of one voxel of a 3 x 3 x 3 grid on [-1, 1]^3 are replaced by Gaussian samples
around its centre, and a classifier of the cloud's pooled feature says which of the 27 voxels it was. Voxels are found
as :mod:`isthmus.pretexts.regions` says, where the differences from released code stand, too. A head on the pooled
feature of the layout of the classifier of objects (512-256, dropout) is our choice: the head's layout is not known.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.models.heads import ClassificationHead
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.regions import Region, voxel_region

VOXELS = 3
"""Voxels along each edge of the cube."""

LOCATIONS = VOXELS**3
"""Classes of the head."""

REFERENCE_POINTS = 1024


def distort(
    points: Tensor,
    random: SampleRandom,
    *,
    min_points: int,
    variance: float,
    voxel_order: Literal["sample", "batch"] = "sample",
) -> tuple[Tensor, Region]:
    """Clouds in which the points of one voxel are replaced by Gaussian samples around its centre, and that voxel.

    ``min_points`` is the least number of points of the voxel in a cloud of 1,024 and scales with the size of the
    cloud; a cloud without such a voxel stays as it is, with an empty mask. Shape: ``(B, N, 3)`` to ``(B, N, 3)``.
    """
    least = max(1, round(min_points * points.shape[1] / REFERENCE_POINTS))
    region = voxel_region(points, random, voxels=VOXELS, min_points=least, order=voxel_order)
    noise = random.normal(points.shape[1], 3).to(points) * math.sqrt(variance)
    return torch.where(region.mask[..., None], region.centre[:, None] + noise, points), region


def location(centre: Tensor) -> Tensor:
    """The voxel around a voxel's centre, by x, y, z: ``9 x + 3 y + z``. Shape: ``(B, 3)`` to ``(B,)`` int64."""
    x, y, z = ((centre + 1) * (VOXELS / 2)).floor().long().clamp(0, VOXELS - 1).unbind(dim=-1)
    return (x * VOXELS + y) * VOXELS + z


class DistortionLocation(Pretext):
    """Which voxel was distorted, of 27.

    Args:
        head: from the pooled feature to 27 logits.
        min_points: least number of points of the voxel, in a cloud of 1,024 (GAST: 20).
        variance: of the Gaussian samples along each axis (GAST: 0.001).
        voxel_order: see :func:`isthmus.pretexts.regions.voxel_region`.
    """

    name = "distortion"

    def __init__(
        self,
        head: ClassificationHead,
        *,
        min_points: int = 20,
        variance: float = 0.001,
        voxel_order: Literal["sample", "batch"] = "sample",
    ) -> None:
        super().__init__()
        self.head = head
        self.min_points = min_points
        self.variance = variance
        self.voxel_order: Literal["sample", "batch"] = voxel_order

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """Cross-entropy of each sample; 0 where no voxel has enough points. Shape: ``(B, N, 3)`` to ``(B,)``."""
        distorted, region = distort(
            points, random, min_points=self.min_points, variance=self.variance, voxel_order=self.voxel_order
        )
        logits = self.head(encoder(distorted).pooled).float()
        per_sample = F.cross_entropy(logits, location(region.centre), reduction="none")
        return per_sample.where(region.mask.any(dim=1), 0.0)
