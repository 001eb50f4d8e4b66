"""DGCNN: convolution over the edges of a neighbour graph that is rebuilt in feature space for every layer.

Wang et al., "Dynamic graph CNN for learning on point clouds", ACM TOG 2019, in the form the domain adaptation
literature uses (DefRec, MLSP, self-distillation): k = 20, a transform network on the input, four edge convolutions,
and only the maximum over the cloud, where the original also takes the mean.

An edge convolution is max_j act(BN(W [x_j - x_i, x_i])) over the neighbours j of point i. With W = [W1, W2] the
product is W1 x_j + (W2 - W1) x_i, two terms that belong to points, not to edges; and BatchNorm and activation can
follow the maximum (``isthmus.models.layers``). So the split form, the default, never holds a feature of an edge
except to find the strongest neighbour. The plain form is the textbook's: a (B, 2C, N, k) tensor through a 1x1
convolution, BatchNorm, activation and maximum. Both have the same parameters, under the same names, and the same
values and gradients up to rounding.

Differences from the released code: the transform network starts at the identity, where it is random there; in the
split form distances of neighbours and products with W are in float32 under autocast too, because x_j - x_i would
drown in the rounding of x_j.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.geometry.knn import knn
from isthmus.models.layers import (
    MatrixHead,
    Moments,
    PointFeatures,
    PointLayer,
    PooledPointLayer,
    centre,
    direction,
    moments,
    normalise_selected,
    product,
    scaled,
    uses_batch_statistics,
)

EdgeForm = Literal["split", "plain"]


class EdgeConv(nn.Module):
    """Edge convolution: features (B, N, C_in) and neighbours (B, N, k) to features (B, N, C_out)."""

    def __init__(self, in_channels: int, out_channels: int, *, slope: float, form: EdgeForm) -> None:
        super().__init__()
        self.layer = PointLayer(2 * in_channels, out_channels, slope=slope)
        self.form = form

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """The strongest response over the edges of each point."""
        if self.form == "plain":
            responses = self.layer.convolve(edge_features(features, neighbours))
            return responses.max(dim=-1).values.transpose(1, 2)
        norm, weight = self.layer.norm, split_weight(self.layer.linear.weight)
        from_neighbour, from_point = per_point(features, weight)
        strongest = strongest_neighbour(from_neighbour, neighbours, direction(norm))
        selected = from_neighbour.gather(1, strongest) + from_point
        edges = edge_moments(features, neighbours) if uses_batch_statistics(norm) else None
        return F.leaky_relu(normalise_selected(norm, selected, weight, edges), self.layer.slope, inplace=True)


class EdgeTransformNet(nn.Module):
    """Predicts a 3x3 matrix for each cloud from its edges: points (B, N, 3) and neighbours to (B, 3, 3)."""

    def __init__(self, *, width: float, slope: float, form: EdgeForm) -> None:
        super().__init__()
        first, second, third = (scaled(c, width) for c in (64, 128, 1024))
        self.edges1 = PointLayer(6, first, slope=slope)
        self.edges2 = PointLayer(first, second, slope=slope)
        self.points = PooledPointLayer(second, third, slope=slope)
        self.matrix = MatrixHead(third, 3, width=width, slope=slope)
        self.form = form

    def forward(self, points: Tensor, neighbours: Tensor) -> Tensor:
        """One matrix for each cloud."""
        if self.form == "plain":
            edges = self.edges2.convolve(self.edges1.convolve(edge_features(points, neighbours)))
            strongest = self.points.convolve(edges.max(dim=-1, keepdim=True).values)
            return self.matrix(strongest.flatten(2).max(dim=-1).values)
        return self.matrix(self.points(two_layers_on_edges(self.edges1, self.edges2, points, neighbours)))


class DGCNN(nn.Module):
    """Encoder of clouds with edge convolutions of 64, 64, 128 and 256 channels.

    ``local`` is the concatenation of their outputs (512 channels), ``pooled`` the maximum over the cloud of one more
    layer on it (1024 channels).

    Args:
        k: neighbours of each point, itself included; no cloud may have fewer points.
        width: scales all channel counts, each to a multiple of 8.
        input_transform: learn a 3x3 matrix for the coordinates of each cloud.
        edge_form: "split" is fast, "plain" the textbook's way; weights fit both.

    Attributes:
        local_channels, pooled_channels: of the output; slope: of the activations below zero.

    Shape:
        - input: (B, N, 3), on the unit sphere, z up, N >= k; B > 1 in training mode
        - output: :class:`PointFeatures` of (B, N, 512) and (B, 1024)

    Example:
        >>> encoder = DGCNN(k=5, width=0.25).eval()
        >>> features = encoder(torch.rand(2, 50, 3))
        >>> features.local.shape, features.pooled.shape
        (torch.Size([2, 50, 128]), torch.Size([2, 256]))
    """

    slope = 0.2

    def __init__(
        self, *, k: int = 20, width: float = 1.0, input_transform: bool = True, edge_form: EdgeForm = "split"
    ) -> None:
        super().__init__()
        if edge_form not in ("split", "plain"):
            raise ValueError(f'edge_form must be "split" or "plain", found {edge_form!r}')
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}")
        widths = [scaled(c, width) for c in (64, 64, 128, 256)]
        self.local_channels = sum(widths)
        self.pooled_channels = scaled(1024, width)
        self.k = k
        self.edge_form = edge_form
        self.input_transform = (
            EdgeTransformNet(width=width, slope=self.slope, form=edge_form) if input_transform else None
        )
        self.edges = nn.ModuleList(
            EdgeConv(before, after, slope=self.slope, form=edge_form)
            for before, after in zip([3, *widths], widths, strict=False)
        )
        self.points = PooledPointLayer(self.local_channels, self.pooled_channels, slope=self.slope)

    def forward(self, points: Tensor) -> PointFeatures:
        """Features of every point and of every cloud."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"points must be (B, N, 3), found shape {tuple(points.shape)}")
        if self.input_transform is not None:
            points = points @ self.input_transform(points, knn(points, self.k))
        features, outputs = points, []
        for layer in self.edges:
            features = layer(features, knn(features, self.k))
            outputs.append(features)
        local = torch.cat(outputs, dim=-1)
        if self.edge_form == "plain":
            mapped = self.points.convolve(local.transpose(1, 2).unsqueeze(-1))
            return PointFeatures(local, mapped.flatten(2).max(dim=-1).values)
        return PointFeatures(local, self.points(local))


