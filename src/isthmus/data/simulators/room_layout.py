"""Furnished rooms: which things, where they stand, and what lights them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import furniture, palette
from isthmus.data.simulators.furniture import Thing, arranged, bounds, label, top_at
from isthmus.data.simulators.render import Lamp, Lighting, Opening, Piece, Sun
from isthmus.data.simulators.room_shell import Shell, ceiling_light, empty_room, on_wall
from isthmus.data.simulators.textures import Colour
from isthmus.geometry.meshes import rod

# How often each kind of room is drawn.
KINDS = {"bedroom": 0.3, "living": 0.3, "study": 0.2, "dining": 0.2}


class Room(NamedTuple):
    """A room to look at.

    ``pieces`` are numbered by instance; ``boxes`` (n, 2, 3) are the corners of what stands on the floor, where no
    camera can be; ``sights`` (m, 4) are the middles of things worth looking at and their sizes; ``extent`` is width,
    depth and height.
    """

    pieces: list[Piece]
    light: Lighting
    boxes: np.ndarray
    sights: np.ndarray
    extent: tuple[float, float, float]


class _Plan:
    """A room while it is being furnished."""

    def __init__(self, shell: Shell, rng: np.random.Generator) -> None:
        self.shell = shell
        self.rng = rng
        self.things: list[Thing] = list(shell.things)
        self.boxes: list[np.ndarray] = []
        self.sights: list[np.ndarray] = []
        self.lamps: list[Lamp] = []

    def clear(self, low: np.ndarray, high: np.ndarray, margin: float = 0.03, under: np.ndarray | None = None) -> bool:
        """Whether a box stands inside the room, clear of the doors and of all that stands there but ``under``."""
        w, d = self.shell.width / 2, self.shell.depth / 2
        if low[0] < -w + 0.005 or high[0] > w - 0.005 or low[1] < -d + 0.005 or high[1] > d - 0.005:
            return False
        for wall, left, right in self.shell.doors:
            swing = on_wall(
                self.shell, wall, [Piece(rod((left, -0.8, 0), (right, 0, 1), 0.01), 0, palette.Paint((0, 0, 0)))], 0
            )
            a, b = bounds(swing)
            if (low[:2] < b[:2]).all() and (high[:2] > a[:2]).all():
                return False
        return not any(
            (low < box[1] + margin).all()
            and (high > box[0] - margin).all()
            and not (under is not None and np.array_equal(box, under))
            for box in self.boxes
        )

    def add(self, thing: Thing, stands: bool = True) -> None:
        """Take a thing that is where it belongs."""
        self.things.append(thing)
        low, high = bounds(thing)
        if stands:
            self.boxes.append(np.stack([low, high]))
        self.sights.append(np.append((low + high) / 2, np.linalg.norm(high - low)))

    def against(self, thing: Thing, tries: int = 14, wall: int | None = None, slack: float = 0.08) -> int | None:
        """Stand a thing with its back to a wall; return which, or None if there was no place."""
        low, high = bounds(thing)
        for _ in range(tries):
            k = int(self.rng.integers(4)) if wall is None else wall
            room = self.shell.length(k) / 2
            left, right = -room - low[0] + 0.02, room - high[0] - 0.02
            if left > right:
                continue
            x = (
                left
                if self.rng.random() < 0.15
                else right
                if self.rng.random() < 0.15
                else self.rng.uniform(left, right)
            )
            covered = any(
                h.wall == k and high[2] > h.low + 0.25 and x + low[0] < h.right and x + high[0] > h.left
                for h in self.shell.windows
            )
            if covered and self.rng.random() < 0.85:
                continue
            tilted = arranged(thing, self.rng.normal() * 2.0 if self.rng.random() < 0.3 else 0.0, 0, 0)
            back = bounds(tilted)[1][1]
            there = on_wall(self.shell, k, tilted, x, -back - 0.025 - self.rng.uniform(0, slack))
            if self.clear(*bounds(there)):
                self.add(there)
                return k
        return None

    def free(self, thing: Thing, tries: int = 14, yaw: float | None = None, margin: float = 0.05) -> bool:
        """Stand a thing anywhere, turned any way; return whether there was a place."""
        w, d = self.shell.width / 2, self.shell.depth / 2
        for _ in range(tries):
            turn = self.rng.uniform(0, 360) if yaw is None else yaw + self.rng.normal() * 5
            there = arranged(thing, turn, self.rng.uniform(-w, w) * 0.85, self.rng.uniform(-d, d) * 0.85)
            if self.clear(*bounds(there), margin):
                self.add(there)
                return True
        return False

    def beside(self, thing: Thing, place: np.ndarray, yaw: float) -> bool:
        """Stand a thing at one place if it is clear; return whether it was."""
        there = arranged(thing, yaw, place[0], place[1])
        if not self.clear(*bounds(there), 0.0):
            return False
        self.add(there)
        return True

    def hang(self, thing: Thing, height: float, wall: int | None = None, x: float | None = None) -> bool:
        """Hang a thing on a wall with its origin ``height`` above the floor; not over windows, doors, tall things."""
        low, high = bounds(thing)
        for _ in range(8):
            k = int(self.rng.integers(4)) if wall is None else wall
            room = self.shell.length(k) / 2
            if -room - low[0] + 0.1 > room - high[0] - 0.1:
                continue
            at = self.rng.uniform(-room - low[0] + 0.1, room - high[0] - 0.1) if x is None else x
            left, right = at + low[0] - 0.08, at + high[0] + 0.08
            if any(h.wall == k and left < h.right + 0.45 and right > h.left - 0.45 for h in self.shell.windows):
                continue
            if any(k == w and left < b and right > a for w, a, b in self.shell.doors):
                continue
            there = on_wall(self.shell, k, thing, at, -0.01, height)
            if self.clear(*bounds(there), 0.0) and bounds(there)[1][2] < self.shell.height - 0.1:
                self.add(there)
                return True
        return False

    def onto(self, support: Thing, things: list[Thing], turn: float = 180.0) -> None:
        """Put things on top of another, wherever it is flat enough."""
        low, high = bounds(support)
        taken: list[tuple[float, float, float]] = []
        for thing in things:
            a, b = bounds(thing)
            half = max((b - a)[:2].max() / 2 * 0.8, 0.03)
            for _ in range(5):
                if (high - low)[0] < 2 * half or (high - low)[1] < 2 * half:
                    break
                x, y = self.rng.uniform(low[0] + half, high[0] - half), self.rng.uniform(low[1] + half, high[1] - half)
                spots = np.array([(x, y), *((x + i * half, y + j * half) for i in (-1, 1) for j in (-1, 1))])
                tops = top_at(support, spots)
                crowded = any(abs(x - p) < half + r and abs(y - q) < half + r for p, q, r in taken)
                if np.isfinite(tops).all() and np.ptp(tops) < 0.02 and not crowded:
                    there = arranged(thing, self.rng.uniform(-turn, turn), x, y, float(tops.max()))
                    if bounds(there)[1][2] < self.shell.height:
                        self.add(there, stands=False)
                        taken.append((x, y, half))
                    break


def _middle(thing: Thing) -> np.ndarray:
    """Return the middle of a thing in plan, (2,)."""
    low, high = bounds(thing)
    middle: np.ndarray = (low + high)[:2] / 2
    return middle


def _turned(x: float, y: float, degrees: float) -> np.ndarray:
    """Return a vector in plan, (2,), turned counter-clockwise."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([c * x - s * y, s * x + c * y])


