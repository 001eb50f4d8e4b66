"""Vanilla multi-task learning from partial labels: Eq. 1 of MTPSL, and the base of everything it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.supervised import supervised_losses
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.models.dense import DenseFeatures, split_features
from isthmus.tasks.dense import DenseTask

Reduction = Literal["mean", "sum"]


class MultiTask(Method):
    """One network with a head per task; each image's loss is over the tasks that it carries labels of.

    Args:
        network: gives :class:`isthmus.models.dense.DenseFeatures` for images ``(B, 3, H, W)``.
        tasks: by name, in the order of tables.
        reduction: over an image's labelled tasks, see :mod:`isthmus.losses.supervised`.
        task_weights: constant factors of single tasks (PASCAL's protocol has them); 1 for the others.
        joint_batches: batches of several domains pass the network together, so that BatchNorm normalises both by the
            statistics it will have when testing; otherwise one after the other, each by its own.
    """

    tasks: Mapping[str, DenseTask]
    uses_target: ClassVar[bool] = False

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        *,
        reduction: Reduction = "mean",
        task_weights: Mapping[str, float] | None = None,
        joint_batches: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.tasks = dict(tasks)
        self.reduction = reduction
        self.task_weights = dict(task_weights or {})
        self.joint_batches = joint_batches

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<task>/<domain>`` for each batch and, in methods built on this one, their terms for unlabelled tasks."""
        return self.task_losses(self.features(batches), batches, progress)

    def features(self, batches: Mapping[str, Batch]) -> dict[str, DenseFeatures]:
        """What the network makes of each domain's images."""
        if not self.joint_batches or len(batches) < 2:
            return {domain: self.network(batch.inputs["image"]) for domain, batch in batches.items()}
        together = self.network(torch.cat([batch.inputs["image"] for batch in batches.values()]))
        return dict(zip(batches, split_features(together, [len(batch) for batch in batches.values()])))

    def task_losses(
        self, features: Mapping[str, DenseFeatures], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """The losses of the tasks on every domain."""
        losses: dict[str, Loss] = {}
        for domain, batch in batches.items():
            losses |= self.supervised(features[domain].outputs, batch)
            losses |= self.unsupervised(features[domain], batch, progress)
        return losses

    def supervised(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Loss]:
        """Eq. 1, task by task."""
        return supervised_losses(self.tasks, outputs, batch, reduction=self.reduction, task_weights=self.task_weights)

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """What a method adds for tasks without a label; nothing here."""
        return {}

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Raw maps ``(B, C, H, W)`` by task."""
        outputs: dict[str, Tensor] = self.network(inputs["image"]).outputs
        return outputs

    def shared_parameters(self) -> list[nn.Parameter]:
        """All of the network but the parts that each task has to itself: heads, and attention modules of MTAN."""
        own = getattr(self.network, "task_parts", ("heads",))
        return [p for name, p in self.network.named_parameters() if name.split(".")[0] not in own]

    def after(self, boundary: str) -> tuple[str, ...]:
        """Everything behind a boundary of the network, where the network has named ones."""
        if not hasattr(self.network, "after"):
            raise TypeError(f"{type(self.network).__name__} has no named boundaries")
        return tuple(f"network.{part}" for part in self.network.after(boundary))  # type: ignore[operator]

    def compiled_parts(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """The bottleneck, averaged over the image. Shape: ``(B, C)``."""
        pooled: Tensor = self.network(inputs["image"]).bottleneck.flatten(2).mean(dim=2)
        return pooled
