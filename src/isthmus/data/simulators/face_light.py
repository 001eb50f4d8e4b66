"""Light on a head, and what is behind it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from isthmus.data.simulators import palette
from isthmus.data.simulators.textures import PATTERNS, Colour, smooth_noise


class FaceLight(NamedTuple):
    """Light in the camera's frame, linear RGB.

    ``above`` and ``below`` are what comes from all around, by the height of where it comes from; ``lamps`` are far
    away: unit vectors towards them and the light on a surface that faces them.
    """

    above: Colour
    below: Colour
    lamps: tuple[tuple[tuple[float, float, float], Colour], ...]


def studio_light(rng: np.random.Generator) -> FaceLight:
    """White light from all around and one soft lamp in front of the face, up to 60 degrees to a side."""
    around = rng.uniform(0.25, 0.5)
    return FaceLight((around,) * 3, (0.7 * around,) * 3, (_lamp(rng, 60.0, (-15.0, 50.0), rng.uniform(0.4, 0.8), 0.0),))


def found_light(rng: np.random.Generator) -> FaceLight:
    """Coloured light of a room or of the sky, faint at times, and one to three lamps, also far to the side."""
    around = rng.uniform(0.05, 0.45)
    tint = np.exp(rng.normal(0, 0.12, size=3))
    above = _colour(around * tint)
    below = _colour(around * rng.uniform(0.3, 0.9) * np.exp(rng.normal(0, 0.12, size=3)))
    lamps = [_lamp(rng, 85.0, (-20.0, 65.0), rng.uniform(0.5, 1.2), 0.12)]
    for _ in range(rng.integers(3)):
        lamps.append(_lamp(rng, 120.0, (-20.0, 60.0), rng.uniform(0.1, 0.5), 0.2))
    return FaceLight(above, below, tuple(lamps))


def plain_background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One pale or dark colour, a little lighter above, (H, W, 3) linear RGB."""
    base = np.array(palette.colour(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.3, 0.95)))
    fade = 1 + rng.uniform(0, 0.3) * np.linspace(0.5, -0.5, size[0])
    return np.broadcast_to(base * fade[:, None, None], (*size, 3)).copy()


def busy_background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Two to four layers of patterns in any colours, out of focus by a random amount, (H, W, 3) linear RGB."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] / max(size)
    picture = np.broadcast_to(np.array(_any_colour(rng)), (height * width, 3))
    for _ in range(rng.integers(2, 5)):
        turn, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.6)
        u = ((np.cos(turn) * columns + np.sin(turn) * rows) / period + rng.uniform(0, 9)).ravel()
        v = ((np.cos(turn) * rows - np.sin(turn) * columns) / period + rng.uniform(0, 9)).ravel()
        key = np.full(len(u), rng.integers(1 << 30))
        pattern = PATTERNS[rng.choice([name for name in PATTERNS if name != "plain"])][0]
        share = pattern(u, v, columns.ravel(), 1 - rows.ravel(), key)
        share = share * (smooth_noise(u * 0.5, v * 0.5, key + 1) > rng.uniform(0.1, 0.6))
        picture = picture + share[:, None] * (np.array(_any_colour(rng)) - picture)
    blur = rng.uniform(0, 0.03) * max(size)
    strength = rng.uniform(0.3, 1.3)
    return strength * gaussian_filter(picture.reshape(height, width, 3), (blur, blur, 0), mode="nearest")


def _lamp(
    rng: np.random.Generator, aside: float, heights: tuple[float, float], power: float, tint: float
) -> tuple[tuple[float, float, float], Colour]:
    """Return a lamp at most ``aside`` degrees to a side of the camera and between two heights (degrees)."""
    azimuth, height = np.radians(rng.uniform(-aside, aside)), np.radians(rng.uniform(*heights))
    x, y, z = np.sin(azimuth) * np.cos(height), -np.sin(height), -np.cos(azimuth) * np.cos(height)
    return (float(x), float(y), float(z)), _colour(power * np.exp(rng.normal(0, tint, size=3)) if tint else [power] * 3)


def _any_colour(rng: np.random.Generator) -> Colour:
    return palette.colour(rng.random(), rng.uniform(0, 0.7) ** 1.5, rng.uniform(0.1, 0.95))


def _colour(rgb: np.ndarray | list[float]) -> Colour:
    red, green, blue = (float(c) for c in rgb)
    return (red, green, blue)
