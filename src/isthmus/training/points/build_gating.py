"""From a recipe to what decides on gradients: gates, their memory, and weightings."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.gates.base import Gate
from isthmus.gates.cosine import CosineGate
from isthmus.gates.memory import SkewnessMemory
from isthmus.gates.random import RandomGate
from isthmus.gates.scaled import ScaledWeight
from isthmus.gates.skewness import SkewnessGate
from isthmus.losses.weightings.base import Weighting
from isthmus.losses.weightings.gradvac import GradVac
from isthmus.losses.weightings.torchjd import Aggregated
from isthmus.losses.weightings.uncertainty import Uncertainty
from isthmus.training.points.method_specs import GatedSpec, GateSpec, SkewnessGateSpec, WeightingRule


def build_gate(spec: GateSpec) -> Gate:
    """The gate of a recipe."""
    if isinstance(spec, SkewnessGateSpec):
        return SkewnessGate(
            spec.keep,
            keep_end=spec.keep_end,
            keep_side=spec.keep_side,
            alpha=spec.alpha,
            centre=spec.centre,
            scope=spec.scope,
        )
    match spec.kind:
        case "random":
            return RandomGate(spec.keep, keep_end=spec.keep_end, scope=spec.scope)
        case "scaled":
            return ScaledWeight(spec.keep, keep_end=spec.keep_end, scope=spec.scope)
        case "cosine":
            return CosineGate(spec.keep, keep_end=spec.keep_end, scope=spec.scope)


def build_memory(spec: GatedSpec, samples: Mapping[str, int]) -> SkewnessMemory | None:
    """What the gate remembers of the samples of each domain; without their numbers, to load weights into."""
    if spec.memory is None:
        return None
    return SkewnessMemory({"source": 0, "target": 0} | dict(samples), momentum=spec.memory.momentum)


def build_weighting(rule: WeightingRule, tasks: tuple[str, str]) -> Weighting | None:
    """How the two tasks, a classification and a pretext, are balanced; None for constant weights."""
    match rule:
        case "uniform":
            return None
        case "gradvac":
            return GradVac(tasks)
        case "uncertainty":
            return Uncertainty(tasks, constants={tasks[1]: 2.0})  # a distance, as regression in Kendall et al.
        case _:
            return Aggregated(tasks, rule)
