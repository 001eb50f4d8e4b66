"""A network of its own for every task: the single-task learning that relative gains are measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.tasks.dense import DenseTask


class SingleTask(Method):
    """K networks trained side by side in one run; nothing is shared, so it equals K runs.

    Each network sees the images that carry its task's label and no others, so their number in a step varies; in
    small batches BatchNorm may have a single one to go by. (A ``clip_norm`` would be over all of them together: leave
    it unset.)
    """

    tasks: Mapping[str, DenseTask]
    uses_target: ClassVar[bool] = False

    def __init__(self, build: Callable[[dict[str, int]], nn.Module], tasks: Mapping[str, DenseTask]) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.networks = nn.ModuleDict({name: build({name: task.channels}) for name, task in tasks.items()})

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<task>/<domain>``: the mean over the images labelled for the task."""
        losses = {}
        for batch in batches.values():
            for name, task in self.tasks.items():
                rows = batch.labelled(name).nonzero()[:, 0]
                if len(rows):
                    output = self.networks[name](batch.inputs["image"][rows]).outputs[name]
                    per_sample = task.loss(output, batch.labels[name][rows], batch.valid[name][rows])
                    losses[f"{name}/{batch.domain}"] = Loss.of(per_sample, len(rows))
                else:
                    losses[f"{name}/{batch.domain}"] = Loss.absent(batch.sample_id.device)
        return losses

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Raw maps ``(B, C, H, W)`` by task."""
        return {name: network(inputs["image"]).outputs[name] for name, network in self.networks.items()}

    def compiled_parts(self) -> list[nn.Module]:
        """Every network."""
        return list(self.networks.values())
