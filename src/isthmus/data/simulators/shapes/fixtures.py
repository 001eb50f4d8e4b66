"""What else stands in a home: bathtubs, lamps, monitors, plants."""

from __future__ import annotations

import numpy as np

from isthmus.data.simulators.shapes.draw import Draw, Parts
from isthmus.geometry.meshes import (
    Mesh,
    Vector,
    arch,
    ball,
    blade,
    box,
    cylinder,
    four_corners,
    grid,
    moved,
    ring,
    rod,
    rotated,
    stack,
    tube,
    turned,
)


def bathtub(draw: Draw) -> Parts:
    """Free-standing oval, clawfoot, slipper, built-in with an apron; rarely corner and round tubs."""
    kind = draw.pick(("oval", "clawfoot", "built-in", "built-in"), ("slipper", "corner", "round", "trough"))
    length, width, height = draw.between(1.4, 1.9), draw.between(0.68, 0.9), draw.between(0.45, 0.62)
    if kind == "round":
        length = width = draw.between(1.2, 1.6)
    wall, floor = draw.between(0.04, 0.07), draw.between(0.06, 0.14)
    outer_power, inner_power, foot = 2.3, 2.3, draw.between(0.65, 0.85)
    if kind in ("built-in", "trough"):
        outer_power, inner_power, foot = 16.0, draw.between(2.5, 6.0), 1.0
        wall = draw.between(0.06, 0.12)
    if kind == "trough":
        inner_power, wall, foot = 12.0, 0.05, draw.between(0.75, 0.95)

    def level(share: float, z: float, power: float) -> np.ndarray:
        edge = ring(length * share, width * share, z, power, 28)
        if kind == "corner":
            # Cutting one corner off by pulling it to the centre gives the pentagon of a corner tub.
            diagonal = np.clip((edge[:, 0] / length + edge[:, 1] / width) - 0.15, 0, None)
            edge[:, 0] -= diagonal * length * 0.35
            edge[:, 1] -= diagonal * width * 0.35
        if kind == "slipper":
            edge[:, 2] += z / height * 0.45 * height * np.clip(edge[:, 0] / length + 0.1, 0, None) ** 1.5 * 2
        return edge

    if kind == "corner":
        outer_power, inner_power, foot = 12.0, 4.0, 1.0
        length = width = draw.between(1.2, 1.5)
    rim = 1 - 2 * wall / width
    flare = [level(foot + (1 - foot) * t**0.6, height * t, outer_power) for t in (0.0, 0.25, 0.6, 1.0)]
    lip = [level(rim, height, inner_power)]
    basin_foot = draw.between(0.62, 0.85)
    basin = [
        level(rim * (basin_foot + (1 - basin_foot) * t**0.5), floor + (height - floor) * t, inner_power)
        for t in (0.6, 0.2, 0.0)
    ]
    parts = [stack([*flare, *lip, *basin])]
    if kind == "clawfoot" or (kind == "slipper" and draw.chance(0.5)):
        lift = draw.between(0.1, 0.18)
        parts = [moved(parts[0], (0, 0, lift))]
        for x, y in four_corners(length * 0.62, width * 0.6):
            parts.append(moved(turned([(0.045, 0), (0.025, lift * 0.4), (0.06, lift * 1.3)], 8), (x, y, 0)))
    if draw.chance(0.5):
        top = max(part.vertices[:, 2].max() for part in parts)
        x, reach = -length / 2 + wall * 0.5, draw.between(0.1, 0.2)
        parts.append(tube(arch((x, 0, top - 0.05), (x, 0, top + reach * 1.5), (x + reach, 0, top + 0.03)), 0.018))
        parts.extend(cylinder(0.025, 0.06, x, y, top) for y in (-0.09, 0.09))
    return parts


