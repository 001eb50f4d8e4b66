"""Perceptual-Map: prediction and label of one task compared in another task's space (MTPSL, after Zamir et al.).

The paper writes L_ct(m^{s->t}(y_hat^s), m^{s->t}(y^s)) in place of Eq. 4's terms, which needs the label of s: where s
is unlabelled there is nothing to map. Nothing was released. The reading here:

- *the term*: for s labelled and every other t, the prediction and the label of s go through m^{s->t} and the two maps
  are compared by the mean squared error of t's activated output. The map's weights are held fixed in it, so only the
  network that predicts s learns from it;
- *the map*: m^{s->t} learns to give the label of t from the detached prediction of s wherever t is labelled and s is
  not (for an image with all labels: all ordered pairs), with task t's loss, exactly Direct-Map's term but without its
  gradient to the network ("learning mappings from prediction of one task to another task's ground truth").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.pairs import cross_task_pairs
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.direct_map import BuildMap, cross_task_maps, mapped_losses, pair_loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.models.modes import running_statistics_kept
from isthmus.tasks.dense import DenseTask


class PerceptualMap(MultiTask):
    """Eq. 1 plus the distance of prediction and label of a labelled task as other tasks' maps see them."""

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

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``perceptual/<domain>`` for the network and ``maps/<domain>`` for the maps."""
        present = presence(self.tasks, batch)
        pairs = cross_task_pairs(present)
        detached = {name: output.detach() for name, output in features.outputs.items()}
        learning = mapped_losses(self.maps, self.tasks, detached, batch, pairs)
        return {
            f"perceptual/{batch.domain}": perceptual_loss(
                self.maps,
                self.tasks,
                features,
                batch,
                weight=self.weight,
                reduction=self.reduction,
            ),
            f"maps/{batch.domain}": pair_loss(learning, pairs, present, 1.0, self.reduction),
        }


def perceptual_loss(
    maps: nn.ModuleDict,
    tasks: Mapping[str, DenseTask],
    features: DenseFeatures,
    batch: Batch,
    *,
    weight: float,
    reduction: str,
) -> Loss:
    """Mean squared distance of prediction and label of each labelled task behind every map that starts there.

    Summed over the K - 1 maps; over an image's labelled tasks as ``reduction`` says. Maps learn nothing here, and their
    running statistics stay as they are.
    """
    present = presence(tasks, batch)
    images, labels_per_image = present.any(dim=1).sum(), present.sum(dim=1).clamp(min=1)
    total = torch.zeros(len(batch), device=present.device)
    for source, task in tasks.items():
        rows = batch.labelled(source).nonzero()[:, 0]
        if not len(rows):
            continue
        valid = batch.valid[source][rows]
        predicted = task.prediction_map(features.outputs[source][rows]) * valid[:, None]
        true = task.label_map(batch.labels[source][rows], valid) * valid[:, None]
        for target in tasks:
            if target == source:
                continue
            network = maps[f"{source}_to_{target}"]
            fixed = {name: tensor.detach() for name, tensor in network.named_parameters()}
            with running_statistics_kept(network):
                both = functional_call(network, fixed, (torch.cat([predicted, true.to(predicted.dtype)]),))
            seen, wanted = tasks[target].activate(both.outputs[target]).float().chunk(2)
            error = (seen - wanted.detach()).square().flatten(1).mean(dim=1)
            total = total.index_add(0, rows, error)
    per_image = total / labels_per_image if reduction == "mean" else total
    return Loss.of(per_image, images, weight, samples=images)
