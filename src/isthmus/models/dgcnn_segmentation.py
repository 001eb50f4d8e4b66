"""The DGCNN that labels points in PointSegDA, and a head that labels points on any encoder.

Achituve et al., "Self-Supervised Learning for Domain Adaptation on Point Clouds" (WACV 2021), after Wang et al.,
"Dynamic graph CNN for learning on point clouds" (ACM TOG 2019): a transform network on the input, three edge blocks of
two, two and one layers of 64 channels, 1024 channels and their maximum over the cloud, and for each point a classifier
of its own features and the cloud's.

As released, edge blocks have neither BatchNorm nor activation, and the transform network no BatchNorm: the maximum over
the neighbours is the only non-linearity of a block. Then the two maps of a block are one, W = W2 W1, and

    max_j W [x_j - x_i, x_i] = max_j (V1 x_j) + (V2 - V1) x_i    with W = [V1, V2],

so no feature of an edge is ever held (see :mod:`isthmus.models.dgcnn`). ``edge_norm="batch"`` puts BatchNorm and leaky
ReLU behind each layer, as in the classification network.

Differences from the released code: the transform network starts at the identity, where it is random there; its
activations are leaky ReLU of slope 0.2, the layer of 1024 channels has none (of both the published facts say nothing);
the maximum over the cloud is found first and differentiated at the points that have it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.geometry.knn import knn
from isthmus.models.dgcnn import (
    EdgeConv,
    at_neighbours,
    per_point,
    split_weight,
    strongest_neighbour,
    two_layers_on_edges,
)
from isthmus.models.layers import (
    PointFeatures,
    PointLayer,
    scaled,
)

EdgeNorm = Literal["none", "batch"]


class LinearEdgeBlock(nn.Module):
    """Linear layers on edges, then the maximum: features (B, N, C_in) and neighbours (B, N, k) to (B, N, channels)."""

    def __init__(self, in_channels: int, channels: int, layers: int) -> None:
        super().__init__()
        widths = [2 * in_channels, *[channels] * layers]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def composed(self) -> tuple[Tensor, Tensor]:
        """Weight (channels, 2 C_in) and bias (channels,) of all layers in one."""
        first, *others = [cast(nn.Linear, layer) for layer in self.layers]
        weight, bias = cast(Tensor, first.weight), cast(Tensor, first.bias)
        for layer in others:
            weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
        return weight, bias

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """The strongest response over the edges of each point."""
        with torch.autocast(features.device.type, enabled=False):  # x_j - x_i would drown in the rounding of x_j
            weight, bias = self.composed()
            from_neighbour, from_point = per_point(features, split_weight(weight))
            strongest = strongest_neighbour(from_neighbour, neighbours, torch.ones_like(bias))
            return from_neighbour.gather(1, strongest) + from_point + bias


class NormedEdgeBlock(nn.Module):
    """Two layers on edges with BatchNorm over all edges and leaky ReLU behind each, then the maximum."""

    def __init__(self, in_channels: int, channels: int, *, slope: float) -> None:
        super().__init__()
        self.layer1 = PointLayer(2 * in_channels, channels, slope=slope)
        self.layer2 = PointLayer(channels, channels, slope=slope)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """The strongest response over the edges of each point."""
        return two_layers_on_edges(self.layer1, self.layer2, features, neighbours)


class PooledLinear(nn.Module):
    """A linear map of every point and its maximum over the cloud: (B, N, in_channels) to (B, out_channels)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """The maximum; where several points have it, all of the gradient goes to one."""
        weight = self.linear.weight
        with torch.no_grad():
            index = (weight @ features.transpose(1, 2)).max(dim=2).indices
        chosen = features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        return (chosen * weight).sum(dim=-1) + self.linear.bias


class PlainTransformNet(nn.Module):
    """Predicts a 3x3 matrix for each cloud from its edges, without BatchNorm: 64, 128, 1024, 512, 256 channels.

    Starts at the identity. Shape: points (B, N, 3) and neighbours (B, N, k) to (B, 3, 3).
    """

    def __init__(self, *, width: float, slope: float) -> None:
        super().__init__()
        first, second, third, fourth, fifth = (scaled(c, width) for c in (64, 128, 1024, 512, 256))
        self.edges1 = nn.Linear(6, first)
        self.edges2 = nn.Linear(first, second)
        self.points = PooledLinear(second, third)
        self.layer1 = nn.Linear(third, fourth)
        self.layer2 = nn.Linear(fourth, fifth)
        self.offset = nn.Linear(fifth, 9)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.slope = slope

    def forward(self, points: Tensor, neighbours: Tensor) -> Tensor:
        """One matrix for each cloud."""
        from_neighbour, from_point = per_point(points, split_weight(self.edges1.weight))
        mapped = at_neighbours(from_neighbour, neighbours) + (from_point + self.edges1.bias).unsqueeze(2)
        strongest = self.edges2(F.leaky_relu(mapped, self.slope)).max(dim=2).values
        pooled = F.leaky_relu(self.points(F.leaky_relu(strongest, self.slope)), self.slope)
        hidden = F.leaky_relu(self.layer2(F.leaky_relu(self.layer1(pooled), self.slope)), self.slope)
        offset = self.offset(hidden).unflatten(1, (3, 3))
        return offset + torch.eye(3, dtype=offset.dtype, device=offset.device)


