"""MinEnt: sure predictions on the target (the direct form of ADVENT, Vu et al., CVPR 2019), in both streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.entropy import normalised_entropy
from isthmus.losses.weighted import Loss
from isthmus.methods.cross_modal import CrossModal
from isthmus.models.two_streams import StreamOutputs, TwoStreams


class MinEntropy(CrossModal):
    """Labels, and the mean normalised entropy of each stream's target predictions.

    Args:
        network: the streams.
        classes: names of the classes.
        weight: of the entropy.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.
    """

    uses_target: ClassVar[bool] = True

    def __init__(self, network: TwoStreams, classes: tuple[str, ...], *, weight: float, **options: Any) -> None:
        super().__init__(network, classes, **options)
        self.weight = weight

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """``entropy <stream>/target``."""
        if "target" not in outputs:
            return {}
        present = batches["target"].inputs["present_points"]
        frames = present.any(dim=1)
        return {
            f"entropy {stream}/target": Loss.of(normalised_entropy(logits, present)[frames], frames.sum(), self.weight)
            for stream, logits in outputs["target"].logits.items()
        }
