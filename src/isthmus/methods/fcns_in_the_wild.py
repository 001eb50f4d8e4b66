"""FCNs in the Wild (Hoffman et al., 2016) at the points: features alike, and shares of classes as the source has them.

Feature-level confusion as in :mod:`isthmus.methods.cycada`, and the paper's constraint on the target's predictions:
the share of every class in a frame is to lie between bounds that the source's labels give
(:mod:`isthmus.losses.class_statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.class_statistics import ClassShares, class_statistics
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.weighted import Loss
from isthmus.methods.cycada import CyCADA
from isthmus.models.two_streams import StreamOutputs, TwoStreams


class FCNsInTheWild(CyCADA):
    """A game on each stream's features, and bounds on the shares of classes in the target.

    Args:
        network: the streams.
        classes: names of the classes.
        adversaries: by stream.
        shares: statistics of the source's labels.
        constraint: the weight of what lies outside of them.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.
    """

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        adversaries: Mapping[str, PointAdversary],
        *,
        shares: ClassShares,
        constraint: float,
        **options: Any,
    ) -> None:
        super().__init__(network, classes, adversaries, **options)
        for name, values in shares._asdict().items():
            self.register_buffer(f"shares_{name}", values)
        self._shares = shares._fields
        self.constraint = constraint

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """The games, and ``shares <stream>/target``."""
        losses = super().adaptation(outputs, batches, progress)
        if "target" in outputs:
            present = batches["target"].inputs["present_points"]
            frames = present.any(dim=1)
            shares = ClassShares(*(getattr(self, f"shares_{name}") for name in self._shares))
            for stream, logits in outputs["target"].logits.items():
                per_frame = class_statistics(logits, present, shares)[frames]
                losses[f"shares {stream}/target"] = Loss.of(per_frame, frames.sum(), self.constraint)
        return losses
