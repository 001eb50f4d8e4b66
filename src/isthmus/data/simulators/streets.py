"""Simulated street images with exact labels: categories, inverse depth, normals, parts of people, saliency, borders.

Streets are built of parametric houses, vehicles, people, trees and poles (see ``street_furniture``, ``vehicles``,
``people``, ``street_layout``), lit by the sun and the sky of a random moment, and seen by a pinhole camera from the
road or the pavement. The seven classes and their order are the categories of Cityscapes as used by Liu et al. (MTAN,
CVPR 2019); parts are the six of PASCAL-Part's people after a background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from isthmus.data.clouds import PARTS, Part
from isthmus.data.images import ImageSample
from isthmus.data.simulators.people import BODY_PARTS
from isthmus.data.simulators.render import Camera, Scene, automatic_exposure, borders, developed, looking
from isthmus.data.simulators.sampling import check_images, stream
from isthmus.data.simulators.street_furniture import CITYSCAPES7, label
from isthmus.data.simulators.street_layout import KERB, WALK, Street, furnished_street

INVERSE_DEPTH_METRES = 1.1
"""Inverse depth is this over the depth in metres. Little is nearer than 2.4 m, so values end near 0.46."""

# Streams of random numbers: what is drawn for one does not move another.
_STREET, _VIEW, _SHADOWS, _EXPOSURE = range(10, 14)


@dataclass(frozen=True, kw_only=True)
class SimulatedStreets:
    """Images of simulated streets, as a reader.

    Tasks:

    - ``segmentation``: :data:`~isthmus.data.simulators.street_furniture.CITYSCAPES7`;
    - ``inverse_depth``: :data:`INVERSE_DEPTH_METRES` over the depth along the optical axis; 0, invalid, in the sky;
    - ``normals``: invalid in the sky;
    - ``parts``: :data:`~isthmus.data.simulators.people.BODY_PARTS`, for images with at least one pixel of a person;
      others do not have this label;
    - ``saliency``: see :func:`salient`;
    - ``edges``: borders of things, one pixel wide, on the nearer side.

    An image depends on ``seed``, its part, its index and ``views`` only: asking for more images, or for other parts,
    changes none. ``views`` images in a row show one street; streets are numbered through all parts (street ``n`` is in
    part ``n % 3``), so no group is in two parts.

    Attributes:
        train: number of training images, 0 or more.
        val: number of validation images, 0 or more.
        test: number of test images, 0 or more.
        seed: 0 or more.
        size: height and width in pixels, 16 or more each.
        views: images per street, 1 or more.
    """

    train: int
    val: int
    test: int
    seed: int = 0
    size: tuple[int, int] = (96, 128)
    views: int = 4

    def __post_init__(self) -> None:
        check_images(self)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation with its 7 classes, inverse depth, normals, parts with theirs, saliency, edges."""
        return {
            "segmentation": CITYSCAPES7,
            "inverse_depth": (),
            "normals": (),
            "parts": BODY_PARTS,
            "saliency": (),
            "edges": (),
        }

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on."""
        return {
            "reader": "simulated-streets",
            "version": 1,
            "train": self.train,
            "val": self.val,
            "test": self.test,
            "seed": self.seed,
            "size": list(self.size),
            "views": self.views,
        }

    def samples(self) -> Iterator[ImageSample]:
        """All images: training, validation, test, each by index."""
        for part, count in zip(PARTS, (self.train, self.val, self.test)):
            for index in range(count):
                yield self.sample(part, index)

    def sample(self, part: Part, index: int) -> ImageSample:
        """Return one image without making those before it; ``index`` may exceed the count of the part."""
        number = 3 * (index // self.views) + PARTS.index(part)
        view = index % self.views
        street, scene = _built(self.seed, number)
        camera = _viewpoint(street, scene, self.size, stream(self.seed, _VIEW, number, view))
        layers = scene.layers(camera)
        light = scene.picture(camera, layers, street.light, stream(self.seed, _SHADOWS, number, view), street.sky)
        solid = np.isfinite(layers.depth)
        clear = np.exp(-np.where(solid, layers.depth, 0.0) / street.haze)[..., None]
        light = light * clear + np.array(street.sky.horizon) * (1 - clear)
        brighter = 2.0 ** stream(self.seed, _EXPOSURE, number, view).normal(0, 0.25)
        image = developed(light, automatic_exposure(light, 0.18) * brighter)
        classes = np.where(solid, scene.label[layers.piece], label("sky")).astype(np.uint8)
        thing = np.where(solid, scene.instance[layers.piece], -1)
        labels: dict[str, np.ndarray] = {
            "segmentation": classes,
            "inverse_depth": np.where(solid, INVERSE_DEPTH_METRES / layers.depth, 0).astype(np.float32),
            "normals": layers.normals.astype(np.float16),
            "saliency": salient(thing, (classes == label("human")) | (classes == label("vehicle"))),
            "edges": borders(thing * len(CITYSCAPES7) + classes, layers.depth),
        }
        if (classes == label("human")).any():
            labels["parts"] = np.where(solid, scene.part[layers.piece], 0).astype(np.uint8)
        group = f"street-{number:05d}"
        return ImageSample(image, labels, f"{part}/{group}-{view}", part, group)


def salient(thing: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return the people and vehicles that stand out.

    A candidate's prominence is its number of visible pixels, times 1 for one in the middle of the image falling to 0.5
    for one in a corner (linearly with the distance of its centroid). Salient is the most prominent candidate, and with
    it every other that has at least half of its prominence; candidates below 0.2 % of the image never are.

    Args:
        thing: (H, W) integers that tell things apart.
        candidate: (H, W) bool, pixels of people and vehicles.

    Returns:
        (H, W) uint8, 0 or 1; all 0 where there is no candidate.
    """
    height, width = thing.shape
    names, inverse, count = np.unique(thing[candidate], return_inverse=True, return_counts=True)
    found = np.zeros(thing.shape, dtype=np.uint8)
    large = count >= 0.002 * thing.size
    if not large.any():
        return found
    rows, columns = np.nonzero(candidate)
    y, x = np.bincount(inverse, rows + 0.5) / count, np.bincount(inverse, columns + 0.5) / count
    away = np.hypot(y - height / 2, x - width / 2) / np.hypot(height / 2, width / 2)
    prominence = np.where(large, count * (1 - 0.5 * away), 0)
    found[np.isin(thing, names[prominence >= 0.5 * prominence.max()]) & candidate] = 1
    return found


