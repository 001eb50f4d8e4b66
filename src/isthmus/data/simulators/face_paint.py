"""What a head is painted with: skin, brows, eyes, lips, beard, hair; and which part of the face each place is.

All paint is a function of the face coordinates of ``face_shape``, so it moves with the surface, and parts are exactly
where their paint is. Colours are linear RGB, 0 to 1; lengths centimetres.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isthmus.data.simulators import palette
from isthmus.data.simulators.face_shape import CHIN_LEVEL, EYE, MOUTH_HALF_WIDTH, MOUTH_LEVEL, eye_opening, nose_level
from isthmus.data.simulators.textures import Colour, smooth_noise

FACE_PARTS: tuple[str, ...] = ("background", "skin", "brow", "eye", "nose", "lip", "hair")
"""Parts of the face; ears and neck are skin, the open mouth counts as lip, clothes as background."""

BACKGROUND, SKIN, BROW, EYE_PART, NOSE, LIP, HAIR = range(7)

# Linear RGB of skin from the lightest to the darkest.
_TONES = np.array(
    [[0.80, 0.56, 0.46], [0.68, 0.41, 0.29], [0.47, 0.25, 0.15], [0.24, 0.115, 0.066], [0.13, 0.06, 0.04]]
)


class Hair(NamedTuple):
    """Hair on the head: how far down it reaches and how it sits.

    ``front`` is the level of the hairline over the forehead, ``temple`` how far it recedes beside it, ``back`` the
    level it reaches behind (below -10: over ears and neck), ``side`` the level it reaches in front of the ears;
    ``thick`` is how far it stands off, ``wave`` how uneven hairline and outline are.
    """

    front: float
    temple: float
    back: float
    side: float
    thick: float
    wave: float


class Look(NamedTuple):
    """The paint of one person. ``mottle``, ``freckles``, ``beard``, ``flush`` and ``lashes`` are strengths, 0 to 1."""

    skin: Colour
    lip: Colour
    brow: Colour
    brow_thick: float
    iris: Colour
    hair_colour: Colour
    hair: Hair | None
    mottle: float
    freckles: float
    beard: float
    moustache: float
    flush: float
    lashes: float
    gloss: float
    strands: float
    key: int


class Gaze(NamedTuple):
    """``open_`` is 0 for closed eyes and 1 at rest; the irises lie ``aside`` and ``up`` of the middle; ``mouth`` is how
    far the mouth is open, 0 to 1."""

    open_: float
    aside: float
    up: float
    mouth: float


class Places(NamedTuple):
    """Face coordinates of places on a head, (n,) each; ``round`` without sign, ``ear`` whether they lie on an ear."""

    across: np.ndarray
    level: np.ndarray
    round: np.ndarray
    ear: np.ndarray


def simple_look(rng: np.random.Generator) -> Look:
    """A person as graphics programs paint one: one plain colour for each part, mostly light skins."""
    skin = _tone(rng.beta(1.2, 2.6) * 0.8)
    dark = palette.colour(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.35))
    return Look(
        skin=skin,
        lip=_times(skin, (rng.uniform(0.8, 1.0), rng.uniform(0.5, 0.65), rng.uniform(0.5, 0.7))),
        brow=dark,
        brow_thick=rng.uniform(0.75, 1.2),
        iris=palette.colour(rng.choice([0.07, 0.1, 0.3, 0.58]), rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.6)),
        hair_colour=dark,
        hair=_cut(rng, 0.03) if rng.random() < 0.75 else None,
        mottle=0.0,
        freckles=0.0,
        beard=0.0,
        moustache=0.0,
        flush=0.15,
        lashes=0.5,
        gloss=0.02,
        strands=0.06,
        key=int(rng.integers(1 << 30)),
    )


def lifelike_look(rng: np.random.Generator) -> Look:
    """A person as a camera meets one: all skins, uneven, flushed or freckled; beards; hair of any cut and colour."""
    darkness = 0.95 * rng.beta(1.0, 1.4)
    skin = _tone(darkness)
    hue = rng.normal(0, 0.05, size=3) * [0.6, 0.3, 1.0]
    skin = _times(skin, tuple(np.exp(hue)))
    kind = rng.random()
    if kind < 0.12:
        hair = palette.colour(0.1, rng.uniform(0.0, 0.1), rng.uniform(0.45, 0.8))
    elif kind < 0.34 and darkness < 0.5:
        hair = palette.colour(rng.uniform(0.05, 0.12), rng.uniform(0.4, 0.7), rng.uniform(0.4, 0.8))
    else:
        hair = palette.colour(rng.uniform(0.03, 0.09), rng.uniform(0.2, 0.6), rng.uniform(0.06, 0.3))
    bearded = rng.random() < 0.35
    made_up = not bearded and rng.random() < 0.3
    lip = (rng.uniform(0.7, 0.9), rng.uniform(0.45, 0.65), rng.uniform(0.5, 0.7))
    if made_up:
        lip = (rng.uniform(0.7, 0.95), rng.uniform(0.2, 0.4), rng.uniform(0.25, 0.5))
    return Look(
        skin=skin,
        lip=_times(skin, lip),
        brow=palette.shade(hair, rng.uniform(0.5, 0.9)),
        brow_thick=rng.uniform(0.6, 1.5),
        iris=palette.colour(rng.choice([0.06, 0.08, 0.3, 0.58]), rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.5)),
        hair_colour=hair,
        hair=_cut(rng, 0.25) if rng.random() < 0.9 else None,
        mottle=rng.uniform(0.05, 0.3),
        freckles=max(0.0, rng.normal(-0.2, 0.4)),
        beard=rng.uniform(0.2, 0.9) if bearded else 0.0,
        moustache=rng.uniform(0.1, 0.9) if bearded else 0.0,
        flush=rng.uniform(0.1, 0.7),
        lashes=rng.uniform(0.5, 1.0) if made_up else rng.uniform(0.2, 0.6),
        gloss=rng.uniform(0.03, 0.22),
        strands=rng.uniform(0.2, 0.5),
        key=int(rng.integers(1 << 30)),
    )


def hair_depth(look: Look, places: Places) -> np.ndarray:
    """Return how far inside the hair places are, (n,) centimetres, negative outside."""
    if look.hair is None:
        return np.full(len(places.level), -100.0)
    hair, turn = look.hair, places.round
    line = np.interp(
        turn,
        [0.0, 0.35, 0.75, 0.95, 1.1, 1.2, 1.38, 1.5, 1.75, 2.0, np.pi],
        [
            hair.front,
            hair.front + 0.3 * hair.temple,
            hair.front - 0.4 + hair.temple,
            hair.front - 2.6 + 0.5 * hair.temple,
            min(hair.front - 4.0, 2.5),
            min(1.2, max(hair.side + 1.5, -8.0)),
            hair.side,
            hair.side if hair.back < -10 else 0.5,
            hair.back if hair.back < -10 else -2.0,
            hair.back,
            hair.back,
        ],
    )
    uneven = smooth_noise(places.across * 1.3, turn * 6.0 + 50, look.key) - 0.5
    depth: np.ndarray = places.level - line + hair.wave * 2.5 * uneven
    return np.where(places.ear, -100.0, depth)


def hair_thickness(look: Look, places: Places) -> np.ndarray:
    """Return how far the surface is moved out by hair, (n,) centimetres."""
    if look.hair is None:
        return np.zeros(len(places.level))
    inside = _ramp(hair_depth(look, places), -0.3, 1.3)
    long = 1.6 * _ramp(-places.level, 1.0, 10.0) * _ramp(places.round, 1.2, 1.7) * (look.hair.back < -10)
    uneven = smooth_noise(places.across * 0.7, places.level * 0.5 + 3 * places.round, look.key + 1) - 0.5
    thickness: np.ndarray = inside * (look.hair.thick * (1 + 1.2 * look.hair.wave * uneven) + long)
    return thickness


def parts(look: Look, gaze: Gaze, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each place, (n,) uint8 index of :data:`FACE_PARTS`, and whether it is on the face, (n,) bool.

    The face is what a face model covers: everything but hair, ears, neck and the back of the head.
    """
    found = np.full(len(places.level), SKIN, dtype=np.uint8)
    facing = (places.round < 1.5) & ~places.ear
    found[facing & (_nose(places) > 0)] = NOSE
    found[facing & (_brow(look, places) > 0)] = BROW
    found[facing & (_lips(places)[0] > 0)] = LIP
    below, above, along = eye_opening(places.across, places.level, gaze.open_)
    found[facing & (np.minimum(below, above) > 0) & (np.abs(along) < 1)] = EYE_PART
    haired = hair_depth(look, places) > 0
    found[haired] = HAIR
    return found, facing & ~haired & (places.level > CHIN_LEVEL) & (places.level < 9.0)


