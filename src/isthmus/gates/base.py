"""What a gate is: a score per sample and the rule that turns scores into participation.

A gate decides which samples take part in a self-supervised loss. A sample without a score (NaN: it carries no label,
or its gradient overflowed) is not the gate's business and always takes part, so that one rule covers the stages of a
method: in stage 1 only source samples carry labels, in stage 2 pseudo-labelled target samples do as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from isthmus.data.randomness import SampleRandom

Scope = Literal["global", "local"]


@dataclass(frozen=True)
class Evidence:
    """What a method knows about the samples of one domain when it asks its gate.

    ``points`` and ``gradient`` are ``(B, N, 3)``, ``valid`` ``(B, N)`` marks the points that count; ``agreement``
    ``(B,)`` is the cosine with the oracle gradient, known in analysis only. What a gate does not use is ``None``.
    """

    points: Tensor
    random: SampleRandom
    gradient: Tensor | None = None
    valid: Tensor | None = None
    agreement: Tensor | None = None


class Gate(ABC):
    """Keeps the ``round(keep * n)`` lowest of the n scored samples of a batch, exactly; ties in batch order.

    ``keep`` in [0, 1] may change linearly to ``keep_end`` over a stage. With ``scope="global"`` and several processes
    the scores are gathered, and one ranking holds for the global batch: every process has to ask its gate, with as many
    samples as it has. ``"local"`` ranks each process's samples.
    """

    uses_gradient: ClassVar[bool] = False
    uses_target_labels: ClassVar[bool] = False

    def __init__(self, keep: float, *, keep_end: float | None = None, scope: Scope = "global") -> None:
        for name, value in (("keep", keep), ("keep_end", keep if keep_end is None else keep_end)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"gate {name}: expected a share in [0, 1], found {value}")
        self.keep = keep
        self.keep_end = keep if keep_end is None else keep_end
        self.scope = scope

    @abstractmethod
    def measure(self, evidence: Evidence) -> Tensor:
        """Score of each sample, low is kept. Shape: ``(B,)`` float32."""

    def keep_at(self, fraction: float) -> float:
        """Share kept when ``fraction`` of the stage is done."""
        return self.keep + (self.keep_end - self.keep) * fraction

    def select(self, scores: Tensor, fraction: float = 0.0) -> Tensor:
        """Which samples take part. Shape: ``(B,)`` to ``(B,)`` bool; samples without a finite score always do."""
        return lowest(scores, self.keep_at(fraction), scope=self.scope)

    def participation(self, scores: Tensor, fraction: float = 0.0) -> Tensor:
        """Weight of each sample in the self-supervised loss, in [0, 1]. Shape: ``(B,)`` to ``(B,)`` float32."""
        return self.select(scores, fraction).float()


def lowest(scores: Tensor, keep: float, *, scope: Scope = "global") -> Tensor:
    """Mark exactly ``round(keep * n)`` of the n finite scores, the lowest, ties in order, and all that are not finite.

    Shape: ``(B,)`` to ``(B,)`` bool. Algorithm 1 of SM-DSB indexes the sorted scores at ``B * beta`` and drops what
    is not below: that loses ties and fails at beta = 1; the exact count is kept here instead.
    """
    everyone, offset = scores, 0
    if scope == "global" and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        everyone, offset = gathered(scores)
    scored = everyone.isfinite()
    count = round(keep * int(scored.sum()))
    order = torch.where(scored, everyone, torch.inf).argsort(stable=True)
    mask = ~scored
    mask[order[:count]] = True
    return mask[offset : offset + len(scores)]


def gathered(scores: Tensor) -> tuple[Tensor, int]:
    """One value per sample, from all processes in the order of their ranks, and where this process's begin.

    Every process has to call it, each with as many samples as it has. Shape: ``(B,)`` to ``(sum of B,)``.
    """
    lengths = [torch.zeros(1, dtype=torch.long, device=scores.device) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(scores)], device=scores.device))
    counts = [int(length) for length in lengths]
    padded = torch.cat([scores, scores.new_zeros(max(counts) - len(scores))])
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    everyone = torch.cat([part[:count] for part, count in zip(parts, counts)])
    return everyone, sum(counts[: dist.get_rank()])
