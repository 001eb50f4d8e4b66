"""Simulated bodies with labelled parts in four domains, hence twelve directions of adaptation.

============ ==================== ============================ =======================================================
domain       proportions          poses                        surface and sampling
============ ==================== ============================ =======================================================
``standing`` adults               at rest, arms at the side    smooth, points spread evenly
``posed``    adults               any: crouching, kicking,     smooth, points spread evenly
                                  reaching, bowing, twisting
``stocky``   figures of fiction:  arms spread, a step at most  smooth, points spread evenly
             short limbs, large
             heads, hands, feet
``scan``     adults, in clothes   walking, talking             folds, noise, gaps, and points thin where the surface
                                                               turns away from one to three sensors
============ ==================== ============================ =======================================================

Each part is put together from rounded pieces (:mod:`isthmus.data.simulators.rounded`); what lies inside another piece
has no points. Where two parts meet, the one nearer to the hips keeps the joint. A body stands on ``z = 0``, faces
``-y`` and is about 1 tall; left and right limbs are one class.

A limb may pass through another part where a pose crosses them (as it does in registered scans of people who touch
themselves); the union is still a surface. Sensors of ``scan`` do not see that something stands before something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from isthmus.data.clouds import HUMAN_PARTS, Part, Sample
from isthmus.data.simulators.body_shape import Build, Pose, body
from isthmus.data.simulators.rounded import Surface, lowest, union_points
from isthmus.data.simulators.simulated_clouds import SimulatedClouds

BodyDomain = Literal["standing", "posed", "stocky", "scan"]
DOMAINS: tuple[BodyDomain, ...] = get_args(BodyDomain)


@dataclass(frozen=True)
class SimulatedBodies(SimulatedClouds):
    """One of the four simulated domains, as a reader of clouds with labelled points.

    Attributes:
        domain: ``"standing"``, ``"posed"``, ``"stocky"`` or ``"scan"``.
    """

    domain: BodyDomain

    KIND = "simulated-bodies"
    DOMAINS = DOMAINS

    @property
    def classes(self) -> tuple[str, ...]:
        """The eight parts."""
        return HUMAN_PARTS

    def sample(self, part: Part, index: int) -> Sample:
        """Return one sample without making those before it; ``index`` may exceed the count of the part."""
        rng = self.random(part, index)
        build = _stocky(rng) if self.domain == "stocky" else _adult(rng)
        pieces = body(build, _POSES[self.domain](rng))
        surface = union_points(pieces, self.points, rng, _sensors(rng) if self.domain == "scan" else None)
        points = surface.points - [0, 0, lowest(pieces)]
        if self.domain == "scan":
            points = points + surface.normals * _relief(surface.points, rng)[:, None]
        labels = surface.part.astype(np.uint8)
        return Sample(points.astype(np.float32), -1, f"{self.domain}/{part}/{index:05d}", part, "", labels)


def _adult(rng: np.random.Generator) -> Build:
    long, thick = rng.normal(1, 0.03, 3).clip(0.92, 1.08), rng.normal(0.0, 1.0)
    girth = float(np.clip(1 + 0.13 * thick, 0.82, 1.35))
    female = rng.random()
    return Build(
        trunk=long[0],
        legs=long[1],
        arms=long[2],
        head=rng.uniform(0.94, 1.06),
        hands=rng.uniform(0.92, 1.08),
        feet=rng.uniform(0.92, 1.08),
        girth=girth,
        belly=max(0.0, rng.normal(0.95, 0.15)) * (girth > 1.05),
        shoulders=1.05 - 0.13 * female + rng.normal(0, 0.02),
        hips=0.94 + 0.14 * female + rng.normal(0, 0.02),
    )


def _stocky(rng: np.random.Generator) -> Build:
    return Build(
        trunk=rng.uniform(0.8, 1.15),
        legs=rng.uniform(0.55, 0.85),
        arms=rng.uniform(0.65, 1.0),
        head=rng.uniform(1.3, 2.2),
        hands=rng.uniform(1.1, 1.7),
        feet=rng.uniform(1.1, 1.6),
        girth=rng.uniform(1.05, 1.6),
        belly=rng.uniform(0.9, 1.35),
        shoulders=rng.uniform(0.85, 1.15),
        hips=rng.uniform(0.9, 1.2),
    )


def _two(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    left, right = rng.uniform(low, high, 2).tolist()
    return left, right


def _one_sided(value: float, other: float, side: int) -> tuple[float, float]:
    """``value`` at the left (0) or right (1), ``other`` across."""
    return (value, other) if side == 0 else (other, value)


def _at_rest(rng: np.random.Generator) -> Pose:
    return Pose(
        lean=rng.uniform(-3, 5),
        bend=rng.normal(0, 2),
        look=rng.normal(0, 8),
        nod=rng.normal(0, 5),
        hips=_two(rng, -4, 6),
        apart=_two(rng, 2, 9),
        knees=_two(rng, 0, 8),
        shoulders=_two(rng, -8, 12),
        raise_=_two(rng, 8, 30),
        roll=_two(rng, -30, 30),
        elbows=_two(rng, 3, 25),
        wrists=_two(rng, -10, 15),
    )


def _any(rng: np.random.Generator) -> Pose:
    rest = _at_rest(rng)
    pose = rest._replace(
        lean=rng.uniform(-10, 20),
        bend=rng.normal(0, 8),
        twist=rng.normal(0, 18),
        nod=rng.normal(0, 12),
        look=rng.normal(0, 25),
        shoulders=_two(rng, -40, 150),
        raise_=_two(rng, 10, 110),
        roll=_two(rng, -60, 80),
        elbows=_two(rng, 0, 120),
        wrists=_two(rng, -25, 35),
        ankles=_two(rng, -15, 10),
    )
    kind = rng.integers(5)
    if kind == 0:  # crouching
        fold = rng.uniform(40, 105)
        hips, knees = _two(rng, fold - 10, fold + 10), _two(rng, 1.25 * fold - 10, 1.25 * fold + 10)
        return pose._replace(hips=hips, knees=knees, lean=rng.uniform(10, 40), apart=_two(rng, 8, 28))
    if kind == 1:  # one leg raised
        side = int(rng.integers(2))
        hip, knee, out = rng.uniform(20, 95), rng.uniform(5, 110), rng.uniform(3, 40)
        return pose._replace(
            hips=_one_sided(hip, 0.0, side), knees=_one_sided(knee, 5.0, side), apart=_one_sided(out, 3.0, side)
        )
    if kind == 2:  # a long step
        stride = rng.uniform(15, 50) * rng.choice([-1, 1])
        return pose._replace(hips=(float(stride), float(-0.7 * stride)), knees=_two(rng, 5, 60))
    if kind == 3:  # bowing
        return pose._replace(lean=rng.uniform(35, 80), hips=_two(rng, 0, 15), knees=_two(rng, 0, 25))
    return pose._replace(apart=_two(rng, 5, 35))


def _spread(rng: np.random.Generator) -> Pose:
    rest = _at_rest(rng)
    lift = rng.uniform(35, 100)
    stride = rng.normal(0, 8)
    return rest._replace(
        raise_=(float(lift + rng.normal(0, 4)), float(lift + rng.normal(0, 4))),
        roll=_two(rng, -15, 15),
        apart=_two(rng, 4, 18),
        hips=(float(stride), float(-stride)),
    )


def _walking(rng: np.random.Generator) -> Pose:
    rest = _at_rest(rng)
    phase = rng.uniform(0, 2 * np.pi)
    stride, swing, bend = rng.uniform(0, 32), rng.uniform(0, 35), rng.uniform(5, 50)
    sin, cos = float(np.sin(phase)), float(np.cos(phase))
    walking = rest._replace(
        hips=(stride * sin, -stride * sin),
        knees=(bend * max(0.0, -cos) + 4, bend * max(0.0, cos) + 4),
        shoulders=(-swing * sin, swing * sin),
        lean=rng.uniform(0, 8),
        twist=rng.normal(0, 6),
    )
    if rng.random() < 0.4:  # something in a hand, or said with it
        lifted = rng.uniform(10, 60)
        return walking._replace(shoulders=(lifted, walking.shoulders[1]), elbows=(rng.uniform(40, 130), 15.0))
    return walking


_POSES: dict[BodyDomain, Callable[[np.random.Generator], Pose]] = {
    "standing": _at_rest,
    "posed": _any,
    "stocky": _spread,
    "scan": _walking,
}


def _sensors(rng: np.random.Generator) -> Callable[[Surface], np.ndarray]:
    """How likely one to three sensors at chest height see a point; nothing in a few gaps."""
    count = int(rng.integers(1, 4))
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi / count * np.arange(count) + rng.normal(0, 0.3, count)
    towards = np.stack([np.cos(angle), np.sin(angle), rng.uniform(-0.1, 0.35, count)], axis=1)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    gaps = rng.uniform([-0.25, -0.15, -0.5], [0.25, 0.15, 0.4], (int(rng.integers(0, 5)), 3))
    size = rng.uniform(0.03, 0.08, len(gaps))

    def chance(surface: Surface) -> np.ndarray:
        seen = (surface.normals @ towards.T).clip(min=0).max(axis=1)
        lost = (((surface.points[:, None] - gaps) ** 2).sum(axis=-1) < size**2).any(axis=1)
        found: np.ndarray = (0.06 + 0.94 * seen) * ~lost
        return found

    return chance


def _relief(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Folds of clothes, which lie across, and a sensor's noise: how far each point moves outward."""
    waves = rng.normal(size=(5, 3)) * [25, 25, 45]
    folds = np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 5)).sum(axis=1)
    relief: np.ndarray = rng.uniform(0.001, 0.004) * folds + rng.uniform(0.001, 0.005) * rng.normal(size=len(points))
    return relief
