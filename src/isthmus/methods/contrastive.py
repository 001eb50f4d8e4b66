"""Contrastive-Loss: joint pairwise spaces kept from collapsing by negative pairs (MTPSL, "alternative loss").

The prediction of s and the label of t of the *same* image are a positive pair, the prediction of s and the label of t
of *another* image a negative one, "and [we] penalize when the distance from the positive one is bigger than the
negative one": a hinge on the cosine distances, max(0, d+ - d- + margin). (The paper prints positive and negative pair
with the same index, a slip.) Negatives are all other images of the batch that compare the same two tasks; without one,
a pair adds nothing. Each process has the negatives of its own images, so that this loss, unlike the others, is not the
same on two processes as on one. The margin and everything else was not said or released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.joint_space import embed_pairs
from isthmus.losses.pairs import cross_task_pairs
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.direct_map import pair_loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.models.mapping import MappingNetwork
from isthmus.tasks.dense import DenseTask


class Contrastive(MultiTask):
    """Eq. 1 plus a hinge between positive and negative pairs in the joint spaces."""

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        mapping: MappingNetwork,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: float = 1.0,
        margin: float = 0.5,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.mapping = mapping
        self.weight = weight
        self.margin = margin

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``contrastive/<domain>``."""
        present = presence(self.tasks, batch)
        pairs = cross_task_pairs(present)
        if not len(pairs):
            return {f"contrastive/{batch.domain}": Loss.absent(present.device, self.weight, present.any(1).sum())}
        first, second = embed_pairs(self.mapping, self.tasks, features.outputs, batch, pairs)
        same = negatives(pairs.source * len(self.tasks) + pairs.target)
        per_pair = hinge(first, second, same, self.margin)
        return {f"contrastive/{batch.domain}": pair_loss(per_pair, pairs, present, self.weight, self.reduction)}


def negatives(kind: Tensor) -> Tensor:
    """Which pairs are of the same two tasks but another image. Shape: ``(P,)`` to ``(P, P)`` bool."""
    return (kind[:, None] == kind[None, :]) & ~torch.eye(len(kind), dtype=torch.bool, device=kind.device)


def hinge(first: Tensor, second: Tensor, negative: Tensor, margin: float) -> Tensor:
    """max(0, d+ - d- + margin), averaged over the negatives of each pair. Shape: ``(P, ...)`` twice to ``(P,)``."""
    a = nn.functional.normalize(first.flatten(1).float(), dim=1)
    b = nn.functional.normalize(second.flatten(1).float(), dim=1)
    distance = 1 - a @ b.T
    violation = (distance.diagonal()[:, None] - distance + margin).clamp(min=0) * negative
    return violation.sum(dim=1) / negative.sum(dim=1).clamp(min=1)
