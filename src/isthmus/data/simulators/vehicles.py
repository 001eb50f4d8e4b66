"""Cars, vans, buses, lorries and bicycles; on ``z = 0`` over the origin, their front towards ``-y``."""

from __future__ import annotations

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators.lowpoly import limb
from isthmus.data.simulators.render import Piece
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, box, moved, ring, rotated, stack, tube, turned

GLASS = Paint((0.02, 0.025, 0.03), gloss=0.8, mottle=0.02)
RUBBER = Paint((0.012, 0.012, 0.012), mottle=0.1)
HUB = Paint((0.35, 0.35, 0.37), gloss=0.5)
HEADLIGHT = Paint((0.85, 0.85, 0.8), gloss=0.8, glow=0.4)
TAILLIGHT = Paint((0.5, 0.01, 0.01), gloss=0.5, glow=0.3)
PLATE = Paint((0.75, 0.75, 0.7))


def _coat(rng: np.random.Generator) -> Paint:
    """Return the paint of a car: mostly white, black, silver or grey, else any colour."""
    if rng.random() < 0.6:
        base = palette.colour(rng.random(), rng.uniform(0, 0.08), rng.choice([0.1, 0.3, 0.55, 0.75, 0.95]))
    else:
        base = palette.colour(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.85))
    return Paint(base, gloss=rng.uniform(0.3, 1.0), mottle=0.02)


def _lofted(stations: list[tuple[float, float, float, float]], power: float = 6.0) -> Mesh:
    """Return the body through cross-sections along y, each ``(y, width, low, high)``, with rounded edges."""
    rings = []
    for y, width, low, high in stations:
        section = ring(width, high - low, 0, power, 16)
        rings.append(np.stack([section[:, 0], np.full(16, y), section[:, 1] + (low + high) / 2], axis=1))
    return stack(rings)


def _wheels(width: float, axles: list[float], radius: float) -> list[tuple[Mesh, Paint]]:
    """Return a wheel at both ends of every axle, each a dark disc with a bright one before it."""
    tyre = rotated(moved(turned([(radius, 0), (radius, 0.2)], 12), (0, 0, -0.1)), 1, 90)
    hub = rotated(moved(turned([(radius * 0.6, 0), (radius * 0.6, 0.22)], 8), (0, 0, -0.11)), 1, 90)
    found = []
    for y in axles:
        for side in (-1, 1):
            place = (side * (width / 2 - 0.09), y, radius)
            found += [(moved(tyre, place), RUBBER), (moved(hub, place), HUB)]
    return found


def _lights(width: float, length: float, height: float) -> list[tuple[Mesh, Paint]]:
    found: list[tuple[Mesh, Paint]] = []
    for side in (-1, 1):
        found.append((box(0.34, 0.12, 0.15, side * (width / 2 - 0.26), -length / 2 + 0.05, height), HEADLIGHT))
        found.append((box(0.24, 0.1, 0.2, side * (width / 2 - 0.2), length / 2 - 0.04, height + 0.04), TAILLIGHT))
    for end in (-1, 1):
        found.append((box(0.5, 0.04, 0.12, 0, end * (length / 2 + 0.01), height - 0.2), PLATE))
    return found