@lru_cache(maxsize=1)
def _built(seed: int, number: int) -> tuple[Street, Scene]:
    """Return a street, ready to be looked at; the last one is kept since its views are asked for one after another."""
    street = furnished_street(stream(seed, _STREET, number))
    return street, Scene(street.pieces)


def _viewpoint(street: Street, scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """Return a camera on the road or the pavement.

    Of up to 16 places the first is taken from which a coarse look shows nothing nearer than 2.4 m and at least four
    classes; in three of four images also a person at a size worth looking at, in the others none. Failing that, the
    best of them.
    """
    wants_person = rng.random() < 0.75
    best, best_score = None, -np.inf
    for attempt in range(16):
        kind = rng.random()
        side = float(rng.choice([-1, 1]))
        y = rng.uniform(0, WALK)
        if kind < 0.5:
            eye = np.array([street.road * rng.uniform(0.1, 0.55) * side, y, rng.uniform(1.25, 1.7)])
            turn, slope = rng.normal() * 8, rng.normal(-0.03, 0.03)
        elif kind < 0.8:
            eye = np.array(
                [side * (street.road + rng.uniform(0.3, street.walk - 0.3)), y, KERB + rng.uniform(1.4, 1.75)]
            )
            turn, slope = side * -rng.uniform(-8, 40), rng.normal(-0.04, 0.04)
        else:
            eye = np.array(
                [side * (street.road + rng.uniform(0.3, street.walk - 0.3)), y, KERB + rng.uniform(1.4, 1.75)]
            )
            turn, slope = side * -rng.uniform(40, 95), rng.normal(-0.04, 0.04)
        field, roll = rng.uniform(48, 72), rng.normal() * 1.0
        if ((eye > street.boxes[:, 0] - 1.0) & (eye < street.boxes[:, 1] + 1.0)).all(axis=1).any():
            continue
        # A positive turn looks to the right of the street's direction.
        forward = np.array([np.sin(np.radians(turn)), np.cos(np.radians(turn)), slope])
        camera = looking(eye, eye + forward, field, size, roll)
        coarse = scene.layers(camera.scaled((48, 64)))
        solid = coarse.piece >= 0
        share = np.bincount(scene.label[coarse.piece[solid]], minlength=len(CITYSCAPES7)) / coarse.piece.size
        near = float(coarse.depth.min())
        people = share[label("human")]
        score = min((share > 0.002).sum(), 5) - 6 * max(2.4 - near, 0) - 6 * max(share.max() - 0.6, 0)
        score += (2.0 if wants_person else -2.0) * min(people / 0.015, 1.0) - attempt * 0.01
        good = share.max() < 0.6 and (share > 0.002).sum() >= 4 and (people > 0.014 if wants_person else people == 0)
        if score <= best_score:
            continue
        # What is small and near, in a corner perhaps, a coarse look may miss.
        near = min(near, float(scene.layers(camera.scaled((96, 128))).depth.min()))
        score -= 6 * max(2.4 - near, 0)
        if score > best_score:
            best, best_score = camera, score
        if good and near > 2.4:
            break
    if best is None:
        return looking([0.0, -8.0, 3.2], [0.0, 10.0, 2.2], 60, size)
    return best
