"""Procedural textures: how the two colours of a paint alternate over a surface.

Every pattern is a function of the place on the surface in units of the paint's own period, so there is nothing to load
and a surface looks the same from every side. All of them work on arrays of places and know nothing of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]


class Paint(NamedTuple):
    """What a surface looks like; colours are linear RGB, 0 to 1.

    ``pattern`` is a key of :data:`PATTERNS`; ``period`` its size in metres; ``gloss`` how much of a highlight is added;
    ``glow`` how much light the surface sends out by itself, in units of its own colour; ``mottle`` the strength of the
    slight unevenness that every real surface has.
    """

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    period: float = 1.0
    gloss: float = 0.0
    glow: float = 0.0
    mottle: float = 0.06


# Odd factors that spread the bits of a lattice's coordinates and of a key.
_X, _Y, _KEY = np.uint32(374761393), np.uint32(668265263), np.uint32(2246822519)


def scattered(x: np.ndarray, y: np.ndarray, key: np.ndarray | int) -> np.ndarray:
    """Return a number in [0, 1) for every cell ``(x, y)`` of a lattice, (n,) float64, unrelated to its neighbours'."""
    return _number(_bits(x) * _X + _bits(y) * _Y + _bits(np.asarray(key)) * _KEY)


def _bits(whole: np.ndarray) -> np.ndarray:
    """Return whole numbers modulo 2^32."""
    bits: np.ndarray = whole.astype(np.int64).astype(np.uint32)
    return bits


