"""Simulated streets seen by a spinning LiDAR and a camera: six domains for three kinds of shift.

Rays of the LiDAR and of the camera meet the very same triangles, so points, pixels and labels agree exactly (see
``lidar_sensor`` for what parallax does). The domains come in pairs that differ in one thing:

==================================  =========  =====  =============================================================
pair                                country    hour   LiDAR
==================================  =========  =====  =============================================================
``"day"``, ``"night"``              a          both   32 beams
``"country-a"``, ``"country-b"``    a, b       day    32 beams
``"lidar64"``, ``"lidar16"``        a          day    64 beams at 1.73 m; 16 beams at 2.1 m, wider, noisier, lossier
==================================  =========  =====  =============================================================

No street is in two domains: with one seed the streets of ``"night"`` are others than those of ``"day"``, drawn from the
same distribution. Traffic stands still while the car passes through a street.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from isthmus.data.clouds import PARTS, Part
from isthmus.data.frames import Frame
from isthmus.data.simulators.lidar_layout import COUNTRIES, DRIVE, LidarStreet, street
from isthmus.data.simulators.lidar_light import Hour, Moment, lit, moment, photograph, switched_on
from isthmus.data.simulators.lidar_sensor import (
    SENSORS,
    Pose,
    Sensor,
    Surfaces,
    camera_on,
    pixels_of,
    pose,
    projection,
    surfaces,
    sweep,
)
from isthmus.data.simulators.lidar_things import STREET8
from isthmus.data.simulators.render import Scene
from isthmus.data.simulators.sampling import check_images, stream
from isthmus.errors import DataError

LidarDomain = Literal["day", "night", "country-a", "country-b", "lidar64", "lidar16"]
LIDAR_DOMAINS: tuple[LidarDomain, ...] = get_args(LidarDomain)

HEADLIGHTS = (3.4, 0.0, 0.68)
"""Place of the middle between the headlights on the car, metres."""

# Streams of random numbers: what is drawn for one does not move another.
_STREET, _HOUR, _WINDOWS, _POSE, _SHADOWS, _IMAGE, _SWEEP = range(20, 27)

_ALLOWED = {"beams": "a whole number from 1", "range_noise": "0 or more metres", "dropout": "0 to 1"}


class Setting(NamedTuple):
    """What a domain is made of: names of a country, an hour and a sensor."""

    country: str
    hour: Hour
    sensor: str


SETTINGS: dict[LidarDomain, Setting] = {
    "day": Setting("a", "day", "32"),
    "night": Setting("a", "night", "32"),
    "country-a": Setting("a", "day", "32"),
    "country-b": Setting("b", "day", "32"),
    "lidar64": Setting("a", "day", "64"),
    "lidar16": Setting("a", "day", "16"),
}


@dataclass(frozen=True, kw_only=True)
class SimulatedLidarStreets:
    """Frames of simulated streets, as a reader: a sweep, an image, calibration and the class of every point.

    Points are those inside the image; ``pixels`` are their projections with ``projection``, range noise included, as in
    recorded data. Every point has a label. A frame depends on ``domain``, ``seed``, its part, its index, ``views``,
    ``size`` and the sensor only: asking for more frames, or for other parts, changes none. ``views`` frames in a row
    show one street from places further and further along it; streets are numbered through all parts (street ``n`` is
    in part ``n % 3``), so no group is in two parts.

    Attributes:
        domain: one of :data:`LIDAR_DOMAINS`.
        train: number of training frames, 0 or more.
        val: number of validation frames, 0 or more.
        test: number of test frames, 0 or more.
        seed: 0 or more.
        size: height and width of the image in pixels, 16 or more each.
        views: frames per street, 1 or more.
        beams: number of rings, 1 or more; None: the domain's.
        range_noise: standard deviation of the range in metres, 0 or more; None: the domain's.
        dropout: share of returns lost for no reason, 0 to 1; None: the domain's.
    """

    domain: LidarDomain
    train: int
    val: int
    test: int
    seed: int = 0
    size: tuple[int, int] = (64, 112)
    views: int = 4
    beams: int | None = None
    range_noise: float | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        if self.domain not in LIDAR_DOMAINS:
            expected = ", ".join(LIDAR_DOMAINS)
            raise DataError(f"SimulatedLidarStreets.domain: expected one of {expected}, found {self.domain!r}")
        check_images(self)
        for field, least, most in (("beams", 1, np.inf), ("range_noise", 0, np.inf), ("dropout", 0, 1)):
            value = getattr(self, field)
            kinds = int if field == "beams" else (int, float)
            if value is None or (isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most):
                continue
            raise DataError(f"SimulatedLidarStreets.{field}: expected {_ALLOWED[field]}, found {value!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The eight classes of :data:`~isthmus.data.simulators.lidar_things.STREET8`, in all domains."""
        return STREET8

    @property
    def sensor(self) -> Sensor:
        """The LiDAR of the domain with what the arguments change."""
        own = SENSORS[SETTINGS[self.domain].sensor]
        return own._replace(
            beams=own.beams if self.beams is None else self.beams,
            range_noise=own.range_noise if self.range_noise is None else self.range_noise,
            dropout=own.dropout if self.dropout is None else self.dropout,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Everything the frames depend on."""
        return {
            "reader": "simulated-lidar-streets",
            "version": 1,
            "domain": self.domain,
            "train": self.train,
            "val": self.val,
            "test": self.test,
            "seed": self.seed,
            "size": list(self.size),
            "views": self.views,
            "beams": self.sensor.beams,
            "range_noise": self.sensor.range_noise,
            "dropout": self.sensor.dropout,
        }

    def entries(self) -> list[tuple[Part, int]]:
        """Part and index of each frame: training, validation, test, each by index."""
        counts = zip(PARTS, (self.train, self.val, self.test))
        return [(part, index) for part, count in counts for index in range(count)]

    def read(self, entry: tuple[Part, int]) -> Frame:
        """The frame of a part and an index."""
        return self.frame(*entry)

    def frame(self, part: Part, index: int) -> Frame:
        """Return one frame without making those before it; ``index`` may exceed the count of the part."""
        number, view, built, car = self._stand(part, index)
        where = (self._domain, number, view)
        camera = camera_on(car, self.size)
        layers = built.scene.layers(camera)
        light = lit(built.now, built.street.lamps, car.at(HEADLIGHTS), car.turn[:, 0])
        shadows = stream(self.seed, _SHADOWS, *where)
        arriving = built.scene.picture(camera, layers, light, shadows, built.now.sky)
        image = photograph(arriving, layers.depth, built.now, stream(self.seed, _IMAGE, *where))
        returns = sweep(built.scene, built.surfaces, car, self.sensor, stream(self.seed, _SWEEP, *where))
        matrix = projection(car, camera, self.sensor)
        pixels, depth = pixels_of(returns.points, matrix)
        pixels = pixels.astype(np.float32)
        inside = (depth > 0) & (pixels >= 0).all(axis=1) & (pixels < np.array(self.size)).all(axis=1)
        group = f"{self.domain}-street-{number:05d}"
        return Frame(
            points=returns.points[inside],
            pixels=pixels[inside],
            image=image,
            labels=built.scene.label[returns.piece[inside]].astype(np.uint8),
            name=f"{part}/{group}-{view}",
            part=part,
            group=group,
            intensity=returns.intensity[inside],
            projection=matrix,
        )

    def pixel_classes(self, part: Part, index: int) -> np.ndarray:
        """Return the class of every pixel of a frame's image, (H, W) uint8, 255 in the sky; to check and to look at."""
        _, _, built, car = self._stand(part, index)
        piece = built.scene.layers(camera_on(car, self.size)).piece
        return np.where(piece >= 0, built.scene.label[piece], 255).astype(np.uint8)

    @property
    def _domain(self) -> int:
        return LIDAR_DOMAINS.index(self.domain)

    def _stand(self, part: Part, index: int) -> tuple[int, int, BuiltStreet, Pose]:
        """Return the number of the street, of the view in it, the street itself, and the car there."""
        number, view = 3 * (index // self.views) + PARTS.index(part), index % self.views
        built = _built(self.seed, self.domain, number)
        rng = stream(self.seed, _POSE, self._domain, number, view)
        along = DRIVE * (view + rng.uniform(0.1, 0.9)) / self.views
        aside = built.street.lane + 0.25 * float(np.clip(rng.normal(), -2, 2))
        return number, view, built, pose(aside, along, rng.normal() * 2.5, rng.normal() * 0.7, rng.normal() * 0.5)


class BuiltStreet(NamedTuple):
    """A street, ready to be looked at: its surfaces as a LiDAR meets them, and its light."""

    street: LidarStreet
    scene: Scene
    surfaces: Surfaces
    now: Moment


@lru_cache(maxsize=1)
def _built(seed: int, domain: LidarDomain, number: int) -> BuiltStreet:
    """Return a street of a domain; the last one is kept since its views are asked for one after another."""
    setting, place = SETTINGS[domain], (LIDAR_DOMAINS.index(domain), number)
    made = street(COUNTRIES[setting.country], stream(seed, _STREET, *place))
    now = moment(setting.hour, stream(seed, _HOUR, *place))
    return ready(made, now, stream(seed, _WINDOWS, *place))


def ready(made: LidarStreet, now: Moment, rng: np.random.Generator) -> BuiltStreet:
    """Return a street at a moment; at night with its lights on, which a LiDAR does not notice."""
    pieces = switched_on(made.pieces, rng) if now.hour == "night" else made.pieces
    return BuiltStreet(made, Scene(pieces), surfaces(made.pieces), now)