def _table_with(plan: _Plan, thing: Thing, clutter: int) -> None:
    """Put some books and small things on the last thing placed."""
    rng = plan.rng
    things: list[Thing] = []
    for _ in range(clutter):
        kind = rng.random()
        if kind < 0.22:
            things.append(furniture.books_lying(rng, int(rng.integers(1, 6))))
        elif kind < 0.34:
            row = furniture.books_standing(rng, rng.uniform(0.15, 0.5), 0.2, rng.uniform(0.2, 0.3))
            low, high = bounds(row)
            things.append(arranged(row, 0, -(low + high)[0] / 2, -(low + high)[1] / 2))
        elif kind < 0.42:
            things.append(furniture.plant(rng))
            low, high = bounds(things[-1])
            if (high - low).max() > 0.5:
                things.pop()
        else:
            things.append(furniture.small_thing(rng))
    plan.onto(thing, things)


def _lamp_on(plan: _Plan, support: Thing) -> None:
    """Put a table lamp on a thing."""
    lit = bool(plan.rng.random() < 0.5)
    thing, bulb = furniture.lamp(plan.rng, 0.3, 0.75, lit)
    before = len(plan.things)
    plan.onto(support, [thing])
    if len(plan.things) > before and lit:
        low, high = bounds(plan.things[-1])
        x, y = (low + high)[:2] / 2
        plan.lamps.append(Lamp((float(x), float(y), float(low[2] + bulb)), _warm(plan.rng, 0.5), 0.1))