def _number(h: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for 32 bits: all of them mixed, as in murmur3's last step."""
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(2654435761)
    h ^= h >> np.uint32(16)
    number: np.ndarray = h.astype(np.float64) / 2**32
    return number


def smooth_noise(u: np.ndarray, v: np.ndarray, key: np.ndarray | int) -> np.ndarray:
    """Return value noise in [0, 1) with features of size 1, (n,)."""
    x, y = np.floor(u), np.floor(v)
    a, b = u - x, v - y
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    # The four corners' hashes share their summands.
    left = _bits(x) * _X + _bits(y) * _Y + _bits(np.asarray(key)) * _KEY
    right = left + _X
    low = _number(left) * (1 - a) + _number(right) * a
    high = _number(left + _Y) * (1 - a) + _number(right + _Y) * a
    noise: np.ndarray = low * (1 - b) + high * b
    return noise


# A pattern takes places u, v (n,) in periods, the same places from 0 to 1 across the surface's box, and a key per
# surface; it returns the share of the second colour, 0 to 1.
Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _plain(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return np.zeros_like(u)


def _stripes(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    share = 0.25 + 0.5 * scattered(key, key, 1)
    return ((u % 1) < share).astype(np.float64)


def _rings(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return ((v % 1) < 0.25 + 0.5 * scattered(key, key, 2)).astype(np.float64)


def _plaid(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return 0.5 * ((u % 1) < 0.4) + 0.5 * ((v % 1) < 0.4)


def _checks(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return (np.floor(u) + np.floor(v)) % 2


def _tiles(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    joint = ((u % 1) < 0.05) | ((v % 1) < 0.05)
    return np.where(joint, 1.0, 0.3 * scattered(np.floor(u), np.floor(v), key))


def _bricks(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    row = np.floor(v * 3)
    across = u + 0.5 * (row % 2)
    joint = ((v * 3) % 1 < 0.14) | (across % 1 < 0.05)
    return np.where(joint, 1.0, 0.35 * scattered(np.floor(across), row, key))


def _planks(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    board = np.floor(u / 6 + scattered(row, row, key))
    grain = smooth_noise(u * 0.7 + 31 * scattered(board, row, key), v * 7, key)
    joint = (v % 1) < 0.06
    return np.where(joint, 0.95, 0.15 + 0.45 * scattered(board, row, key + 5) + 0.25 * (grain - 0.5))


def _grain(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return np.clip(smooth_noise(u * 0.8, v * 9 + 2 * smooth_noise(u * 1.5, v * 1.5, key), key) * 1.3 - 0.2, 0, 1)


def _clouds(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return 0.6 * smooth_noise(u, v, key) + 0.4 * smooth_noise(u * 2.7, v * 2.7, key + 1)


def _speckles(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    return scattered(np.floor(u * 5), np.floor(v * 5), key) * 0.7


def _dots(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    shifted = u + 0.5 * (np.floor(v) % 2)
    return ((shifted % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.07).astype(np.float64)


def _blotches(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    """An abstract painting: few large shapes in steps between the two colours."""
    bend = smooth_noise(s * 3, t * 3, key)
    return np.floor(4 * smooth_noise(s * 4 + bend * 2, t * 4, key + 3)) / 3


def _landscape(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    """What is seen through a window or painted on a canvas: the first colour above an uneven horizon."""
    horizon = 0.15 + 0.4 * scattered(key, key, 7) + 0.2 * (smooth_noise(s * 5, key * 0.1, key) - 0.5)
    below = 0.75 + 0.25 * smooth_noise(s * 9, t * 9, key)
    return np.where(t < horizon, below, 0.25 * (1 - t) * smooth_noise(s * 3, t * 5, key + 2))


def _facade(u: np.ndarray, v: np.ndarray, s: np.ndarray, t: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Rows of window panes: one to a period across, one to a storey of one period upwards, with a cross bar."""
    wide = 0.25 + 0.12 * scattered(key, key, 3)
    low = 0.25 + 0.15 * scattered(key, key, 4)
    x, y = np.abs(u % 1 - 0.5), v % 1
    pane = (x < wide) & (y > low) & (y < 0.85)
    bar = (x < 0.025) | (np.abs(y - 0.65) < 0.02)
    return np.where(pane & ~bar, 0.7 + 0.3 * scattered(np.floor(u), np.floor(v), key), 0.0)


PATTERNS: dict[str, tuple[Pattern, float]] = {
    "plain": (_plain, 0.0),
    "stripes": (_stripes, 0.5),
    "rings": (_rings, 0.5),
    "plaid": (_plaid, 0.4),
    "checks": (_checks, 0.5),
    "tiles": (_tiles, 0.23),
    "bricks": (_bricks, 0.35),
    "planks": (_planks, 0.4),
    "grain": (_grain, 0.45),
    "clouds": (_clouds, 0.5),
    "speckles": (_speckles, 0.35),
    "dots": (_dots, 0.22),
    "blotches": (_blotches, 0.5),
    "landscape": (_landscape, 0.4),
    "facade": (_facade, 0.35),
}
"""Every pattern with the average share of its second colour, which is what remains of it from far away."""

# Patterns that fill the surface whatever its size: they do not fade with distance.
WHOLE = ("plain", "blotches", "landscape")


def surface_colours(
    paints: list[Paint],
    which: np.ndarray,
    places: np.ndarray,
    normals: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    footprint: np.ndarray,
) -> np.ndarray:
    """Return the colour of surfaces at places on them.

    Args:
        paints: one per surface.
        which: (n,) index of the surface of each place.
        places: (n, 3) metres in the surface's own frame; z up.
        normals: (n, 3) unit vectors in that frame; the pattern lies in the plane they come nearest to.
        low: (p, 3) lower corner of each surface in its own frame.
        high: (p, 3) upper corner.
        footprint: (n,) metres that a pixel covers there; patterns finer than that fade to their average.

    Returns:
        (n, 3) linear RGB.
    """
    first = np.array([paint.colour for paint in paints])
    second = np.array([paint.second for paint in paints])
    names = list(PATTERNS)
    kind = np.array([names.index(paint.pattern) for paint in paints])[which]
    period = np.array([paint.period for paint in paints])
    mottle = np.array([paint.mottle for paint in paints])[which]
    axis = np.abs(normals).argmax(axis=1)
    u_axis, v_axis = np.where(axis == 0, 1, 0), np.where(axis == 2, 1, 2)
    rows = np.arange(len(which))
    u, v = places[rows, u_axis], places[rows, v_axis]
    share = np.zeros(len(which))
    for k in np.unique(kind):
        pattern, mean = PATTERNS[names[k]]
        if names[k] == "plain":
            continue
        own = np.flatnonzero(kind == k)
        at, size = which[own], period[which[own]]
        ua, va = u_axis[own], v_axis[own]
        s = (u[own] - low[at, ua]) / np.maximum(high[at, ua] - low[at, ua], 1e-6)
        t = (v[own] - low[at, va]) / np.maximum(high[at, va] - low[at, va], 1e-6)
        value = pattern(u[own] / size, v[own] / size, s, t, at)
        if names[k] not in WHOLE:
            value = mean + (value - mean) * np.clip(2.0 - 4.0 * footprint[own] / size, 0, 1)
        share[own] = value
    uneven = 1 + mottle * (2 * smooth_noise(u * 2.3, v * 2.3, which) - 1)
    colour: np.ndarray = first[which] + (second - first)[which] * share[:, None]
    return colour * uneven[:, None]
