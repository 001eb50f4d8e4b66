"""Painted and labelled things that stand, lie and hang in rooms.

A thing is a list of pieces in metres, standing on ``z = 0``, centred on the z axis and facing ``-y``. The large pieces
are the parametric shapes of :mod:`isthmus.data.simulators.shapes`; what those do not have (books on shelves, crockery,
pictures, curtains) is made here. Classes are assigned as the 13 classes of NYU Depth v2 usually are: a desk is a table,
a bookcase, a cabinet or a night stand is furniture, pillows, lamps, plants, curtains and boxes are objects, a monitor
is a tv, blinds are part of a window, a rug is floor, a door is wall.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from isthmus.data.readers.class_names import NYU13
from isthmus.data.simulators import palette
from isthmus.data.simulators.render import Piece, placed
from isthmus.data.simulators.shapes import build_shape
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, ball, box, cylinder, grid, moved, rotated, turned

Thing = list[Piece]


def label(name: str) -> int:
    """Return the index of a class of :data:`NYU13`."""
    return NYU13.index(name)


def arranged(thing: Thing, yaw: float, x: float, y: float, z: float = 0.0) -> Thing:
    """Return a thing turned by ``yaw`` degrees and moved to ``(x, y, z)``."""
    return [placed(piece, yaw, (x, y, z)) for piece in thing]


def bounds(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper corner of a thing's box, (3,) each."""
    low = np.min([piece.mesh.vertices.min(axis=0) for piece in thing], axis=0)
    high = np.max([piece.mesh.vertices.max(axis=0) for piece in thing], axis=0)
    return low, high


def top_at(thing: Thing, places: np.ndarray) -> np.ndarray:
    """Return the height of a thing's topmost surface at places (n, 2), ``-inf`` beside it."""
    triangles = np.concatenate([piece.mesh.vertices[piece.mesh.faces] for piece in thing])
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    d1, d2 = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]
    area = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    flat = np.abs(area) > 1e-9
    a, b, c, d1, d2, area = a[flat], b[flat], c[flat], d1[flat], d2[flat], area[flat]
    offset = places[:, None] - a[None, :, :2]
    u = (offset[..., 0] * d2[:, 1] - offset[..., 1] * d2[:, 0]) / area
    v = (d1[:, 0] * offset[..., 1] - d1[:, 1] * offset[..., 0]) / area
    height = a[:, 2] + u * (b[:, 2] - a[:, 2]) + v * (c[:, 2] - a[:, 2])
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    top: np.ndarray = np.where(inside, height, -np.inf).max(axis=1)
    return top


def _soft(mesh: Mesh) -> bool:
    """Whether a part of a shape is a cushion: those are made by ``ball``, with 8 rows of 16 vertices."""
    return len(mesh.vertices) == 128


def _shape(name: str, rng: np.random.Generator) -> list[Mesh]:
    """Return the parts of one of the ten parametric shapes, centred in plan."""
    parts = build_shape(name, rng, wide=bool(rng.random() < 0.3))
    low = np.min([part.vertices.min(axis=0) for part in parts], axis=0)
    high = np.max([part.vertices.max(axis=0) for part in parts], axis=0)
    return [moved(part, (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0)) for part in parts]


def bed(rng: np.random.Generator) -> Thing:
    """A bed with its bedding; pillows are objects, as is nothing else of it."""
    frame, sheet, cover, pillow = palette.surface(rng), palette.cloth(rng), palette.cloth(rng), palette.cloth(rng)
    if rng.random() < 0.25:
        frame = palette.cloth(rng)
    pieces: Thing = []
    soft = 0
    for part in _shape("bed", rng):
        extent = np.ptp(part.vertices, axis=0)
        if not _soft(part):
            # Some beds come with a night stand.
            beside = abs(extent[0] - 0.42) < 1e-9 and abs(extent[1] - 0.4) < 1e-9
            pieces.append(Piece(part, label("furniture" if beside else "bed"), frame))
        elif extent[1] < 0.6:
            pieces.append(Piece(part, label("objects"), pillow))
        else:
            pieces.append(Piece(part, label("bed"), sheet if soft == 0 else cover))
            soft += 1
    return pieces


