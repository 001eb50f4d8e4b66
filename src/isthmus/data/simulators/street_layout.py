"""Whole streets: the road along y, what stands beside it, who moves on it, and the light of the day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators import street_furniture as lining
from isthmus.data.simulators.people import person, riding
from isthmus.data.simulators.render import Background, Lighting, Piece, Sun, placed
from isthmus.data.simulators.street_furniture import Thing, label
from isthmus.data.simulators.textures import Colour, Paint, smooth_noise
from isthmus.data.simulators.vehicles import bicycle, vehicle
from isthmus.geometry.meshes import box

# From where to where along y a street is furnished, metres; cameras stand between 0 and WALK.
START, END, WALK = -8.0, 88.0, 30.0

KERB = 0.12


@dataclass(frozen=True)
class Sky(Background):
    """A sky from horizon to zenith with clouds and, where it shines, the glow around the sun."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    sun: tuple[float, float, float] | None
    glow: Colour
    key: int

    def colours(self, directions: np.ndarray) -> np.ndarray:
        """Return linear RGB (n, 3) along unit vectors (n, 3) in the world."""
        up = np.clip(directions[:, 2], 0, 1)
        share = (1 - (1 - up) ** 3)[:, None]
        colour = np.array(self.horizon) + (np.array(self.zenith) - np.array(self.horizon)) * share
        flat = directions[:, :2] / (up + 0.15)[:, None]
        noise = np.zeros(len(directions))
        for octave, weight in ((1.0, 0.55), (2.3, 0.3), (5.1, 0.15)):
            noise += weight * smooth_noise(flat[:, 0] * octave, flat[:, 1] * octave, self.key)
        dense = np.clip((noise - 1 + self.cover) * 5, 0, 1)[:, None] * np.clip(up * 6, 0, 1)[:, None]
        colour = colour + (np.array(self.cloud) - colour) * dense
        if self.sun is not None:
            near = np.maximum(directions @ np.array(self.sun), 0)
            colour = colour + np.array(self.glow) * (0.25 * near**8 + 0.8 * near**200)[:, None] * (1 - 0.6 * dense)
        return colour


class Street(NamedTuple):
    """A street to look at.

    ``pieces`` are numbered by instance; ``boxes`` (n, 2, 3) are the corners of things a camera must not be in; ``road``
    is half the width of the road, ``walk`` the width of the pavements; light fades into ``sky.horizon`` with ``haze``,
    a length in metres.
    """

    pieces: list[Piece]
    light: Lighting
    sky: Sky
    haze: float
    boxes: np.ndarray
    road: float
    walk: float


