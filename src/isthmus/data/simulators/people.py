"""Articulated people in clothes, labelled by part of the body.

A person stands on ``z = 0`` over the origin and faces ``-y``. Lengths of limbs are shares of the height close to those
of Drillis and Contini (1966), as tabled in Winter, "Biomechanics and motor control of human movement": thigh 0.245,
shank 0.246, upper arm 0.186, forearm 0.146, hips at 0.53, shoulders at 0.818. Hands count as lower arms, feet and shoes
as lower legs, hair and neck as head, a skirt as upper legs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators.lowpoly import blob, limb
from isthmus.data.simulators.render import Piece
from isthmus.data.simulators.textures import Paint
from isthmus.geometry.meshes import Mesh, Vector, moved, ring, rotated, rotation, stack

BODY_PARTS = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")

_HEAD, _TORSO, _UPPER_ARM, _LOWER_ARM, _UPPER_LEG, _LOWER_LEG = range(1, 7)


class Pose(NamedTuple):
    """Angles in degrees, left and right; positive swings a limb forward, bends an elbow or a knee, leans forward."""

    hips: tuple[float, float]
    knees: tuple[float, float]
    shoulders: tuple[float, float]
    elbows: tuple[float, float]
    spread: float = 6.0
    lean: float = 0.0


def walking(rng: np.random.Generator) -> Pose:
    """A moment of a step: the legs apart, arms against them, the rear knee bent."""
    phase = rng.uniform(0, 2 * np.pi)
    stride, swing = rng.uniform(12, 32), rng.uniform(8, 35)
    left, right = stride * np.sin(phase), -stride * np.sin(phase)
    bend = rng.uniform(10, 55)
    knees = (bend * max(0.0, -np.cos(phase)) + 4, bend * max(0.0, np.cos(phase)) + 4)
    elbow = rng.uniform(5, 45)
    return Pose(
        (float(left), float(right)),
        (float(knees[0]), float(knees[1])),
        (float(-swing * np.sin(phase)), float(swing * np.sin(phase))),
        (float(elbow), float(elbow + rng.uniform(-5, 20))),
        float(rng.uniform(3, 10)),
        float(rng.uniform(0, 8)),
    )


def standing(rng: np.random.Generator) -> Pose:
    """At rest: arms down, crossed, raised to a telephone, or on the hips."""
    kind = rng.integers(4)
    shoulders, elbows = (0.0, 0.0), (rng.uniform(0, 20), rng.uniform(0, 20))
    if kind == 1:
        shoulders, elbows = (30.0, 5.0), (rng.uniform(90, 140), rng.uniform(0, 20))
    elif kind == 2:
        shoulders, elbows = (25.0, 25.0), (100.0, 95.0)
    elif kind == 3:
        shoulders, elbows = (5.0, rng.uniform(60, 120)), (10.0, 15.0)
    hip = rng.uniform(-3, 6)
    return Pose(
        (float(hip), float(-hip)),
        (3.0, 3.0),
        shoulders,
        (float(elbows[0]), float(elbows[1])),
        float(rng.uniform(3, 14)),
        float(rng.uniform(-2, 5)),
    )


def riding(rng: np.random.Generator) -> Pose:
    """On a bicycle: one pedal down, hands on the handlebar."""
    hips, knees = (80.0, 38.0), (95.0, 45.0)
    if rng.random() < 0.5:
        hips, knees = hips[::-1], knees[::-1]
    return Pose(hips, knees, (62.0, 62.0), (12.0, 12.0), 9.0, float(rng.uniform(12, 32)))


def _swung(vector: Vector, forward: float, outward: float = 0.0) -> np.ndarray:
    """Return a vector that hangs down, swung forward (to ``-y``) and outward (to ``+x``), degrees."""
    turned: np.ndarray = rotation(1, -outward) @ rotation(0, -forward) @ np.asarray(vector, dtype=np.float64)
    return turned


def person(rng: np.random.Generator, label: int, pose: Pose | None = None, seat: float | None = None) -> list[Piece]:
    """Return a person in random clothes.

    Args:
        rng: source of all choices.
        label: the class of all pieces.
        pose: how they stand; walking or standing by default.
        seat: height of the hips, metres; by default the lower foot is on the ground.

    Returns:
        Pieces with their ``part`` from :data:`BODY_PARTS`.
    """
    tall = rng.normal(1.71, 0.09) if rng.random() < 0.88 else rng.uniform(1.05, 1.45)
    tall = float(np.clip(tall, 1.0, 2.0))
    broad = tall * rng.uniform(0.88, 1.25)
    if pose is None:
        pose = walking(rng) if rng.random() < 0.7 else standing(rng)
    tone = rng.uniform(0.25, 1.0)
    skin = Paint(palette.colour(rng.uniform(0.04, 0.08), 0.62 - 0.3 * tone, 0.25 + 0.7 * tone), mottle=0.03)
    hair = Paint(palette.colour(0.08, rng.uniform(0.1, 0.7), rng.choice([0.08, 0.2, 0.4, 0.75])), mottle=0.15)
    top, bottom, shoe = palette.cloth(rng), palette.cloth(rng), palette.lacquer(rng)
    if rng.random() < 0.5:
        bottom = Paint(palette.colour(rng.uniform(0.55, 0.7), rng.uniform(0, 0.6), rng.uniform(0.08, 0.5)), mottle=0.1)
    top, bottom = top._replace(period=top.period * 0.5), bottom._replace(period=bottom.period * 0.5)
    short_sleeves, shorts, skirt = rng.random() < 0.35, rng.random() < 0.2, rng.random() < 0.2
    pieces: list[Piece] = []

    def add(mesh: Mesh, part: int, paint: Paint) -> None:
        pieces.append(Piece(mesh, label, paint, part=part))

    hip = np.zeros(3)
    lowest = 0.0
    for side, angle, bend in ((1, pose.hips[0], pose.knees[0]), (-1, pose.hips[1], pose.knees[1])):
        socket = hip + np.array([side * 0.052 * broad, 0, 0])
        knee = socket + _swung([0, 0, -0.245 * tall], angle, side * 2)
        ankle = knee + _swung([0, 0, -0.235 * tall], angle - bend, side * 1)
        add(limb(socket, knee, 0.05 * broad, 0.036 * broad), _UPPER_LEG, bottom)
        add(limb(knee, ankle, 0.036 * broad, 0.026 * broad), _LOWER_LEG, skin if shorts or skirt else bottom)
        foot = blob((0.055 * broad, 0.15 * tall, 0.05 * tall), (0, -0.035 * tall, -0.04 * tall), 6, 3, 0.6)
        foot = rotated(foot, 0, -0.5 * (angle - bend))
        add(moved(foot, ankle), _LOWER_LEG, shoe)
        lowest = min(lowest, float(pieces[-1].mesh.vertices[:, 2].min()))
    if skirt and seat is None:
        hem = rng.uniform(0.15, 0.4) * tall
        outline = ((0.17, 0.06 * tall), (0.22, -0.05 * tall), (0.3, -hem))
        rings = [ring(w * broad, w * 0.75 * broad, z, segments=10) for w, z in outline]
        add(stack(rings), _UPPER_LEG, top if rng.random() < 0.4 else bottom)
    shoulder = 0.288 * tall
    sections = ((0.17, 0.12, -0.03), (0.18, 0.125, 0.05), (0.16, 0.115, 0.4), (0.19, 0.13, 0.75), (0.2, 0.1, 0.96))
    trunk = [ring(w * broad, d * broad, z * shoulder, 2.6, 10) for w, d, z in (*sections, (0.07, 0.07, 1.08))]
    add(rotated(stack(trunk), 0, pose.lean), _TORSO, top)
    lean = rotation(0, pose.lean)
    for side, angle, bend in ((1, pose.shoulders[0], pose.elbows[0]), (-1, pose.shoulders[1], pose.elbows[1])):
        socket = lean @ [side * 0.108 * broad, 0, 0.92 * shoulder]
        elbow = socket + _swung([0, 0, -0.186 * tall], angle + pose.lean, side * pose.spread)
        wrist = elbow + _swung([0, 0, -0.146 * tall], angle + bend + pose.lean, side * pose.spread * 0.3)
        hand = wrist + _swung([0, 0, -0.05 * tall], angle + bend + pose.lean)
        sleeve = skin if short_sleeves else top
        add(limb(socket, elbow, 0.032 * broad, 0.025 * broad), _UPPER_ARM, top)
        add(limb(elbow, wrist, 0.025 * broad, 0.018 * broad), _LOWER_ARM, sleeve)
        add(limb(wrist, hand, 0.02 * broad, 0.016 * broad, 6), _LOWER_ARM, skin)
    neck = lean @ [0, 0, shoulder]
    add(limb(neck, neck + np.array([0, -0.01 * tall, 0.06 * tall]), 0.032 * broad, 0.03 * broad, 6), _HEAD, skin)
    size = 0.13 * max(tall, 1.45)
    crown = neck + np.array([0, -0.012 * tall, 0.035 * tall])
    add(blob((0.72 * size, 0.85 * size, size), crown), _HEAD, skin)
    if rng.random() < 0.92:
        cap = blob((0.8 * size, 0.88 * size, 0.72 * size), crown + np.array([0, 0.07 * size, 0.33 * size]))
        add(cap, _HEAD, palette.bright(rng) if rng.random() < 0.2 else hair)
        if rng.random() < 0.3:
            mane = crown + np.array([0, 0.28 * size, -0.25 * size])
            add(blob((0.75 * size, 0.4 * size, 1.1 * size), mane), _HEAD, hair)
    lift = -lowest if seat is None else seat
    return [piece._replace(mesh=moved(piece.mesh, (0, 0, lift))) for piece in pieces]