def sofa(rng: np.random.Generator) -> Thing:
    """A sofa; small loose cushions on it are objects."""
    main, accent = palette.cloth(rng), palette.cloth(rng)
    seat = main if rng.random() < 0.7 else palette.cloth(rng)
    pieces: Thing = []
    for part in _shape("sofa", rng):
        extent = np.ptp(part.vertices, axis=0)
        if _soft(part) and abs(extent[0] - 0.42) < 0.02 and extent[1] < 0.4:
            pieces.append(Piece(part, label("objects"), accent))
        elif _soft(part):
            pieces.append(Piece(part, label("sofa"), seat))
        else:
            pieces.append(Piece(part, label("sofa"), main))
    return pieces


def chair(rng: np.random.Generator) -> Thing:
    """A chair: frame and seat alike or different."""
    frame = palette.metal(rng) if rng.random() < 0.3 else palette.surface(rng)
    seat = palette.cloth(rng) if rng.random() < 0.5 else frame
    parts = _shape("chair", rng)
    extents = [np.ptp(part.vertices, axis=0) for part in parts]
    return [
        Piece(part, label("chair"), seat if extent[0] > 0.3 and extent[1:].max() > 0.2 else frame)
        for part, extent in zip(parts, extents)
    ]


def table(rng: np.random.Generator, low: bool) -> Thing:
    """A coffee table (``low``) or one to sit at, its top and its legs alike or different."""
    parts: list[Mesh] = []
    for _ in range(6):
        parts = _shape("table", rng)
        if (max(part.vertices[:, 2].max() for part in parts) < 0.6) == low:
            break
    top = palette.surface(rng)
    legs = top if rng.random() < 0.6 else palette.metal(rng)
    size = [np.ptp(part.vertices[:, :2], axis=0).min() for part in parts]
    return [Piece(part, label("table"), top if s > 0.3 else legs) for part, s in zip(parts, size)]


def cabinet(rng: np.random.Generator, lowest: float = 0.0, highest: float = 3.0) -> Thing:
    """A cabinet, a wardrobe, a chest or a night stand between two heights, its fronts at times of another colour."""
    parts: list[Mesh] = []
    for _ in range(12):
        parts = _shape("cabinet", rng)
        if lowest <= max(part.vertices[:, 2].max() for part in parts) <= highest:
            break
    body = palette.surface(rng)
    front = body if rng.random() < 0.5 else palette.surface(rng)
    handle = palette.metal(rng)
    pieces: Thing = []
    for part in parts:
        width, depth, height = np.ptp(part.vertices, axis=0)
        if max(width, depth, height) < 0.16:
            paint = handle
        elif depth < 0.03 and width > 0.15:
            # Slightly another shade: gaps between fronts are too narrow to be seen as shadows.
            paint = front._replace(colour=palette.shade(front.colour, 0.9))
        else:
            paint = body
        pieces.append(Piece(part, label("furniture"), paint))
    return pieces


def books_standing(rng: np.random.Generator, width: float, depth: float, height: float) -> Thing:
    """A row of standing books from ``x = 0``, at most ``width`` wide, backs towards ``-y``, now and then one leans."""
    pieces: Thing = []
    x, volumes = 0.0, None
    while x < width - 0.05:
        thick = min(rng.uniform(0.02, 0.075), width - x)
        tall = height * rng.uniform(0.6, 0.97)
        deep = depth * rng.uniform(0.6, 0.95)
        if volumes is None or rng.random() < 0.6:
            volumes = palette.bright(rng)
        spine = box(thick * 0.96, deep, tall, x + thick / 2, -(depth - deep) / 2 + rng.uniform(0, 0.02))
        if rng.random() < 0.06:
            spine = rotated(spine, 1, rng.uniform(-9, 9), (x, 0, 0))
        pieces.append(Piece(spine, label("books"), volumes))
        x += thick
    return pieces


