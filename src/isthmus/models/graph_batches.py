"""A graph in batches of clusters: what one step of training costs is a batch, not all samples.

Chiang et al., "Cluster-GCN: An Efficient Algorithm for Training Deep and Large Graph Convolutional Networks" (KDD
2019). The graph is cut once into small pieces of neighbouring nodes; in every epoch pieces are put together at random
to batches, within which the edges between pieces count again. Edges to nodes outside of a batch are left out, and its
adjacency is normalised for itself, as there.

Instead of METIS, pieces are consecutive stretches of the reverse Cuthill-McKee order, which SciPy has: neighbours stand
close to each other in it, and small connected components lie in one piece, or in two adjacent ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from isthmus.models.graph_convolution import normalised_adjacency

PIECES = 16
"""Pieces of each batch: more mix better, fewer cut fewer edges."""


class GraphBatch(NamedTuple):
    """Some ``nodes`` ``(n,)`` int64, ascending, and the normalised ``adjacency`` ``(n, n)`` among them, sparse."""

    nodes: Tensor
    adjacency: Tensor


def graph_batches(
    edges: Tensor, count: int, size: int | None, *, generator: torch.Generator, pieces: int = PIECES
) -> Iterator[GraphBatch]:
    """Batches without end; in every epoch each node is in exactly one, and all have as good as the same size.

    A graph of at most ``size`` nodes is one batch, always the same, and so is any with ``size`` None: then nothing is
    drawn from the generator.

    Args:
        edges: (2, E) int64, see :func:`isthmus.models.graph_convolution.correlated`.
        count: nodes, at least 1.
        size: nodes of a batch, at most.
        generator: puts the pieces together, on the device of the edges.
        pieces: of a batch.
    """
    if count < 1 or pieces < 1 or (size is not None and size < 1):
        raise ValueError(f"graph batches: expected 1 or more nodes, pieces and size, found {count}, {pieces}, {size}")
    if size is None or count <= size:
        whole = GraphBatch(torch.arange(count, device=edges.device), normalised_adjacency(edges, count))
        while True:
            yield whole
    batches = math.ceil(count / size)
    pieces = min(pieces, count // batches)
    stretches = neighbours_together(edges, count).tensor_split(batches * pieces)
    longer = count % len(stretches)  # so many, the first, have one node more: dealt out first, no batch is too large
    while True:
        mixed = [*_permuted(0, longer, generator), *_permuted(longer, len(stretches), generator)]
        for batch in range(batches):
            nodes = torch.cat([stretches[piece] for piece in mixed[batch::batches]]).sort().values
            yield GraphBatch(nodes, normalised_adjacency(edges_within(edges, nodes, count), len(nodes)))


def _permuted(start: int, stop: int, generator: torch.Generator) -> list[int]:
    order: list[int] = (start + torch.randperm(stop - start, generator=generator, device=generator.device)).tolist()
    return order


def neighbours_together(edges: Tensor, count: int) -> Tensor:
    """All nodes in an order in which neighbours stand close to each other. Shape: ``(2, E)`` int64 to ``(count,)``."""
    row, column = torch.cat([edges, edges.flip(0)], dim=1).cpu().numpy()
    joined = csr_array((np.ones(len(row), dtype=np.int8), (row, column)), shape=(count, count))
    order = reverse_cuthill_mckee(joined, symmetric_mode=True)
    return torch.from_numpy(order.astype(np.int64)).to(edges.device)


def edges_within(edges: Tensor, nodes: Tensor, count: int) -> Tensor:
    """The edges both of whose ends are among ``nodes``, by their places there. Shape: ``(2, E)`` to ``(2, e)``."""
    place = torch.full((count,), -1, dtype=torch.long, device=edges.device)
    place[nodes] = torch.arange(len(nodes), device=edges.device)
    placed = place[edges]
    return placed[:, (placed >= 0).all(dim=0)]
