"""PCM: mix two clouds, and classify the mix as both.

Achituve et al. (WACV 2021). One share ``lambda ~ Beta(1, 1)`` per batch; a mixed cloud is ``round(lambda * N)`` points
of cloud a, evenly spread, and the rest from a partner b; the loss is ``lambda CE(a) + (1 - lambda) CE(b)``. The even
subsample is a prefix, since prepared clouds are stored in farthest-point order; the released code runs farthest-point
sampling at every step. The mixed cloud is not shuffled: the networks do not depend on the order of points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from isthmus.data.randomness import Progress


class Mix(NamedTuple):
    """How the clouds of a batch are mixed: ``share`` of each cloud itself, the rest from ``partner`` ``(B,)``."""

    share: float
    partner: Tensor
    kept: int
    """Number of points taken from the cloud itself."""

    def clouds(self, points: Tensor) -> Tensor:
        """Mixed clouds; differentiable by ``points``. Shape: ``(B, N, 3)`` to ``(B, N, 3)``."""
        size = points.shape[1]
        return torch.cat([points[:, : self.kept], points[self.partner][:, : size - self.kept]], dim=1)

    def point_labels(self, values: Tensor) -> Tensor:
        """Labels (or masks) of the points of the mixed clouds. Shape: ``(B, 1, N)`` to ``(B, 1, N)``.

        Where points are labelled, a mixed cloud has one loss, over all its points: each keeps its own label.
        """
        size = values.shape[-1]
        return torch.cat([values[..., : self.kept], values[self.partner][..., : size - self.kept]], dim=-1)

    def loss(self, per_sample: Tensor, per_partner: Tensor) -> Tensor:
        """Loss of each mixed cloud from those by its two labels. Shape: ``(B,)`` twice to ``(B,)``."""
        return self.share * per_sample + (1 - self.share) * per_partner

    def used(self, size: int) -> Tensor:
        """Which points of each original cloud are in some mix. Shape: ``(B, size)`` bool."""
        position = torch.arange(size, device=self.partner.device)
        taken = (position < self.kept) | (position < size - self.kept)  # every cloud is somebody's partner
        return taken.expand(len(self.partner), -1)


def draw_mix(sample_ids: Tensor, size: int, progress: Progress, domain: str) -> Mix:
    """The mix of this step; the partners are a random permutation of the (process's) batch."""
    random = progress.random(f"pcm/{domain}", [0])
    share = float(random.uniform())  # Beta(1, 1) is the uniform distribution
    partner = random.permutation(len(sample_ids))[0].to(sample_ids.device)
    return Mix(share, partner, round(share * size))
