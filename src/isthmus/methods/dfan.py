r"""DFAN, as far as it is known: local features aligned level by level, global ones by their distribution. INFERRED.

Shi, Yuan, Cheng, Chen, Wang, "DFAN: Dual-branch feature alignment network for domain adaptation on point clouds", IEEE
TGRS 60, 2022 (doi 10.1109/TGRS.2022.3171038). Neither its text nor any code could be had, so whatever this method
scores says little of what theirs would: it is a rival *of that description*, and is marked "inferred" in every table.

Known, all of it from the abstract: one branch extracts and aligns local features and another global ones; the two use
different strategies and complement each other; local features are aligned by a *hierarchical* strategy, global ones by
a *distribution* strategy; it is meant to keep detail that features common to both domains lose; it was measured on
PointDA-10 and PointSegDA. From a table that quotes it (Tang et al., SM-DSB, Table I): 83.7, 60.2, 84.0, 60.3, 75.3 and
76.3 on PointDA-10, by an unknown rule of selection.

Inferred, that is everything else:

.. math:: L = L_{class} + w_g\, \mathrm{MMD}^2(g_s, g_t) + \frac{w_l}{|H|} \sum_{h \in H} L_h

- *Global*: g is the encoder's pooled feature; its distributions are compared by a maximum mean discrepancy with
  PointDAN's kernels (:mod:`isthmus.losses.mmd`).
- *Local*: nodes of :mod:`isthmus.models.node_attention` describe regions. H are the levels: the features of *points*,
  of *nodes*, and of the *cloud*, the strongest of its nodes. At each, a discriminator tells the domains apart,
  and everything below learns to deceive it through a reversed gradient along DANN's ramp.
- Both branches share the encoder; the classifier reads both, the pooled feature beside the strongest nodes.
- Both domains pass as one batch, so that BatchNorm does not hide from a discriminator what tells them apart.
- Weights are 1, sizes are PointDAN's. There is one stage, without pseudo-labels. Clouds are classified; points are not
  labelled, though the paper does so too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.mmd import mmd
from isthmus.losses.point_adversary import PointAdversary, Points
from isthmus.losses.reversal import dann_ramp, reverse_gradient
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.methods.dann import labelled_loss
from isthmus.models.classifier import PointClassifier
from isthmus.models.node_attention import SelfAdaptiveNodes
from isthmus.models.point_discriminator import PointDiscriminator
from isthmus.tasks.classification import Classification

Level = Literal["points", "nodes", "cloud"]
"""Of local features: of each point, of each region, and of the strongest regions together."""


class Branches(NamedTuple):
    """Of each cloud the global feature ``pooled`` (B, C), and local ones by level, ``(B, 1 or more, channels)``."""

    pooled: Tensor
    levels: dict[Level, Tensor]

    @property
    def joint(self) -> Tensor:
        """What the classifier reads. Shape: ``(B, C + D)``."""
        return torch.cat([self.pooled, self.levels["cloud"][:, 0]], dim=1)


class DFAN(Method):
    """Classification of what carries a label, a discrepancy of pooled features, and a game at each local level.

    Args:
        network: encoder, and a head of ``pooled_channels`` plus the nodes' channels.
        nodes: on the encoder's local features.
        task: classification.
        discriminators: by level; those of "points" take the encoder's local channels, the others the nodes'.
        global_weight: of the discrepancy.
        local_weight: of the encoder's side of all games together, at the end of the ramp.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: PointClassifier,
        nodes: SelfAdaptiveNodes,
        task: Classification,
        discriminators: dict[Level, PointDiscriminator],
        *,
        global_weight: float = 1.0,
        local_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.nodes = nodes
        self.task = task
        self.tasks = {task.name: task}
        self.global_weight = global_weight
        share = local_weight / max(1, len(discriminators))
        self.adversaries = nn.ModuleDict(
            {
                level: PointAdversary(level, discriminator, game="literal", weight=share)
                for level, discriminator in discriminators.items()
            }
        )

    def describe(self, points: Tensor) -> Branches:
        """Both branches. Shape: ``(B, N, 3)``."""
        features = self.network.encoder(points)
        nodes = self.nodes(points, features.local).features
        cloud = nodes.amax(dim=1, keepdim=True)
        return Branches(features.pooled, {"points": features.local, "nodes": nodes, "cloud": cloud})

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>``; with both domains ``mmd/target`` and ``discriminator/<level>``."""
        together = self.describe(torch.cat([batch.inputs["points"] for batch in batches.values()]))
        described = dict(zip(batches, _parted(together, [len(batch) for batch in batches.values()])))
        losses = {
            f"{self.task.name}/{domain}": labelled_loss(self.task, self.network.head, described[domain].joint, batch)
            for domain, batch in batches.items()
        }
        if batches.keys() >= {"source", "target"}:
            source, target = described["source"], described["target"]
            distance = mmd(source.pooled, target.pooled)
            losses["mmd/target"] = Loss.of(distance, len(distance), self.global_weight)
            strength = dann_ramp(progress.fraction)
            for level, adversary in self.adversaries.items():
                seen = [_weakened(each.levels[cast(Level, level)], strength) for each in (source, target)]
                losses |= adversary(*seen)
        return losses

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``class``: logits ``(B, K)``."""
        return {self.task.name: self.network.head(self.describe(inputs["points"]).joint)}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's."""
        return list(self.network.encoder.parameters())

    def measures(self) -> dict[str, float]:
        """``accuracy/<level>`` of the discriminators."""
        return {
            f"accuracy/{level}": float(cast(PointAdversary, adversary).accuracy)
            for level, adversary in self.adversaries.items()
        }

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the classifier reads. Shape: ``(B, C + D)``."""
        return self.describe(inputs["points"]).joint


def _parted(branches: Branches, sizes: Sequence[int]) -> list[Branches]:
    """Clouds of one batch by the domains that it was put together from."""
    levels = {level: values.split(list(sizes)) for level, values in branches.levels.items()}
    return [
        Branches(pooled, {level: parts[index] for level, parts in levels.items()})
        for index, pooled in enumerate(branches.pooled.split(list(sizes)))
    ]


def _weakened(values: Tensor, strength: float) -> Points:
    """Features ``(B, M, C)``, all of them points; their gradient is multiplied by ``strength``."""
    return reverse_gradient(values, -strength), torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
