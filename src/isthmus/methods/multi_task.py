"""Vanilla multi-task learning from partial labels: Eq. 1 of MTPSL, and the base of everything it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.supervised import supervised_losses
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.dense import DenseTask

Reduction = Literal["mean", "sum"]


class MultiTask(Method):
    """One network with a head per task; each image's loss is over the tasks that it carries labels of.

    Args:
        network: gives :class:`isthmus.models.dense.DenseFeatures` for images ``(B, 3, H, W)``.
        tasks: by name, in the order of tables.
        reduction: over an image's labelled tasks, see :mod:`isthmus.losses.supervised`.
        task_weights: constant factors of single tasks (PASCAL's protocol has them); 1 for the others.
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
    ) -> None:
        super().__init__()
        self.network = network
        self.tasks = dict(tasks)
        self.reduction = reduction
        self.task_weights = dict(task_weights or {})

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<task>/<domain>`` for each batch and, in methods built on this one, their terms for unlabelled tasks."""
        losses: dict[str, Loss] = {}
        for batch in batches.values():
            features = self.network(batch.inputs["image"])
            losses |= self.supervised(features.outputs, batch) | self.unsupervised(features, batch, progress)
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

    def compiled_parts(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """The bottleneck, averaged over the image. Shape: ``(B, C)``."""
        pooled: Tensor = self.network(inputs["image"]).bottleneck.flatten(2).mean(dim=2)
        return pooled
