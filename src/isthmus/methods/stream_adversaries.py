"""Games between the domains on what the streams say of points: the base of AdaptSegNet, CyCADA, FCNs in the Wild, CMAL.

A discriminator is shown the values of all points of a domain's frames; the games are those of
:mod:`isthmus.losses.point_adversary`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.weighted import Loss
from isthmus.methods.cross_modal import CrossModal
from isthmus.models.point_discriminator import point_rows
from isthmus.models.two_streams import StreamOutputs, TwoStreams


class StreamAdversaries(CrossModal):
    """Labels, and one game for each pair of values that :meth:`shown` gives.

    Args:
        network: the streams.
        classes: names of the classes.
        adversaries: by the names that :meth:`shown` uses.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        adversaries: Mapping[str, PointAdversary],
        **options: Any,
    ) -> None:
        super().__init__(network, classes, **options)
        self.adversaries = nn.ModuleDict(adversaries)

    @abstractmethod
    def shown(self, source: StreamOutputs, target: StreamOutputs) -> dict[str, tuple[Tensor, Tensor]]:
        """What each discriminator is to take for source and for target.

        Shape: ``(B, N, C)`` each, or ``(k B, N, C)``: k values of every point, one batch after the other.
        """

    def factors(self, target: StreamOutputs, present: Tensor) -> dict[str, Tensor]:
        """By how much each of the target's points counts, ``(B, N)`` by name; all alike by default."""
        return {}

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """``discriminator/<name>``, and ``adversary/<name>`` where the game has two losses."""
        if not outputs.keys() >= {"source", "target"}:
            return {}
        source, target = (batches[domain].inputs["present_points"] for domain in ("source", "target"))
        factors = self.factors(outputs["target"], target)
        losses: dict[str, Loss] = {}
        for name, (ours, theirs) in self.shown(outputs["source"], outputs["target"]).items():
            seen = ((ours, repeated(source, ours)), (theirs, repeated(target, theirs)))
            losses |= self.adversaries[name](*seen, factors.get(name))
        return losses

    def measures(self) -> dict[str, float]:
        """``accuracy/<name>`` of each discriminator."""
        return {f"accuracy/{name}": float(each.accuracy) for name, each in self.adversaries.items()}  # type: ignore[arg-type]


def repeated(present: Tensor, values: Tensor) -> Tensor:
    """Which points are there, for values of several predictions. Shape: ``(B, N)``, ``(k B, N, C)`` to ``(k B, N)``."""
    return present.repeat(len(values) // len(present), 1)


def probabilities(logits: Tensor) -> Tensor:
    """Of points. Shape: ``(B, K, 1, N)`` to ``(B, N, K)``."""
    return point_rows(logits.float().softmax(dim=1))
