r"""Graph convolutions over the samples of a whole data set, and the graph itself: who is correlated with whom.

Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (ICLR 2017):
:math:`H' = \hat A H W + b`, where :math:`\hat A = D^{-1/2} (A + I) D^{-1/2}`. Plain PyTorch.

Memory stays bounded: correlations are worked out for a block of samples at a time, of which the best few are kept, and
:math:`\hat A` is sparse. No square matrix of the samples is ever held.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def correlated(embeddings: Tensor, *, threshold: float = 0.95, at_most: int = 10, block: int = 1024) -> Tensor:
    """For each sample up to ``at_most`` others, those of highest correlation above ``threshold``.

    Pearson's correlation over the channels, in float32 at least. A sample without spread has no neighbours. The time
    is quadratic in N, the memory ``block * N``.

    Args:
        embeddings: (N, D), finite.
        threshold: neighbours have a correlation greater than it.
        at_most: neighbours of each sample, at least 1.
        block: samples whose correlations are held at once.

    Shape:
        - output: (2, E) int64, from each sample to its neighbours, in the order of samples
    """
    if embeddings.ndim != 2:
        raise ValueError(f"correlated: expected embeddings (N, D), found shape {tuple(embeddings.shape)}")
    if at_most < 1 or block < 1:
        raise ValueError(f"correlated: expected at_most and block of at least 1, found {at_most} and {block}")
    wide = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
    centred = wide - wide.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    # What is left of the mean after subtracting it is rounding, no direction.
    flat = length <= 1e-6 * wide.norm(dim=1, keepdim=True)
    unit = torch.where(flat, 0.0, centred / length.where(~flat, 1.0))
    count = len(unit)
    edges = []
    for start in range(0, count, block):
        rows = torch.arange(start, min(start + block, count), device=unit.device)
        with torch.autocast(unit.device.type, enabled=False):
            correlation = unit[rows] @ unit.T
        correlation[rows - start, rows] = -torch.inf  # nobody is their own neighbour
        best, neighbour = correlation.topk(min(at_most, count), dim=1)
        row, rank = (best > threshold).nonzero(as_tuple=True)
        edges.append(torch.stack([rows[row], neighbour[row, rank]]))
    return torch.cat(edges, dim=1) if edges else torch.zeros(2, 0, dtype=torch.long, device=unit.device)


def normalised_adjacency(edges: Tensor, count: int) -> Tensor:
    """The matrix A-hat of a graph whose edges, each seen from both ends, weigh 1, with every node joined to itself.

    A node that many others name as theirs has more neighbours than it named. Shape: ``(2, E)`` int64 to a sparse CSR
    matrix ``(count, count)``, float32, symmetric.
    """
    itself = torch.arange(count, device=edges.device).expand(2, count)
    row, column = torch.cat([edges, edges.flip(0), itself], dim=1)
    pairs = (row * count + column).unique()
    row, column = pairs // count, pairs % count
    scale = row.bincount(minlength=count).float().rsqrt()
    starts = torch.zeros(count + 1, dtype=torch.long, device=edges.device)
    starts[1:] = row.bincount(minlength=count).cumsum(0)
    with warnings.catch_warnings():  # that CSR is in beta state
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(starts, column, scale[row] * scale[column], (count, count))


class _Propagated(torch.autograd.Function):
    """Product of a constant symmetric sparse matrix and a dense one; its gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, features: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return adjacency @ features

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor]:
        return None, ctx.adjacency @ upstream[0].contiguous()


def propagate(adjacency: Tensor, features: Tensor) -> Tensor:
    """``adjacency @ features`` for a symmetric sparse matrix. Shape: ``(N, N)``, ``(N, C)`` to ``(N, C)``."""
    product: Tensor = _Propagated.apply(adjacency, features)
    return product


class ScoreGCN(nn.Module):
    """Three graph convolutions, hidden-hidden-classes, on embeddings to which embedded class scores are added.

    The network of Cardace et al.'s refinement of pseudo-labels, with ReLU and dropout after the first two layers. What
    the first layer spreads over the graph is constant but for the K scores of each node, so :meth:`spread` is called
    once, and a pass costs two sparse products instead of three of the full width.

    Args:
        channels: D of the embeddings.
        classes: K of the scores.
        hidden: width of the first two layers; ``channels`` as published.
        dropout: probability of dropping a hidden unit.
        generator: source of the initial weights and the dropout masks, on the device of the data.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        hidden: int | None = None,
        dropout: float = 0.5,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = channels if hidden is None else hidden
        self.dropout = dropout
        self.generator = generator
        self.scores = _linear(classes, channels, generator)
        self.layer1 = _linear(channels, width, generator)
        self.layer2 = _linear(width, width, generator)
        self.layer3 = _linear(width, classes, generator)

    def spread(self, adjacency: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings, and a column of ones, spread over the graph. Shape: ``(N, D)`` and ``(N, 1)``."""
        return adjacency @ embeddings, adjacency @ embeddings.new_ones(len(embeddings), 1)

    def forward(self, adjacency: Tensor, spread: tuple[Tensor, Tensor], scores: Tensor) -> Tensor:
        """Logits of all nodes. Shape: ``(N, K)`` scores to ``(N, K)``."""
        embeddings, ones = spread
        # The scores' embedding and the first layer are one linear map: its product first, so that no gradient of the
        # size of the embeddings is needed.
        weight = self.layer1.weight
        hidden = F.linear(embeddings, weight, self.layer1.bias) + ones * (weight @ self.scores.bias)
        hidden = hidden + F.linear(adjacency @ scores, weight @ self.scores.weight)
        hidden = self._dropped(hidden.relu())
        hidden = propagate(adjacency, F.linear(hidden, self.layer2.weight)) + self.layer2.bias
        return propagate(adjacency, F.linear(self._dropped(hidden.relu()), self.layer3.weight)) + self.layer3.bias

    def _dropped(self, hidden: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return hidden
        kept = torch.empty_like(hidden).bernoulli_(1 - self.dropout, generator=self.generator)
        return hidden * kept.div_(1 - self.dropout)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Glorot's initial weights, as Kipf and Welling's, and no bias yet."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=generator.device)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