def _shade(draw: Draw, z: float, radius: float, height: float) -> Mesh:
    """Return a lamp shade whose lower rim is at ``z``: cone, drum, dome or globe."""
    kind = draw.pick(("cone", "drum", "dome"), ("globe", "pagoda", "box"))
    if kind == "globe":
        return ball(radius * 1.5, radius * 1.5, radius * 1.5, z=z)
    if kind == "box":
        return box(radius * 1.5, radius * 1.5, height * 1.2, z=z)
    profiles = {
        "cone": [(1.0, 0.0), (0.5, 1.0)],
        "drum": [(1.0, 0.0), (0.92, 1.0)],
        "dome": [(1.0, 0.0), (0.95, 0.3), (0.75, 0.65), (0.4, 0.9), (0.08, 1.0)],
        "pagoda": [(1.0, 0.0), (0.6, 0.3), (0.4, 0.7), (0.3, 1.0)],
    }
    rings = [ring(2 * r * radius, 2 * r * radius, z + h * height, segments=20) for r, h in profiles[kind]]
    return grid(np.stack(rings), closed=True)


def lamp(draw: Draw) -> Parts:
    """Floor, table, desk and pendant lamps; rarely arc lamps, tripods, chandeliers, torches and lanterns."""
    kind = draw.pick(
        ("floor", "table", "table", "desk", "pendant"),
        ("arc", "tripod", "chandelier", "torch", "lantern", "twin"),
    )
    radius, shade = draw.between(0.14, 0.24), draw.between(0.16, 0.3)
    if kind in ("floor", "torch", "twin"):
        height = draw.between(1.3, 1.7)
        parts = [cylinder(draw.between(0.12, 0.18), 0.03), rod((0, 0, 0.03), (0, 0, height), 0.014)]
        if kind == "torch":
            bowl = [(0.02, height - 0.05), (radius * 0.7, height + 0.02), (radius * 1.2, height + 0.14)]
            parts.append(grid(np.stack([ring(2 * r, 2 * r, z) for r, z in bowl]), closed=True))
        elif kind == "twin":
            for sx, z in ((-1, height * 0.95), (1, height * 0.8)):
                end = np.array([sx * 0.25, 0, z])
                parts += [tube(arch((0, 0, z - 0.2), (sx * 0.2, 0, z - 0.05), end), 0.012)]
                parts.append(moved(rotated(_shade(draw, 0, 0.09, 0.15), 1, sx * -30), end - [0, 0, 0.12]))
        else:
            parts.append(_shade(draw, height - shade, radius, shade * 1.1))
        return parts
    if kind == "table":
        height = draw.between(0.25, 0.42)
        body = draw.pick(("vase", "column", "bottle"), ("figure", "ball"))
        r = draw.between(0.05, 0.1)
        profiles = {
            "vase": [(0.6, 0), (1.0, 0.3), (1.1, 0.55), (0.5, 0.85), (0.25, 1)],
            "column": [(1.3, 0), (1.3, 0.06), (0.25, 0.1), (0.25, 1)],
            "bottle": [(1.0, 0), (1.0, 0.5), (0.3, 0.7), (0.25, 1)],
            "figure": [(1.2, 0), (0.4, 0.15), (0.8, 0.35), (0.3, 0.5), (0.7, 0.75), (0.2, 1)],
            "ball": [(0.5, 0), (1.1, 0.25), (1.4, 0.5), (1.1, 0.75), (0.25, 1)],
        }
        parts = [turned([(p * r, h * height) for p, h in profiles[body]])]
        parts += [rod((0, 0, height), (0, 0, height + shade * 0.8), 0.008)]
        parts.append(_shade(draw, height + 0.02, radius, shade))
        return parts
    if kind == "desk":
        first, second = draw.between(0.28, 0.42), draw.between(0.25, 0.4)
        lean, bend = np.radians(draw.between(55, 85)), np.radians(draw.between(-10, 35))
        elbow = np.array([0, -first * np.cos(lean) * -1, 0.02 + first * np.sin(lean)])
        hand = elbow + np.array([0, -second * np.cos(bend), second * np.sin(bend)])
        parts = [cylinder(draw.between(0.08, 0.12), 0.025)]
        if draw.chance(0.35):
            parts.append(tube(arch((0, 0, 0.02), (0, 0.1, elbow[2] * 1.5), hand, 10), 0.01))
        else:
            parts += [
                rod((0, 0, 0.02), elbow, 0.01),
                rod(elbow, hand, 0.01),
                ball(0.035, 0.035, 0.035, 2, *(elbow - [0, 0, 0.017])),
            ]
        cone = grid(
            np.stack([ring(2 * r, 2 * r, z) for r, z in ((0.085, -0.13), (0.07, -0.06), (0.03, 0.0), (0.02, 0.03))]),
            closed=True,
        )
        parts.append(moved(rotated(cone, 0, -draw.between(0, 45)), hand))
        return parts
    if kind in ("pendant", "lantern"):
        cord = draw.between(0.4, 0.9)
        size = draw.between(0.16, 0.3)
        parts = [rod((0, 0, shade), (0, 0, shade + cord), 0.006), cylinder(0.05, 0.025, z=shade + cord)]
        if kind == "lantern":
            parts += [box(0.015, 0.015, shade, x, y) for x, y in four_corners(size, size)]
            parts += [
                box(size, size, 0.02),
                box(size * 1.15, size * 1.15, 0.03, z=shade),
                cylinder(0.03, shade * 0.6),
            ]
        else:
            parts.append(_shade(draw, 0, size, shade))
        return parts
    if kind == "chandelier":
        arms, reach = draw.count(4, 8), draw.between(0.25, 0.45)
        cord = draw.between(0.3, 0.7)
        parts = [
            rod((0, 0, 0.1), (0, 0, 0.3 + cord), 0.01),
            ball(0.1, 0.1, 0.14),
            cylinder(0.05, 0.02, z=0.3 + cord),
        ]
        for angle in np.linspace(0, 2 * np.pi, arms, endpoint=False):
            end = np.array([reach * np.cos(angle), reach * np.sin(angle), 0.16])
            parts.append(tube(arch((0, 0, 0.08), (*(end[:2] * 0.7), -0.05), end), 0.009))
            cup = ring(0.1, 0.1, 0.26, segments=10), ring(0.05, 0.05, 0.16, segments=10)
            parts.append(moved(grid(np.stack(cup), closed=True), (end[0], end[1], 0)))
        return parts
    if kind == "arc":
        height, reach = draw.between(1.6, 2.0), draw.between(0.7, 1.2)
        path = arch((0, 0, 0.04), (0, 0, height * 1.6), (reach, 0, height * 0.72), 14)
        parts = [cylinder(draw.between(0.15, 0.2), 0.05), tube(path, 0.013)]
        parts.append(moved(_shade(draw, -shade * 0.8, radius, shade * 0.8), path[-1]))
        return parts
    height = draw.between(1.0, 1.4)
    spread = draw.between(0.25, 0.4)
    parts = [
        rod((spread * np.cos(a), spread * np.sin(a), 0), (0, 0, height), 0.014) for a in np.radians([30, 150, 270])
    ]
    parts.append(_shade(draw, height - 0.05, radius * 1.1, shade))
    return parts


