"""CORAL: features of the two domains with the same covariances, in each stream.

Deep CORAL (Sun and Saenko, ECCV 2016 workshops) or, as xMUDA compares with (Morerio et al., ICLR 2018), between the
logarithms of the covariance matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.correlation import coral, log_coral
from isthmus.losses.weighted import Loss
from isthmus.methods.cross_modal import CrossModal
from isthmus.models.two_streams import StreamOutputs, TwoStreams


class Coral(CrossModal):
    """Labels, and the distance of the covariances of all points' features of a batch.

    Covariances are taken within a process.

    Args:
        network: the streams.
        classes: names of the classes.
        form: of the distance.
        weight: of the distance.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        *,
        form: Literal["deep", "log"],
        weight: float,
        **options: Any,
    ) -> None:
        super().__init__(network, classes, **options)
        self.form: Literal["deep", "log"] = form
        self.weight = weight

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """``coral <stream>/target``."""
        if not outputs.keys() >= {"source", "target"}:
            return {}
        masks = [batches[domain].inputs["present_points"] for domain in ("source", "target")]
        losses = {}
        for stream in self.network.streams:
            features = [outputs[domain].features[stream] for domain in ("source", "target")]
            distance = (coral if self.form == "deep" else log_coral)(*features, *masks)
            losses[f"coral {stream}/target"] = Loss.of(distance, len(distance), self.weight)
        return losses
