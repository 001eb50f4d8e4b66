"""Colours and paints of made things, drawn at random: what hue a thing has says little about what it is."""

from __future__ import annotations

import colorsys

import numpy as np

from isthmus.data.simulators.textures import Colour, Paint


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return linear RGB of a hue (turns), saturation and value as a screen shows them (0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return (red**2.2, green**2.2, blue**2.2)


def shade(base: Colour, factor: float) -> Colour:
    """Return a colour made lighter or darker, kept within 0 to 1."""
    red, green, blue = (min(max(c * factor, 0.0), 1.0) for c in base)
    return (red, green, blue)


def wood(rng: np.random.Generator) -> Paint:
    """From birch over oak and cherry to wenge, at times stained grey."""
    saturation = rng.uniform(0.05, 0.2) if rng.random() < 0.15 else rng.uniform(0.3, 0.7)
    base = colour(rng.uniform(0.04, 0.11), saturation, rng.choice([0.3, 0.5, 0.65, 0.8]) * rng.uniform(0.8, 1.15))
    return Paint(base, shade(base, rng.uniform(0.4, 0.75)), "grain", rng.uniform(0.08, 0.25), rng.uniform(0, 0.25))


def lacquer(rng: np.random.Generator) -> Paint:
    """Painted furniture: white, grey, black, or any colour."""
    kind = rng.random()
    if kind < 0.45:
        base = colour(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.75, 0.97))
    elif kind < 0.65:
        base = colour(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.08, 0.4))
    else:
        base = colour(rng.random(), rng.uniform(0.2, 0.75), rng.uniform(0.3, 0.85))
    return Paint(base, gloss=rng.uniform(0, 0.4), mottle=0.04)


def surface(rng: np.random.Generator) -> Paint:
    """Wood or lacquer."""
    return wood(rng) if rng.random() < 0.55 else lacquer(rng)


def metal(rng: np.random.Generator) -> Paint:
    """Chrome, steel, brass or black iron."""
    value = rng.choice([0.15, 0.5, 0.75])
    hue, saturation = (0.12, 0.45) if rng.random() < 0.2 else (0.6, rng.uniform(0, 0.08))
    return Paint(colour(hue, saturation, value), gloss=0.8, mottle=0.03)


def cloth(rng: np.random.Generator) -> Paint:
    """Fabric or leather of any colour, plain or patterned."""
    hue = rng.random()
    saturation = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.15, 0.5), rng.uniform(0.5, 0.9)])
    value = rng.uniform(0.15, 0.95)
    base = colour(hue, saturation, value)
    pattern = str(
        rng.choice(
            ["plain", "clouds", "speckles", "stripes", "rings", "plaid", "dots"], p=[0.4, 0.15, 0.15] + [0.075] * 4
        )
    )
    near = shade(base, rng.uniform(0.5, 0.85))
    other = (
        near if rng.random() < 0.6 else colour(hue + rng.uniform(-0.2, 0.5), rng.uniform(0, 0.6), rng.uniform(0.2, 1))
    )
    if pattern in ("clouds", "speckles"):
        other, period = near, rng.uniform(0.04, 0.2)
    else:
        period = rng.uniform(0.06, 0.3)
    return Paint(base, other, pattern, period, mottle=rng.uniform(0.04, 0.12))


def bright(rng: np.random.Generator) -> Paint:
    """Any small thing: toys, packages, china, covers of books."""
    base = colour(rng.random(), rng.choice([0.08, 0.45, 0.85]) * rng.uniform(0.6, 1.1), rng.uniform(0.2, 1.0))
    pattern = str(rng.choice(["plain", "rings", "stripes", "clouds"], p=[0.7, 0.1, 0.1, 0.1]))
    other = colour(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.2, 1.0))
    return Paint(base, other, pattern, rng.uniform(0.05, 0.2), rng.uniform(0, 0.5))


def wall(rng: np.random.Generator) -> Paint:
    """Plain paint of any light or middling colour, papered walls, boards, tiles, bricks."""
    hue = rng.random()
    saturation = rng.choice([rng.uniform(0, 0.12), rng.uniform(0.1, 0.35), rng.uniform(0.3, 0.65)], p=[0.5, 0.35, 0.15])
    base = colour(hue, saturation, rng.uniform(0.55, 0.97))
    kind = rng.random()
    if kind < 0.5:
        return Paint(base, mottle=rng.uniform(0.02, 0.1))
    if kind < 0.62:
        return Paint(base, shade(base, rng.uniform(0.75, 0.95)), "clouds", rng.uniform(0.1, 0.8))
    if kind < 0.85:
        pattern = str(rng.choice(["stripes", "dots", "plaid"]))
        return Paint(base, shade(base, rng.uniform(0.5, 0.9)), pattern, rng.uniform(0.12, 0.5))
    if kind < 0.9:
        return wood(rng)._replace(pattern="planks", period=rng.uniform(0.1, 0.2))
    if kind < 0.95:
        return Paint(base, shade(base, 0.5), "tiles", rng.uniform(0.15, 0.4), 0.3)
    brick = colour(rng.uniform(0.0, 0.1), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9))
    return Paint(brick, shade(brick, 0.6), "bricks", 0.25)


def floor(rng: np.random.Generator) -> Paint:
    """Boards, tiles, chequered stone, carpet, linoleum."""
    kind = rng.random()
    if kind < 0.45:
        boards = wood(rng)
        return boards._replace(pattern="planks", period=rng.uniform(0.08, 0.2), gloss=rng.uniform(0, 0.2))
    base = colour(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.25, 0.9))
    if kind < 0.65:
        return Paint(base, shade(base, rng.choice([0.4, 1.5])), "tiles", rng.uniform(0.2, 0.6), rng.uniform(0, 0.4))
    if kind < 0.72:
        return Paint(
            base, colour(rng.random(), rng.uniform(0, 0.2), rng.uniform(0.1, 0.9)), "checks", rng.uniform(0.2, 0.5)
        )
    if kind < 0.92:
        carpet = colour(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.25, 0.8))
        return Paint(carpet, shade(carpet, 0.7), "speckles", rng.uniform(0.05, 0.15), mottle=0.12)
    return Paint(base, shade(base, 0.8), "clouds", rng.uniform(0.2, 0.6), rng.uniform(0, 0.4))


def ceiling(rng: np.random.Generator) -> Paint:
    """Mostly near white, at times panelled or coloured."""
    kind = rng.random()
    base = colour(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.8, 0.98))
    if kind < 0.7:
        return Paint(base, mottle=0.04)
    if kind < 0.8:
        return Paint(base, shade(base, 0.6), "tiles", 0.6)
    if kind < 0.9:
        return wood(rng)._replace(pattern="planks", period=rng.uniform(0.1, 0.2))
    return Paint(colour(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.5, 0.9)))