def monitor(draw: Draw) -> Parts:
    """Flat panels on several stands and old tube screens; rarely curved, twin, laptops, televisions."""
    kind = draw.pick(("flat", "flat", "flat", "tube"), ("curved", "arm", "laptop", "twin", "television", "keyboard"))
    width = draw.between(0.42, 0.62)
    height = width * draw.pick((0.58, 0.65, 0.78)) * draw.between(0.96, 1.04)
    thick, lift = draw.between(0.025, 0.06), draw.between(0.07, 0.14)
    tilt = draw.between(-3, 12)
    if kind == "tube":
        width, height = draw.between(0.38, 0.5), draw.between(0.34, 0.42)
        deep = draw.between(0.3, 0.45)
        front = ring(width, height, 0, 14, 24)[:, [0, 2, 1]]
        section = ((0.86, 0.04), (0.9, 0.0), (1, 0), (1, 0.3), (0.75, 0.65), (0.6, 1))
        case = stack([front * s + np.array([0, y * deep, lift * 0.6 + height / 2]) for s, y in section])
        foot = ((width * 0.36, 0), (width * 0.34, 0.02), (width * 0.15, 0.03), (width * 0.2, lift * 0.6))
        return [case, moved(turned(foot), (0, deep * 0.45, 0))]
    if kind == "television":
        width, thick = draw.between(0.9, 1.4), draw.between(0.04, 0.08)
        height = width * 0.58
    if kind == "laptop":
        width, deep = draw.between(0.3, 0.4), draw.between(0.21, 0.27)
        lid = rotated(box(width, 0.01, deep, 0, 0, 0.015), 0, -draw.between(5, 40), (0, 0, 0.015))
        return [box(width, deep, 0.02, 0, -deep / 2), lid, box(width * 0.85, deep * 0.4, 0.004, 0, -deep * 0.4, 0.02)]
    panels: Parts = []
    if kind == "curved":
        x = np.linspace(-1, 1, 13)
        bow = -draw.between(0.05, 0.1) * x**2
        width *= 1.3
        outline = ((0, 0), (0, height), (thick, height), (thick, 0), (0, 0))
        rows = [np.stack([x * width / 2, bow + dy, np.full(13, z)], axis=1) for dy, z in outline]
        panels.append(moved(grid(np.stack(rows)), (0, 0, lift)))
    else:
        panels.append(box(width, thick, height, z=lift))
        bezel = draw.between(0.012, 0.03)
        for sign in (-1, 1):
            panels.append(box(bezel, 0.012, height, sign * (width - bezel) / 2, -thick / 2, lift))
            panels.append(box(width, 0.012, bezel, 0, -thick / 2, lift + (height - bezel) * (sign > 0)))
        if draw.chance(0.5):
            panels.append(box(width * 0.5, 0.04, height * 0.5, 0, thick / 2 + 0.02, lift + height * 0.2))
    parts = [rotated(panel, 0, -tilt, (0, 0, lift)) for panel in panels]
    if kind == "twin":
        pair = []
        for sx in (-1, 1):
            pair += [moved(rotated(part, 2, -sx * 15), (sx * width * 0.51, 0, 0)) for part in parts]
        parts = pair
    stand = draw.pick(("plate", "disc", "vee", "sheet"), ("hoop", "feet"))
    if kind == "television":
        stand = draw.pick(("feet", "plate"))
    back, deep = thick / 2 + 0.025, draw.between(0.16, 0.24)
    if kind == "arm":
        z = lift + height / 2
        parts += [rod((0, back, z), (0.12, 0.2, z), 0.02), rod((0.12, 0.2, z), (0, 0.38, z), 0.02)]
        parts += [box(0.12, 0.03, 0.12, 0, back, z - 0.06), box(0.1, 0.02, 0.25, 0, 0.39, z - 0.12)]
        return parts
    if stand == "feet":
        for sx in (-1, 1):
            parts.append(box(0.03, deep, 0.015, sx * width * 0.35))
            parts.append(rod((sx * width * 0.35, 0, 0.01), (sx * width * 0.35, 0, lift + 0.02), 0.012))
        return parts
    if stand == "hoop":
        parts.append(tube(arch((-width * 0.25, -0.08, 0.012), (0, 0.32, 0.012), (width * 0.25, -0.08, 0.012)), 0.012))
        parts.append(rod((0, 0.12, 0.012), (0, back, lift + height * 0.3), 0.015))
        return parts
    if stand == "plate":
        parts.append(box(width * draw.between(0.35, 0.55), deep, 0.015))
    elif stand == "disc":
        parts.append(stack([ring(width * 0.5, deep * 1.1, z) for z in (0, 0.015)]))
    elif stand == "vee":
        parts += [rod((0, 0.06, 0.012), (sx * width * 0.28, -0.12, 0.012), 0.012) for sx in (-1, 1)]
    else:
        parts.append(box(width * 0.3, deep, 0.01))
    parts.append(box(width * 0.3 if stand == "sheet" else draw.between(0.04, 0.1), 0.03, lift + height * 0.35, 0, back))
    if kind == "keyboard":
        parts += [box(0.42, 0.14, 0.02, 0, -0.3), ball(0.06, 0.1, 0.035, 2.5, 0.3, -0.3)]
    return parts


