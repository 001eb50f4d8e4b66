"""Day and night for a street, and a camera that exposes for them.

By day the sun, or the clouds, and the sky light everything. At night there are street lamps, the headlights of the car
that carries the camera, lit windows, the lights of other vehicles and a little sky; the camera exposes longer, yet not
long enough, and amplifies noise. Nothing here moves or adds a surface.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter

from isthmus.data.simulators import palette
from isthmus.data.simulators.lidar_things import BUILDING, OBJECT
from isthmus.data.simulators.render import Lamp, Lighting, Opening, Piece, Sun, automatic_exposure, developed
from isthmus.data.simulators.street_layout import Sky
from isthmus.data.simulators.textures import Colour, Paint
from isthmus.data.simulators.vehicles import HEADLIGHT, TAILLIGHT

Hour = Literal["day", "night"]
HOURS: tuple[Hour, ...] = get_args(Hour)


@dataclass(frozen=True)
class Moment:
    """The light of a street, and how a camera takes pictures in it.

    Attributes:
        hour: day or night.
        light: sun and sky, without lamps and headlights.
        sky: what is behind everything.
        haze: metres over which things fade into the horizon.
        lamp: power of a street lamp 1 m away.
        target: brightness that the exposure brings the picture's geometric mean to.
        shot: noise in proportion to the root of the exposed light.
        read: noise in the dark, in units of exposed light.
    """

    hour: Hour
    light: Lighting
    sky: Sky
    haze: float
    lamp: Colour
    target: float
    shot: float
    read: float


def moment(hour: Hour, rng: np.random.Generator) -> Moment:
    """Return a random moment of the day (a low sun to noon, clear to overcast) or of the night."""
    return _day(rng) if hour == "day" else _night(rng)


def _day(rng: np.random.Generator) -> Moment:
    cover = float(rng.choice([rng.uniform(0.0, 0.35), rng.uniform(0.35, 0.7), 1.0], p=[0.4, 0.3, 0.3]))
    height, round_ = np.radians(rng.uniform(15, 65)), rng.uniform(0, 2 * np.pi)
    towards = (
        float(np.cos(height) * np.cos(round_)),
        float(np.cos(height) * np.sin(round_)),
        float(np.sin(height)),
    )
    blue = palette.colour(rng.uniform(0.55, 0.61), (1 - cover**2) * rng.uniform(0.45, 0.75), rng.uniform(0.65, 0.95))
    pale = palette.colour(0.58, 0.1 * (1 - cover**2) + 0.02, rng.uniform(0.88, 1.0))
    cloud = palette.colour(0.6, 0.05, rng.uniform(0.72, 0.98))
    strength = rng.uniform(1.4, 2.4)
    power = (strength, strength * 0.92, strength * 0.8)
    clear = cover < 1
    sky = Sky(blue, pale, cloud, cover, towards if clear else None, power, int(rng.integers(1 << 30)))
    red, green, blue_ = (float(v) for v in 0.5 * np.array(blue) + 0.3 * np.array(pale) + 0.25 * cover)
    under = palette.shade((0.5 * red + 0.06, 0.5 * green + 0.05, 0.45 * blue_ + 0.04), 1.0)
    light = Lighting(sun=Sun(towards, power) if clear else None, sky=(red, green, blue_), ground=under, reach=1.5)
    haze = float(np.exp(rng.uniform(np.log(150), np.log(900))))
    return Moment("day", light, sky, haze, (0.0, 0.0, 0.0), 0.18 * 2.0 ** rng.normal(0, 0.25), 0.015, 0.002)


def _night(rng: np.random.Generator) -> Moment:
    glow = rng.uniform(0.004, 0.014)
    dark = (0.35 * glow, 0.4 * glow, 0.7 * glow)
    town = (1.6 * glow, 1.1 * glow, 0.8 * glow)
    sky = Sky(dark, town, (1.2 * glow, 1.0 * glow, 0.9 * glow), rng.uniform(0.2, 1.0), None, (0.0, 0.0, 0.0), 7)
    light = Lighting(sky=(glow, glow, 1.3 * glow), ground=(0.6 * glow, 0.5 * glow, 0.5 * glow), reach=1.5)
    bright = rng.uniform(6, 14)
    # Sodium or LED, the whole street alike.
    warm = (1.0, 0.62, 0.25) if rng.random() < 0.5 else (1.0, 0.9, 0.75)
    lamp = (bright * warm[0], bright * warm[1], bright * warm[2])
    target = 0.03 * 2.0 ** rng.normal(0, 0.3)
    return Moment("night", light, sky, 600.0, lamp, target, rng.uniform(0.03, 0.06), rng.uniform(0.003, 0.008))


def switched_on(pieces: list[Piece], rng: np.random.Generator) -> list[Piece]:
    """Return the pieces of a street at night: lamps, vehicles' lights and a third of the windows shine."""
    warm = [(1.0, 0.75, 0.42), (1.0, 0.88, 0.68), (0.8, 0.9, 1.0)]
    draws = rng.random((len(pieces), 2))

    def shining(piece: Piece, lit: float, tone: float) -> Paint:
        paint = piece.paint
        if paint == HEADLIGHT:
            return paint._replace(glow=3.0)
        if paint == TAILLIGHT:
            return paint._replace(glow=1.0)
        if piece.label == OBJECT and 0 < paint.glow < 1:
            return paint._replace(glow=5.0)
        if glass(piece) and piece.label == BUILDING and lit < 0.33:
            colour = warm[int(tone * 3)]
            return paint._replace(colour=colour, second=palette.shade(colour, 0.6), glow=0.1 + 0.5 * lit)
        return paint

    return [piece._replace(paint=shining(piece, lit, tone)) for piece, (lit, tone) in zip(pieces, draws)]