def _warm(rng: np.random.Generator, power: float) -> Colour:
    """Return the colour of a lamp between candle light and daylight tubes."""
    warm = rng.uniform(0, 1)
    level = power * rng.uniform(0.6, 1.5)
    return (level, level * (0.98 - 0.22 * warm), level * (0.95 - 0.5 * warm))


def _bedroom(plan: _Plan) -> None:
    rng = plan.rng
    thing = furniture.bed(rng)
    wall = plan.against(thing, 30)
    if wall is not None:
        own = plan.things[-1]
        low, high = bounds(thing)
        for side in (-1, 1):
            if rng.random() < 0.6:
                stand = furniture.cabinet(rng, 0.3, 0.75)
                a, b = bounds(stand)
                # In the bed's own frame, then with the bed to its wall.
                x = high[0] + (b[0] - a[0]) / 2 + 0.05 if side > 0 else low[0] - (b[0] - a[0]) / 2 - 0.05
                place = _middle(own) + _turned(x, high[1] - b[1], -90.0 * wall)
                if plan.beside(stand, place, -90.0 * wall):
                    support = plan.things[-1]
                    if rng.random() < 0.6:
                        _lamp_on(plan, support)
                    else:
                        _table_with(plan, support, int(rng.integers(1, 3)))
        if rng.random() < 0.4:
            _table_with(plan, own, int(rng.integers(1, 3)))
    if rng.random() < 0.8:
        plan.against(furniture.cabinet(rng, 1.5, 2.3))
    if rng.random() < 0.6:
        found = plan.against(furniture.cabinet(rng, 0.6, 1.3))
        if found is not None:
            support = plan.things[-1]
            if rng.random() < 0.4:
                plan.onto(support, [arranged(furniture.screen(rng, rng.uniform(0.6, 0.9)), -90.0 * found, 0, 0)], 15)
            _table_with(plan, support, int(rng.integers(1, 5)))
    if rng.random() < 0.5:
        _desk(plan)
    if rng.random() < 0.4:
        plan.free(furniture.chair(rng))


def _desk(plan: _Plan) -> None:
    """A table at a wall with a monitor, a chair before it and things on it."""
    rng = plan.rng
    wall = plan.against(furniture.table(rng, low=False))
    if wall is None:
        return
    own = plan.things[-1]
    low, high = bounds(own)
    if rng.random() < 0.7:
        screens = [arranged(furniture.monitor(rng), -90.0 * wall, 0, 0) for _ in range(int(rng.integers(1, 3)))]
        plan.onto(own, screens, 20)
    _table_with(plan, own, int(rng.integers(2, 7)))
    if rng.random() < 0.45:
        _lamp_on(plan, own)
    seat = furniture.chair(rng)
    turn = -90.0 * wall
    away = (high - low)[1 - wall % 2] / 2 + rng.uniform(0.15, 0.4)
    plan.beside(seat, _middle(own) + _turned(0, -away, turn), turn + 180 + rng.normal() * 25)


def _living(plan: _Plan) -> None:
    rng = plan.rng
    wall = None
    for _ in range(int(rng.integers(1, 4))):
        found = plan.against(furniture.sofa(rng), 20, slack=0.5)
        wall = found if found is not None else wall
    if wall is not None:
        own = next(thing for thing in reversed(plan.things) if any(piece.label == label("sofa") for piece in thing))
        low, high = bounds(own)
        away = (high - low)[1 - wall % 2] / 2 + rng.uniform(0.55, 0.9)
        place = _middle(own) + _turned(0, -away, -90.0 * wall)
        if rng.random() < 0.8 and plan.beside(furniture.table(rng, low=True), place, -90.0 * wall):
            _table_with(plan, plan.things[-1], int(rng.integers(2, 6)))
    _television(plan, None if wall is None else (wall + 2) % 4)
    for _ in range(int(rng.integers(0, 4))):
        plan.free(furniture.chair(rng))