def plant(draw: Draw) -> Parts:
    """Potted grasses, rosettes, bushes, trees, palms; rarely cacti, troughs, flowers, hanging ones."""
    kind = draw.pick(("blades", "rosette", "bush", "tree", "palm"), ("cactus", "trough", "vase", "pot-less", "hanging"))
    radius, pot = draw.between(0.1, 0.2), draw.between(0.18, 0.36)
    rng = draw.rng
    parts: Parts = []
    style = draw.pick(("cone", "cone", "square"), ("urn", "bowl"))
    profiles = {
        "cone": ((0.65, 0), (1.0, 0.9), (1.08, 0.9), (1.08, 1), (0.9, 1), (0.85, 0.88)),
        "urn": ((0.7, 0), (0.35, 0.15), (0.4, 0.3), (1.0, 0.75), (0.9, 0.9), (1.1, 1), (0.8, 1), (0.8, 0.9)),
        "bowl": ((0.5, 0), (1.0, 0.4), (1.15, 0.8), (1.0, 1), (0.9, 1), (0.9, 0.9)),
        "vase": ((0.4, 0), (0.7, 0.3), (0.65, 0.6), (0.3, 0.85), (0.42, 1)),
    }
    if kind == "trough":
        length = draw.between(0.5, 0.9)
        parts.append(box(length, radius * 1.4, pot * 0.7))
        pot *= 0.7
    elif kind == "pot-less":
        pot = 0.0
    elif style == "square" and kind != "vase":
        parts += [box(radius * 1.8, radius * 1.8, pot), box(radius * 2, radius * 2, 0.03, z=pot - 0.03)]
    else:
        profile = profiles["vase" if kind == "vase" else style]
        parts.append(turned([(r * radius, h * pot) for r, h in profile]))

    def leaf(root: np.ndarray, angle: float, length: float, rise: float, droop: float, width: float) -> Mesh:
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        middle = root + out * length * 0.35 + [0, 0, rise * length]
        tip = root + out * length * 0.8 + [0, 0, (rise - droop) * length]
        return blade(arch(root, middle, tip, 6), width)

    def crown(centre: np.ndarray, size: Vector, leaves: int, width: float) -> Parts:
        """Scatter leaves over an ellipsoid, all pointing outward and a little up."""
        direction = rng.normal(size=(leaves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        reach = rng.uniform(0.45, 1.0, size=(leaves, 1)) ** 0.5
        roots = centre + direction * reach * np.asarray(size)
        ends = roots + (direction + np.array([0, 0, 0.2])) * width * rng.uniform(1.0, 2.0, size=(leaves, 1))
        side = np.cross(ends - roots, rng.normal(size=(leaves, 3)))
        side *= width / 2 / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
        middle = (roots + ends) / 2
        vertices = np.stack([roots, middle + side, ends, middle - side], axis=1).reshape(-1, 3)
        first = np.arange(leaves)[:, None] * 4
        return [Mesh(vertices, np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])]))]

    top = np.array([0.0, 0.0, pot * 0.92])
    if kind in ("blades", "trough", "vase"):
        leaves, length = draw.count(9, 22), draw.between(0.4, 0.85)
        width, droop, rise = draw.between(0.03, 0.09), draw.between(0.0, 0.5), draw.between(0.6, 1.1)
        for _ in range(leaves):
            root = top + rng.uniform(-0.4, 0.4, 3) * [radius, radius, 0]
            if kind == "trough":
                root[0] = rng.uniform(-0.42, 0.42) * length
            parts.append(
                leaf(
                    root,
                    rng.uniform(0, 2 * np.pi),
                    length * rng.uniform(0.6, 1.1),
                    rise,
                    droop * rng.uniform(0.5, 1.5),
                    width,
                )
            )
            if kind == "vase":
                tip = parts[-1].vertices[-2]
                parts.append(ball(0.08, 0.08, 0.06, 2, *tip))
    elif kind == "rosette":
        tiers, length = draw.count(2, 4), draw.between(0.25, 0.5)
        for tier in range(tiers):
            number = draw.count(5, 8)
            for angle in np.linspace(0, 2 * np.pi, number, endpoint=False) + tier * 0.4:
                rise = 0.25 + 0.35 * tier
                stem = top + np.array([0, 0, 0.03 * tier])
                parts.append(
                    leaf(
                        stem,
                        angle,
                        length * rng.uniform(0.8, 1.1),
                        rise,
                        draw.between(0.1, 0.5),
                        length * draw.between(0.28, 0.45),
                    )
                )
    elif kind in ("bush", "hanging"):
        size = np.array([draw.between(0.2, 0.4), 0, draw.between(0.2, 0.45)])
        size[1] = size[0]
        centre = top + np.array([0, 0, size[2] * 0.9])
        if kind == "hanging":
            centre = top - [0, 0, size[2] * 0.3]
            hook = draw.between(0.4, 0.7)
            parts += [
                rod((radius * np.cos(a), radius * np.sin(a), pot), (0, 0, pot + hook), 0.006) for a in (0, 2.1, 4.2)
            ]
        else:
            parts.append(rod(top, centre, 0.02))
        parts += crown(centre, size, draw.count(90, 220), draw.between(0.05, 0.11))
    elif kind in ("tree", "pot-less"):
        height = draw.between(0.6, 1.2)
        bend = rng.uniform(-0.12, 0.12, 2)
        tip = top + np.array([*bend, height])
        parts.append(tube(arch(top * [1, 1, 0.9], top + np.array([0, 0, height / 2]), tip), draw.between(0.015, 0.035)))
        for _ in range(draw.count(2, 5)):
            blob = draw.between(0.16, 0.3)
            start = top + (tip - top) * rng.uniform(0.5, 0.9)
            centre = tip + rng.normal(size=3) * [0.16, 0.16, 0.12]
            parts.append(rod(start, centre, 0.012))
            parts += crown(centre, (blob, blob, blob * 0.8), draw.count(35, 70), draw.between(0.06, 0.11))
    elif kind == "palm":
        height, length = draw.between(0.3, 0.9), draw.between(0.4, 0.7)
        tip = top + np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), height])
        parts.append(tube(arch(top * [1, 1, 0.9], top + np.array([0, 0, height / 2]), tip), draw.between(0.02, 0.05)))
        for angle in np.linspace(0, 2 * np.pi, draw.count(7, 12), endpoint=False):
            out, rise, droop = length * rng.uniform(0.8, 1.1), draw.between(0.3, 0.7), draw.between(0.3, 0.9)
            parts.append(leaf(tip, angle + rng.uniform(-0.2, 0.2), out, rise, droop, draw.between(0.08, 0.16)))
    else:
        height, r = draw.between(0.3, 0.8), draw.between(0.06, 0.11)
        parts.append(
            moved(turned([(r, 0), (r * 1.1, height * 0.5), (r * 0.9, height * 0.9), (r * 0.4, height)], 12), top)
        )
        for sx in (-1, 1)[: draw.count(0, 2)]:
            z, out = height * draw.between(0.3, 0.5), r + draw.between(0.08, 0.15)
            path = arch((0, 0, z), (sx * out * 1.3, 0, z), (sx * out, 0, z + height * 0.35))
            parts.append(moved(tube(path, r * 0.5), top))
    return parts
