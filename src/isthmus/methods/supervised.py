"""Train on labels alone: of the source (the lower bound) or of the target (the oracle, an upper bound)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn_segmentation import PointSegmenter
from isthmus.tasks.classification import Classification
from isthmus.tasks.shape_parts import ShapeParts


class Supervised(Method):
    """Classification loss on whatever samples carry a label; no adaptation.

    Which domain that is, is a matter of the data that the run is given: ``source-only`` is fed labelled source
    clouds, ``oracle`` labelled *target* clouds and must be marked as such wherever it is shown.
    """

    uses_target: ClassVar[bool] = False

    def __init__(self, network: PointClassifier | PointSegmenter, task: Classification | ShapeParts) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.tasks = {task.name: task}

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` for each batch."""
        losses = {}
        for domain, batch in batches.items():
            present = batch.labelled(self.task.name)
            if present.any():
                labels, valid = batch.labels[self.task.name], batch.valid.get(self.task.name)
                per_sample = self.task.loss(self.network(batch.inputs["points"]), labels, valid)
                loss = Loss.of(torch.where(present, per_sample, 0.0), present.sum())
            else:
                loss = Loss.absent(batch.sample_id.device)
            losses[f"{self.task.name}/{domain}"] = loss
        return losses

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``class``: logits ``(B, K)``."""
        return {self.task.name: self.network(inputs["points"])}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Pooled features of the encoder. Shape: ``(B, D)``."""
        pooled: Tensor = self.network.encoder(inputs["points"]).pooled
        return pooled
