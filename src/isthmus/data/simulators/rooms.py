"""Simulated indoor images with exact labels: classes, depth, normals, borders.

Rooms are built of parametric furniture, painted and lit at random (see ``room_shell``, ``furniture``, ``room_layout``)
and looked at by a pinhole camera at about eye height. The 13 classes and their order are those used for NYU Depth v2
(Couprie et al., 2013). Shapes, colours, textures and light are drawn independently of the class as far as things allow,
so that neither class nor depth can be read off a pixel's colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.clouds import PARTS, Part
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import NYU13
from isthmus.data.simulators.camera_style import photographed, repainted
from isthmus.data.simulators.furniture import label
from isthmus.data.simulators.render import Camera, Scene, automatic_exposure, borders, developed, looking
from isthmus.data.simulators.room_layout import Room, furnished_room
from isthmus.data.simulators.sampling import check_images, stream
from isthmus.errors import DataError

Style = Literal["synthetic", "camera"]
STYLES: tuple[Style, ...] = get_args(Style)

# Streams of random numbers: what is drawn for one does not move another.
_ROOM, _VIEW, _SHADOWS, _PALETTE, _SENSOR = range(5)


@dataclass(frozen=True, kw_only=True)
class SimulatedRooms:
    """Images of simulated rooms, as a reader.

    Tasks: ``segmentation`` (:data:`~isthmus.data.readers.class_names.NYU13`), ``depth`` (along the optical axis,
    metres), ``normals`` and ``edges`` (borders of things, one pixel wide, on the nearer side). Every pixel of every
    image has every label.

    An image depends on ``seed``, its part, its index and ``views`` only, and ``style`` changes pixels but no label:
    asking for more images, or for other parts, changes none. ``views`` images in a row show one room; rooms are
    numbered through all parts (room ``n`` is in part ``n % 3``), so no group is in two parts.

    Attributes:
        train: number of training images, 0 or more.
        val: number of validation images, 0 or more.
        test: number of test images, 0 or more.
        seed: 0 or more.
        size: height and width in pixels, 16 or more each.
        views: images per room, 1 or more.
        style: ``"synthetic"``, or ``"camera"`` for the same scenes in another palette, seen by a sensor with errors.
    """

    train: int
    val: int
    test: int
    seed: int = 0
    size: tuple[int, int] = (96, 128)
    views: int = 4
    style: Style = "synthetic"

    def __post_init__(self) -> None:
        check_images(self)
        if self.style not in STYLES:
            raise DataError(f"SimulatedRooms.style: expected one of {', '.join(STYLES)}, found {self.style!r}")

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation with its 13 classes, depth, normals, edges."""
        return {"segmentation": NYU13, "depth": (), "normals": (), "edges": ()}

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on."""
        return {
            "reader": "simulated-rooms",
            "version": 1,
            "train": self.train,
            "val": self.val,
            "test": self.test,
            "seed": self.seed,
            "size": list(self.size),
            "views": self.views,
            "style": self.style,
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
        room, scene = _built(self.seed, number, self.style)
        camera = _viewpoint(room, scene, self.size, stream(self.seed, _VIEW, number, view))
        layers = scene.layers(camera)
        light = scene.picture(camera, layers, room.light, stream(self.seed, _SHADOWS, number, view))
        exposure = automatic_exposure(light, 0.16)
        if self.style == "camera":
            image = photographed(light, exposure, stream(self.seed, _SENSOR, number, view))
        else:
            image = developed(light, exposure)
        labels = {
            "segmentation": scene.label[layers.piece].astype(np.uint8),
            "depth": layers.depth.astype(np.float32),
            "normals": layers.normals.astype(np.float16),
            "edges": borders(scene.instance[layers.piece] * len(NYU13) + scene.label[layers.piece], layers.depth),
        }
        group = f"room-{number:05d}"
        return ImageSample(image, labels, f"{part}/{group}-{view}", part, group)


@lru_cache(maxsize=1)
def _built(seed: int, number: int, style: Style) -> tuple[Room, Scene]:
    """Return a room, ready to be looked at; the last one is kept since its views are asked for one after another."""
    room = furnished_room(stream(seed, _ROOM, number))
    if style == "camera":
        room = room._replace(pieces=repainted(room.pieces, stream(seed, _PALETTE, number)))
    return room, Scene(room.pieces)


def _viewpoint(room: Room, scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """Return a camera in the free part of a room that looks at something.

    Of up to 24 places the first is taken from which a coarse look shows at least five classes, not mostly wall, nothing
    very close and nothing that fills the picture; failing that, the best of them.
    """
    width, depth, height = room.extent
    worth = room.sights[:, 3] / room.sights[:, 3].sum()
    best, best_score = None, -np.inf
    for _ in range(24):
        eye = np.array(
            [rng.uniform(-0.5, 0.5) * (width - 0.5), rng.uniform(-0.5, 0.5) * (depth - 0.5), rng.uniform(1.0, 1.75)]
        )
        aim = room.sights[rng.choice(len(room.sights), p=worth), :3] + rng.normal(size=3) * [0.5, 0.5, 0.3]
        field, roll = rng.uniform(52, 78), rng.normal() * 1.5
        if ((eye > room.boxes[:, 0] - 0.25) & (eye < room.boxes[:, 1] + 0.25)).all(axis=1).any():
            continue
        away = aim[:2] - eye[:2]
        distance = float(np.linalg.norm(away))
        if distance < 1.2:
            continue
        # Nobody photographs a room looking straight down or up.
        slope = np.clip((aim[2] - eye[2]) / distance + rng.normal() * 0.05, -0.55, 0.2)
        camera = looking(eye, [aim[0], aim[1], eye[2] + slope * distance], field, size, roll)
        coarse = scene.layers(camera.scaled((24, 32)))
        share = np.bincount(scene.label[coarse.piece].ravel(), minlength=len(NYU13)) / coarse.piece.size
        near = float(np.quantile(coarse.depth, 0.02))
        biggest = float(np.delete(share, [label("wall"), label("floor")]).max())
        score = min((share > 0.004).sum(), 6) - 8 * max(share[label("wall")] - 0.45, 0) - 8 * max(biggest - 0.5, 0)
        score -= 6 * max(0.6 - near, 0)
        if score > best_score:
            best, best_score = camera, score
        if score >= 5 and near > 0.5:
            break
    if best is None:
        return looking([0.3 - width / 2, 0.3 - depth / 2, height - 0.4], [0, 0, 0.8], 70, size)
    return best
