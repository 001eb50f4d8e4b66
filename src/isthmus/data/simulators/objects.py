"""Simulated objects of the ten PointDA classes in three domains, hence six directions of adaptation.

- ``"cad"``: points spread evenly over the surfaces of curated shapes.
- ``"web"``: the same of a mixed collection: wider proportions, rarer variants, shapes stretched along the
  axes, parts missing now and then, other class frequencies.
- ``"scan"``: shapes as varied as those of ``"web"``, standing in a piece of a room and seen by a depth camera
  from one to three places: half of every surface hidden, noise, gaps, 10 to 25 % points of floor, wall and
  clutter.

The class frequencies follow the square root of PointDA-10's training counts (ModelNet-10, ShapeNet-10 and
ScanNet-10, Qin et al., NeurIPS 2019), so each domain keeps its own imbalance and a few hundred samples still
hold every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from isthmus.data.clouds import POINTDA_CLASSES, Part, Sample
from isthmus.data.simulators.depth_sensor import Sensor, scan_mesh, standing_eyes, thinned, without_patches
from isthmus.data.simulators.shapes import Parts, build_shape
from isthmus.data.simulators.simulated_clouds import SimulatedClouds
from isthmus.geometry.meshes import Mesh, box, join, moved, rotated, surface_points

Domain = Literal["cad", "web", "scan"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

# Training samples per class of ModelNet-10, ShapeNet-10 and ScanNet-10, in the order of POINTDA_CLASSES.
POINTDA_COUNTS: dict[Domain, tuple[int, ...]] = {
    "cad": (106, 515, 572, 200, 889, 124, 465, 240, 680, 392),
    "web": (599, 167, 310, 1076, 4612, 1620, 762, 158, 2198, 5876),
    "scan": (98, 329, 464, 650, 2578, 161, 210, 88, 495, 1037),
}

# The fractional parts of multiples of this number fill [0, 1) evenly from any start, however many are taken.
GOLDEN = (5**0.5 - 1) / 2

DESK_HEIGHT = 0.74
HANGING_HEIGHT = 1.7


@dataclass(frozen=True)
class SimulatedObjects(SimulatedClouds):
    """One of the three simulated domains, as a reader.

    Attributes:
        domain: ``"cad"``, ``"web"`` or ``"scan"``.
        points: points per sample, 64 or more; a scan of a thin or half-hidden object may hold fewer.
    """

    domain: Domain

    KIND = "simulated-objects"
    DOMAINS = DOMAINS

    @property
    def classes(self) -> tuple[str, ...]:
        """The ten PointDA classes."""
        return POINTDA_CLASSES

    def label(self, part: Part, index: int) -> int:
        """Return the class of one sample without making it."""
        start = self.random(part).random()
        prior = np.sqrt(POINTDA_COUNTS[self.domain])
        borders = np.cumsum(prior / prior.sum())[:-1]
        return int(np.searchsorted(borders, (start + index * GOLDEN) % 1, "right"))

    def sample(self, part: Part, index: int) -> Sample:
        """Return one sample without making those before it; ``index`` may exceed the count of the part."""
        rng = self.random(part, index)
        label = self.label(part, index)
        name = POINTDA_CLASSES[label]
        if self.domain == "scan":
            points = _scan(name, self.points, rng)
        else:
            points = surface_points(join(_shape(name, self.domain != "cad", rng)), self.points, rng)
            points = points @ _turn(rng).astype(np.float32)
        return Sample(points, label, f"{self.domain}/{part}/{index:05d}-{name}", part)


def _turn(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation about z, (3, 3)."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def _shape(name: str, varied: bool, rng: np.random.Generator) -> Parts:
    """Return the parts of a shape; a ``varied`` one is stretched and may have lost some small parts."""
    parts = build_shape(name, rng, wide=varied)
    if not varied:
        return parts
    if len(parts) > 2 and rng.random() < 0.25:
        size = np.array([np.prod(np.ptp(part.vertices, axis=0) + 0.01) for part in parts])
        lost = (rng.random(len(parts)) < 0.25) & (size < 0.5 * size.max())
        parts = [part for part, gone in zip(parts, lost) if not gone]
    stretch = np.exp(rng.normal(size=3).clip(-2, 2) * [0.14, 0.14, 0.16])
    return [Mesh(part.vertices * stretch, part.faces) for part in parts]


def _scan(name: str, points: int, rng: np.random.Generator) -> np.ndarray:
    """Return a depth scan of a new shape in new surroundings, (n, 3) float32; tries again if it saw little."""
    for _ in range(8):
        own = join(_shape(name, True, rng))
        low, high = own.vertices.min(axis=0), own.vertices.max(axis=0)
        own = moved(own, [*(-(low + high)[:2] / 2), -low[2]])
        low, high = own.vertices.min(axis=0), own.vertices.max(axis=0)
        hangs = name == "lamp" and high[2] < 1.5 and rng.random() < 0.25
        raised = {"monitor": 0.9, "lamp": 0.7, "plant": 0.3}.get(name, 0.0)
        stands_high = high[2] < 1.1 and not hangs and rng.random() < raised
        floor = -HANGING_HEIGHT if hangs else -DESK_HEIGHT if stands_high else 0.0
        scene = join([own, *_surroundings(name, low, high, hangs, stands_high, rng)])
        eyes = standing_eyes(low, high, int(rng.integers(1, 4)), rng, floor, 80.0)
        sensor = Sensor(noise=rng.uniform(0.5, 1.5), dropout=rng.uniform(0.02, 0.2), flying=rng.uniform(0.2, 0.6))
        cloud = scan_mesh(
            scene,
            rng,
            points=points * 2,
            object_faces=len(own.faces),
            eyes=eyes,
            sensor=sensor,
            loosen=rng.uniform(0.02, 0.1),
            surroundings=(0.10, 0.25),
        )
        cloud = without_patches(thinned(cloud, rng), rng)
        if len(cloud) >= 64:
            break
    cloud = cloud if len(cloud) <= points else cloud[rng.permutation(len(cloud))[:points]]
    return (cloud @ _turn(rng)).astype(np.float32)


def _surroundings(
    name: str, low: np.ndarray, high: np.ndarray, hangs: bool, stands_high: bool, rng: np.random.Generator
) -> Parts:
    """Return a floor, desk or ceiling, and at times a wall behind and things beside an object."""
    if hangs:
        return [box(4, 4, 0.1, z=high[2])]
    width, depth = (high - low)[:2]
    parts = [box(6, 6, 0.05, z=-0.05)]
    if stands_high:
        parts = [box(max(width, 1.0), max(depth, 0.6), 0.04, rng.uniform(-0.2, 0.2), 0, -0.04)]
    if rng.random() < 0.5:
        parts.append(box(6, 0.1, 2.6, 0, high[1] + rng.uniform(0.02, 0.3) + 0.05, -DESK_HEIGHT * stands_high))
    for _ in range(int(rng.integers(0, 3))):
        size = rng.uniform(0.1, 0.6, size=3)
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.9, 1.3)
        x, y = reach * np.cos(angle) * (width + size[0]) / 2, reach * np.sin(angle) * (depth + size[1]) / 2
        parts.append(rotated(box(size[0], size[1], size[2], x, y), 2, rng.uniform(0, 90), (x, y, 0)))
    if rng.random() < 0.35 and not stands_high:
        other = join(build_shape(str(rng.choice(POINTDA_CLASSES)), rng, wide=False))
        side = rng.choice([-1, 1])
        gap = rng.uniform(-0.05, 0.25)
        inner = other.vertices[:, 0].min() if side > 0 else other.vertices[:, 0].max()
        parts.append(moved(other, (side * (width / 2 + gap) - inner, rng.uniform(-0.3, 0.3), 0)))
    return parts