class SegmentationDGCNN(nn.Module):
    """Encoder of clouds for labelling their points.

    ``local`` is the concatenation of the three blocks' outputs (192 channels), ``pooled`` the maximum over the cloud of
    a linear map of it (1024 channels). Pretexts take it like any other encoder.

    Args:
        k: neighbours of each point, itself included; no cloud may have fewer points.
        width: scales all channel counts, each to a multiple of 8.
        input_transform: learn a 3x3 matrix for the coordinates of each cloud.
        edge_norm: "none" as released, or "batch": BatchNorm and leaky ReLU behind each layer of an edge block.

    Attributes:
        local_channels, pooled_channels: of the output; slope: of the activations below zero.

    Shape:
        - input: (B, N, 3), z up, N >= k; B > 1 in training mode with ``edge_norm="batch"``
        - output: :class:`PointFeatures` of (B, N, 192) and (B, 1024)

    Example:
        >>> encoder = SegmentationDGCNN(k=5, width=0.25)
        >>> features = encoder(torch.rand(2, 50, 3))
        >>> features.local.shape, features.pooled.shape
        (torch.Size([2, 50, 48]), torch.Size([2, 256]))
    """

    slope = 0.2

    def __init__(
        self, *, k: int = 20, width: float = 1.0, input_transform: bool = True, edge_norm: EdgeNorm = "none"
    ) -> None:
        super().__init__()
        if edge_norm not in get_args(EdgeNorm):
            raise ValueError(f"edge_norm must be one of {', '.join(get_args(EdgeNorm))}, found {edge_norm!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}")
        channels = scaled(64, width)
        self.local_channels = 3 * channels
        self.pooled_channels = scaled(1024, width)
        self.k = k
        self.edge_norm = edge_norm
        self.input_transform = PlainTransformNet(width=width, slope=self.slope) if input_transform else None
        self.blocks = nn.ModuleList(
            self._block(before, channels, layers) for before, layers in ((3, 2), (channels, 2), (channels, 1))
        )
        self.points = PooledLinear(self.local_channels, self.pooled_channels)

    def _block(self, in_channels: int, channels: int, layers: int) -> nn.Module:
        if self.edge_norm == "none":
            return LinearEdgeBlock(in_channels, channels, layers)
        if layers == 1:
            return EdgeConv(in_channels, channels, slope=self.slope, form="split")
        return NormedEdgeBlock(in_channels, channels, slope=self.slope)

    def forward(self, points: Tensor) -> PointFeatures:
        """Features of every point and of every cloud."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"points must be (B, N, 3), found shape {tuple(points.shape)}")
        if self.input_transform is not None:
            points = points @ self.input_transform(points, knn(points, self.k))
        features, outputs = points, []
        for block in self.blocks:
            features = block(features, knn(features, self.k))
            outputs.append(features)
        local = torch.cat(outputs, dim=-1)
        return PointFeatures(local, self.points(local))


class PointSegmentationHead(nn.Module):
    """Labels every point by its own features and those of its cloud: 256-256-128-classes, BatchNorm, ReLU, dropout.

    As in :class:`isthmus.models.heads.PointReconstructionHead`, the cloud's share of the first layer is computed once.

    Args:
        local_channels: the encoder's.
        pooled_channels: the encoder's.
        classes: number of classes, at least 1.
        width: scales the three hidden layers, each to a multiple of 8.
        dropout: probability of dropping a hidden unit behind each of the first two layers, in [0, 1).
        slope: of the activation below zero.

    Shape:
        - input: :class:`PointFeatures` of (B, N, local_channels) and (B, pooled_channels)
        - output: (B, classes, 1, N), logits
    """

    def __init__(
        self,
        local_channels: int,
        pooled_channels: int,
        classes: int,
        *,
        width: float = 1.0,
        dropout: float = 0.5,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, found {classes}")
        first, third = scaled(256, width), scaled(128, width)
        self.layer1 = PointLayer(local_channels + pooled_channels, first, slope=slope)
        self.layer2 = PointLayer(first, first, slope=slope)
        self.layer3 = PointLayer(first, third, slope=slope)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(third, classes)
        self.local_channels = local_channels

    def forward(self, features: PointFeatures) -> Tensor:
        """Logits of every point."""
        weight = self.layer1.linear.weight
        of_points = F.linear(features.local, weight[:, : self.local_channels])
        of_cloud = F.linear(features.pooled, weight[:, self.local_channels :])
        hidden = self.dropout(self.layer1.activate(of_points + of_cloud.unsqueeze(1)))
        logits: Tensor = self.logits(self.layer3(self.dropout(self.layer2(hidden))))
        return logits.transpose(1, 2).unsqueeze(2)


class PointSegmenter(nn.Module):
    """``encoder`` then ``head`` on the features of its points and clouds. Shape: ``(B, N, 3)`` to ``(B, K, 1, N)``."""

    def __init__(self, encoder: nn.Module, head: PointSegmentationHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, points: Tensor) -> Tensor:
        """Logits. Shape: ``(B, N, 3)`` to ``(B, K, 1, N)``."""
        logits: Tensor = self.head(self.encoder(points))
        return logits
