"""Rotation of mixed clouds: put parts of two clouds together, each turned its own way, and tell both turns.

One of the two tasks of Zou et al. (ICCV 2021, GAST). Part A is a share lambda ~ Beta(1, 1) of the points of a cloud,
turned about the x axis by one of 0, 90, 180, 270 degrees; part B is the rest, from another cloud, turned about the y
axis by another of these. Two heads on the pooled feature of the whole tell the two turns, and the loss is
``lambda CE_a + (1 - lambda) CE_b``. As in :mod:`isthmus.pretexts.pcm`, parts are prefixes, since prepared clouds are
stored in farthest-point order (the released code runs farthest-point sampling at every step), and partners are a
random permutation of the batch.

Differences from the released code, on purpose: each head learns its own labels (released: the labels of both are one
tensor by mistake, so that head A learns the turns of part B). The heads have the layout of the classifier of objects
(512-256, dropout), which is our choice: theirs is not known.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.models.heads import ClassificationHead
from isthmus.pretexts.base import Pretext

TURNS = 4
"""Classes of each head: quarter turns."""


def quarter_turns(points: Tensor, turns: Tensor, axis: Literal["x", "y"]) -> Tensor:
    """Turn each cloud by so many quarter turns, counter-clockwise seen from the tip of the axis. Exact.

    Shape:
        - points: (B, N, 3)
        - turns: (B,), integers
        - returns: (B, N, 3)

    Example:
        >>> quarter_turns(torch.tensor([[[5.0, 1, 0]]]), torch.tensor([1]), "x").tolist()
        [[[5.0, 0.0, 1.0]]]
    """
    turns = turns % TURNS
    cos = points.new_tensor([1.0, 0.0, -1.0, 0.0])[turns][:, None]
    sin = points.new_tensor([0.0, 1.0, 0.0, -1.0])[turns][:, None]
    x, y, z = points.unbind(dim=-1)
    if axis == "x":
        return torch.stack([x, cos * y - sin * z, sin * y + cos * z], dim=-1)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], dim=-1)


class TurnedMix(NamedTuple):
    """Mixed clouds ``(B, N, 3)``, the ``share`` ``(B,)`` of part A, and the turns ``(B,)`` of both parts, 0 to 3."""

    points: Tensor
    share: Tensor
    first: Tensor
    second: Tensor


def turned_mix(points: Tensor, random: SampleRandom, *, share_per: Literal["batch", "sample"] = "batch") -> TurnedMix:
    """Mix every cloud with a partner of the batch, each part turned; a batch of one is mixed with itself.

    Part A is the first ``round(share * N)`` points. Partners, and the share of a batch, are drawn by its first sample.
    """
    batch, size = points.shape[:2]
    share = random.uniform()  # Beta(1, 1) is the uniform distribution
    if share_per == "batch":
        share = share[:1].expand(batch)
    partner = random.permutation(batch)[0].to(points.device)
    first, second = (random.uniform(2) * TURNS).long().clamp(max=TURNS - 1).to(points.device).unbind(dim=1)
    share = share.to(points)
    own = quarter_turns(points, first, "x")
    other = quarter_turns(points[partner], second, "y")
    kept = (share.double() * size).round().long()[:, None]
    place = torch.arange(size, device=points.device).expand(batch, -1)
    rest = other.gather(1, (place - kept).clamp(min=0)[..., None].expand(-1, -1, 3))
    return TurnedMix(torch.where((place < kept)[..., None], own, rest), share, first, second)


class MixedRotation(Pretext):
    """How both parts of a mixed cloud were turned.

    Args:
        first, second: heads from the pooled feature to 4 logits, for the part turned about x and that about y.
        share_per: one share per batch, as published, or one per sample.
    """

    name = "rotation"

    def __init__(
        self,
        first: ClassificationHead,
        second: ClassificationHead,
        *,
        share_per: Literal["batch", "sample"] = "batch",
    ) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.share_per: Literal["batch", "sample"] = share_per

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """Cross-entropy of both turns by their shares. Shape: ``(B, N, 3)`` to ``(B,)``."""
        mix = turned_mix(points, random, share_per=self.share_per)
        pooled = encoder(mix.points).pooled
        first = F.cross_entropy(self.first(pooled).float(), mix.first, reduction="none")
        second = F.cross_entropy(self.second(pooled).float(), mix.second, reduction="none")
        share = mix.share.float()
        return share * first + (1 - share) * second
