"""DefRec: deform a region of a cloud and reconstruct it.

Achituve et al., "Self-Supervised Learning for Domain Adaptation on Point Clouds" (WACV 2021). The points of a region
(see ``isthmus.pretexts.regions``) are replaced by Gaussian samples around its centre; a per-point head predicts where
they were; the loss is the symmetric Chamfer distance on the region, times 20.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.chamfer import chamfer
from isthmus.models.heads import PointReconstructionHead
from isthmus.models.modes import evaluating
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.regions import RegionKind, find_region

CHAMFER_SCALE = 20.0
REFERENCE_POINTS = 1024


class DefRec(Pretext):
    """Reconstruct a deformed region.

    ``variance`` is that of the Gaussian, 0.001 in the released code. ``min_points`` is the least number of points in
    a voxel (released: 40) or ball (released: 20) of a cloud of 1,024 points, and scales with the size of the cloud.
    """

    name = "defrec"

    def __init__(
        self,
        head: PointReconstructionHead,
        *,
        region: RegionKind = "voxel",
        variance: float = 0.001,
        min_points: int | None = None,
        voxel_order: Literal["sample", "batch"] = "sample",
    ) -> None:
        super().__init__()
        self.head = head
        self.region: RegionKind = region
        self.variance = variance
        self.voxel_order: Literal["sample", "batch"] = voxel_order
        self.min_points = min_points if min_points is not None else (20 if region == "ball" else 40)

    def deform(self, points: Tensor, random: SampleRandom, encoder: nn.Module) -> tuple[Tensor, Tensor]:
        """Deformed clouds ``(B, N, 3)`` and the mask ``(B, N)`` of the points that were replaced."""

        def features() -> Tensor:
            with evaluating(encoder), torch.no_grad():  # only to find a region: batch statistics must not move
                local: Tensor = encoder(points).local
            return local

        least = max(1, round(self.min_points * points.shape[1] / REFERENCE_POINTS))
        region = find_region(self.region, points, random, features, min_points=least, voxel_order=self.voxel_order)
        noise = random.normal(points.shape[1], 3).to(points.device) * math.sqrt(self.variance)
        replaced = region.centre[:, None] + noise
        return torch.where(region.mask[..., None], replaced, points), region.mask

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """Chamfer distance times 20 of each sample; 0 where no region was found. Shape: ``(B, N, 3)`` to ``(B,)``."""
        deformed, mask = self.deform(points, random, encoder)
        predicted = self.head(encoder(deformed))
        return CHAMFER_SCALE * chamfer(predicted.float(), points, mask, mask)
