"""What a method is: networks, and the losses that a step has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting
from isthmus.tasks.base import Task


@dataclass(frozen=True)
class GateRecord:
    """What a gate saw and decided in one step of one domain, for the log. All ``(B,)``; NaN is "no score"."""

    scores: Tensor
    taking_part: Tensor
    labels: Tensor


class Method(nn.Module, ABC):
    """Owns the networks and says which losses a step has.

    ``forward`` is called exactly once per step (the engine may have wrapped the method for data-parallel training)
    with one batch per domain, and returns the same names on every process, whatever the samples there carry.
    """

    tasks: Mapping[str, Task]
    weighting: Weighting | None
    """How the losses of the tasks are balanced; None adds them up."""
    uses_target: ClassVar[bool] = True
    """Whether steps need batches of the unlabelled target domain."""

    def __init__(self) -> None:
        super().__init__()
        self.weighting = None
        self.gate_records: dict[str, GateRecord] = {}

    @abstractmethod
    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """The losses of this step by name, ``task/domain``."""

    @abstractmethod
    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Raw outputs by task (``class``: logits ``(B, K)``; a dense task: ``(B, C, H, W)``), for bare inputs."""

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters on which the gradients of several tasks meet; a weighting combines them there."""
        return list(self.parameters())

    def after(self, boundary: str) -> tuple[str, ...]:
        """Prefixes of everything behind a named boundary of the network, for a stage that freezes it."""
        raise TypeError(f"{type(self).__name__} has no named boundaries")

    def measures(self) -> dict[str, float]:
        """Numbers about training that are no losses (a discriminator's accuracy), for the log and the monitor."""
        return {}

    def compiled_parts(self) -> list[nn.Module]:
        """The modules that ``engine.compile`` compiles; an encoder is also called on its own, by pretexts."""
        network = getattr(self, "network", None)
        return list(network.children()) if isinstance(network, nn.Module) else []

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """The features that the report draws. Shape: ``(B, D)``."""
        raise TypeError(f"{type(self).__name__} offers no embedding")
