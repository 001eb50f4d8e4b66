r"""PointDAN: local features aligned by a discrepancy of nodes, global ones by two classifiers that try to disagree.

Qin et al., "PointDAN: A multi-scale 3D domain adaption network for point cloud representation", NeurIPS 2019:

.. math:: L = L_{class}^{(1)} + L_{class}^{(2)} + w_m\, \mathrm{MMD}^2(U_s, U_t) - w_d\, \| p_1(t) - p_2(t) \|_1

U are the nodes of :mod:`isthmus.models.node_attention`, laid out as one vector for each cloud. In the last term
(maximum classifier discrepancy, Saito et al., CVPR 2018, whose mean over classes is taken) the classifiers drift apart
on the target; its gradient reaches everything below them with the sign turned and multiplied by
:math:`\sin(p \pi / 2)`, p the share of the stage that is done, so that one step serves both sides.

Known and kept: PointNet, nodes and attention with their sizes, the bandwidths, the two classifiers, reversal with a
sine ramp. Published training: Adam at 1e-4 for the encoder and 2e-4 for the classifiers, weight decay 5e-4, batches of
64, 200 epochs, dropout 0.7 in the heads, and the checkpoint that is best on the *target's test labels*, by which the
published accuracies are not comparable with a choice that uses none. Clouds were not aligned upright there.

Inferred: both weights are 1; the classifiers read the encoder's pooled features and the maximum over the nodes; one
attention serves both domains; the reversal lies before all that the classifiers read; the prediction is the mean of
both classifiers' logits. A batch without a label passes the classifiers for the discrepancy alone.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.mmd import mmd
from isthmus.losses.reversal import reverse_gradient
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.methods.dann import labelled_loss
from isthmus.models.classifier import PointClassifier
from isthmus.models.node_attention import NodeAttention, SelfAdaptiveNodes
from isthmus.tasks.classification import Classification


class Described(NamedTuple):
    """What classifiers read, ``joint`` (B, C + D), and what is aligned, ``nodes`` (B, M, D)."""

    joint: Tensor
    nodes: Tensor


class PointDAN(Method):
    """Two classifiers, a discrepancy of nodes and one of classifiers.

    Args:
        network: encoder, and a head of ``pooled_channels`` plus the nodes' channels.
        second_head: of as many channels.
        nodes: on the encoder's local features.
        attention: over the nodes.
        task: classification.
        mmd_weight: of the discrepancy of nodes.
        discrepancy_weight: of that of the classifiers, for both sides.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: PointClassifier,
        second_head: nn.Module,
        nodes: SelfAdaptiveNodes,
        attention: NodeAttention,
        task: Classification,
        *,
        mmd_weight: float = 1.0,
        discrepancy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.second_head = second_head
        self.nodes = nodes
        self.attention = attention
        self.task = task
        self.tasks = {task.name: task}
        self.mmd_weight = mmd_weight
        self.discrepancy_weight = discrepancy_weight

    def describe(self, points: Tensor) -> Described:
        """Features of clouds. Shape: ``(B, N, 3)``."""
        features = self.network.encoder(points)
        nodes = self.attention(self.nodes(points, features.local).features)
        return Described(torch.cat([features.pooled, nodes.amax(dim=1)], dim=1), nodes)

    def classify(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both classifiers. Shape: ``(B, C + D)`` to ``(B, K)`` twice."""
        return self.network.head(joint), self.second_head(joint)

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` and ``second/<domain>``; with both domains ``mmd/target`` and ``discrepancy/target``."""
        losses: dict[str, Loss] = {}
        described = {domain: self.describe(batch.inputs["points"]) for domain, batch in batches.items()}
        for domain, batch in batches.items():
            for name, head in ((self.task.name, self.network.head), ("second", self.second_head)):
                losses[f"{name}/{domain}"] = labelled_loss(self.task, head, described[domain].joint, batch)
        if batches.keys() >= {"source", "target"}:
            vectors = [described[domain].nodes.flatten(1) for domain in ("source", "target")]
            distance = mmd(*vectors)
            losses["mmd/target"] = Loss.of(distance, len(distance), self.mmd_weight)
            reversed_features = reverse_gradient(described["target"].joint, sine_ramp(progress.fraction))
            apart = discrepancy(*self.classify(reversed_features))
            losses["discrepancy/target"] = Loss.of(apart, len(apart), -self.discrepancy_weight)
        return losses

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``class``: the mean of both classifiers' logits, ``(B, K)``."""
        first, second = self.classify(self.describe(inputs["points"]).joint)
        return {self.task.name: (first + second) / 2}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's."""
        return list(self.network.encoder.parameters())

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the classifiers read. Shape: ``(B, C + D)``."""
        return self.describe(inputs["points"]).joint


def discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """How far two classifiers' probabilities are apart, the mean over classes, in [0, 2 / K].

    Shape: logits ``(B, K)`` twice to ``(B,)``, float32.
    """
    apart: Tensor = (first.float().softmax(dim=1) - second.float().softmax(dim=1)).abs().mean(dim=1)
    return apart


def sine_ramp(progress: float) -> float:
    """How far the reversal is switched on: sin(p pi / 2), from 0 at p = 0 to 1 at p = 1."""
    return math.sin(progress * math.pi / 2)
