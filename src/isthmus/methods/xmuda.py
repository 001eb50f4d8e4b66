"""xMUDA (Jaritz et al., CVPR 2020): the streams imitate each other on both domains.

Each stream has a mimicry head beside its classifier. The head is asked for the *other* stream's prediction, which is
held fixed: KL(other's prediction || own mimicry). So no gradient crosses from one modality to the other, and the
predictions that are used are not pulled towards the weaker stream's. With a second stage on pseudo-labels it is
xMUDA+PL. (xMUDA adds up gradients of the two domains and steps once, as is done here.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.cross_modal import mimicry
from isthmus.losses.weighted import Loss
from isthmus.methods.cross_modal import CrossModal
from isthmus.models.two_streams import IMAGE, POINTS, StreamOutputs, TwoStreams


class XMUDA(CrossModal):
    """Labels, and mimicry in both directions.

    Args:
        network: the streams, with mimicry heads.
        classes: names of the classes.
        source_weight: of mimicry on the source (xMUDA: 1.0 on nuScenes, 0.1 from A2D2 to SemanticKITTI).
        target_weight: of mimicry on the target (0.1 and 0.01).
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.

    Raises:
        ValueError: the network has no mimicry heads.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        *,
        source_weight: float,
        target_weight: float,
        **options: Any,
    ) -> None:
        super().__init__(network, classes, **options)
        if set(network.mimicry) != {IMAGE, POINTS}:
            raise ValueError("network: expected mimicry heads of both streams")
        self.weights = {"source": source_weight, "target": target_weight}

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """``mimicry <stream>/<domain>``: what this stream's head has yet to learn of the other."""
        losses = {}
        for domain, found in outputs.items():
            present = batches[domain].inputs["present_points"]
            frames = present.any(dim=1)
            for student, teacher in ((IMAGE, POINTS), (POINTS, IMAGE)):
                per_frame = mimicry(found.mimicry[student], found.logits[teacher], present)[frames]
                losses[f"mimicry {student}/{domain}"] = Loss.of(per_frame, frames.sum(), self.weights[domain])
        return losses