def glass(piece: Piece) -> bool:
    """Whether a piece is a pane: a vehicle's or a building's glossy and dark parts."""
    return piece.paint.gloss >= (0.6 if piece.label == BUILDING else 0.8) and max(piece.paint.colour) < 0.14


def lit(now: Moment, lamps: np.ndarray, front: np.ndarray, forward: np.ndarray) -> Lighting:
    """Return all light there is for a view: at night with the street lamps near it and the car's headlights.

    Args:
        now: the moment.
        lamps: (n, 3) heads of the street lamps; the six nearest of those that are less than 8 m behind are lit.
        front: (3,) between the headlights.
        forward: (3,) where the car heads, a unit vector.
    """
    if now.hour == "day":
        return now.light
    ahead = (lamps - front) @ forward
    away = np.where(ahead > -8, np.linalg.norm(lamps - front, axis=1), np.inf)
    near = [i for i in np.argsort(away)[:6] if np.isfinite(away[i])]
    heads = tuple(Lamp(_triple(lamps[i] - [0, 0, 0.25]), now.lamp, 0.12) for i in near)
    across = np.cross(forward, [0.0, 0.0, 1.0])
    down = forward * 0.99 - np.array([0, 0, 0.1])
    beam = Opening(_triple(front), _triple(0.6 * across), (0.0, 0.0, 0.05), _triple(down), (260.0, 250.0, 225.0))
    return replace(now.light, lamps=heads, openings=(beam,))


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector)
    return (x, y, z)


def photograph(light: np.ndarray, depth: np.ndarray, now: Moment, rng: np.random.Generator) -> np.ndarray:
    """Return the 8-bit image (H, W, 3) a camera takes.

    Args:
        light: (H, W, 3) linear RGB.
        depth: (H, W) metres, infinite in the sky.
        now: the moment.
        rng: source of the noise.
    """
    solid = np.isfinite(depth)
    clear = np.exp(-np.where(solid, depth, 0.0) / now.haze)[..., None]
    exposed = light * clear + np.array(now.sky.horizon) * (1 - clear)
    exposed = exposed * automatic_exposure(exposed, now.target)
    if now.hour == "night":
        # Bright lights bleed in the lens.
        spread = light.shape[1] / 80
        exposed = 0.93 * exposed + 0.07 * gaussian_filter(np.minimum(exposed, 6.0), (spread, spread, 0))
    deviation = np.sqrt(now.shot**2 * np.maximum(exposed, 0) + now.read**2)
    return developed(exposed + deviation * rng.normal(size=light.shape), 1.0)
