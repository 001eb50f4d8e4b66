"""MLSP: hide a part of a cloud, and predict the local structure that was there.

Liang et al., "Point Cloud Domain Adaptation via Masked Local 3D Structure Prediction" (ECCV 2022). A voxel of the cloud
is masked as in DefRec, by Gaussian samples around its centre, and a head on the features of every point predicts

- position: Chamfer distance between predicted and true points of the voxel, times 20, weight 0.5;
- normal: ``1 - |cos|`` to the normal of 20 nearest neighbours, weight 0.5;
- cardinality, the number of neighbours within a radius: 16 bins that are 2 apart, the Kullback-Leibler divergence from
  the two bins that the number lies between, and 0.05 of the absolute error of the expected number; weight 0.05.

Masked points weigh 27 and all others 1. In ``loss`` a cloud in which no voxel has enough points counts nothing.

These are the numbers for classifying clouds. For labelling their points (PointSegDA; the released trainer's defaults,
which no published command changes) all three weights are 0.02 and classification weighs 0.98, normals are of 10
neighbours, masked points weigh 2, and cardinality is the number of neighbours *less 10* (``shift``, none below zero) in
bins 5 apart; the radius, in clouds of 2,048 points, is 0.081 where none is set for the target, and :data:`PART_RADIUS`
where one is. ``isthmus.training.points.presets.part_method`` has them.

A masked point is to predict the normal and cardinality of the point that it replaces (``match="index"``): that is what
the released code does under its published command, although nothing in the input tells which point that is. It also
holds, switched off, a second way that pairs points by their distance in both directions; ``match="nearest"`` is the
half of it that can be learnt: a masked point answers for the true point nearest to where it predicts itself to be.
The paper's text was not at hand.

What is left open, and how it is read here:

- 27:1 (2:1) applies to normal and cardinality, as weights of a mean over the points; position is of the voxel alone.
- The two bins share a number linearly, so that their expectation is the number; the released code gives each a half
  wherever it lies between them. Numbers beyond the last bin count as that. The absolute error is in neighbours.
- A point is not its own neighbour; there, most are.
- One trunk for the three answers.

Beyond the released code: a point whose neighbours lie on a line or in one place has no normal and takes no part in
that term; a radius is for clouds of ``radius_points`` points and grows with the distance between points, by the square
root, so that clouds of fewer points have the same numbers of neighbours (on ModelNet-10 the median is 16 with 1,024
points and 17 with 256).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.chamfer import chamfer
from isthmus.geometry.knn import nearest
from isthmus.geometry.surface import cardinality, normals
from isthmus.models.pretext_heads import PointHead
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.distortion_location import REFERENCE_POINTS, distort

BINS = 16
BIN_WIDTH = 2.0
"""How far bins are apart where nothing else is asked for, in neighbours."""

OUT_CHANNELS = 3 + 3 + BINS
"""What the head gives for every point: position, normal, logits of the bins."""

RADIUS = {"modelnet": 0.13, "shapenet": 0.12, "scannet": 0.135}
"""The published radius by target domain, in clouds of 1,024 points."""

PART_RADIUS = {"adobe": 0.0872, "faust": 0.091, "mit": 0.124, "scape": 0.115}
"""That of the released trainer for labelling points, in clouds of 2,048 points."""

CHAMFER_SCALE = 20.0


def cardinality_loss(
    logits: Tensor,
    numbers: Tensor,
    *,
    absolute_weight: float = 0.05,
    bin_width: float = BIN_WIDTH,
    shift: float = 0.0,
) -> Tensor:
    """Divergence from the two bins around each number, and the weighted error of the expected number.

    Bin b stands for ``shift + b * bin_width`` neighbours. The two bins share a number linearly: of bins 5 apart, 7 lies
    between those of 5 and 10, and is 0.6 of the first.

    Args:
        logits, numbers: see below.
        absolute_weight: of the absolute error of the expected number.
        bin_width: how far bins are apart, in neighbours, greater than 0.
        shift: of the first bin, in neighbours; fewer count as that many.

    Shape:
        - logits: (..., 16)
        - numbers: (...), neighbours, at least 0
        - returns: (...)
    """
    level = ((numbers.to(logits.dtype) - shift) / bin_width).clamp(0, BINS - 1)
    low = level.floor().clamp(max=BINS - 2)
    upper = level - low
    log_p = logits.log_softmax(dim=-1)
    at_low, at_high = (log_p.gather(-1, (low.long() + step).unsqueeze(-1)).squeeze(-1) for step in (0, 1))
    divergence = torch.xlogy(upper, upper) + torch.xlogy(1 - upper, 1 - upper) - (1 - upper) * at_low - upper * at_high
    expected = (log_p.exp() * torch.arange(BINS, device=logits.device)).sum(dim=-1)
    return divergence + absolute_weight * bin_width * (expected - level).abs()


class MaskedStructure(Pretext):
    """Predict position, normal and cardinality where a cloud is masked.

    Args:
        head: from the encoder's features to ``OUT_CHANNELS`` numbers for every point.
        radius: of the neighbourhood that is counted, in a cloud of ``radius_points`` points on the unit sphere;
            :data:`RADIUS` and :data:`PART_RADIUS` have the published ones.
        radius_points: see ``radius``.
        position_weight, normal_weight, cardinality_weight: of the three terms.
        absolute_weight: of the absolute error within the cardinality's term.
        mask_weight: of masked points in the means over points; that of others is 1.
        neighbours: of which a normal is made.
        bin_width: how far the bins of cardinality are apart, in neighbours.
        shift: the number of neighbours that the first bin stands for.
        match: whose normal and cardinality a masked point is to predict.
        min_points: least number of points of the voxel, in a cloud of 1,024 (as DefRec: 40).
        variance: of the Gaussian samples along each axis.
        voxel_order: see :func:`isthmus.pretexts.regions.voxel_region`.
    """

    name = "mlsp"

    def __init__(
        self,
        head: PointHead,
        *,
        radius: float = RADIUS["modelnet"],
        radius_points: int = REFERENCE_POINTS,
        position_weight: float = 0.5,
        normal_weight: float = 0.5,
        cardinality_weight: float = 0.05,
        absolute_weight: float = 0.05,
        mask_weight: float = 27.0,
        neighbours: int = 20,
        bin_width: float = BIN_WIDTH,
        shift: int = 0,
        match: Literal["index", "nearest"] = "index",
        min_points: int = 40,
        variance: float = 0.001,
        voxel_order: Literal["sample", "batch"] = "sample",
    ) -> None:
        super().__init__()
        if head.output.out_features != OUT_CHANNELS:
            raise ValueError(f"head: expected {OUT_CHANNELS} numbers for a point, found {head.output.out_features}")
        self.head = head
        self.radius = radius
        self.radius_points = radius_points
        self.position_weight = position_weight
        self.normal_weight = normal_weight
        self.cardinality_weight = cardinality_weight
        self.absolute_weight = absolute_weight
        self.mask_weight = mask_weight
        self.neighbours = neighbours
        self.bin_width = bin_width
        self.shift = shift
        self.match: Literal["index", "nearest"] = match
        self.min_points = min_points
        self.variance = variance
        self.voxel_order: Literal["sample", "batch"] = voxel_order

    def structure(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Normals ``(B, N, 3)``, zero where there is none, and cardinality ``(B, N)`` of clean clouds."""
        radius = self.radius * math.sqrt(self.radius_points / points.shape[1])
        return normals(points, self.neighbours), cardinality(points, radius)

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """The three terms of each sample, weighted. Shape: ``(B, N, 3)`` to ``(B,)``."""
        masked, region = distort(
            points, random, min_points=self.min_points, variance=self.variance, voxel_order=self.voxel_order
        )
        predicted = self.head(encoder(masked)).float()
        position, normal, logits = predicted.split([3, 3, BINS], dim=-1)
        true_normal, true_number = self.structure(points)
        if self.match == "nearest":
            own = torch.arange(points.shape[1], device=points.device).expand(region.mask.shape)
            index = torch.where(region.mask, nearest(position, points, region.mask), own)
            true_normal = true_normal.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
            true_number = true_number.gather(1, index)
        weight = torch.where(region.mask, self.mask_weight, 1.0)
        oriented = weight * true_normal.any(dim=-1)
        of_normal = _mean(1 - F.cosine_similarity(normal, true_normal, dim=-1).abs(), oriented)
        of_number = _mean(self._cardinality(logits, true_number), weight)
        per_sample = (
            self.position_weight * CHAMFER_SCALE * chamfer(position, points, region.mask, region.mask)
            + self.normal_weight * of_normal
            + self.cardinality_weight * of_number
        )
        return per_sample.where(region.mask.any(dim=1), 0.0)

    def _cardinality(self, logits: Tensor, numbers: Tensor) -> Tensor:
        return cardinality_loss(
            logits, numbers, absolute_weight=self.absolute_weight, bin_width=self.bin_width, shift=self.shift
        )


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over points, ``(B, N)`` to ``(B,)``; 0 where no point has a weight."""
    total = weight.sum(dim=1)
    return (values * weight).sum(dim=1) / total.where(total > 0, 1.0)
