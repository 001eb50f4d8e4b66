"""The random choices of a shape, and the legs that several classes stand on.

A *wide* :class:`Draw` takes its lengths from wider ranges and picks the rarer variants more often, which is what
separates a mixed web collection from a curated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from isthmus.geometry.meshes import Mesh, box, cylinder, four_corners, moved, rod, turned

Parts = list[Mesh]
T = TypeVar("T")


class Draw:
    """Random choices of one shape; ``wide`` widens every range and makes the rare variants common."""

    def __init__(self, rng: np.random.Generator, wide: bool) -> None:
        self.rng = rng
        self.wide = wide

    def between(self, low: float, high: float) -> float:
        """Return a number from ``[low, high]``; a wide draw stretches the range by 40 % on either side."""
        margin = 0.4 * (high - low) if self.wide else 0.0
        return float(self.rng.uniform(max(low - margin, 0.6 * low), high + margin))

    def count(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, common: Sequence[T], rare: Sequence[T] = ()) -> T:
        """Return one of ``common`` or, half of the time when wide and else seldom, one of ``rare``."""
        if rare and self.chance(0.5 if self.wide else 0.2):
            return rare[int(self.rng.integers(len(rare)))]
        return common[int(self.rng.integers(len(common)))]


def legs(draw: Draw, width: float, depth: float, height: float, thickness: float) -> Parts:
    """Return four legs under a rectangle: square, round, tapered or splayed."""
    kind = draw.pick(("square", "round", "tapered"), ("splayed", "turned"))
    inner = thickness * 1.2
    parts = []
    for x, y in four_corners(width - inner, depth - inner):
        if kind == "square":
            parts.append(box(thickness, thickness, height, x, y))
        elif kind == "round":
            parts.append(cylinder(thickness / 2, height, x, y))
        elif kind == "tapered":
            parts.append(moved(turned([(thickness * 0.3, 0), (thickness * 0.65, height)], 8), (x, y, 0)))
        elif kind == "splayed":
            parts.append(rod((x * 1.12, y * 1.12, 0), (x * 0.8, y * 0.8, height), thickness * 0.4))
        else:
            bulge = [(0.4, 0), (0.6, 0.1), (0.35, 0.2), (0.6, 0.5), (0.35, 0.75), (0.6, 0.85), (0.6, 1)]
            parts.append(moved(turned([(r * thickness, h * height) for r, h in bulge], 10), (x, y, 0)))
    return parts
