r"""The supervised part of multi-task learning from partial labels, MTPSL's Eq. 1.

.. math:: \frac1N \sum_n \frac1{|T_n|} \sum_{t \in T_n} L^t(\hat y^t_n, y^t_n)

The paper prints the mean over an image's labelled tasks (``mean``); the released code takes the plain sum (``sum``).
N counts the images that carry at least one label, so an image without any changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.losses.weighted import Loss
from isthmus.tasks.dense import DenseTask


def presence(tasks: Mapping[str, DenseTask], batch: Batch) -> Tensor:
    """Which image carries which task's label. Shape: ``(B, K)`` bool, columns in the order of ``tasks``."""
    return torch.stack([batch.labelled(task) for task in tasks], dim=1)


def supervised_losses(
    tasks: Mapping[str, DenseTask],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    task_weights: Mapping[str, float] | None = None,
) -> dict[str, Loss]:
    """One loss per task, ``<task>/<domain>``; their sum is Eq. 1. ``outputs`` are raw maps ``(B, C, H, W)``.

    Only images that carry a task's label enter its loss at all, so whatever an absent label holds is never read.
    """
    labels_per_image = presence(tasks, batch).sum(dim=1)
    images = (labels_per_image > 0).sum()
    losses = {}
    for name, task in tasks.items():
        rows = batch.labelled(name).nonzero()[:, 0]
        coefficient = (task_weights or {}).get(name, 1.0)
        if not len(rows):
            losses[f"{name}/{batch.domain}"] = Loss.absent(batch.sample_id.device, coefficient, images)
            continue
        per_sample = task.loss(outputs[name][rows], batch.labels[name][rows], batch.valid[name][rows])
        factor = 1.0 / labels_per_image[rows] if reduction == "mean" else torch.ones_like(per_sample)
        losses[f"{name}/{batch.domain}"] = Loss.of(
            per_sample * factor, images, coefficient, samples=len(rows), mass=factor.sum()
        )
    return losses