def _television(plan: _Plan, wall: int | None) -> None:
    """A television on a low board or on the wall itself."""
    rng = plan.rng
    if rng.random() < 0.6:
        found = plan.against(furniture.cabinet(rng, 0.35, 0.95), wall=wall)
        if found is not None:
            board = plan.things[-1]
            low, high = bounds(board)
            width = min(rng.uniform(0.75, 1.3), 1.1 * float((high - low)[:2].max()))
            plan.onto(board, [arranged(furniture.screen(rng, width), -90.0 * found, 0, 0)], 6)
            _table_with(plan, board, int(rng.integers(0, 4)))
            return
    width = rng.uniform(0.8, 1.4)
    panel = [piece for piece in furniture.screen(rng, width) if np.ptp(piece.mesh.vertices[:, 0]) > 0.5 * width]
    back = max(piece.mesh.vertices[:, 1].max() for piece in panel)
    plan.hang(arranged(panel, 0, 0, -back - 0.01), rng.uniform(0.6, 1.1), wall)


def _study(plan: _Plan) -> None:
    rng = plan.rng
    for _ in range(int(rng.integers(1, 3))):
        _desk(plan)
    for _ in range(int(rng.integers(1, 3))):
        plan.against(furniture.bookcase(rng))
    if rng.random() < 0.6:
        plan.against(furniture.cabinet(rng))
    if rng.random() < 0.4:
        plan.against(furniture.sofa(rng))
    if rng.random() < 0.4:
        plan.free(furniture.chair(rng))


def _dining(plan: _Plan) -> None:
    rng = plan.rng
    board = furniture.table(rng, low=False)
    if plan.free(board, 30, float(rng.choice([0, 90])), 0.3):
        own = plan.things[-1]
        low, high = bounds(own)
        _table_with(plan, own, int(rng.integers(2, 7)))
        model = furniture.chair(rng)
        for side in range(4):
            along, out = (0, 1) if side % 2 == 0 else (1, 0)
            for at in np.linspace(low[along], high[along], max(int((high - low)[along] / 0.6), 1) + 2)[1:-1]:
                if rng.random() < 0.25:
                    continue
                place = np.zeros(2)
                place[along] = at
                reach = rng.uniform(0.0, 0.35)
                place[out] = high[out] + reach if side < 2 else low[out] - reach
                # A chair's back is at its +y: turn it away from the table.
                turn = (0.0, -90.0, 180.0, 90.0)[side]
                there = arranged(model, turn + rng.normal() * 8, place[0], place[1])
                if plan.clear(*bounds(there), 0.0, under=np.stack([low, high])):
                    plan.add(there)
    for _ in range(int(rng.integers(1, 3))):
        if plan.against(furniture.cabinet(rng)) is not None:
            _table_with(plan, plan.things[-1], int(rng.integers(0, 5)))
    if rng.random() < 0.3:
        plan.against(furniture.sofa(rng))


def furnished_room(rng: np.random.Generator) -> Room:
    """Return a random room with everything in it."""
    day = float(rng.choice([rng.uniform(0.5, 1.0), rng.uniform(0.0, 0.15)], p=[0.75, 0.25]))
    shell = empty_room(day, rng)
    plan = _Plan(shell, rng)
    if rng.random() < 0.45:
        w, d = shell.width / 2, shell.depth / 2
        mat = arranged(
            furniture.rug(rng),
            float(rng.choice([0, 90])) + rng.normal() * 6,
            rng.uniform(-0.3, 0.3) * w,
            rng.uniform(-0.3, 0.3) * d,
            0.001,
        )
        low, high = bounds(mat)
        if (low[:2] > [-w, -d]).all() and (high[:2] < [w, d]).all():
            plan.things.append(mat)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    {"bedroom": _bedroom, "living": _living, "study": _study, "dining": _dining}[kind](plan)
    if kind != "living" and rng.random() < 0.3:
        _television(plan, None)
    if rng.random() < 0.6:
        plan.against(furniture.bookcase(rng))
    if rng.random() < 0.5:
        plan.free(furniture.chair(rng))
    if rng.random() < 0.4 and plan.against(furniture.cabinet(rng)) is not None:
        _table_with(plan, plan.things[-1], int(rng.integers(0, 4)))
    for _ in range(int(rng.integers(0, 4))):
        plan.hang(furniture.hung_picture(rng), rng.uniform(1.4, 1.75))
    for _ in range(int(rng.integers(0, 4))):
        plan.hang(furniture.hung_picture(rng), rng.uniform(1.4, 1.75))
    for _ in range(int(rng.integers(0, 3))):
        plan.against(furniture.plant(rng), 6)
    if rng.random() < 0.5:
        lit = bool(rng.random() < 0.6)
        thing, bulb = furniture.lamp(rng, 1.1, 2.1, lit)
        if plan.against(thing, 8) is not None and lit:
            x, y = (plan.boxes[-1][0] + plan.boxes[-1][1])[:2] / 2
            plan.lamps.append(Lamp((float(x), float(y), bulb), _warm(rng, 0.7), 0.15))
    for _ in range(int(rng.integers(1, 6))):
        if rng.random() < 0.5:
            plan.free(furniture.large_thing(rng), 6)
        else:
            plan.against(furniture.large_thing(rng), 6)
    return _finished(plan, day)