def books_lying(rng: np.random.Generator, count: int) -> Thing:
    """A pile of books."""
    pieces: Thing = []
    z = 0.0
    for _ in range(count):
        thick = rng.uniform(0.02, 0.05)
        cover = box(rng.uniform(0.15, 0.24), rng.uniform(0.2, 0.3), thick)
        pieces.append(placed(Piece(cover, label("books"), palette.bright(rng)), rng.uniform(-15, 15), (0, 0, z)))
        z += thick
    return pieces


def bookcase(rng: np.random.Generator) -> Thing:
    """Shelves with rows of books, some things between them, some shelves empty."""
    width, depth = rng.uniform(0.6, 1.8), rng.uniform(0.24, 0.38)
    height = rng.uniform(0.8, 1.3) if rng.random() < 0.3 else rng.uniform(1.6, 2.2)
    thick = rng.uniform(0.02, 0.04)
    paint = palette.surface(rng)
    inside = paint if rng.random() < 0.6 else palette.lacquer(rng)
    levels = np.linspace(rng.uniform(0.03, 0.12), height - thick, max(round(height / rng.uniform(0.3, 0.45)), 2) + 1)
    columns = np.linspace(-width / 2, width / 2, max(round(width / rng.uniform(0.6, 1.0)), 1) + 1)
    wood: list[Mesh] = [box(thick, depth, height, x) for x in columns]
    wood += [box(width, depth, thick, z=z) for z in levels]
    pieces = [Piece(part, label("furniture"), paint) for part in wood]
    if rng.random() < 0.8:
        pieces.append(Piece(box(width, 0.012, height, y=depth / 2), label("furniture"), inside))
    full = rng.uniform(0.45, 0.95)
    for low, high in pairwise(levels):
        for left, right in pairwise(columns):
            room, clear = right - left - 1.2 * thick, high - low - thick
            x, z = left + 0.6 * thick, low + thick
            kind = rng.random()
            if kind < full:
                start = rng.uniform(0, 0.1) * room
                row = books_standing(rng, room * rng.uniform(0.45, 1.0) - start, depth * 0.8, clear)
                pieces += arranged(row, 0, x + start, -0.02, z)
            elif kind < full + 0.6 * (1 - full):
                for _ in range(int(rng.integers(1, 4))):
                    thing = small_thing(rng, min(clear * 0.9, 0.3))
                    pieces += arranged(thing, rng.uniform(-30, 30), x + rng.uniform(0.15, 0.85) * room, -0.02, z)
    return pieces


def small_thing(rng: np.random.Generator, tallest: float = 0.35) -> Thing:
    """A vase, bottle, bowl, box, ball, cup, basket or figure of at most ``tallest`` metres, an object."""
    paint = palette.bright(rng)
    height, radius = min(rng.uniform(0.08, 0.35), tallest), rng.uniform(0.03, 0.1)
    kind = rng.integers(6)
    if kind == 0:
        profile = [(0.6, 0), (1, 0.3), (1.1, 0.5), (0.4, 0.85), (0.5, 1)]
    elif kind == 1:
        profile = [(0.5, 0), (0.5, 0.6), (0.2, 0.75), (0.18, 1)]
    elif kind == 2:
        height = min(height, 0.12)
        profile = [(0.6, 0), (1.4, 0.6), (1.6, 1), (1.5, 1), (0.5, 0.1)]
    elif kind == 3:
        size = rng.uniform(0.08, 0.3, 2)
        return [Piece(box(size[0], size[1], height), label("objects"), paint)]
    elif kind == 4:
        wide = min(2 * radius + 0.04, tallest)
        return [Piece(ball(wide, wide, wide), label("objects"), paint)]
    else:
        profile = [(0.9, 0), (1, 1)]
    return [Piece(turned([(r * radius, h * height) for r, h in profile], 12), label("objects"), paint)]


