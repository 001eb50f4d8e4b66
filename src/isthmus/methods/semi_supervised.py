r"""Semi-supervised multi-task learning by consistency under cropping, Eq. 2 of MTPSL.

For the unlabelled tasks of an image, :math:`L_u(e_r(\hat y^t(x)), \hat y^t(e_r(x)))` with the mean squared error as L_u
and a random crop, brought back to full size, as e_r. Eq. 2's inner sum runs over a bare U: read as U_n. Its gradient
flows through both predictions, as printed; there is no teacher. The crop zooms, so a depth inside it is divided by the
zoom, as labels are. Nothing of it was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment, resampled
from isthmus.data.randomness import Progress
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.dense import DenseTask


class SemiSupervised(MultiTask):
    """Eq. 1 plus consistency of unlabelled tasks between an image and its crop."""

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        augment: ImageAugment,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: float = 1.0,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.augment = augment
        self.weight = weight

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``consistency/<domain>``."""
        image = batch.inputs["image"]
        present = presence(self.tasks, batch)
        draws = progress.random(f"view/{batch.domain}", batch.sample_id.tolist())
        window = self.augment.window(draws, image.shape[2], image.shape[3], image.device)
        grid = window.grid(image.shape[2], image.shape[3])
        cropped = self.network(resampled(image, grid, "bilinear")).outputs
        unlabelled, total = (~present).sum(dim=1), image.new_zeros(len(batch))
        for column, (name, task) in enumerate(self.tasks.items()):
            before = self.augment.map_through(name, task.activate(features.outputs[name]), grid, window)
            after = task.activate(cropped[name])
            error = (before - after).float().square().flatten(1).mean(dim=1)
            total = total + error * (~present[:, column])
        per_sample = total / unlabelled.clamp(min=1) if self.reduction == "mean" else total
        loss = Loss.of(per_sample, len(batch), self.weight, samples=(unlabelled > 0).sum())
        return {f"consistency/{batch.domain}": loss}
