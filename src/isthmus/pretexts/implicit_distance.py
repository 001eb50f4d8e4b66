"""Implicit distance: from the feature of a cloud, tell how far any place is from the surface.

Shen et al., "Domain Adaptation on Point Clouds via Geometry-Aware Implicits" (CVPR 2022, ImplicitPCDA). A decoder of
the pooled feature and a place gives the unsigned distance at 2,048 places drawn uniformly in [-1, 1]^3; the loss is the
mean absolute error. A cloud only samples the surface, so the distance to its nearest point is too large by up to half
the distance between points: the target is that distance less half the mean of the 20 largest local spacings of the
cloud, and at least 0 (far from the surface that is too small by as much).

Read here, since the published facts leave it open: the local spacing of a point is the mean distance from its 3 nearest
other points; the decoder has ReLU and no normalisation; the cloud is encoded as it comes (augmented, not distorted).
The released code contains pre-training only, and none of the adaptation.
"""

from __future__ import annotations

from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.knn import nearest
from isthmus.geometry.surface import spacing
from isthmus.models.pretext_heads import QueryHead
from isthmus.pretexts.base import Pretext


def unsigned_distance(points: Tensor, places: Tensor, *, neighbours: int = 3, widest: int = 20) -> Tensor:
    """Distance of each place from the surface that a cloud samples, about half a gap less than from its points.

    Args:
        points: coordinates, any number of them.
        places: where to measure, in the unit of the points.
        neighbours: how many make up a local spacing.
        widest: how many of the largest local spacings are averaged; all where a cloud has fewer points.

    Shape:
        - points: (B, N, 3), N at least 2
        - places: (B, Q, 3)
        - returns: (B, Q), at least 0
    """
    points, places = points.detach().float(), places.float()
    found = points.gather(1, nearest(places, points).unsqueeze(-1).expand(-1, -1, 3))
    gap = spacing(points, neighbours).topk(min(widest, points.shape[1]), dim=1).values.mean(dim=1, keepdim=True)
    return ((places - found).norm(dim=-1) - gap / 2).clamp(min=0)


class ImplicitDistance(Pretext):
    """Unsigned distance at random places, from the pooled feature.

    Args:
        head: from the pooled feature and places to a number for each place.
        queries: places per cloud and step.
        neighbours, widest: see :func:`unsigned_distance`.
    """

    name = "implicit"

    def __init__(self, head: QueryHead, *, queries: int = 2048, neighbours: int = 3, widest: int = 20) -> None:
        super().__init__()
        self.head = head
        self.queries = queries
        self.neighbours = neighbours
        self.widest = widest

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        """Mean absolute error over the places of each sample. Shape: ``(B, N, 3)`` to ``(B,)``."""
        places = random.uniform(self.queries, 3).to(points.device) * 2 - 1
        target = unsigned_distance(points, places, neighbours=self.neighbours, widest=self.widest)
        predicted = self.head(encoder(points).pooled, places).float()
        return (predicted - target).abs().mean(dim=1)