def two_layers_on_edges(first: PointLayer, second: PointLayer, features: Tensor, neighbours: Tensor) -> Tensor:
    """The strongest response of two layers over the edges of each point: features (B, N, C_in) to (B, N, C_out)."""
    from_neighbour, from_point = per_point(features, split_weight(first.linear.weight))
    edges = first.activate(at_neighbours(from_neighbour, neighbours) + from_point.unsqueeze(2))
    norm, mapped = second.norm, second.linear(edges)
    sign = direction(norm).to(mapped.dtype)
    selected = (mapped * sign).max(dim=2).values * sign
    population = moments(edges.flatten(1, 2)) if uses_batch_statistics(norm) else None
    normed = normalise_selected(norm, selected, second.linear.weight, population)
    return F.leaky_relu(normed, second.slope, inplace=True)


def split_weight(weight: Tensor) -> Tensor:
    """The map W of [x_j - x_i, x_i] as one of [x_j, x_i]: [W1, W2 - W1], (C_out, 2 C_in)."""
    first, second = weight.chunk(2, dim=1)
    return torch.cat([first, second - first], dim=1)


def per_point(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What each point adds to its incoming edges as a neighbour, and to its own edges: twice (B, N, C_out)."""
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(weight.dtype)
        as_neighbour, as_centre = weight.chunk(2, dim=1)
        return F.linear(features, as_neighbour), F.linear(features, as_centre)


def at_neighbours(values: Tensor, neighbours: Tensor) -> Tensor:
    """Values (B, N, C) looked up at neighbours (B, N, k): (B, N, k, C)."""
    rows = values.flatten(0, 1).index_select(0, rows_of(neighbours).flatten())
    return rows.view(*neighbours.shape, values.shape[-1])


def rows_of(neighbours: Tensor) -> Tensor:
    """Indices within each cloud (B, N, k) as indices into all points of the batch."""
    clouds, size, _ = neighbours.shape
    # Not arange with a step: torch.export would then refuse a batch of one.
    return neighbours + size * torch.arange(clouds, device=neighbours.device)[:, None, None]


@torch.no_grad()
def strongest_neighbour(values: Tensor, neighbours: Tensor, sign: Tensor) -> Tensor:
    """The neighbour with the largest ``sign * value``, by point and channel: (B, N, C) indices of points."""
    signed = values * sign

    def strongest(signed: Tensor, neighbours: Tensor) -> Tensor:
        return neighbours.gather(2, at_neighbours(signed, neighbours).max(dim=2).indices)

    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return strongest(signed, neighbours)
    # Cloud by cloud, the features of the edges stay in the cache and need little memory.
    return torch.cat([strongest(*cloud) for cloud in zip(signed.split(1), neighbours.split(1), strict=True)])


def edge_moments(features: Tensor, neighbours: Tensor) -> Moments:
    """Moments of [x_j, x_i] over all edges, from sums over the neighbours of each point. Differentiable."""
    k = neighbours.shape[-1]
    count = neighbours.numel()
    rows = rows_of(neighbours)
    points, origin = centre(features)
    around = F.embedding_bag(rows.flatten(0, 1), points.flatten(0, 1), mode="sum").view_as(points)
    times_chosen = torch.bincount(rows.flatten(), minlength=points.shape[0] * points.shape[1])
    chosen = points * times_chosen.view(*points.shape[:2], 1)
    mean = torch.cat([around, k * points], dim=-1).sum(dim=(0, 1), dtype=torch.float64) / count
    mixed = product(around, points)
    square = torch.cat(
        [
            torch.cat([product(chosen, points), mixed], dim=1),
            torch.cat([mixed.T, k * product(points, points)], dim=1),
        ]
    )
    return Moments(mean + origin.repeat(2), square / count - torch.outer(mean, mean), count)


def edge_features(features: Tensor, neighbours: Tensor) -> Tensor:
    """[x_j - x_i, x_i] of every edge, channels first: (B, 2C, N, k)."""
    other = at_neighbours(features, neighbours)
    own = features.unsqueeze(2).expand_as(other)
    return torch.cat([other - own, own], dim=-1).permute(0, 3, 1, 2).contiguous()
