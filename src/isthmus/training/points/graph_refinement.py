"""Pseudo-labels that agree with those of similar samples: refinement by a small graph network.

Cardace et al., "Self-Distillation for Unsupervised 3D Domain Adaptation" (WACV 2023). A graph joins target samples
whose embeddings are strongly correlated. A graph network learns to reproduce the current predictions from embeddings
and scores, some of which are hidden from it, so that it has to ask the neighbours; what it then says is the refined
label. Of each class the surest share is taken over and counts as confident.

Where the source is silent: which scores are hidden is drawn anew in every step, the targets are the classes of highest
score (not soft), and at the end nothing is hidden or dropped.

A difference is meant: published, a step takes all samples at once, which at 17,378 of them costs 180 GFLOP, half an
hour for 1,000 steps on two cores. Up to ``batch`` samples that is done here as well; beyond it, steps take batches of
clusters of the graph (:mod:`isthmus.models.graph_batches`), as many steps as before. What the embeddings spread over
the graph, and the final prediction, are those of the whole graph. ``batch=None`` is the published form at any size.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.models.graph_batches import graph_batches
from isthmus.models.graph_convolution import ScoreGCN, correlated, normalised_adjacency

BATCH = 2048
"""Samples that a step takes at most."""


class Refined(NamedTuple):
    """What the graph network says: ``labels`` ``(N,)`` int64 and their ``confidence`` ``(N,)`` in [0, 1]."""

    labels: Tensor
    confidence: Tensor


class Merged(NamedTuple):
    """Pseudo-labels ``(N,)`` int64 and which of them are ``confident`` ``(N,)`` bool."""

    labels: Tensor
    confident: Tensor


def refine(
    embeddings: Tensor,
    scores: Tensor,
    *,
    seed: int,
    steps: int = 1000,
    learning_rate: float = 1e-3,
    weight_decay: float = 5e-4,
    hidden: int | None = None,
    dropout: float = 0.5,
    hide: float = 0.2,
    threshold: float = 0.95,
    at_most: int = 10,
    block: int = 1024,
    batch: int | None = BATCH,
) -> Refined:
    """Train a fresh graph network on all samples and return what it predicts.

    Args:
        embeddings: (N, D), of the network whose predictions are refined.
        scores: (N, K), its class probabilities.
        seed: of weights, dropout and hidden scores; torch's own generator is neither used nor moved.
        steps, learning_rate, weight_decay: of Adam.
        hidden: width of the graph network, D as published. The time goes with its square.
        dropout: in it.
        hide: share of the samples whose scores are set to zero in each step.
        threshold, at_most, block: of the graph, see :func:`isthmus.models.graph_convolution.correlated`.
        batch: samples that a step takes at most, of all clusters in turn; None takes all at once, as published.

    Memory: about ``4 * block * N`` bytes for the graph, then ``4 * N * (3 D + 4 hidden)`` and ``48 * batch * hidden``.
    """
    if len(embeddings) != len(scores) or scores.ndim != 2:
        raise ValueError(
            f"refine: expected scores (N, K) for {len(embeddings)} embeddings, found shape {tuple(scores.shape)}"
        )
    if not 0.0 <= hide < 1.0:
        raise ValueError(f"refine: hide: expected a share in [0, 1), found {hide}")
    if not len(embeddings):
        return Refined(torch.zeros(0, dtype=torch.long), torch.zeros(0))
    embeddings, scores = embeddings.detach().float(), scores.detach().float()
    generator = torch.Generator(embeddings.device).manual_seed(seed)
    edges = correlated(embeddings, threshold=threshold, at_most=at_most, block=block)
    adjacency = normalised_adjacency(edges, len(embeddings))
    network = ScoreGCN(embeddings.shape[1], scores.shape[1], hidden=hidden, dropout=dropout, generator=generator)
    targets = scores.argmax(dim=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with torch.enable_grad(), torch.autocast(embeddings.device.type, enabled=False):
        spread = network.spread(adjacency, embeddings)
        embedded, ones = spread
        batches = graph_batches(edges, len(embeddings), batch, generator=generator)
        for nodes, among in islice(batches, steps):
            near = spread if len(nodes) == len(embeddings) else (embedded[nodes], ones[nodes])
            shown = scores.new_empty(len(nodes), 1).bernoulli_(1 - hide, generator=generator)
            loss = F.cross_entropy(network(among, near, scores[nodes] * shown), targets[nodes])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
        confidence, labels = network(adjacency, spread, scores).softmax(dim=1).max(dim=1)
    return Refined(labels, confidence)


def merge(predicted: Tensor, refined: Refined, share: float) -> Merged:
    """Take over the surest refined labels of every class, the others stay as predicted.

    Of the n_c samples that the refinement puts into class c the ``ceil(share * n_c)`` surest are taken over, ties in
    order. ``share`` is the part of training that is done, so that more and more labels count as confident.
    Shape: ``(N,)`` int64 to ``(N,)``.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"merge: expected a share in [0, 1], found {share}")
    confident = torch.zeros_like(predicted, dtype=torch.bool)
    for label in refined.labels.unique():
        members = (refined.labels == label).nonzero()[:, 0]
        surest = members[refined.confidence[members].argsort(descending=True, stable=True)]
        confident[surest[: math.ceil(share * len(members))]] = True
    return Merged(torch.where(confident, refined.labels, predicted), confident)


def label_weights(confident: Tensor, others: float = 0.2) -> Tensor:
    """Weight of each pseudo-label's loss: 1 where confident, ``others`` elsewhere. Shape: ``(N,)`` bool to ``(N,)``."""
    return torch.where(confident, 1.0, others)
