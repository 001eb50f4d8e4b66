"""Streets for a car with sensors: the road along y, driven towards +y, and two countries with other habits.

A country is a set of distributions (:class:`Country`): which side is driven on, how wide road and pavement are, how
high, near and of what make the buildings, what grows, who is in traffic. Light is no matter of a street, so the same
random numbers give the same street by day and by night.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import lidar_things as things
from isthmus.data.simulators import palette
from isthmus.data.simulators import street_furniture as lining
from isthmus.data.simulators.lidar_things import PERSON, ROAD, SIDEWALK, TERRAIN, relabelled
from isthmus.data.simulators.people import person
from isthmus.data.simulators.render import Piece, placed
from isthmus.data.simulators.street_furniture import Thing
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import box

# From where to where along y a street is furnished, metres; the car drives from 0 to DRIVE.
START, END, DRIVE = -8.0, 88.0, 24.0

KERB = 0.13

Span = tuple[float, float]


class Country(NamedTuple):
    """How streets look somewhere. Spans are the ends of uniform distributions, metres where not said otherwise.

    Attributes:
        side: 1 where one drives on the right, -1 on the left.
        road: half the width of the road.
        walk: width of the pavements.
        verge: width of the grass between kerb and pavement; none below 0.3.
        setback: from the pavement to the fronts.
        built: share of plots with a building (the rest: walls, hedges and trees).
        plot: width of a plot.
        heights: lowest and highest roof wanted.
        style: of the buildings, see :func:`~isthmus.data.simulators.lidar_things.house`.
        lawn: probability that the ground beyond the pavements is grass.
        trees: probability of a tree for each plot, and of a row of trees along a kerb.
        palms: share of palms among the trees.
        lamps: distance between street lamps.
        signs: mean distance between signs.
        mix: shares of cars, vans, buses and lorries.
        parked: share of the places at the kerb that are taken.
        gap: mean distance between moving vehicles.
        bikes: two-wheelers per 100 m and direction.
        motor: share of scooters among them.
        crowd: people per 100 m of pavement.
    """

    side: int
    road: Span
    walk: Span
    verge: Span
    setback: Span
    built: float
    plot: Span
    heights: Span
    style: str
    lawn: float
    trees: float
    palms: float
    lamps: Span
    signs: float
    mix: tuple[float, float, float, float]
    parked: float
    gap: float
    bikes: float
    motor: float
    crowd: float


COUNTRIES: dict[str, Country] = {
    # Wide roads, low houses behind lawns, many large vehicles, few people.
    "a": Country(
        side=1, road=(5.2, 7.5), walk=(1.6, 2.6), verge=(0.6, 2.2), setback=(1.5, 7.0), built=0.6, plot=(9, 17),
        heights=(4, 11), style="brick", lawn=0.9, trees=0.55, palms=0.0, lamps=(20, 30), signs=14.0,
        mix=(0.62, 0.16, 0.04, 0.18), parked=0.4, gap=22.0, bikes=2.5, motor=0.1, crowd=9.0,
    ),
    # Narrow roads between blocks that stand at the pavement, little grass, palms, buses, scooters, many people.
    "b": Country(
        side=-1, road=(3.4, 4.8), walk=(2.4, 4.2), verge=(0.0, 0.8), setback=(0.0, 1.0), built=0.82, plot=(8, 20),
        heights=(13, 30), style="plaster", lawn=0.3, trees=0.4, palms=0.6, lamps=(13, 20), signs=8.0,
        mix=(0.6, 0.14, 0.16, 0.1), parked=0.2, gap=17.0, bikes=9.0, motor=0.75, crowd=45.0,
    ),
}  # fmt: skip
"""Countries by name."""


class LidarStreet(NamedTuple):
    """A street to drive through.

    ``pieces`` carry classes of :data:`~isthmus.data.simulators.lidar_things.STREET8` and are numbered by instance;
    ``lane`` is the x of the car's lane, metres; ``lamps`` (n, 3) the places of the street lamps' heads.
    """

    pieces: list[Piece]
    lane: float
    lamps: np.ndarray


class _Plan:
    """A street while it is being filled."""

    def __init__(self, country: Country, rng: np.random.Generator) -> None:
        self.rng, self.country = rng, country
        self.road, self.walk = rng.uniform(*country.road), rng.uniform(*country.walk)
        verge = rng.uniform(*country.verge)
        self.verge = verge if verge > 0.3 else 0.0
        self.crossing = rng.uniform(14, 45)
        self.lane = country.side * max(0.32 * self.road, 1.45)
        self.things: list[Thing] = []
        self.boxes = np.empty((0, 2, 3))
        self.lamps: list[np.ndarray] = []

    @property
    def edge(self) -> float:
        """How far from the middle the pavements end."""
        return self.road + 0.15 + self.verge + self.walk

    def add(self, thing: Thing, yaw: float, x: float, y: float, z: float = 0.0, gap: float | None = 0.3) -> bool:
        """Put a thing somewhere if it is ``gap`` metres clear of the others (None: in any case); return whether."""
        there = [placed(piece, yaw, (x, y, z)) for piece in thing]
        corners = np.concatenate([piece.mesh.vertices for piece in there])
        low, high = corners.min(axis=0), corners.max(axis=0)
        if gap is not None:
            near = (low < self.boxes[:, 1] + gap) & (high > self.boxes[:, 0] - gap)
            if near.all(axis=1).any():
                return False
        self.things.append(there)
        self.keep_clear(low, high)
        return True

    def keep_clear(self, low: np.ndarray, high: np.ndarray) -> None:
        """Let nothing that minds others be put between two corners (3,)."""
        self.boxes = np.concatenate([self.boxes, [[low, high]]])

    def tree(self) -> Thing:
        """A tree of the country."""
        if self.rng.random() < self.country.palms:
            return things.palm(self.rng)
        return relabelled(lining.tree(self.rng))


def street(country: Country, rng: np.random.Generator) -> LidarStreet:
    """Return a random street of a country with everything in it."""
    plan = _Plan(country, rng)
    _ground(plan)
    for side in (-1, 1):
        _fronts(plan, side)
    for x in np.arange(-36.0, 37.0, 12.0):
        far = things.house(12, country.heights, country.style, rng) if rng.random() < country.built else plan.tree()
        plan.add(far, 0, x, END + 8 + rng.uniform(0, 10), KERB, None)
    # Facades and their balconies may overhang, and the car needs its lane: neither may stop what follows.
    plan.boxes = np.empty((0, 2, 3))
    plan.keep_clear(np.array([plan.lane - 1.2, -9.0, 0.0]), np.array([plan.lane + 1.2, DRIVE + 6.5, 3.0]))
    _verge(plan)
    _traffic(plan)
    _crowd(plan)
    pieces = [piece._replace(instance=i) for i, thing in enumerate(plan.things) for piece in thing]
    return LidarStreet(pieces, plan.lane, np.array(plan.lamps).reshape(-1, 3))


def _ground(plan: _Plan) -> None:
    """The road with its markings, kerbs, grass, pavements and what is beyond them."""
    rng, road, walk, verge = plan.rng, plan.road, plan.walk, plan.verge
    length, middle = 400.0, 150.0
    grey = palette.colour(rng.uniform(0.05, 0.65), rng.uniform(0, 0.08), rng.uniform(0.2, 0.45))
    asphalt = Paint(grey, palette.shade(grey, rng.uniform(0.6, 0.9)), "clouds", rng.uniform(0.3, 3.0), mottle=0.12)
    stone = palette.colour(rng.uniform(0.02, 0.15), rng.uniform(0, 0.2), rng.uniform(0.4, 0.75))
    pattern = str(rng.choice(["tiles", "bricks", "clouds"], p=[0.5, 0.2, 0.3]))
    slabs = Paint(stone, palette.shade(stone, 0.6), pattern, rng.uniform(0.3, 1.2))
    kerb = Paint(palette.colour(0.1, 0.05, rng.uniform(0.5, 0.85)))
    green = palette.colour(rng.uniform(0.18, 0.3), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.5))
    grass = Paint(green, palette.shade(green, 0.6), "clouds", 0.7, mottle=0.2)
    chalk = palette.colour(0.12, 0.04, rng.uniform(0.7, 0.95))
    white = Paint(chalk, palette.shade(chalk, 0.4), "clouds", 0.4, mottle=0.2)
    surface: Thing = [Piece(box(2 * road + 0.1, length, 1.0, 0, middle, -1.0), ROAD, asphalt)]
    lawn = rng.random() < plan.country.lawn
    beyond, cover = (TERRAIN, grass) if lawn else (SIDEWALK, slabs._replace(period=slabs.period * 1.7))
    for side in (-1, 1):
        surface.append(Piece(box(0.2, length, 1 + KERB, side * (road + 0.05), middle, -1.0), SIDEWALK, kerb))
        if verge > 0:
            x = side * (road + 0.15 + verge / 2)
            surface.append(Piece(box(verge, length, 1 + KERB + 0.02, x, middle, -1.0), TERRAIN, grass))
        x = side * (plan.edge - walk / 2)
        surface.append(Piece(box(walk, length, 1 + KERB, x, middle, -1.0), SIDEWALK, slabs))
        surface.append(Piece(box(300, 700, 1.0, side * (plan.edge + 150), 200, KERB - 1.03), beyond, cover))
    dash, gap = rng.uniform(2, 4), rng.uniform(3, 7)
    marks = [(0.0, y, 0.14, dash) for y in np.arange(START - 10, 150, dash + gap)]
    if rng.random() < 0.5:
        marks += [(side * (road - 2.2 if road > 5 else road - 0.4), middle, 0.12, length) for side in (-1, 1)]
    if rng.random() < 0.7:
        wide = rng.uniform(0.4, 0.55)
        marks += [(x, plan.crossing, wide, 3.2) for x in np.arange(-road + 0.5, road - 0.3, 2 * wide)]
    surface += [Piece(box(w, deep, 0.008, x, y), ROAD, white) for x, y, w, deep in marks]
    plan.things.append(surface)


def _fronts(plan: _Plan, side: int) -> None:
    """Buildings, walls, hedges and gaps along one side."""
    rng, country, edge = plan.rng, plan.country, plan.edge
    # A front at y = 0 that faces -y, turned to face the road from the right (side 1) or the left (-1).
    yaw = -90.0 * side
    y = START - rng.uniform(0, 10)
    while y < END:
        width, back = rng.uniform(*country.plot), rng.uniform(*country.setback)
        built = rng.random() < country.built
        if built:
            home = things.house(width * 0.94, country.heights, country.style, rng)
            plan.add(home, yaw, side * (edge + back + 0.1), y + width / 2, KERB, None)
        if (not built and rng.random() < 0.8) or (back > 2.5 and rng.random() < 0.35):
            front = lining.wall if rng.random() < (0.35 if country.lawn > 0.5 else 0.65) else lining.hedge
            plan.add(relabelled(front(width * 0.9, rng)), yaw, side * (edge + 0.1), y + width / 2, KERB, None)
        room = back if built else 10.0
        count = int(rng.random() < country.trees) if built else int(rng.integers(1, 5))
        for _ in range(count if room > 2 else 0):
            x = side * (edge + rng.uniform(0.25, 0.75) * room)
            plan.add(plan.tree(), rng.uniform(0, 360), x, y + rng.uniform(0, width), KERB, None)
        y += width


def _verge(plan: _Plan) -> None:
    """Street lamps, signs, traffic lights, trees and bollards along the kerbs."""
    rng, country = plan.rng, plan.country
    for side in (-1, 1):
        kerb = plan.road + 0.5
        for y in np.arange(START + rng.uniform(0, 12), END, rng.uniform(*country.lamps)):
            post = relabelled(lining.lamp_post(rng))
            if plan.add(post, -90.0 * side, side * kerb, y, KERB):
                head = next(piece for piece in plan.things[-1] if piece.paint.glow > 0)
                plan.lamps.append(head.mesh.vertices.mean(axis=0))
        if rng.random() < country.trees:
            for y in np.arange(START + rng.uniform(0, 8), END, rng.uniform(8, 15)):
                plan.add(plan.tree(), rng.uniform(0, 360), side * (kerb + 0.4), y + rng.normal() * 0.5, KERB)
        # Signs and lights face those who drive towards them on their side of the road.
        towards = 0.0 if side == country.side else 180.0
        for y in np.cumsum(rng.uniform(0.4, 1.6, 24) * country.signs) + START + 4:
            if y < END:
                x = side * (kerb + rng.uniform(0, 0.3))
                plan.add(relabelled(lining.sign(rng)), towards + rng.normal() * 12, x, y, KERB)
        if rng.random() < 0.6:
            ahead = -2.3 if side == country.side else 2.3
            plan.add(relabelled(lining.traffic_light(rng)), towards, side * kerb, plan.crossing + ahead, KERB)
        if rng.random() < 0.35:
            for y in np.arange(START + rng.uniform(0, 9), END / 2, rng.uniform(1.6, 3.0)):
                plan.add(relabelled(lining.bollard(rng)), 0, side * (plan.road + 0.35), y, KERB, 0.15)


def _traffic(plan: _Plan) -> None:
    """Parked and moving vehicles and two-wheelers."""
    rng, country, road = plan.rng, plan.country, plan.road
    for side in (-1, 1):
        # Fronts point to -y; who drives like the car is turned.
        yaw = 180.0 if side == country.side else 0.0
        if rng.random() < 0.75 and country.parked > 0:
            dense = country.parked * rng.uniform(0.5, 1.5)
            for y in np.cumsum(rng.uniform(5.6, 7.0, 16)) + START:
                if y < END - 12 and rng.random() < dense:
                    parked = things.motor_vehicle((*country.mix[:2], 0.0, 0.0), rng)
                    turn = yaw + rng.normal() * 1.5 + 180 * (rng.random() < 0.1)
                    plan.add(parked, turn, side * (road - 1.05), float(y))
        start = DRIVE + 9 if side == country.side else START
        for y in start + np.cumsum(rng.uniform(0.5, 1.5, 8) * country.gap) - 0.5 * country.gap:
            if y < END:
                moving = things.motor_vehicle(country.mix, rng)
                plan.add(moving, yaw + rng.normal() * 2, side * abs(plan.lane), float(y), gap=0.4)
        for _ in range(int(rng.poisson(country.bikes * (END - START) / 100))):
            y, x = rng.uniform(START + 6, END - 20), side * (road - rng.uniform(0.6, 1.6))
            plan.add(things.two_wheeler(country.motor, True, rng), yaw + rng.normal() * 6, x, y)
        for _ in range(int(rng.poisson(0.5 * country.bikes))):
            y, x = rng.uniform(START, 60), side * (plan.edge - 0.7)
            plan.add(things.two_wheeler(country.motor, False, rng), rng.uniform(0, 360), x, y, KERB, 0.1)


def _crowd(plan: _Plan) -> None:
    """People on the pavements, alone and in groups, and on the crossing."""
    rng, road = plan.rng, plan.road
    busy = plan.country.crowd * rng.uniform(0.3, 1.7)
    for side in (-1, 1):
        for _ in range(int(rng.poisson(busy * 0.38))):
            y, heading = rng.uniform(0, 68), float(rng.choice([0, 180])) + rng.normal() * 18
            x = side * (plan.edge - rng.uniform(0.3, max(plan.walk - 0.3, 0.5)))
            for _ in range(int(rng.choice([1, 1, 2, 3]))):
                turn = heading + rng.normal() * 10
                plan.add(person(rng, PERSON), turn, x + rng.normal() * 0.4, y + rng.normal() * 0.5, KERB, 0.08)
    for _ in range(int(rng.poisson(busy * 0.12))):
        turn = float(rng.choice([90, -90])) + rng.normal() * 12
        plan.add(person(rng, PERSON), turn, rng.uniform(-road, road), plan.crossing + rng.normal(), 0.0, 0.1)
