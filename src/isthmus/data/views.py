"""Views of a cloud for self-distillation: one hardly changed for the teacher, one changed a lot for the student.

As Cardace et al. describe them, "Self-Distillation for Unsupervised 3D Domain Adaptation" (WACV 2023). The elastic
distortion is that of sparse-convolution pipelines for rooms: independent normal noise on a grid, smoothed twice by a
box of three nodes along each axis, read off at the points by trilinear interpolation.

Every function is pure: row b of the result depends on row b of the points and on the random numbers of sample b.

Differences from the usual elastic distortion, both to keep a batch in one tensor: the grid covers the unit cube about
the origin instead of the cloud's bounding box (points beyond it move as its border does), and the smoothing reaches
beyond the grid's border, so that the noise has one variance everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.transforms import rotate_z

View = Callable[[Tensor, SampleRandom], Tensor]
"""Clouds ``(B, N, 3)`` and their random numbers to clouds of the same shape."""

SMOOTHINGS = 2
"""How often the noise is averaged over 3 x 3 x 3 nodes."""


@dataclass(frozen=True)
class WeakView:
    """Jitter N(0, ``jitter``) clipped at ``jitter_clip``: what the teacher sees."""

    jitter: float = 0.01
    jitter_clip: float = 0.05

    def __call__(self, points: Tensor, random: SampleRandom) -> Tensor:
        """Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
        return jittered(points, random, self.jitter, self.jitter_clip)


@dataclass(frozen=True)
class StrongView:
    """What the student sees: occlusion, rotation about z, elastic distortion, scale and jitter, in this order.

    ``occlusion`` is the share of points behind a random plane that is cut off; 0.3 where a source of whole objects is
    to look like scans. ``rotate`` turns by any angle, on the source only in the released code. ``elastic`` lists
    (granularity, magnitude) of the distortions that follow each other in a cloud with probability
    ``elastic_probability``; ``scale`` is the range of a uniform factor.
    """

    occlusion: float = 0.0
    rotate: bool = False
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    elastic_probability: float = 0.95
    scale: tuple[float, float] = (0.7, 1.5)
    jitter: float = 0.01
    jitter_clip: float = 0.05

    def __call__(self, points: Tensor, random: SampleRandom) -> Tensor:
        """Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
        if self.occlusion:
            points = occluded(points, random, self.occlusion)
        if self.rotate:
            points = rotate_z(points, random.uniform().to(points) * (2 * math.pi))
        if self.elastic:
            chosen = random.uniform(1, 1).to(points.device) < self.elastic_probability
            distorted = points
            for granularity, magnitude in self.elastic:
                distorted = elastically_distorted(distorted, random, granularity, magnitude)
            points = torch.where(chosen, distorted, points)
        if self.scale != (1.0, 1.0):
            low, high = self.scale
            points = points * (low + (high - low) * random.uniform(1, 1).to(points))
        return jittered(points, random, self.jitter, self.jitter_clip)


def jittered(points: Tensor, random: SampleRandom, deviation: float, clip: float) -> Tensor:
    """Normal noise of this standard deviation on every coordinate, clipped. Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
    if not deviation:
        return points
    noise = deviation * random.normal(*points.shape[1:])
    return points + noise.clamp(-clip, clip).to(points)


def occluded(points: Tensor, random: SampleRandom, share: float) -> Tensor:
    """Cut off the ``round(share * N)`` points that lie farthest in a random direction, at least one point stays.

    Points that stay keep their rows; each row that is cut off repeats a random one of them, so that N stays.
    Shape: ``(B, N, 3)`` to ``(B, N, 3)``.
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"occlusion: expected a share in [0, 1), found {share}")
    count = points.shape[1]
    kept = max(1, count - round(share * count))
    direction = random.normal(1, 3).to(points)
    along = (points * direction).sum(dim=-1)
    order = along.argsort(dim=1, stable=True)
    # Rounding can carry a number just below 1 up to the number of points.
    drawn = (random.uniform(count).to(points.device) * kept).long().clamp(max=kept - 1)
    source = torch.arange(count, device=points.device).expand(len(points), count).clone()
    cut = order[:, kept:]
    source.scatter_(1, cut, order.gather(1, drawn.gather(1, cut)))
    return points.gather(1, source[..., None].expand_as(points))


def elastically_distorted(points: Tensor, random: SampleRandom, granularity: float, magnitude: float) -> Tensor:
    """Move points by smooth noise, see the module's text.

    ``granularity`` is the distance of the grid's nodes and ``magnitude`` the standard deviation of the noise before it
    is smoothed (smoothing divides it by 8.8), in the points' unit. Shape: ``(B, N, 3)`` to ``(B, N, 3)``.
    """
    if not granularity > 0:
        raise ValueError(f"elastic distortion: granularity must be greater than 0, found {granularity}")
    nodes = math.ceil(2 / granularity) + 1
    drawn = nodes + 2 * SMOOTHINGS
    noise = random.normal(3, drawn, drawn, drawn).to(points)
    for _ in range(SMOOTHINGS):
        noise = F.avg_pool3d(noise, kernel_size=3, stride=1)
    reach = granularity * (nodes - 1) / 2
    # The axes of the grid are x, y, z; grid_sample names the last axis first.
    places = (points / reach).flip(-1)[:, None, None]
    moved = F.grid_sample(noise, places, mode="bilinear", padding_mode="border", align_corners=True)
    return points + magnitude * moved[:, :, 0, 0].transpose(1, 2)