def painted(look: Look, gaze: Gaze, places: Places, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """Return albedo (n, 3) and strength of the highlight (n,); borders of parts are ``blur`` centimetres wide."""
    across, level = places.across, places.level
    a, key, nose = np.abs(across), look.key, nose_level(level)
    facing = (places.round < 1.5) & ~places.ear
    colour = np.tile(np.array(look.skin), (len(level), 1))
    gloss = np.full(len(level), look.gloss)

    def mix(share: np.ndarray, with_: np.ndarray | Colour) -> None:
        nonlocal colour
        colour = colour + share[:, None] * (np.asarray(with_) - colour)

    if look.mottle:
        rough = smooth_noise(across * 0.8, level * 0.8, key + 2) + 0.5 * smooth_noise(
            across * 2.9, level * 2.9, key + 3
        )
        colour *= (1 + look.mottle * (rough - 0.75))[:, None]
    flushed = _hill(a, level, 4.0, -3.2, 1.6, 1.3) + 0.8 * _hill(a, nose, 0, -3.9, 1.1, 0.8) + 0.7 * places.ear
    colour *= 1 - look.flush * np.clip(flushed, 0, 1)[:, None] * np.array([0.0, 0.35, 0.3])
    shadow = 0.25 * _hill(a, level, 2.9, -1.0, 1.2, 0.35) + 0.2 * _hill(a, level, 3.0, 0.9, 1.2, 0.5)
    colour *= (1 - np.where(facing, shadow, 0))[:, None]
    if look.freckles > 0:
        spots = smooth_noise(across * 5, level * 5, key + 4) > 0.75
        colour *= (1 - 0.3 * min(look.freckles, 1.0) * spots * facing)[:, None]
    if look.beard or look.moustache:
        cheek = -4.0 - 2.2 * _ramp(a, 5.0, 2.0)
        jaw = _ramp(cheek - level, -0.4, 1.0) * _ramp(level, -13.5, -12.0) * _ramp(places.round, 1.5, 1.3)
        clear = 1 - _hill(a, level, 0, -8.2, 1.7, 0.55)
        under_nose = _ramp(level, -6.6, -6.2) * _ramp(level, -4.5, -4.9) * _ramp(a, 3.2, 2.5)
        bristle = 0.75 + 0.5 * smooth_noise(across * 6, level * 6, key + 5)
        share = np.maximum(
            look.beard * jaw * np.where(level > -6.6, _ramp(a, 2.6, 3.6), clear), look.moustache * under_nose
        )
        mix(np.clip(share * bristle, 0, 0.95) * ~places.ear, palette.shade(look.hair_colour, 0.8))
    nostril = _hill(a, nose, 0.75, -4.92, 0.33, 0.14) * facing
    colour *= (1 - 0.85 * np.clip(nostril * 1.3, 0, 1))[:, None]
    wing = _hill(a, nose, 2.0, -4.3, 0.16, 0.45) * facing
    colour *= (1 - 0.35 * wing)[:, None]
    lip, inner = _lips(places)
    mix(_soft(lip, blur) * facing, look.lip)
    gloss = np.where(facing & (lip > 0), gloss + 0.08, gloss)
    line = np.exp(-0.5 * (inner / 0.07) ** 2) * _ramp(a, MOUTH_HALF_WIDTH + 0.25, MOUTH_HALF_WIDTH - 0.2) * facing
    mix(0.65 * line, palette.shade(look.lip, 0.25))
    if gaze.mouth > 0:
        cavity = _ramp(np.abs(inner), 0.075, 0.055) * _ramp(a, MOUTH_HALF_WIDTH, MOUTH_HALF_WIDTH - 0.2) * facing
        mix(cavity, (0.05, 0.012, 0.012))
        # Teeth hang from the upper lip; the deeper the jaw drops, the smaller their share of the opening.
        reach = 0.06 - 0.035 / max(gaze.mouth, 0.3)
        teeth = _ramp(inner, reach, reach + 0.012) * cavity * _ramp(a, 2.2, 1.7)
        mix(0.9 * teeth, (0.62, 0.58, 0.5))
    mix(0.92 * _soft(_brow(look, places), 0.5 * blur + 0.08) * facing, look.brow)
    below, above, along = eye_opening(across, level, gaze.open_)
    inside = np.where(facing & (np.abs(along) < 1), np.minimum(below, above), -1.0)
    eye = _soft(inside, blur) if gaze.open_ > 0.05 else np.zeros(len(level))
    # Lid crease and lashes, then the eye itself.
    crease = np.exp(-0.5 * ((below + 0.3) / 0.09) ** 2) * _ramp(np.abs(along), 1.1, 0.8) * facing
    colour *= (1 - 0.35 * crease)[:, None]
    side = np.sign(across)
    to_iris = np.hypot(a - EYE[0] - side * gaze.aside, level - 0.08 - gaze.up)
    white = np.array([0.55, 0.52, 0.49]) * (1 - 0.35 * _ramp(below, 0.35, 0.0))[:, None]
    white = white + (_ramp(along, -0.8, -1.0) * 0.7)[:, None] * (np.array([0.5, 0.2, 0.17]) - white)
    iris = np.array(look.iris) * (1 - 0.6 * _ramp(to_iris, 0.42, 0.6))[:, None]
    iris = iris * (1 - 0.95 * _soft(0.26 - to_iris, 0.7 * blur))[:, None]
    disc = _soft(0.62 - to_iris, 0.7 * blur)[:, None]
    mix(eye, white + disc * (iris - white))
    gloss = np.where(inside > 0, 0.12, gloss)
    lash = np.exp(-0.5 * (below / 0.075) ** 2) * _ramp(np.abs(along), 1.12, 0.95) * facing
    lash = np.maximum(lash, 0.35 * np.exp(-0.5 * (above / 0.06) ** 2) * _ramp(np.abs(along), 1.1, 0.9) * facing)
    mix((0.45 + 0.5 * look.lashes) * lash, palette.shade(look.brow, 0.35))
    depth = hair_depth(look, places)
    if look.hair is not None:
        # Strands run down and away from the crown.
        u = np.where(places.round > 0.9, places.round * 9, across * 1.6)
        strand = smooth_noise(u * 3, level * 0.35, key + 6) + 0.5 * smooth_noise(u * 8, level * 0.5, key + 7) - 0.75
        shade = np.clip(1 + 2 * look.strands * strand, 0.2, 2)[:, None]
        share = _soft(depth, blur + 0.3 + look.strands)
        mix(share, np.array(look.hair_colour) * shade)
        gloss = np.where(depth > 0, 0.6 * look.gloss + 0.03, gloss)
    return np.clip(colour, 0, 1), gloss


def _cut(rng: np.random.Generator, wave: float) -> Hair:
    """Short, medium or long hair, with or without a fringe."""
    kind = rng.random()
    front = rng.uniform(5.8, 7.6)
    if kind < 0.5:
        return Hair(front, rng.uniform(0, 1.2), -8.5, rng.uniform(-2.0, 0.5), rng.uniform(0.3, 1.3), wave)
    if kind < 0.7:
        return Hair(rng.uniform(3.6, 5.0), 0.0, -8.8, rng.uniform(-3.0, -0.5), rng.uniform(0.7, 1.6), wave)
    fringe = rng.random() < 0.4
    return Hair(
        rng.uniform(3.4, 4.6) if fringe else front, 0.3, -19.0, rng.uniform(-16, -7), rng.uniform(0.8, 1.7), wave
    )


def _tone(darkness: float) -> Colour:
    """Return the skin between the lightest (0) and the darkest (1)."""
    place = darkness * (len(_TONES) - 1)
    red, green, blue = (float(np.exp(np.interp(place, range(len(_TONES)), np.log(_TONES[:, c])))) for c in range(3))
    return (red, green, blue)


def _times(colour: Colour, factor: tuple[float, ...]) -> Colour:
    red, green, blue = (min(float(c * f), 1.0) for c, f in zip(colour, factor))
    return (red, green, blue)


def _hill(a: np.ndarray, level: np.ndarray, x: float, y: float, wide: float, high: float) -> np.ndarray:
    hill: np.ndarray = np.exp(-0.5 * (((a - x) / wide) ** 2 + ((level - y) / high) ** 2))
    return hill


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 at ``low`` and before, 1 at ``high`` and beyond, smooth between; ``low`` may exceed ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    ramp: np.ndarray = t * t * (3 - 2 * t)
    return ramp


def _soft(inside: np.ndarray, blur: float) -> np.ndarray:
    return _ramp(inside, -blur, blur)


def _nose(places: Places) -> np.ndarray:
    """Return how far inside the nose places are, negative outside."""
    level = nose_level(places.level)
    wide = np.interp(level, [-5.2, -4.9, -4.3, -3.6, -2.4, 0.2, 0.7], [0.6, 1.4, 1.95, 1.6, 1.05, 0.75, 0.4])
    inside: np.ndarray = np.minimum(wide - np.abs(places.across), np.minimum(level + 5.15, 0.6 - level))
    return inside


def _brow(look: Look, places: Places) -> np.ndarray:
    a = np.abs(places.across)
    middle = np.interp(a, [0.8, 1.3, 2.2, 3.4, 4.2, 5.3], [1.45, 1.52, 1.78, 2.05, 2.0, 1.5])
    thick = look.brow_thick * np.interp(a, [1.0, 1.5, 3.0, 4.2, 5.2], [0.18, 0.32, 0.3, 0.2, 0.04])
    inside: np.ndarray = np.minimum(thick - np.abs(places.level - middle), np.minimum(a - 1.05, 5.15 - a))
    return inside


def _lips(places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Return how far inside the lips places are, negative outside, and how far above the line between them."""
    a = np.abs(places.across)
    bow = np.maximum(1 - (a / MOUTH_HALF_WIDTH) ** 2, 0)
    inner = places.level - MOUTH_LEVEL
    high = 0.64 * bow**0.85 - 0.13 * np.exp(-0.5 * (a / 0.3) ** 2)
    low = -0.95 * bow**0.7
    outside = np.maximum(a - MOUTH_HALF_WIDTH, 0)
    inside: np.ndarray = np.minimum(high - inner, inner - low) - outside - 0.3 * (bow == 0)
    return inside, inner
