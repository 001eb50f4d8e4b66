"""What stands and moves in the streets that a LiDAR sees: things of other streets with other classes, and a few more.

Eight classes, the same in all domains. Whoever is on two wheels is a person, two-wheelers with and without a rider
included: apart they would be too few points to score. Garden walls and fences are buildings, as in "manmade".
"""

from __future__ import annotations

import numpy as np

from isthmus.data.simulators import palette, vehicles
from isthmus.data.simulators import street_furniture as lining
from isthmus.data.simulators.lowpoly import blob, limb
from isthmus.data.simulators.people import person, riding
from isthmus.data.simulators.render import Piece, placed
from isthmus.data.simulators.street_furniture import CITYSCAPES7, Thing
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, arch, blade, box, moved, rotated, turned

STREET8 = ("road", "sidewalk", "terrain", "building", "vegetation", "vehicle", "person", "object")
"""Classes of :class:`~isthmus.data.simulators.lidar_streets.SimulatedLidarStreets`.

``terrain`` is grass; ``building`` includes walls and fences; ``person`` riders and two-wheelers; ``object`` lamp posts,
traffic signs and lights, bollards.
"""

ROAD, SIDEWALK, TERRAIN, BUILDING, VEGETATION, VEHICLE, PERSON, OBJECT = range(8)

_FROM_CITYSCAPES = {"construction": BUILDING, "object": OBJECT, "nature": VEGETATION}


def relabelled(thing: Thing) -> Thing:
    """Return something of :mod:`~isthmus.data.simulators.street_furniture` with classes of :data:`STREET8`."""
    return [piece._replace(label=_FROM_CITYSCAPES[CITYSCAPES7[piece.label]]) for piece in thing]


def house(width: float, heights: tuple[float, float], style: str, rng: np.random.Generator) -> Thing:
    """Return a building, its front in the plane ``y = 0``, facing ``-y``.

    Args:
        width: metres.
        heights: lowest and highest roof that is wanted, metres; of six tries the one that comes nearest is taken.
        style: ``"brick"``: bricks and painted boards; ``"plaster"``: pale plaster and concrete.
        rng: source of all choices.
    """
    best: Thing = []
    miss = np.inf
    for _ in range(6):
        thing = lining.building(width, rng)
        top = max(float(piece.mesh.vertices[:, 2].max()) for piece in thing)
        off = max(heights[0] - top, top - heights[1], 0.0)
        if off < miss:
            best, miss = thing, off
        if not off:
            break
    if style == "brick":
        red = palette.colour(rng.uniform(0.0, 0.06), rng.uniform(0.35, 0.7), rng.uniform(0.3, 0.6))
        boards = palette.colour(rng.random(), rng.uniform(0.0, 0.35), rng.uniform(0.55, 0.95))
        coat = Paint(red, palette.shade(red, 0.6), "bricks", rng.uniform(0.4, 0.8))
        if rng.random() < 0.5:
            coat = Paint(boards, palette.shade(boards, 0.7), "planks", rng.uniform(0.2, 0.3))
    else:
        pale = palette.colour(rng.uniform(0.07, 0.2), rng.uniform(0.0, 0.3), rng.uniform(0.75, 1.0))
        coat = Paint(pale, palette.shade(pale, 0.75), str(rng.choice(["clouds", "tiles"])), rng.uniform(0.8, 2.5))
    body = best[0].paint
    return relabelled([piece._replace(paint=coat) if piece.paint == body else piece for piece in best])


def palm(rng: np.random.Generator) -> Thing:
    """Return a palm, vegetation."""
    height, lean = rng.uniform(4.5, 9.0), rng.normal(size=2) * 0.25
    bark = Paint(palette.colour(0.09, rng.uniform(0.1, 0.35), rng.uniform(0.3, 0.5)), mottle=0.2)
    green = palette.colour(rng.uniform(0.22, 0.33), rng.uniform(0.5, 0.9), rng.uniform(0.25, 0.5))
    leaf = Paint(green, palette.shade(green, 0.5), "clouds", 0.4, mottle=0.2)
    top = np.array([lean[0], lean[1], height])
    thing = [Piece(limb((0, 0, -0.1), top, rng.uniform(0.14, 0.2), 0.1, 8), VEGETATION, bark)]
    for angle in np.linspace(0, 2 * np.pi, 11, endpoint=False) + rng.uniform(0, 1, 11):
        out = np.array([np.cos(angle), np.sin(angle), 0.0]) * rng.uniform(1.4, 2.3)
        path = arch(top, top + 0.6 * out + [0, 0, rng.uniform(0.6, 1.2)], top + out - [0, 0, rng.uniform(0.3, 1.2)], 6)
        thing.append(Piece(blade(path, 0.55), VEGETATION, leaf))
    return thing


def motor_vehicle(shares: tuple[float, float, float, float], rng: np.random.Generator) -> Thing:
    """Return a car, a van, a bus or a lorry, with these shares; its front towards ``-y``."""
    makers = (vehicles.car, vehicles.van, vehicles.bus, vehicles.lorry)
    maker = makers[int(rng.choice(4, p=np.array(shares) / sum(shares)))]
    return [Piece(mesh, VEHICLE, paint) for mesh, paint in maker(rng)]


def two_wheeler(motor: float, rider: bool, rng: np.random.Generator) -> Thing:
    """Return a bicycle or, with probability ``motor``, a scooter; with or without its rider, all of class person."""
    scooter = rng.random() < motor
    thing = [Piece(mesh, PERSON, paint) for mesh, paint in (_scooter(rng) if scooter else vehicles.bicycle(rng))]
    if rider:
        seat = 0.84 if scooter else 0.98
        thing += [placed(piece, 0, (0, 0.16, 0)) for piece in person(rng, PERSON, riding(rng), seat=seat)]
    return thing


def _scooter(rng: np.random.Generator) -> list[tuple[Mesh, Paint]]:
    """A motor scooter; its saddle is 0.8 m up."""
    coat = Paint(palette.colour(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.9)), gloss=0.6, mottle=0.02)
    wheel = rotated(moved(turned([(0.24, 0), (0.24, 0.1)], 12), (0, 0, -0.05)), 1, 90)
    parts = [(moved(wheel, (0, y, 0.24)), vehicles.RUBBER) for y in (-0.62, 0.6)]
    parts.append((blob((0.34, 0.95, 0.5), (0, 0.32, 0.25), 8, 4, 0.6), coat))
    parts.append((box(0.34, 0.6, 0.07, 0, -0.25, 0.27), coat))
    parts.append((box(0.4, 0.06, 0.6, 0, -0.5, 0.35), coat))
    parts.append((box(0.26, 0.62, 0.1, 0, 0.32, 0.72), vehicles.RUBBER))
    parts.append((limb((0, -0.55, 0.5), (0, -0.45, 1.0), 0.04, 0.04, 5), coat))
    parts.append((limb((-0.32, -0.42, 1.02), (0.32, -0.42, 1.02), 0.02, 0.02, 5), vehicles.RUBBER))
    parts.append((box(0.16, 0.05, 0.14, 0, -0.5, 0.9), vehicles.HEADLIGHT))
    return parts