def car(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A hatchback, saloon, estate or off-roader."""
    length, width, height = rng.uniform(3.7, 4.8), rng.uniform(1.66, 1.9), rng.uniform(1.4, 1.72)
    belt, low, half = height * 0.6, rng.uniform(0.2, 0.3), length / 2
    coat = _coat(rng)
    kind = rng.integers(3)
    bonnet = rng.uniform(0.22, 0.28)
    rear = (half * 0.96, half * 0.62, half * 0.9)[kind]
    front = -half + bonnet * length
    parts: list[tuple[Mesh, Paint]] = []
    nose, tail = belt * 0.86, belt * (0.98 if kind != 1 else 0.95)
    body = [
        (-half, width * 0.8, low + 0.12, nose * 0.8),
        (-half + 0.15, width * 0.96, low, nose * 0.95),
        (front, width, low, belt),
        (0.0, width, low, belt + 0.02),
        (rear, width, low, belt),
        (half - 0.12, width * 0.96, low, tail),
        (half, width * 0.86, low + 0.12, tail * 0.9),
    ]
    parts.append((_lofted(body), coat))
    cabin, middle = rear - front, (rear + front) / 2
    roof = cabin * rng.uniform(0.56, 0.68)
    at = middle + (0.06 if kind == 0 else 0.02) * length
    lower = ring(width * 0.95, cabin, belt - 0.03, 12, 20) + np.array([0, middle, 0])
    upper = ring(width * 0.76, roof, height - 0.04, 8, 20) + np.array([0, at, 0])
    parts.append((stack([lower, upper]), GLASS))
    cap = [
        ring(width * s, roof * r, z, 6, 20) + np.array([0, at, 0])
        for s, r, z in ((0.78, 1.03, height - 0.06), (0.72, 0.94, height))
    ]
    parts.append((stack(cap), coat))
    for side in (-1, 1):
        for y0, y1 in ((front + 0.04, at - roof / 2), (middle + 0.05 * length, at), (rear - 0.04, at + roof / 2)):
            foot, head = (side * width * 0.47, y0, belt - 0.02), (side * width * 0.38, y1, height - 0.05)
            parts.append((limb(foot, head, 0.045, 0.04, 4), coat))
        parts.append((box(0.18, 0.1, 0.12, side * (width / 2 + 0.06), front + 0.3, belt), coat))
    parts += _wheels(width, [-half * 0.62, half * 0.6], rng.uniform(0.29, 0.36))
    return parts + _lights(width, length, belt * 0.66)


def van(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A delivery van or minibus."""
    length, width, height = rng.uniform(4.6, 6.0), rng.uniform(1.85, 2.05), rng.uniform(1.95, 2.6)
    half, low, coat = length / 2, 0.3, _coat(rng)
    stations = [
        (-half, width * 0.85, low, height * 0.42),
        (-half + 0.25, width * 0.97, low, height * 0.5),
        (-half + 0.75, width, low, height * 0.56),
        (-half + 1.45, width, low, height * 0.97),
        (half - 0.1, width, low, height),
        (half, width * 0.95, low, height * 0.96),
    ]
    parts = [(_lofted(stations, 8.0), coat)]
    slope = [
        (-half + 0.72, width * 0.84, height * 0.55, height * 0.6),
        (-half + 1.3, width * 0.84, height * 0.6, height * 0.94),
    ]
    parts.append((moved(_lofted(slope, 8.0), (0, -0.06, 0.03)), GLASS))
    for side in (-1, 1):
        parts.append((box(0.02, 0.9, height * 0.25, side * width / 2, -half + 1.7, height * 0.58), GLASS))
        if rng.random() < 0.4:
            parts.append((box(0.02, length - 3.0, height * 0.22, side * width / 2, 0.9, height * 0.6), GLASS))
        parts.append((box(width * 0.36, 0.03, height * 0.24, side * width * 0.22, half, height * 0.6), GLASS))
    parts += _wheels(width, [-half * 0.62, half * 0.6], 0.34)
    return parts + _lights(width, length, height * 0.34)


def bus(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A city bus with bands of windows."""
    length, width, height = rng.uniform(9, 12), 2.5, rng.uniform(2.9, 3.2)
    half, low, coat = length / 2, 0.32, _coat(rng)
    body = [
        (-half, 2.35, low, height - 0.1),
        (-half + 0.2, 2.5, low, height),
        (half - 0.2, 2.5, low, height),
        (half, 2.35, low, height - 0.1),
    ]
    parts = [(_lofted(body, 14.0), coat)]
    parts.append((box(width - 0.2, 0.06, height * 0.45, 0, -half - 0.01, height * 0.42), GLASS))
    parts.append((box(width * 0.7, 0.05, 0.22, 0, -half - 0.02, height * 0.89), Paint((0.9, 0.55, 0.05), glow=0.4)))
    parts.append((box(width * 0.75, 0.06, height * 0.3, 0, half, height * 0.52), GLASS))
    bays = int(length / 1.4)
    for side in (-1, 1):
        for i in range(bays):
            y = -half + 0.9 + i * (length - 1.2) / bays
            parts.append((box(0.03, 1.15, height * 0.36, side * width / 2, y, height * 0.45), GLASS))
        if rng.random() < 0.6:
            band = Paint(palette.colour(rng.random(), 0.8, 0.7), gloss=0.3)
            parts.append((box(0.02, length * 0.94, 0.3, side * width / 2, 0, 0.75), band))
    parts += _wheels(width, [-half * 0.6, half * 0.55], 0.48)
    return parts + _lights(width, length, 0.62)


def lorry(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A cab and a box or a flat bed behind it."""
    length, width, height = rng.uniform(6.0, 8.5), 2.4, rng.uniform(2.8, 3.4)
    half, coat = length / 2, _coat(rng)
    cab = [
        (-half, 2.1, 0.45, 2.0),
        (-half + 0.15, 2.3, 0.4, 2.3),
        (-half + 1.7, 2.3, 0.4, 2.4),
        (-half + 1.75, 2.2, 0.5, 2.3),
    ]
    parts = [(_lofted(cab, 10.0), coat)]
    parts.append((box(2.0, 0.05, 0.75, 0, -half, 1.3), GLASS))
    for side in (-1, 1):
        parts.append((box(0.04, 0.8, 0.6, side * 1.15, -half + 0.75, 1.35), GLASS))
    parts.append((box(width * 0.5, length - 0.6, 0.25, 0, 0.3, 0.5), RUBBER))
    load = _coat(rng)._replace(gloss=0.1)
    parts.append((box(width, length - 2.0, height - 0.9 if rng.random() < 0.75 else 0.7, 0, 1.0, 0.9), load))
    parts += _wheels(width, [-half * 0.7, half * 0.45, half * 0.72], 0.45)
    return parts + _lights(width, length, 0.6)


def bicycle(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A city bicycle; its saddle is 0.95 m up, 0.18 m behind the middle."""
    coat, angle = _coat(rng), np.linspace(0, 2 * np.pi, 17)
    parts: list[tuple[Mesh, Paint]] = []
    for y in (-0.52, 0.52):
        rim = np.stack([np.zeros(17), y + 0.33 * np.cos(angle), 0.34 + 0.33 * np.sin(angle)], axis=1)
        parts.append((tube(rim, 0.022, 5), RUBBER))
    joints = {
        "head": (0, -0.36, 0.85),
        "crank": (0, 0.02, 0.3),
        "seat": (0, 0.18, 0.93),
        "back": (0, 0.52, 0.34),
        "fork": (0, -0.52, 0.34),
    }
    for a, b in (
        ("head", "crank"),
        ("head", "seat"),
        ("crank", "seat"),
        ("crank", "back"),
        ("seat", "back"),
        ("head", "fork"),
    ):
        parts.append((limb(joints[a], joints[b], 0.02, 0.02, 5), coat))
    parts.append((limb((-0.28, -0.4, 1.02), (0.28, -0.4, 1.02), 0.016, 0.016, 5), RUBBER))
    parts.append((limb((0, -0.36, 0.85), (0, -0.4, 1.02), 0.016, 0.016, 5), coat))
    parts.append((box(0.16, 0.26, 0.06, 0, 0.2, 0.93), RUBBER))
    return parts


def vehicle(rng: np.random.Generator, label: int, large: bool = True) -> list[Piece]:
    """Return a random motor vehicle; without ``large`` no buses and lorries."""
    makers, shares = [car, van, bus, lorry], [0.72, 0.14, 0.08, 0.06]
    maker = makers[int(rng.choice(4, p=shares))] if large else makers[int(rng.choice(2, p=[0.85, 0.15]))]
    return [Piece(mesh, label, paint) for mesh, paint in maker(rng)]
