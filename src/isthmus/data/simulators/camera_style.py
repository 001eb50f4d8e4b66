"""Rooms as a camera shows them: other colours and textures of the things, and the errors of a camera.

The things, their places and the viewpoints stay the same, so labels do; only paints and pixels change. All parameters
of the sensor are drawn per image, those of the palette per room.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from isthmus.data.simulators.render import Piece, developed
from isthmus.data.simulators.textures import Colour


def repainted(pieces: list[Piece], rng: np.random.Generator) -> list[Piece]:
    """Return the pieces of a room in another palette: duller, darker, warmer, with more and finer texture."""
    saturation, value = rng.uniform(0.35, 0.8), rng.uniform(0.55, 0.9)
    cast = np.array([1 + rng.uniform(0, 0.2), 1.0, 1 - rng.uniform(0, 0.25)])
    finer, rough = rng.uniform(0.4, 0.8), rng.uniform(0.1, 0.3)

    def dulled(colour: Colour) -> Colour:
        rgb = np.array(colour)
        grey = rgb @ [0.2126, 0.7152, 0.0722]
        red, green, blue = np.clip((grey + saturation * (rgb - grey)) * value * cast, 0, 1)
        return (float(red), float(green), float(blue))

    return [
        piece._replace(
            paint=piece.paint._replace(
                colour=dulled(piece.paint.colour),
                second=dulled(piece.paint.second),
                period=piece.paint.period * finer,
                mottle=piece.paint.mottle + rough,
            )
        )
        for piece in pieces
    ]


def photographed(light: np.ndarray, exposure: float, rng: np.random.Generator) -> np.ndarray:
    """Return the 8-bit image (H, W, 3) that a cheap camera takes of linear light (H, W, 3).

    In this order: a wrong white balance and exposure, vignetting (the fourth power of the cosine, exaggerated or
    softened), defocus, shot noise in proportion to the root of the light and read noise, development, a contrast curve.
    """
    height, width = light.shape[:2]
    balance = np.exp(rng.normal(size=3) * [0.12, 0.03, 0.16])
    rows, columns = np.mgrid[:height, :width]
    off = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / (height**2 + width**2) * 4
    vignette = (1 + rng.uniform(0.1, 0.7) * off) ** -2.0
    exposed = light * exposure * 2.0 ** rng.normal(0, 0.45) * balance * vignette[:, :, None]
    blur = rng.uniform(0.25, 0.75) * width / 128
    exposed = gaussian_filter(exposed, (blur, blur, 0), mode="nearest")
    shot, read = rng.uniform(0.01, 0.05), rng.uniform(0.002, 0.012)
    deviation = np.sqrt(shot**2 * np.maximum(exposed, 0) + read**2)
    noisy = exposed + deviation * rng.normal(size=light.shape)
    image = developed(noisy, 1.0) / 255
    bend = rng.uniform(-0.1, 0.25)
    lifted = rng.uniform(0.0, 0.06)
    image = lifted + (1 - lifted) * (image + bend * (image - 0.5) * 4 * image * (1 - image))
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
