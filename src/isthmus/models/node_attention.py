r"""Nodes of a cloud that move to where they are wanted, and an attention over them: the local part of PointDAN.

Qin et al., "PointDAN: A multi-scale 3D domain adaption network for point cloud representation", NeurIPS 2019.
A *self-adaptive node* is a centre and the points around it. It starts at a farthest point, shifts by what the features
of its neighbours say of them, and is then described by the points around its new place:

.. math::

    \Delta x_c = \frac1k \sum_j R_T(v_j - v_c) \odot (x_j - x_c), \qquad
    u_c = \max_j R_G([v_j, x_j - (x_c + \Delta x_c)])

with one layer each for :math:`R_T` and :math:`R_G`. The *node attention* weighs the features of all nodes of a cloud by
a bottleneck of two layers. Known and kept: 64 nodes of 64 channels by farthest points, a radius of 0.3 on the unit
sphere, up to 64 neighbours, learned offsets, an attention over 64 x 64 = 4096 numbers.

Inferred, since no more is known here than that:

- :math:`R_T` gives a number between -1 and 1 for each axis (tanh), so that a node stays within the radius, and starts
  at zero: nodes start at the farthest points.
- :math:`R_G` sees where a point lies relative to the node. The choice of neighbours has no derivative, and without this
  nothing would teach :math:`R_T`.
- Features v are the encoder's ``local``, whichever the encoder.
- Of more than 64 points within the radius the nearest count. The nearest point always does, so no node is empty.
- The attention's bottleneck is an eighth as wide, its weights lie between 0 and 1 and are added to 1. Without that 1,
  or without a classifier that reads the nodes, nodes that vanish would be the cheapest way to look alike.

Clouds with fewer points than nodes use their points in turn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.models.layers import PointLayer


class Nodes(NamedTuple):
    """Where the nodes of a batch lie, ``positions`` (B, M, 3), and their ``features`` (B, M, D)."""

    positions: Tensor
    features: Tensor


class SelfAdaptiveNodes(nn.Module):
    """Nodes with learned offsets, see the module. Computed in float32 at least, under autocast too.

    Args:
        in_channels: of the features of points.
        out_channels: D, of the features of nodes.
        nodes: M.
        radius: within which a node sees points, in units of the points.
        neighbours: at most this many of them.
        slope: of the activation below zero.

    Attributes:
        offset: R_T; gather: R_G.

    Shape:
        - points: (B, N, 3), finite, N >= 1
        - local: (B, N, in_channels)
        - output: :class:`Nodes` of (B, M, 3) and (B, M, out_channels)

    Example:
        >>> module = SelfAdaptiveNodes(5, 8, nodes=4)
        >>> found = module(torch.rand(2, 30, 3), torch.rand(2, 30, 5))
        >>> found.positions.shape, found.features.shape
        (torch.Size([2, 4, 3]), torch.Size([2, 4, 8]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 64,
        *,
        nodes: int = 64,
        radius: float = 0.3,
        neighbours: int = 64,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        if nodes < 1 or neighbours < 1 or not radius > 0:
            raise ValueError(
                "nodes and neighbours must be at least 1 and radius greater than 0, "
                f"found {nodes}, {neighbours} and {radius}"
            )
        self.nodes = nodes
        self.radius = radius
        self.k = neighbours
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.offset = nn.Linear(in_channels, 3, bias=False)
        nn.init.zeros_(self.offset.weight)
        self.gather = PointLayer(in_channels + 3, out_channels, slope=slope)

    def forward(self, points: Tensor, local: Tensor) -> Nodes:
        """The nodes of each cloud."""
        if points.ndim != 3 or points.shape[-1] != 3 or local.shape != (*points.shape[:2], self.in_channels):
            raise ValueError(
                f"points and local must be (B, N, 3) and (B, N, {self.in_channels}), "
                f"found {tuple(points.shape)} and {tuple(local.shape)}"
            )
        with torch.autocast(points.device.type, enabled=False):
            weight = self.gather.linear.weight
            points, local = points.to(weight.dtype), local.to(weight.dtype)
            positions = self._moved(points, local)
            around, _ = self._ball(points, positions)
            # Linear in [v_j, x_j - x_c]: once for the points and once for the nodes, in place of once for each pair.
            of_features, of_place = weight.split([self.in_channels, 3], dim=1)
            of_points = local @ of_features.T + points @ of_place.T
            mapped = _taken(of_points, around) - (positions @ of_place.T)[:, :, None]
            return Nodes(positions, self.gather.activate(mapped).max(dim=2).values)

    def _moved(self, points: Tensor, local: Tensor) -> Tensor:
        """Farthest points plus their offsets. Shape: (B, M, 3)."""
        count = min(self.nodes, points.shape[1])
        turn = torch.arange(self.nodes, device=points.device) % count
        chosen = farthest_point_order(points, count)[:, turn][..., None]
        start = _taken(points, chosen)
        around, inside = self._ball(points, start[:, :, 0])
        direction = self.offset(local)
        pull = (_taken(direction, around) - _taken(direction, chosen)).tanh() * (_taken(points, around) - start)
        counted = inside[..., None].to(pull.dtype)
        return start[:, :, 0] + (pull * counted).sum(dim=2) / counted.sum(dim=2)

    @torch.no_grad()
    def _ball(self, points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of points within the radius, nearest first, and which of them are: (B, M, k) twice.

        What is outside is replaced by the nearest point, which always counts.
        """
        distance = (centres[:, :, None] - points[:, None]).square().sum(dim=-1)
        near = distance.topk(min(self.k, points.shape[1]), largest=False)
        rank = torch.arange(near.values.shape[-1], device=points.device)
        inside = (near.values <= self.radius**2) | (rank == 0)
        return torch.where(inside, near.indices, near.indices[..., :1]), inside


class NodeAttention(nn.Module):
    """Weighs each number of a cloud's nodes by all of them: u (1 + sigmoid(W_2 relu(W_1 u))).

    Args:
        nodes: M.
        channels: D, of each node.
        reduction: how much narrower the bottleneck is.

    Shape:
        - input: (B, M, D)
        - output: (B, M, D)
    """

    def __init__(self, nodes: int, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        size = nodes * channels
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, found {reduction}")
        self.squeeze = nn.Linear(size, max(1, size // reduction))
        self.excite = nn.Linear(max(1, size // reduction), size)

    def forward(self, features: Tensor) -> Tensor:
        """The weighted features."""
        share = self.excite(self.squeeze(features.flatten(1)).relu()).sigmoid()
        return features * (1 + share.unflatten(1, features.shape[1:]))


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Rows of each cloud. Shape: (B, N, C), (B, M, k) to (B, M, k, C)."""
    rows = values.gather(1, index.flatten(1)[..., None].expand(-1, -1, values.shape[-1]))
    return rows.unflatten(1, index.shape[1:])