def large_thing(rng: np.random.Generator) -> Thing:
    """Something that stands on the floor: a box, bag, basket, bin, ball, toy, suitcase; an object."""
    paint = palette.bright(rng) if rng.random() < 0.6 else palette.cloth(rng)
    width, depth, height = rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.45), rng.uniform(0.15, 0.6)
    kind = rng.integers(5)
    if kind == 0:
        second = box(width * 0.7, depth * 0.8, height * 0.6, 0.03, 0, height)
        pieces = [Piece(box(width, depth, height), label("objects"), paint)]
        if rng.random() < 0.4:
            pieces.append(Piece(second, label("objects"), palette.bright(rng)))
        return pieces
    if kind == 1:
        return [Piece(ball(width, depth, height, rng.uniform(2, 6)), label("objects"), paint)]
    if kind == 2:
        radius = width / 2
        return [
            Piece(turned([(radius * 0.8, 0), (radius, height), (radius * 0.9, height)], 14), label("objects"), paint)
        ]
    if kind == 3:
        body = box(width, depth * 0.5, height)
        strap = box(width * 0.4, 0.03, 0.1, z=height)
        return [Piece(body, label("objects"), paint), Piece(strap, label("objects"), palette.cloth(rng))]
    size = min(width, 0.35)
    return [Piece(ball(size, size, size), label("objects"), paint)]


def plant(rng: np.random.Generator) -> Thing:
    """A plant in its pot, an object."""
    green = palette.colour(rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.65))
    leaf = Paint(green, palette.shade(green, 0.5), "clouds", 0.1, mottle=0.2)
    pot = palette.bright(rng)
    parts = _shape("plant", rng)
    lowest = [part.vertices[:, 2].min() for part in parts]
    return [Piece(part, label("objects"), pot if low < 0.02 else leaf) for part, low in zip(parts, lowest)]


def lamp(rng: np.random.Generator, lowest: float, highest: float, lit: bool) -> tuple[Thing, float]:
    """A lamp between two heights, an object; returns it and the height of its bulb. It glows if ``lit``."""
    parts: list[Mesh] = []
    for _ in range(12):
        parts = _shape("lamp", rng)
        if lowest <= max(part.vertices[:, 2].max() for part in parts) <= highest:
            break
    stand = palette.metal(rng) if rng.random() < 0.6 else palette.lacquer(rng)
    shade = palette.cloth(rng)
    top = max(
        range(len(parts)), key=lambda i: float(parts[i].vertices[:, 2].mean() + 0.5 * np.ptp(parts[i].vertices[:, 0]))
    )
    if lit:
        shade = shade._replace(colour=palette.colour(0.11, 0.2, 0.95), second=palette.colour(0.1, 0.3, 0.85), glow=1.5)
    bulb = float(parts[top].vertices[:, 2].mean())
    return [
        Piece(part, label("objects"), shade if i == top else stand, shadow=not (lit and i == top))
        for i, part in enumerate(parts)
    ], bulb


def screen(rng: np.random.Generator, width: float) -> Thing:
    """A television or monitor on its foot or, hung up, without one: a dark or a running screen in its frame; tv."""
    height, thick = width * rng.uniform(0.54, 0.66), rng.uniform(0.03, 0.09)
    lift = rng.uniform(0.04, 0.12)
    frame = Paint(palette.colour(0.6, 0.05, rng.choice([0.08, 0.15, 0.6])), gloss=0.4, mottle=0.02)
    glass = Paint(palette.colour(0.6, 0.2, rng.uniform(0.03, 0.15)), gloss=0.6, mottle=0.02)
    if rng.random() < 0.35:
        a, b = (palette.colour(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9)) for _ in range(2))
        glass = Paint(a, b, str(rng.choice(["blotches", "landscape"])), glow=rng.uniform(0.4, 1.0))
    pieces = [
        Piece(box(width, thick, height, z=lift), label("tv"), frame),
        Piece(box(width * 0.94, 0.008, height * 0.9, y=-thick / 2, z=lift + height * 0.05), label("tv"), glass),
        Piece(box(width * 0.1, 0.05, lift + 0.02), label("tv"), frame),
        Piece(box(width * 0.4, 0.2, 0.015), label("tv"), frame),
    ]
    return pieces


