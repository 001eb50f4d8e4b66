"""Bodies of people: lengths and girths, the angles of the joints, and the rounded pieces that follow.

A body is about 1 tall, faces -y, and has its left side at +x. Lengths are shares of the height close to those of
Drillis and Contini (1966), as tabled in Winter, "Biomechanics and motor control of human movement".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isthmus.data.clouds import HUMAN_PARTS
from isthmus.data.simulators.rounded import PieceList, Pieces
from isthmus.geometry.meshes import rotation

HEAD, TORSO, UPPER_ARM, LOWER_ARM, HAND, UPPER_LEG, LOWER_LEG, FOOT = range(len(HUMAN_PARTS))


class Build(NamedTuple):
    """Factors of lengths and girths, 1 for the average adult."""

    trunk: float = 1.0
    legs: float = 1.0
    arms: float = 1.0
    head: float = 1.0
    hands: float = 1.0
    feet: float = 1.0
    girth: float = 1.0
    belly: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0


class Pose(NamedTuple):
    """Angles in degrees, left and right where there are two.

    Positive bends forward (``lean``, ``nod``, ``hips``, ``shoulders``), outward (``apart``, ``raise_``), and knees and
    elbows in their way; ``bend`` goes to the left side, ``twist`` and ``look`` turn to the left; ``roll`` turns an
    upper arm about itself, inward.
    """

    lean: float = 0.0
    bend: float = 0.0
    twist: float = 0.0
    nod: float = 0.0
    look: float = 0.0
    hips: tuple[float, float] = (0.0, 0.0)
    apart: tuple[float, float] = (4.0, 4.0)
    knees: tuple[float, float] = (3.0, 3.0)
    ankles: tuple[float, float] = (0.0, 0.0)
    shoulders: tuple[float, float] = (0.0, 0.0)
    raise_: tuple[float, float] = (10.0, 10.0)
    roll: tuple[float, float] = (0.0, 0.0)
    elbows: tuple[float, float] = (10.0, 10.0)
    wrists: tuple[float, float] = (0.0, 0.0)


def body(build: Build, pose: Pose) -> Pieces:
    """The pieces of a body, hips at the origin; parts are indices into :data:`isthmus.data.clouds.HUMAN_PARTS`."""
    pieces = PieceList()
    g = build.girth
    trunk = rotation(2, pose.twist) @ rotation(1, pose.bend) @ rotation(0, pose.lean)
    half = rotation(2, pose.twist / 2) @ rotation(1, pose.bend / 2) @ rotation(0, pose.lean / 2)
    wide = 0.108 * build.shoulders * (0.7 + 0.3 * g)
    top = 0.288 * build.trunk
    waist = half @ [0, 0, 0.10 * build.trunk]

    def above(x: float, y: float, z: float) -> np.ndarray:
        """A place of the chest, as heights above the hips."""
        found: np.ndarray = waist + trunk @ [x, y, z - 0.10 * build.trunk]
        return found

    across = trunk[:, 0]
    broad = 1.5 * build.hips
    pieces.add(TORSO, [0, 0.005, 0.005], half @ [0, 0.005, 0.05], (0.068 * g, 0.064 * g), half[:, 0], (broad, 1.0))
    pieces.add(TORSO, half @ [0, 0.0, 0.04], above(0, 0, 0.55 * top), (0.058 * g, 0.062 * g), across, (1.35, 1.0))
    chest = 1.45 * build.shoulders
    pieces.add(
        TORSO, above(0, 0, 0.55 * top), above(0, 0.004, 0.82 * top), (0.064 * g, 0.062 * g), across, (chest, 1.0)
    )
    neck = 0.036 * (0.6 + 0.4 * g)
    pieces.add(
        TORSO, above(-0.8 * wide, 0.008, 0.93 * top), above(0, 0.012, 0.99 * top), (0.042 * g, neck), trunk[:, 1]
    )
    pieces.add(TORSO, above(0.8 * wide, 0.008, 0.93 * top), above(0, 0.012, 0.99 * top), (0.042 * g, neck), trunk[:, 1])
    if build.belly > 1:
        size = 0.06 * g * build.belly
        pieces.add(TORSO, half @ [0, -0.1 * size, 0.05], waist + half @ [0, -0.25 * size, 0.02], (size, 0.95 * size))
    for side in (-1, 1):
        seat = [side * 0.036 * build.hips, 0.032 * g, -0.03]
        pieces.add(TORSO, seat, [seat[0], seat[1], 0.0], (0.042 * g, 0.042 * g))
    _head(pieces, build, trunk @ rotation(2, pose.look) @ rotation(0, pose.nod), above(0, 0.008, top), neck)
    for i, side in enumerate((1, -1)):
        _leg(pieces, build, pose, i, side)
        _arm(pieces, build, pose, i, side, trunk, above(side * wide, 0.006, 0.91 * top))
    return pieces.pieces()


def _head(pieces: PieceList, build: Build, turn: np.ndarray, base: np.ndarray, neck: float) -> None:
    size = 0.13 * build.head
    rise = 0.036
    pieces.add(HEAD, base, base + turn @ [0, -0.008, rise], (neck, 0.95 * neck), turn[:, 0])
    chin = base + turn @ [0, -0.012, rise + 0.30 * size]
    crown = base + turn @ [0, -0.004, rise + 0.62 * size]
    pieces.add(HEAD, chin, crown, (0.36 * size, 0.44 * size), turn[:, 0], (0.92, 1.18))
    nose = chin + turn @ [0, -0.46 * size, 0.12 * size]
    pieces.add(HEAD, nose, nose + turn @ [0, 0.05 * size, 0.14 * size], (0.07 * size, 0.05 * size), turn[:, 0])


def _leg(pieces: PieceList, build: Build, pose: Pose, i: int, side: int) -> None:
    g, length = build.girth, build.legs
    turn = rotation(1, -side * pose.apart[i]) @ rotation(0, -pose.hips[i])
    hip = np.array([side * 0.054 * build.hips * (0.8 + 0.2 * g), 0.0, -0.01])
    knee = hip + turn @ [0, 0, -0.245 * length]
    shin = turn @ rotation(0, pose.knees[i])
    ankle = knee + shin @ [0, 0, -0.235 * length]
    pieces.add(UPPER_LEG, hip, knee, (0.050 * g, 0.032 * g), turn[:, 0])
    pieces.add(LOWER_LEG, knee, ankle, (0.032 * g, 0.021 * g), shin[:, 0])
    calf = shin @ [0, 0.012 * g, -0.07 * length]
    pieces.add(LOWER_LEG, knee + calf, knee + 1.35 * calf, (0.033 * g, 0.027 * g), shin[:, 0])
    step = shin @ rotation(0, pose.ankles[i]) @ rotation(2, side * 8)
    f = build.feet
    heel = ankle + step @ [0, 0.012 * f, -0.020 * f]
    ball = ankle + step @ [0, -0.085 * f, -0.026 * f]
    toes = ball + step @ [0, -0.030 * f, -0.003 * f]
    pieces.add(FOOT, heel, ball, (0.022 * f, 0.019 * f), step[:, 0], (1.15, 1.0))
    pieces.add(FOOT, ball, toes, (0.018 * f, 0.014 * f), step[:, 0], (1.6, 1.0))


def _arm(pieces: PieceList, build: Build, pose: Pose, i: int, side: int, trunk: np.ndarray, socket: np.ndarray) -> None:
    g, length, h = build.girth, build.arms, build.hands
    turn = trunk @ rotation(1, -side * pose.raise_[i]) @ rotation(0, -pose.shoulders[i])
    turn = turn @ rotation(2, -side * pose.roll[i])
    elbow = socket + turn @ [0, 0, -0.172 * length]
    lower = turn @ rotation(0, -pose.elbows[i])
    wrist = elbow + lower @ [0, 0, -0.146 * length]
    pieces.add(UPPER_ARM, socket, elbow, (0.031 * g, 0.024 * g), turn[:, 0])
    pieces.add(LOWER_ARM, elbow, wrist, (0.025 * g, 0.016 * g), lower[:, 0])
    hand = lower @ rotation(1, side * pose.wrists[i])
    knuckles = wrist + hand @ [0, 0, -0.052 * h]
    tips = knuckles + hand @ [side * -0.006 * h, -0.004 * h, -0.048 * h]
    thumb = wrist + hand @ [0, -0.03 * h, -0.05 * h]
    pieces.add(HAND, wrist + hand @ [0, 0, -0.012 * h], knuckles, (0.018 * h, 0.022 * h), hand[:, 0], (0.5, 1.0))
    pieces.add(HAND, knuckles, tips, (0.020 * h, 0.014 * h), hand[:, 0], (0.42, 1.0))
    pieces.add(HAND, wrist + hand @ [0, -0.012 * h, -0.022 * h], thumb, (0.011 * h, 0.008 * h), hand[:, 0])
