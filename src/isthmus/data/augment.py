"""Random changes of training clouds: rotation about the vertical, scale, jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.transforms import rotate_z


@dataclass(frozen=True)
class Augment:
    """DefRec's training augmentation by default: any rotation about z, jitter N(0, 0.01) clipped at 0.02.

    ``scale`` (low, high) multiplies each cloud by a uniform factor. Nothing is normalised afterwards, so points may
    leave the unit sphere, as in the published loaders.
    """

    rotate: bool = True
    jitter: float = 0.01
    jitter_clip: float = 0.02
    scale: tuple[float, float] = (1.0, 1.0)

    def __call__(self, points: Tensor, random: SampleRandom) -> Tensor:
        """Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
        if self.rotate:
            points = rotate_z(points, random.uniform() * (2 * math.pi))
        if self.scale != (1.0, 1.0):
            low, high = self.scale
            points = points * (low + (high - low) * random.uniform(1, 1))
        if self.jitter:
            noise = self.jitter * random.normal(*points.shape[1:])
            points = points + noise.clamp(-self.jitter_clip, self.jitter_clip)
        return points
