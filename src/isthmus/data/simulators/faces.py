"""Simulated faces with exact normals, 3D keypoints and parts.

A morphable head (``face_shape``) with the paint of a person (``face_paint``) in the light of a studio or of anywhere
(``face_light``), looked at by a pinhole camera (``face_view``, ``face_render``). Three domains:

=================== ============================================ ==========================================
what                ``source``, ``source-frontal``               ``target``
=================== ============================================ ==========================================
yaw                 ``source``: uniform within 65 degrees;       normal, deviation 9 degrees, at most 22.5
                    ``source-frontal``: as the target's
pitch; roll         ``source``: deviations 14; 9 degrees;        deviations 6; 4 degrees
                    ``source-frontal``: as the target's
expression          one of five modes at a time, mild            two to four modes together, full
eyes                open, gaze near the camera                   squinting to wide, 5 % closed, gaze anywhere
skin, hair          plain colours, light skins, 3/4 with hair    all skins, blotches, freckles, beards,
                                                                 make-up, strands, 9/10 with hair
light               white, from all around and one lamp ahead    coloured, 1 to 3 lamps, also from the side
background          one colour                                   patterns, out of focus
camera              none                                         white balance, exposure, vignetting, blur,
                                                                 noise (``camera_style.photographed``)
=================== ============================================ ==========================================

Identities come from one distribution. So ``source`` and ``target`` differ in their label distributions as well as in
their pictures, ``source-frontal`` and ``target`` (up to expressions) in their pictures alone, and matching
distributions of outputs or features is right for the second pair and wrong for the first. Normal angles are cut off at
2.5 deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from isthmus.data.clouds import PARTS, Part
from isthmus.data.derived_edges import RECIPE, image_edges
from isthmus.data.images import ImageSample
from isthmus.data.simulators import palette
from isthmus.data.simulators.camera_style import photographed
from isthmus.data.simulators.face_light import (
    FaceLight,
    busy_background,
    found_light,
    plain_background,
    studio_light,
)
from isthmus.data.simulators.face_paint import FACE_PARTS, Gaze, Look, lifelike_look, simple_look
from isthmus.data.simulators.face_render import Head
from isthmus.data.simulators.face_shape import EXPRESSION_MODES, IDENTITY_MODES, KEYPOINTS
from isthmus.data.simulators.face_view import FRAMINGS, FRONTAL, TURNING, Framing, Pose, PoseRange, viewed
from isthmus.data.simulators.render import developed
from isthmus.data.simulators.sampling import check_images, check_whole, stream
from isthmus.errors import DataError

Domain = Literal["source", "source-frontal", "target"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

POSES: dict[Domain, PoseRange] = {"source": TURNING, "source-frontal": FRONTAL, "target": FRONTAL}

# Streams of random numbers: what is drawn for one does not move another.
_IDENTITY, _LOOK, _EXPRESSION, _POSE, _CAMERA, _LIGHT, _BACKGROUND, _SENSOR = range(8)


class FaceScene(NamedTuple):
    """Everything that decides one image: a head, its light, what is behind it, the colour of its clothes."""

    head: Head
    light: FaceLight
    background: np.ndarray
    clothes: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class SimulatedFaces:
    """Images of simulated faces, as a reader.

    Tasks: ``normals`` (on the face: not on hair, ears, neck; zero elsewhere), ``keypoints`` (21 points of
    :data:`~isthmus.data.simulators.face_shape.KEYPOINTS`; also those on the far side of the head, but not those outside
    the picture), ``segmentation`` (:data:`~isthmus.data.simulators.face_paint.FACE_PARTS`) and ``edges`` (worked out
    from the image alone, see ``isthmus.data.derived_edges``).

    An image depends on ``seed``, its part, its index and the fields below except the counts: asking for more images, or
    for other parts, changes none. ``views`` images in a row show one person with different expressions, poses and
    lights. People are numbered through all parts (person ``n`` is in part ``n % 3``), so none is in two parts, and
    those of the target are others than those of the sources. ``source`` and ``source-frontal`` show the same people
    with the same expressions in the same light, and differ in poses alone.

    Attributes:
        train: number of training images, 0 or more.
        val: number of validation images, 0 or more.
        test: number of test images, 0 or more.
        seed: 0 or more.
        size: height and width in pixels, 16 or more each.
        views: images per person, 1 or more.
        domain: ``"source"``, ``"source-frontal"`` or ``"target"``; see the module.
        framing: ``"head"`` for the whole head, ``"face"`` from brows to chin, as in ``readers.yaleb_faces``.
        grey: make three equal channels.
        light_seed: another number, 0 or more, draws light, background, clothes and the camera's errors anew and leaves
            the rest, so normals, keypoints and segmentation, as they are.

    Raises:
        DataError: a field is out of range.
    """

    train: int = 1200
    val: int = 200
    test: int = 400
    seed: int = 0
    size: tuple[int, int] = (96, 96)
    views: int = 4
    domain: Domain = "source"
    framing: Framing = "head"
    grey: bool = False
    light_seed: int = 0

    def __post_init__(self) -> None:
        check_images(self)
        if self.domain not in DOMAINS:
            raise DataError(f"SimulatedFaces.domain: expected one of {', '.join(DOMAINS)}, found {self.domain!r}")
        if self.framing not in FRAMINGS:
            raise DataError(f"SimulatedFaces.framing: expected one of {', '.join(FRAMINGS)}, found {self.framing!r}")
        if not isinstance(self.grey, bool):
            raise DataError(f"SimulatedFaces.grey: expected true or false, found {self.grey!r}")
        check_whole(self, "light_seed", 0)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Normals, keypoints with their names, segmentation into parts of the face, edges."""
        return {"normals": (), "keypoints": KEYPOINTS, "segmentation": FACE_PARTS, "edges": ()}

    def fingerprint(self) -> dict[str, Any]:
        """Everything the samples depend on."""
        return {
            "reader": "simulated-faces",
            "version": 1,
            "train": self.train,
            "val": self.val,
            "test": self.test,
            "seed": self.seed,
            "size": list(self.size),
            "views": self.views,
            "domain": self.domain,
            "framing": self.framing,
            "grey": self.grey,
            "light_seed": self.light_seed,
            "edges": RECIPE,
        }

    def samples(self) -> Iterator[ImageSample]:
        """All images: training, validation, test, each by index."""
        for part, count in zip(PARTS, (self.train, self.val, self.test)):
            for index in range(count):
                yield self.sample(part, index)

    def sample(self, part: Part, index: int) -> ImageSample:
        """Return one image without making those before it; ``index`` may exceed the count of the part."""
        person, view = self._place(part, index)
        scene = self.scene(part, index)
        layers = scene.head.layers()
        light, exposure = scene.head.picture(scene.light, scene.background, scene.clothes)
        if self.domain == "target":
            image = photographed(light, exposure, self._stream(_SENSOR, person, view, self.light_seed))
        else:
            image = developed(light, exposure)
        if self.grey:
            image = as_grey(image)
        labels = {
            "normals": np.where(layers.face[..., None], layers.normals, 0).astype(np.float16),
            "keypoints": scene.head.view.keypoints(scene.head.points),
            "segmentation": layers.part,
            "edges": image_edges(image),
        }
        group = f"person-{person:05d}"
        return ImageSample(image, labels, f"{part}/{group}-{view}", part, group)

    def pose(self, part: Part, index: int) -> Pose:
        """Return how the head of an image is held."""
        return POSES[self.domain].draw(self._stream(_POSE, *self._place(part, index)))

    def scene(self, part: Part, index: int) -> FaceScene:
        """Return what an image shows, ready to be looked at."""
        place = self._place(part, index)
        person = place[0]
        target = self.domain == "target"
        identity = np.clip(self._stream(_IDENTITY, person).normal(size=len(IDENTITY_MODES)), -2.2, 2.2)
        look: Look = (lifelike_look if target else simple_look)(self._stream(_LOOK, person))
        expression, gaze = (_lively if target else _calm)(self._stream(_EXPRESSION, *place))
        view = viewed(self.pose(part, index), self.framing, self.size, self._stream(_CAMERA, *place))
        behind = self._stream(_BACKGROUND, *place, self.light_seed)
        return FaceScene(
            Head(identity, expression, look, gaze, view),
            (found_light if target else studio_light)(self._stream(_LIGHT, *place, self.light_seed)),
            (busy_background if target else plain_background)(self.size, behind),
            palette.colour(behind.random(), behind.uniform(0, 0.6), behind.uniform(0.1, 0.9)),
        )

    def _place(self, part: Part, index: int) -> tuple[int, int]:
        """Return the number of the person and of the view."""
        return 3 * (index // self.views) + PARTS.index(part), index % self.views

    def _stream(self, *place: int) -> np.random.Generator:
        return stream(self.seed, int(self.domain == "target"), *place)


def as_grey(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 with its luma in all three channels."""
    luma = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def _calm(rng: np.random.Generator) -> tuple[np.ndarray, Gaze]:
    """One mild expression, or none."""
    weights = dict.fromkeys(EXPRESSION_MODES, 0.0)
    kind, strength = rng.integers(6), rng.uniform(0.1, 0.6)
    if kind == 1:
        weights |= {"smile_left": strength, "smile_right": strength}
    elif kind == 2:
        weights |= {"mouth_open": 0.6 * strength}
    elif kind == 3:
        weights |= {"brow_up_left": strength, "brow_up_right": strength}
    elif kind == 4:
        weights |= {"brow_frown": strength}
    elif kind == 5:
        weights |= {"pout": strength}
    gaze = Gaze(rng.uniform(0.85, 1.1), rng.normal() * 0.06, rng.normal() * 0.04, weights["mouth_open"])
    return np.array([weights[mode] for mode in EXPRESSION_MODES]), gaze


def _lively(rng: np.random.Generator) -> tuple[np.ndarray, Gaze]:
    """Several strong expressions at once, uneven on both sides; eyes narrow, wide or shut, looking anywhere."""
    weights = dict.fromkeys(EXPRESSION_MODES, 0.0)
    if rng.random() < 0.55:
        smile = rng.uniform(0.2, 1.0)
        weights |= {"smile_left": smile * rng.uniform(0.6, 1), "smile_right": smile * rng.uniform(0.6, 1)}
    elif rng.random() < 0.4:
        weights["mouth_down"] = rng.uniform(0.2, 1.0)
    if rng.random() < 0.45:
        weights["mouth_open"] = rng.uniform(0.05, 0.9)
    elif rng.random() < 0.25:
        weights["pout"] = rng.uniform(0.2, 1.0)
    if rng.random() < 0.4:
        lift = rng.uniform(0.2, 1.0)
        weights |= {"brow_up_left": lift * rng.uniform(0.3, 1), "brow_up_right": lift * rng.uniform(0.3, 1)}
    if rng.random() < 0.35:
        weights["brow_frown"] = rng.uniform(0.2, 1.0)
    if rng.random() < 0.1:
        weights["cheeks_out"] = rng.uniform(0.3, 1.0)
    opening = 0.0 if rng.random() < 0.05 else rng.uniform(0.55, 1.25)
    gaze = Gaze(opening, rng.normal() * 0.18, rng.normal() * 0.1, weights["mouth_open"])
    return np.array([weights[mode] for mode in EXPRESSION_MODES]), gaze
