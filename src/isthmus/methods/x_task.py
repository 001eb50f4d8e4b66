"""X-task: cross-task consistency with maps between labels that are learnt first (Zamir et al., CVPR 2020).

In the first stage every map m^{s->t} learns to give the label of t from the label of s on the images that carry both;
in later stages the maps are fixed, and prediction and label of each task are compared behind the maps that start there
(the perceptual losses of the paper). MTPSL's Table 5 compares with it under full supervision. Where no image carries
two labels (``one``) the maps have nothing to learn from, and their losses vanish: use it with ``full`` or ``random``.

Zamir et al. use UNets and L1; here maps are SegNets and the task's own loss, as for the other methods of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.direct_map import BuildMap, cross_task_maps
from isthmus.methods.multi_task import MultiTask
from isthmus.methods.perceptual_map import perceptual_loss
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.dense import DenseTask


class XTask(MultiTask):
    """Stage 0: maps between labels. Later: Eq. 1 plus perceptual losses through the fixed maps."""

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        build_map: BuildMap,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: float = 1.0,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.maps = cross_task_maps(build_map, tasks)
        self.weight = weight

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<s>_to_<t>/<domain>`` in stage 0, ``<task>/<domain>`` and ``perceptual/<domain>`` after it."""
        if progress.stage > 0:
            return super().forward(batches, progress)
        losses: dict[str, Loss] = {}
        for batch in batches.values():
            losses |= self._label_maps(batch)
        return losses

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``perceptual/<domain>``."""
        loss = perceptual_loss(
            self.maps,
            self.tasks,
            features,
            batch,
            weight=self.weight,
            reduction=self.reduction,
        )
        return {f"perceptual/{batch.domain}": loss}

    def _label_maps(self, batch: Batch) -> dict[str, Loss]:
        present = presence(self.tasks, batch)
        names, losses = list(self.tasks), {}
        for name, network in self.maps.items():
            source, target = name.split("_to_")
            both = (present[:, names.index(source)] & present[:, names.index(target)]).nonzero()[:, 0]
            if not len(both):
                losses[f"{name}/{batch.domain}"] = Loss.absent(present.device)
                continue
            task, goal = self.tasks[source], self.tasks[target]
            true = task.label_map(batch.labels[source][both], batch.valid[source][both])
            mapped = network(true.to(torch.float32)).outputs[target]
            per_sample = goal.loss(mapped, batch.labels[target][both], batch.valid[target][both])
            losses[f"{name}/{batch.domain}"] = Loss.of(per_sample, len(both))
        return losses
