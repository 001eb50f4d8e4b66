"""An image beside what was predicted for it, in one picture, with captions, colour bars and the classes it shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from isthmus.evaluation.dense.pictures import Look, enlarged, has_points
from isthmus.evaluation.dense.points import SIDES
from isthmus.tasks.dense import DenseTask

PANEL = 340
"""About how many pixels wide each picture is shown."""
PER_ROW = 3
"""Pictures beside each other; four are two rows of two."""
GAP, LINE, SWATCH = 18, 20, 13
LEAST_SHARE = 0.002
"""Classes on fewer of the pixels are not named below a preview."""

INK, SOFT, PAPER = (34, 34, 34), (102, 102, 102), (255, 255, 255)
NORMALS = "x red, y green, to the camera blue"


class Panel(NamedTuple):
    """A prediction, in the form of :func:`isthmus.evaluation.dense.pictures.pixel_values`, and its look."""

    look: Look
    values: np.ndarray


def title(task: DenseTask | str) -> str:
    """A task's name as people write it."""
    return (task if isinstance(task, str) else task.name).replace("_", " ").capitalize()


def number(value: float) -> str:
    """Three digits, without an exponent for anything that a colour bar shows."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"


def preview(image: np.ndarray, panels: Sequence[Panel]) -> np.ndarray:
    """The image and its predictions, in rows. Shape: ``(H, W, 3)`` uint8 to ``(H', W', 3)`` uint8."""
    tiles = [_tile("Image", enlarged(image, PANEL, smooth=True), None)]
    tiles += [_tile(title(look.task), look.on_image(image, values, PANEL), (look, values)) for look, values in panels]
    per_row = 2 if len(tiles) == 4 else PER_ROW
    rows = [tiles[start : start + per_row] for start in range(0, len(tiles), per_row)]
    width = max(sum(tile.width + GAP for tile in row) for row in rows) + GAP
    height = sum(max(tile.height for tile in row) + GAP for row in rows) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    top = GAP
    for row in rows:
        left = GAP
        for tile in row:
            sheet.paste(tile, (left, top))
            left += tile.width + GAP
        top += max(tile.height for tile in row) + GAP
    return np.asarray(sheet)


def legend(look: Look) -> np.ndarray:
    """Every class with its index and colour, in columns of at most 20. Shape: ``(H', W', 3)`` uint8."""
    names = [f"{index}  {name}" for index, name in enumerate(look.task.classes)]
    per_column = min(len(names), 20)
    column = SWATCH + 3 * GAP // 2 + max(_length(name) for name in names)
    columns = -(-len(names) // per_column)
    sheet = Image.new("RGB", (GAP // 2 + columns * column, GAP + per_column * LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, name in enumerate(names):
        place = (GAP // 2 + index // per_column * column, GAP // 2 + index % per_column * LINE)
        _swatch(draw, place, look.colours[index], name)
    return np.asarray(sheet)


def _tile(caption: str, picture: np.ndarray, key: tuple[Look, np.ndarray] | None) -> Image.Image:
    height, width = picture.shape[:2]
    width = max(width, _length(NORMALS), _length(caption, bold=True))
    below = _key(*key, width) if key is not None else None
    tile = Image.new("RGB", (width, LINE + 4 + height + (below.height + 6 if below is not None else 0)), PAPER)
    ImageDraw.Draw(tile).text((0, 0), caption, INK, _font(bold=True))
    tile.paste(Image.fromarray(picture), (0, LINE + 4))
    if below is not None:
        tile.paste(below, (0, LINE + 4 + height + 6))
    return tile


def _key(look: Look, values: np.ndarray, width: int) -> Image.Image:
    """What the colours of a picture mean, to be put below it."""
    if has_points(look.task):
        return _swatches([(name, np.array(colour)) for name, colour in SIDES.items()], width)
    if look.task.classes:
        return _shown_classes(look, values, width)
    key = Image.new("RGB", (width, LINE + (SWATCH if look.has_scale else 0)), PAPER)
    draw = ImageDraw.Draw(key)
    if not look.has_scale:
        draw.text((0, 2), NORMALS, SOFT, _font())
        return key
    bar = look.scale(np.linspace(0, 1, width))[None].repeat(SWATCH - 3, axis=0)
    key.paste(Image.fromarray(bar), (0, 0))
    unit = " m" if look.task.name == "depth" else ""
    low, high = (f"{number(value)}{unit}" for value in (look.low, look.high))
    draw.text((0, SWATCH), low, SOFT, _font())
    draw.text((width - _length(high), SWATCH), high, SOFT, _font())
    return key


def _shown_classes(look: Look, values: np.ndarray, width: int) -> Image.Image:
    """The classes of a map by their share of it, largest first."""
    share = np.bincount(values.ravel(), minlength=len(look.task.classes))[: len(look.task.classes)] / values.size
    shown = [int(index) for index in np.argsort(-share, kind="stable") if share[index] >= LEAST_SHARE]
    return _swatches([(look.task.classes[index], look.colours[index]) for index in shown], width)


def _swatches(entries: Sequence[tuple[str, np.ndarray]], width: int) -> Image.Image:
    """Names with their colours, as many beside each other as there is room for."""
    places, left, top = [], 0, 0
    for name, _ in entries:
        needed = SWATCH + 5 + _length(name)
        if left and left + needed > width:
            left, top = 0, top + LINE
        places.append((left, top))
        left += needed + GAP
    key = Image.new("RGB", (width, top + LINE), PAPER)
    draw = ImageDraw.Draw(key)
    for (name, colour), place in zip(entries, places):
        _swatch(draw, place, colour, name)
    return key


def _swatch(draw: ImageDraw.ImageDraw, place: tuple[int, int], colour: np.ndarray, name: str) -> None:
    left, top = place
    draw.rectangle((left, top + 2, left + SWATCH, top + 2 + SWATCH), tuple(int(c) for c in colour), (150, 150, 150))
    draw.text((left + SWATCH + 5, top + 1), name, INK, _font())


@cache
def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Matplotlib's own: it has the letters of most languages, and is the same on every machine.
    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file, 13)


def _length(text: str, *, bold: bool = False) -> int:
    return int(np.ceil(_font(bold=bold).getlength(text)))
