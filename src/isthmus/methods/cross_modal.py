"""Point segmentation by an image stream and a point stream, from whatever labels there are: the base of its rivals.

Trained on the source's labels it is the *source-only* row of xMUDA's and DsCML's tables, on the target's the oracle.
Where a stage has made pseudo-labels, each stream learns from its own (xMUDA, Section 3.4).

Loss, per frame: the cross-entropy of each stream, weighted by class, ``sum_n w_n l_n / sum_n w_n`` over the frame's
labelled points; then the mean over frames. (xMUDA and DsCML concatenate the points of a batch, so that a frame counts
by its number of points. DsCML's Eq. 4 has no class weights; its released code has them, as xMUDA.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.methods.base import Method
from isthmus.models.two_streams import StreamOutputs, TwoStreams, average
from isthmus.tasks.segmentation import Segmentation

LABEL = "segmentation"
AVERAGE = "average"


class CrossModal(Method):
    """Both streams, learning from labels and pseudo-labels.

    Args:
        network: the streams.
        classes: names of the classes.
        class_weights: ``(K,)`` weights of the cross-entropy; None for ones.
        pseudo_weight: of the losses on pseudo-labels.
    """

    uses_target: ClassVar[bool] = False
    class_weights: Tensor

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        *,
        class_weights: Tensor | None = None,
        pseudo_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        names = (*network.streams, AVERAGE) if len(network.streams) > 1 else network.streams
        self.tasks: Mapping[str, Segmentation] = {name: Segmentation(classes, name) for name in names}
        self.register_buffer("class_weights", torch.ones(len(classes)) if class_weights is None else class_weights)
        self.pseudo_weight = pseudo_weight

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<stream>/<domain>`` from labels, ``pseudo <stream>/<domain>`` from pseudo-labels, and the method's own."""
        # A target that has no label yet, and no part in the method, must not even move the statistics of BatchNorm.
        wanted = {domain: batch for domain, batch in batches.items() if self.uses_target or batch.labels}
        outputs = {domain: self.network(batch.inputs) for domain, batch in wanted.items()}
        losses: dict[str, Loss] = {}
        for domain, batch in wanted.items():
            losses |= self.supervised(outputs[domain], batch)
        return losses | self.adaptation(outputs, batches, progress)

    def supervised(self, outputs: StreamOutputs, batch: Batch) -> dict[str, Loss]:
        """Cross-entropies of the streams with the labels that the batch carries."""
        losses = {}
        for stream, logits in outputs.logits.items():
            for label, name, weight in (
                (LABEL, stream, 1.0),
                (pseudo_label(stream), f"pseudo {stream}", self.pseudo_weight),
            ):
                if label in batch.labels:
                    losses[f"{name}/{batch.domain}"] = self._labelled(logits, batch, label, weight)
        return losses

    def _labelled(self, logits: Tensor, batch: Batch, label: str, weight: float) -> Loss:
        rows = batch.labelled(label).nonzero()[:, 0]
        if not len(rows):
            return Loss.absent(logits.device, weight)
        per_frame = weighted_cross_entropy(
            logits[rows], batch.labels[label][rows], batch.valid[label][rows], self.class_weights
        )
        return Loss.of(per_frame, len(rows), weight)

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """What a method adds; nothing here."""
        return {}

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits ``(B, K, 1, N)`` of the streams, and of their average where there are two."""
        logits = self.network.predict(inputs)
        return {**logits, AVERAGE: average(logits)} if len(logits) > 1 else logits

    def compiled_parts(self) -> list[nn.Module]:
        """The networks of the streams."""
        return list(self.network.networks.values())


def pseudo_label(stream: str) -> str:
    """The name of a stream's pseudo-labels in a batch."""
    return f"pseudo_{stream}"


def weighted_cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor) -> Tensor:
    """Per frame. Shapes: ``(B, K, 1, N)``, ``(B, 1, N)``, ``(B, 1, N)`` bool, ``(K,)`` to ``(B,)`` float32."""
    labels = torch.where(valid, labels, 0)
    weights = torch.where(valid, class_weights.to(logits.device)[labels], 0.0)
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    total = weights.flatten(1).sum(dim=1)
    return (weights * losses).flatten(1).sum(dim=1) / total.where(total > 0, 1.0)