class _Plan:
    """A street while it is being filled."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.things: list[Thing] = []
        self.boxes = np.empty((0, 2, 3))

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
        self.boxes = np.concatenate([self.boxes, [[low, high]]])
        return True


def _ground(plan: _Plan, road: float, walk: float, crossing: float) -> None:
    """The road with its markings, pavements and what is beyond them."""
    rng = plan.rng
    length, middle = 400.0, 150.0
    grey = palette.colour(rng.uniform(0.05, 0.65), rng.uniform(0, 0.1), rng.uniform(0.2, 0.5))
    asphalt = Paint(
        grey,
        palette.shade(grey, rng.uniform(0.6, 0.9)),
        "clouds",
        rng.uniform(0.3, 3.0),
        rng.uniform(0, 0.1),
        mottle=0.12,
    )
    stone = palette.colour(rng.uniform(0.02, 0.15), rng.uniform(0, 0.25), rng.uniform(0.4, 0.8))
    slabs = Paint(
        stone,
        palette.shade(stone, 0.6),
        str(rng.choice(["tiles", "bricks", "clouds", "checks"], p=[0.5, 0.2, 0.25, 0.05])),
        rng.uniform(0.3, 1.2),
    )
    kerb = Paint(palette.colour(0.1, 0.05, rng.uniform(0.5, 0.85)))
    white = Paint(
        palette.colour(0.12, 0.04, rng.uniform(0.7, 0.95)), palette.colour(0.1, 0.03, 0.5), "clouds", 0.4, mottle=0.2
    )
    flat = label("flat")
    surface: Thing = [Piece(box(2 * road + 0.1, length, 1.0, 0, middle, -1.0), flat, asphalt)]
    for side in (-1, 1):
        edge = side * (road + walk / 2 + 0.1)
        surface.append(Piece(box(walk, length, 1.0 + KERB, edge, middle, -1.0), flat, slabs))
        surface.append(Piece(box(0.2, length, 1.0 + KERB, side * (road + 0.05), middle, -1.0), flat, kerb))
    marks: list[tuple[float, float, float, float]] = []
    if rng.random() < 0.9:
        dash, gap = rng.uniform(2, 4), rng.uniform(3, 7)
        solid = rng.random() < 0.2
        marks += [
            (0.0, y, 0.14, gap if solid else dash) for y in np.arange(START - 10, 150, gap if solid else dash + gap)
        ]
    if rng.random() < 0.4:
        marks += [(side * (road - rng.uniform(0.3, 2.2)), middle, 0.12, length) for side in (-1, 1)]
    if rng.random() < 0.7:
        wide = rng.uniform(0.4, 0.55)
        marks += [(x, crossing, wide, 3.2) for x in np.arange(-road + 0.5, road - 0.3, 2 * wide)]
    surface += [Piece(box(w, deep, 0.008, x, y), flat, white) for x, y, w, deep in marks]
    plan.things.append(surface)
    beyond, cover = flat, slabs._replace(period=slabs.period * 1.7)
    if rng.random() < 0.6:
        green = palette.colour(rng.uniform(0.18, 0.32), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.5))
        beyond, cover = label("nature"), Paint(green, palette.shade(green, 0.6), "clouds", 0.7, mottle=0.2)
    sides = [box(300, 700, 1.0, side * (road + walk + 150.15), 200, KERB - 1.03) for side in (-1, 1)]
    plan.things.append([Piece(mesh, beyond, cover) for mesh in sides])


def _fronts(plan: _Plan, road: float, walk: float, side: int) -> None:
    """Buildings, walls, hedges and gaps along one side."""
    rng = plan.rng
    edge = road + walk + 0.15
    # A front at y = 0 that faces -y, turned to face the road from the right (side 1) or the left (-1).
    yaw = -90.0 * side
    y = START - rng.uniform(0, 10)
    urban = rng.uniform(0.35, 1.0)
    while y < END:
        kind = rng.random()
        if kind < 0.72 * urban + 0.1:
            width, back = rng.uniform(6, 17), rng.choice([0.0, 0.0, rng.uniform(1.5, 6)])
            plan.add(lining.building(width, rng), yaw, side * (edge + back), y + width / 2, KERB, None)
            if back > 1:
                front = lining.wall if rng.random() < 0.5 else lining.hedge
                plan.add(front(width * 0.9, rng), yaw, side * (edge + 0.1), y + width / 2, KERB, None)
                if rng.random() < 0.6:
                    plan.add(lining.tree(rng), 0, side * (edge + back / 2), y + rng.uniform(0, width), KERB, None)
        elif kind < 0.92:
            width = rng.uniform(5, 14)
            front = lining.wall if rng.random() < 0.35 else lining.hedge
            plan.add(front(width, rng), yaw, side * (edge + 0.1), y + width / 2, KERB, None)
            for _ in range(int(rng.integers(1, 5))):
                plan.add(
                    lining.tree(rng),
                    rng.uniform(0, 360),
                    side * (edge + rng.uniform(1.5, 12)),
                    y + rng.uniform(0, width),
                    KERB,
                    None,
                )
        else:
            width = rng.uniform(6, 10)
        y += width + (rng.uniform(0, 3) if rng.random() < 0.3 else 0.0)


def _verge(plan: _Plan, road: float, walk: float, crossing: float) -> None:
    """Poles, signs, lights and trees along the kerbs."""
    rng = plan.rng
    for side in (-1, 1):
        kerb = side * (road + 0.45)
        inward = -90.0 * side
        if rng.random() < 0.8:
            for y in np.arange(START + rng.uniform(0, 12), END, rng.uniform(11, 24)):
                plan.add(lining.lamp_post(rng), inward, kerb, y, KERB)
        if rng.random() < 0.5 and walk > 2.2:
            for y in np.arange(START + rng.uniform(0, 8), END, rng.uniform(7, 14)):
                plan.add(lining.tree(rng), rng.uniform(0, 360), side * (road + 0.8), y + rng.normal() * 0.5, KERB)
        for y in np.cumsum(rng.uniform(3, 16, 16)) + START + 4:
            # Signs face those who drive towards them on their side.
            plan.add(
                lining.sign(rng),
                (0.0 if side > 0 else 180.0) + rng.normal() * 12,
                kerb + side * rng.uniform(0, 0.3),
                y,
                KERB,
            )
        if rng.random() < 0.6:
            plan.add(lining.traffic_light(rng), 0.0 if side > 0 else 180.0, kerb, crossing - 2.3 * side, KERB)
        if rng.random() < 0.35:
            for y in np.arange(START + rng.uniform(0, 9), END / 2, rng.uniform(1.6, 3.0)):
                plan.add(lining.bollard(rng), 0, side * (road + 0.3), y, KERB, 0.15)


def _traffic(plan: _Plan, road: float) -> None:
    """Parked and moving vehicles and cyclists."""
    rng = plan.rng
    vehicles = label("vehicle")
    for side in (-1, 1):
        # Traffic keeps to the right: on the right side fronts point away from the camera, to +y.
        yaw = 180.0 if side > 0 else 0.0
        if rng.random() < 0.75:
            y, dense = START + rng.uniform(0, 6), rng.uniform(0.25, 0.85)
            while y < END - 18:
                if rng.random() < dense:
                    plan.add(
                        vehicle(rng, vehicles, large=False),
                        yaw + rng.normal() * 1.5 + 180 * (rng.random() < 0.1),
                        side * (road - 1.05),
                        y,
                    )
                y += rng.uniform(5.6, 7.0)
        for y in np.cumsum(rng.uniform(8, 34, 5)) + START + 6:
            plan.add(vehicle(rng, vehicles), yaw + rng.normal() * 2, side * max(road * 0.35, 1.35), float(y), gap=0.4)
        for y in np.cumsum(rng.uniform(8, 50, 3)) + START + 8:
            if rng.random() < 0.6:
                bike = [Piece(mesh, vehicles, paint) for mesh, paint in bicycle(rng)]
                turn, x = yaw + rng.normal() * 6, side * rng.uniform(0.5, 0.75) * road
                if plan.add(bike, turn, x, float(y)):
                    rider = [
                        placed(piece, 0, (0, 0.16, 0)) for piece in person(rng, label("human"), riding(rng), seat=0.98)
                    ]
                    plan.add(rider, turn, x, float(y), gap=None)


def _crowd(plan: _Plan, road: float, walk: float, crossing: float) -> None:
    """People on the pavements, alone and in groups, and on the crossing."""
    rng = plan.rng
    human = label("human")
    busy = float(rng.choice([0.0, 0.5, 1.1, 1.8], p=[0.35, 0.25, 0.23, 0.17]))
    if busy == 0:
        return
    for side in (-1, 1):
        y = START + rng.uniform(0, 10)
        while y < 50:
            centre = side * (road + rng.uniform(0.7, max(walk - 0.3, 0.9)))
            heading = float(rng.choice([0, 180])) + rng.normal() * 18
            for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
                turn = rng.uniform(0, 360) if rng.random() < 0.2 else heading + rng.normal() * 8
                plan.add(person(rng, human), turn, centre + rng.normal() * 0.5, y + rng.normal() * 0.5, KERB, 0.08)
            y += rng.exponential(7.0 / busy) + 0.5
    for _ in range(int(rng.integers(0, 6))):
        turn = float(rng.choice([90, -90])) + rng.normal() * 12
        plan.add(person(rng, human), turn, rng.uniform(-road, road), crossing + rng.normal() * 1.0, 0.0, 0.1)
    for _ in range(int(rng.integers(0, 3))):
        turn = float(rng.choice([90, -90])) + rng.normal() * 25
        plan.add(person(rng, human), turn, rng.uniform(-road, road), rng.uniform(4, 50), 0.0, 0.3)


def _daylight(rng: np.random.Generator) -> tuple[Lighting, Sky, float]:
    """Return the light, the sky and the haze of a moment between a low sun and noon, clear to overcast."""
    cover = float(rng.choice([rng.uniform(0.0, 0.35), rng.uniform(0.35, 0.7), 1.0], p=[0.4, 0.3, 0.3]))
    height = rng.uniform(8, 65)
    low = float(np.clip((30 - height) / 25, 0, 1))
    lift, round_ = np.radians(height), rng.uniform(0, 2 * np.pi)
    towards = (float(np.cos(lift) * np.cos(round_)), float(np.cos(lift) * np.sin(round_)), float(np.sin(lift)))
    grey = cover**2
    blue = palette.colour(rng.uniform(0.55, 0.61), (1 - grey) * rng.uniform(0.45, 0.75), rng.uniform(0.65, 0.95))
    # Mixed as light: a hue half way between blue and orange would be green.
    white = np.array(palette.colour(0.58, 0.1 * (1 - grey) + 0.02, rng.uniform(0.88, 1.0)))
    dusk = np.array(palette.colour(rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.6), 0.97))
    mixed = white + (dusk - white) * low * (1 - grey)
    pale = (float(mixed[0]), float(mixed[1]), float(mixed[2]))
    cloud = palette.colour(0.6, 0.05, rng.uniform(0.72, 0.98))
    strength = rng.uniform(1.4, 2.4) * (1 - 0.95 * (cover >= 1))
    power = (strength, strength * (0.95 - 0.25 * low), strength * (0.88 - 0.5 * low))
    sky = Sky(blue, pale, cloud, cover, towards if cover < 1 else None, power, int(rng.integers(1 << 30)))
    ambient = 0.5 * np.array(blue) + 0.3 * np.array(pale) + 0.25 * cover
    above = (float(ambient[0]), float(ambient[1]), float(ambient[2]))
    under = palette.shade((0.5 * above[0] + 0.06, 0.5 * above[1] + 0.05, 0.45 * above[2] + 0.04), 1.0)
    sun = Sun(towards, power) if cover < 1 else None
    haze = float(np.exp(rng.uniform(np.log(90), np.log(900))))
    return Lighting(sun=sun, sky=above, ground=under, reach=1.5), sky, haze


def furnished_street(rng: np.random.Generator) -> Street:
    """Return a random street with everything in it."""
    plan = _Plan(rng)
    road, walk, crossing = rng.uniform(3.4, 6.8), rng.uniform(1.8, 4.5), rng.uniform(8, 45)
    _ground(plan, road, walk, crossing)
    for side in (-1, 1):
        _fronts(plan, road, walk, side)
    end = END + 8
    for x in np.arange(-30.0, 31.0, 15.0):
        if rng.random() < 0.6:
            plan.add(
                lining.building(14, rng) if rng.random() < 0.5 else lining.tree(rng),
                0,
                x,
                end + rng.uniform(0, 10),
                KERB,
                None,
            )
    fronts = len(plan.boxes)
    _verge(plan, road, walk, crossing)
    _traffic(plan, road)
    _crowd(plan, road, walk, crossing)
    light, sky, haze = _daylight(rng)
    pieces = [piece._replace(instance=i) for i, thing in enumerate(plan.things) for piece in thing]
    return Street(pieces, light, sky, haze, plan.boxes[fronts:], road, walk)
