"""CLAN (Luo et al., CVPR 2019) at the points: adversarial pressure where two classifiers disagree.

Each stream has two classifiers that both learn from the labels and are kept different by the cosine of their weights.
The game is on the mean of their probabilities, and a target point's loss is multiplied by
``lambda_local * (1 - cos(p_1, p_2)) + epsilon``: points on which they agree are taken to be aligned already.

The released code shows the discriminator softmax(l_1 + l_2), the classifiers' *logits* added up: a product of the two
distributions made to add up to one, which is surer than either where they agree. The mean is never surer than both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.clan import local_factor, weight_discrepancy
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.weighted import Loss
from isthmus.methods.cross_modal import LABEL, weighted_cross_entropy
from isthmus.methods.stream_adversaries import StreamAdversaries, probabilities
from isthmus.models.two_streams import StreamOutputs, TwoStreams


class CLAN(StreamAdversaries):
    """Labels for both classifiers, their difference, and games weighted by their disagreement.

    Args:
        network: the streams; the second classifiers are the mimicry heads, which imitate nothing here.
        classes: names of the classes.
        adversaries: by stream.
        local: lambda_local.
        discrepancy: the weight of the cosine of the classifiers.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.
    """

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        adversaries: Mapping[str, PointAdversary],
        *,
        local: float,
        discrepancy: float,
        **options: Any,
    ) -> None:
        super().__init__(network, classes, adversaries, **options)
        self.local = local
        self.discrepancy = discrepancy

    def shown(self, source: StreamOutputs, target: StreamOutputs) -> dict[str, tuple[Tensor, Tensor]]:
        """The mean of both classifiers' probabilities ``(B, N, K)``, by stream (released: see the module)."""

        def both(found: StreamOutputs, stream: str) -> Tensor:
            return (probabilities(found.logits[stream]) + probabilities(found.mimicry[stream])) / 2

        return {stream: (both(source, stream), both(target, stream)) for stream in self.network.streams}

    def factors(self, target: StreamOutputs, present: Tensor) -> dict[str, Tensor]:
        """The disagreement of the classifiers at each point."""
        return {
            stream: local_factor(target.logits[stream], target.mimicry[stream], present, weight=self.local)
            for stream in self.network.streams
        }

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """The games, ``second <stream>/source`` and ``difference <stream>/source``."""
        losses = super().adaptation(outputs, batches, progress)
        if "source" not in outputs:
            return losses
        batch = batches["source"]
        rows = batch.labelled(LABEL).nonzero()[:, 0]
        for stream in self.network.streams:
            heads = (self.network.classifiers[stream], self.network.mimicry[stream])
            alike = weight_discrepancy(*(head.parameters() for head in heads))
            losses[f"difference {stream}/source"] = Loss.of(1 + alike, 1, self.discrepancy)
            if not len(rows):
                losses[f"second {stream}/source"] = Loss.absent(batch.sample_id.device)
                continue
            logits, label, valid = outputs["source"].mimicry[stream], batch.labels[LABEL], batch.valid[LABEL]
            per_frame = weighted_cross_entropy(logits[rows], label[rows], valid[rows], self.class_weights)
            losses[f"second {stream}/source"] = Loss.of(per_frame, len(rows))
        return losses