def _finished(plan: _Plan, day: float) -> Room:
    """Light the room and number its things."""
    rng, shell = plan.rng, plan.shell
    lamps = list(plan.lamps)
    if rng.random() < 0.75 or not (shell.windows or lamps):
        x, y = rng.uniform(-0.25, 0.25) * shell.width, rng.uniform(-0.25, 0.25) * shell.depth
        lamps.append(Lamp((x, y, shell.height - 0.2), _warm(rng, rng.choice([1.0, 2.5])), 0.15))
        plan.things.append(arranged(ceiling_light(shell.height, rng), 0, x, y))
    openings = []
    blue = rng.uniform(0.0, 0.25)
    for hole in shell.windows:
        across = np.array([(hole.right - hole.left) / 2, 0, 0])
        frame = [Piece(rod((0, -0.02, 0), (0, -0.02, 1), 0.01), 0, palette.Paint((0, 0, 0)))]
        centre = on_wall(shell, hole.wall, frame, (hole.left + hole.right) / 2, -0.02, (hole.low + hole.high) / 2)[
            0
        ].origin
        turn = np.radians(-90.0 * hole.wall)
        c, s = float(np.cos(turn)), float(np.sin(turn))
        level = 1.2 * day + 0.02
        openings.append(
            Opening(
                centre,
                (c * across[0], s * across[0], 0.0),
                (0.0, 0.0, (hole.high - hole.low) / 2),
                (s, -c, 0.0),
                (level * (1 - blue), level, level * (1 + 0.5 * blue)),
            )
        )
    sun = None
    if openings and day > 0.4 and rng.random() < 0.5:
        # The sun stands where it shines in through one of the windows.
        chosen = openings[int(rng.integers(len(openings)))]
        out = -np.array(chosen.normal)
        flat = _turned(out[0], out[1], rng.uniform(-55, 55))
        lift = np.radians(rng.uniform(18, 50))
        x, y, z = flat[0] * np.cos(lift), flat[1] * np.cos(lift), np.sin(lift)
        level = rng.uniform(1.0, 3.0) * day
        sun = Sun((float(x), float(y), float(z)), (level, level * 0.93, level * 0.8))
    # Light that has bounced takes on the colour of the walls.
    total = 0.12 + 0.25 * day * min(len(openings), 2) / 2 + 0.06 * len(lamps) + (0.1 if sun else 0)
    tint = 0.5 + 0.5 * shell.tint / max(shell.tint.max(), 0.05)
    sky, ground = rng.uniform(0.7, 1.1) * total * tint, rng.uniform(0.4, 0.9) * total * tint
    light = Lighting(
        tuple(lamps),
        tuple(openings),
        sun,
        (float(sky[0]), float(sky[1]), float(sky[2])),
        (float(ground[0]), float(ground[1]), float(ground[2])),
        reach=float(rng.uniform(0.6, 1.4)),
    )
    pieces = [piece._replace(instance=i) for i, thing in enumerate(plan.things) for piece in thing]
    return Room(
        pieces,
        light,
        np.array(plan.boxes).reshape(-1, 2, 3),
        np.array(plan.sights).reshape(-1, 4),
        (shell.width, shell.depth, shell.height),
    )
