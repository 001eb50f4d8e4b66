"""Discriminator-Loss: a network that tells positive from negative pairs shapes the joint spaces (MTPSL, "alternative").

Positive and negative pairs as in :mod:`isthmus.methods.contrastive`. The paper: "the discriminator takes in positive
and negative pairs and predicts their binary labels, while the parameters of the MTL network and mapping functions are
alternatively optimized". Nothing was released. The reading here: both sides want the pairs told apart (a collapsed
mapping cannot be), the discriminator learns on detached embeddings, network and mapping learn through a discriminator
that is held fixed; both in the same step, each with its own loss, instead of alternating steps. Each process has the
negative pairs of its own images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

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
from isthmus.models.modes import running_statistics_kept
from isthmus.models.pair_discriminator import PairDiscriminator
from isthmus.tasks.dense import DenseTask


class Discriminator(MultiTask):
    """Eq. 1 plus the cross-entropy of telling positive from negative pairs."""

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        mapping: MappingNetwork,
        discriminator: PairDiscriminator,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: float = 1.0,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.mapping = mapping
        self.discriminator = discriminator
        self.weight = weight

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``matching/<domain>`` for network and mapping, ``discriminator/<domain>`` for the discriminator."""
        present = presence(self.tasks, batch)
        pairs = cross_task_pairs(present)
        names = {"matching": self.weight, "discriminator": 1.0}
        other = another_image(pairs.source * len(self.tasks) + pairs.target)
        if not len(pairs) or not (other >= 0).any():
            images = present.any(dim=1).sum()
            return {f"{n}/{batch.domain}": Loss.absent(images.device, w, images) for n, w in names.items()}
        first, second = embed_pairs(self.mapping, self.tasks, features.outputs, batch, pairs)
        fixed = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}

        def classify(a: Tensor, b: Tensor, *, learn: bool) -> Tensor:
            inputs = (torch.cat([a, a]), torch.cat([b, b[other.clamp(min=0)]]))
            if learn:
                logits = self.discriminator(*inputs)
            else:
                with running_statistics_kept(self.discriminator):
                    logits = functional_call(self.discriminator, fixed, inputs)
            positive, negative = F.softplus(-logits[: len(a)]), F.softplus(logits[len(a) :])
            return torch.where(other >= 0, 0.5 * (positive + negative), 0.0)

        terms = {
            "matching": classify(first, second, learn=False),
            "discriminator": classify(first.detach(), second.detach(), learn=True),
        }
        return {
            f"{name}/{batch.domain}": pair_loss(terms[name], pairs, present, weight, self.reduction)
            for name, weight in names.items()
        }


def another_image(kind: Tensor) -> Tensor:
    """For every pair the next one of the same two tasks, cyclically, or -1. Shape: ``(P,)`` int64 to ``(P,)``."""
    result = torch.full_like(kind, -1)
    for value in kind.unique().tolist():
        members = (kind == value).nonzero()[:, 0]
        if len(members) > 1:
            result[members] = members.roll(-1)
    return result
