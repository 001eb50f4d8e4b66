r"""DANN on clouds: a discriminator of pooled features that the encoder learns to deceive.

Ganin and Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015; Ganin et al., JMLR 2016. The loss
is :math:`L_{class} + L_{domain}`, where the gradient of the discriminator's cross-entropy reaches the encoder with the
sign turned and multiplied by :math:`w (2 / (1 + e^{-10 p}) - 1)`, p the share of the stage that is done.

The tables on PointDA-10 give DANN's accuracy and no setting. Ours: the discriminator is a perceptron on the encoder's
pooled features with leaky ReLU and no BatchNorm, and its two domains weigh the same, whatever the sizes of the batches.
Both domains pass the encoder together, as in Ganin et al. (``joint_batches=False``: one after the other): BatchNorm
that normalises each on its own hides from the discriminator most of what tells them apart.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.reversal import dann_ramp, reverse_gradient
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.models.classifier import PointClassifier
from isthmus.models.point_discriminator import PointDiscriminator
from isthmus.tasks.classification import Classification


class DANN(Method):
    """Classification of what carries a label, and a game over the pooled features of both domains.

    Args:
        network: encoder and head.
        task: classification.
        discriminator: of the encoder's pooled channels.
        weight: of the encoder's side of the game, at the end of the ramp.
        joint_batches: both domains pass the encoder as one batch; their clouds have to have as many points then.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: PointClassifier,
        task: Classification,
        discriminator: PointDiscriminator,
        *,
        weight: float = 1.0,
        joint_batches: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.tasks = {task.name: task}
        self.adversary = PointAdversary("pooled", discriminator, game="literal", weight=weight)
        self.joint_batches = joint_batches

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` for each batch and, where both domains are there, ``discriminator/pooled``."""
        pooled = self._pooled(batches)
        losses = {
            f"{self.task.name}/{domain}": labelled_loss(self.task, self.network.head, pooled[domain], batch)
            for domain, batch in batches.items()
        }
        if batches.keys() >= {"source", "target"}:
            strength = dann_ramp(progress.fraction)
            losses |= self.adversary(*(_one_point(pooled[domain], strength) for domain in ("source", "target")))
        return losses

    def _pooled(self, batches: dict[str, Batch]) -> dict[str, Tensor]:
        if not self.joint_batches:
            return {domain: self.network.encoder(batch.inputs["points"]).pooled for domain, batch in batches.items()}
        together = self.network.encoder(torch.cat([batch.inputs["points"] for batch in batches.values()])).pooled
        return dict(zip(batches, together.split([len(batch) for batch in batches.values()])))

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``class``: logits ``(B, K)``."""
        return {self.task.name: self.network(inputs["points"])}

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's."""
        return list(self.network.encoder.parameters())

    def measures(self) -> dict[str, float]:
        """``accuracy/pooled`` of the discriminator."""
        return {"accuracy/pooled": float(self.adversary.accuracy)}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Pooled features of the encoder. Shape: ``(B, D)``."""
        pooled: Tensor = self.network.encoder(inputs["points"]).pooled
        return pooled


def labelled_loss(task: Classification, head: nn.Module, features: Tensor, batch: Batch) -> Loss:
    """Mean cross-entropy over the samples that carry a label; a batch without any does not pass the ``head``.

    So BatchNorm in the head has the statistics of what it learns from. Shape: features ``(B, C)``.
    """
    present = batch.labelled(task.name)
    if not present.any():
        return Loss.absent(features.device)
    per_sample = task.loss(head(features), batch.labels[task.name].where(present, 0))
    return Loss.of(torch.where(present, per_sample, 0.0), present.sum())


def _one_point(pooled: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Features of clouds as those of clouds with one point; their gradient is multiplied by ``strength``."""
    values = reverse_gradient(pooled, -strength)[:, None]
    return values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