def monitor(rng: np.random.Generator) -> Thing:
    """A computer's monitor, tv: flat, or one of the parametric shapes."""
    if rng.random() < 0.6:
        return screen(rng, rng.uniform(0.45, 0.7))
    paint = palette.lacquer(rng)
    parts = _shape("monitor", rng)
    return [Piece(part, label("tv"), paint) for part in parts]


def hung_picture(rng: np.random.Generator) -> Thing:
    """A framed picture, mirror-flat, its back in the plane ``y = 0``, its middle at the origin."""
    width = rng.uniform(0.3, 1.4)
    height = width * rng.uniform(0.6, 1.6)
    height = min(height, 1.1)
    bar, thick = rng.uniform(0.015, 0.08), rng.uniform(0.02, 0.05)
    frame = palette.surface(rng) if rng.random() < 0.7 else palette.metal(rng)
    first = palette.colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.2, 1.0))
    second = palette.colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.05, 0.9))
    pattern = str(
        rng.choice(["blotches", "landscape", "clouds", "dots", "stripes", "plain"], p=[0.4, 0.25, 0.15] + [0.2 / 3] * 3)
    )
    canvas = Paint(first, second, pattern, rng.uniform(0.1, 0.4), rng.uniform(0, 0.3))
    pieces = [
        Piece(box(width, thick, height, 0, -thick / 2, -height / 2), label("picture"), frame),
        Piece(
            box(width - 2 * bar, 0.006, height - 2 * bar, 0, -thick - 0.003, -height / 2 + bar),
            label("picture"),
            canvas,
        ),
    ]
    if rng.random() < 0.4 and width > 0.5:
        mount = Paint(palette.colour(0.1, 0.05, 0.95))
        edge = bar + 0.12 * min(width, height)
        pieces[1] = pieces[1]._replace(paint=mount)
        inner = box(width - 2 * edge, 0.006, height - 2 * edge, 0, -thick - 0.008, -height / 2 + edge)
        pieces.append(Piece(inner, label("picture"), canvas))
    return pieces


def curtain(rng: np.random.Generator, width: float, height: float, paint: Paint) -> Thing:
    """A curtain in folds, an object: ``width`` along x around 0, from ``z = 0`` up."""
    x = np.linspace(-width / 2, width / 2, max(int(width / 0.04), 6))
    fold = 0.035 * np.sin(2 * np.pi * x / rng.uniform(0.12, 0.2) + rng.uniform(0, 6))
    rows = [np.stack([x, fold * s, np.full(len(x), z)], axis=1) for z, s in ((0.0, 1.2), (height, 0.7))]
    return [Piece(grid(np.stack(rows)), label("objects"), paint)]


def rug(rng: np.random.Generator) -> Thing:
    """A rectangular or round rug, floor."""
    width, depth = rng.uniform(1.0, 2.6), rng.uniform(0.8, 2.0)
    paint = palette.cloth(rng)._replace(period=rng.uniform(0.1, 0.5))
    if rng.random() < 0.25:
        return [Piece(cylinder(min(width, depth) / 2, 0.012), label("floor"), paint)]
    pieces = [Piece(box(width, depth, 0.01), label("floor"), paint)]
    if rng.random() < 0.5:
        inner = box(width * 0.8, depth * 0.75, 0.014)
        pieces.append(Piece(inner, label("floor"), palette.cloth(rng)))
    return pieces
