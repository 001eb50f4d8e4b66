"""Test frames with their truth and the predictions of every stream, and where a learned patch looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from isthmus.data.frame_store import FrameStore
from isthmus.data.frame_stream import read_frames
from isthmus.data.frames import NO_LABEL
from isthmus.evaluation.dense.gallery import Pick, image_scores
from isthmus.evaluation.dense.pictures import data_uri, png
from isthmus.evaluation.dense.scores import Measured
from isthmus.evaluation.frames.pictures import as_map, from_above, over_image, photograph, point_colours
from isthmus.methods.base import Method
from isthmus.methods.cross_modal import CrossModal
from isthmus.models.two_streams import IMAGE

WIDTH = 336
"""Pictures are so many pixels wide, about twice of what the page shows."""
PATCHES = 6
REACH = 6
"""Pixels on each side of the point, beyond half a patch, that the picture of a patch shows."""
PATCH_WIDTH = 240


class Cell(NamedTuple):
    """A picture as an address, and what is written below it."""

    picture: str
    caption: str


class Line(NamedTuple):
    """One frame of one run: its predictions in order, None where there is none."""

    run: int
    cells: list[Cell | None]


class Shown(NamedTuple):
    """A frame on the page."""

    name: str
    why: str
    image: str | None
    truth: Cell
    lines: list[Line]


class Predictor(NamedTuple):
    """A run's method in evaluation mode (None: nothing can be shown) and what was measured with these weights."""

    method: Method | None
    measured: Measured


class PatchPicture(NamedTuple):
    """The surroundings of a point with the places that its patch samples."""

    picture: str
    caption: str


class Patches(NamedTuple):
    """Pictures of patches, and how far taps lie from those of the square, in pixels."""

    pictures: list[PatchPicture]
    size: int
    learned: bool
    points: int
    mean: float
    high: float


class View(NamedTuple):
    """A frame in 3D: points, and the class of each by who says so (``truth``, ``2D``...)."""

    name: str
    points: np.ndarray
    classes: dict[str, np.ndarray]


@torch.no_grad()
def predicted(method: Method, store: FrameStore, row: int) -> dict[str, np.ndarray]:
    """The most probable class of each of a frame's points, by prediction. Shape: ``(N,)`` int64 each."""
    batch = read_frames(store, np.array([row]), {}, "test")
    device = next(method.parameters()).device
    outputs = method.predict({name: values.to(device) for name, values in batch.inputs.items()})
    return {name: values.float().cpu()[0, :, 0].argmax(dim=0).numpy() for name, values in outputs.items()}


def frames(
    store: FrameStore, rows: np.ndarray, chosen: Sequence[Pick], runs: Sequence[Predictor], names: Sequence[str]
) -> list[Shown]:
    """The frames that were picked.

    Args:
        store: prepared frames with their labels.
        rows: those of the store that were measured, in order.
        chosen: which of them are shown.
        runs: the first is the subject.
        names: predictions, in the order of the cells.
    """
    found = []
    for pick in chosen:
        row = int(rows[pick.position])
        span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
        labels = np.asarray(store.labels[span])
        lines = []
        for index, run in enumerate(runs):
            if run.method is None:
                continue
            classes = predicted(run.method, store, row)
            cells = [
                Cell(_drawn(store, row, classes[name]), _score(run.measured, name, pick.position))
                if name in classes
                else None
                for name in names
            ]
            lines.append(Line(index, cells))
        image = (
            data_uri(png(np.asarray(photograph(np.asarray(store.images[row]), WIDTH)), colours=128))
            if any(store.size)
            else None
        )
        known = int((labels != NO_LABEL).sum())
        truth = Cell(_drawn(store, row, labels), f"{known} of {len(labels)} points labelled")
        found.append(Shown(store.names[row], pick.why, image, truth, lines))
    return found


def view(store: FrameStore, row: int, method: Method | None, names: Sequence[str]) -> View:
    """A frame to be turned."""
    span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
    classes = {"truth": np.asarray(store.labels[span]).astype(np.int64)}
    if method is not None:
        found = predicted(method, store, row)
        classes |= {name: found[name] for name in names if name in found}
    return View(store.names[row], np.asarray(store.points[span]), classes)


@torch.no_grad()
def patches(method: Method | None, store: FrameStore, row: int) -> Patches | None:
    """Where the 2D stream samples around some points of a frame; None for a method without a patch."""
    if not isinstance(method, CrossModal) or method.network.patch is None or not any(store.size):
        return None
    patch = method.network.patch
    batch = read_frames(store, np.array([row]), {}, "test")
    device = next(method.parameters()).device
    inputs = {name: values.to(device) for name, values in batch.inputs.items()}
    maps = method.network.networks[IMAGE](inputs["image"])
    places = patch.places(maps, inputs["pixels"], inputs["present_points"])[0].cpu().double().numpy()
    pixels = batch.inputs["pixels"][0].numpy()
    square = np.floor(pixels)[:, None] + 0.5 + _square(patch.size)
    moved = np.linalg.norm(places - square, axis=2)
    labels = np.asarray(store.labels[int(store.offsets[row]) : int(store.offsets[row + 1])])
    pictures = []
    for point in _spread(labels, pixels, store.size):
        name = store.classes[labels[point]] if labels[point] != NO_LABEL else "no label"
        picture = _patch(np.asarray(store.images[row]), pixels[point], square[point], places[point], patch.size)
        pictures.append(PatchPicture(data_uri(png(picture)), f"{name}, moved by {moved[point].mean():.2f} pixels"))
    return Patches(
        pictures,
        patch.size,
        patch.offset is not None,
        len(pixels),
        float(moved.mean()),
        float(np.percentile(moved, 95)),
    )


def _square(size: int) -> np.ndarray:
    """Row and column of each tap from the middle one. Shape: ``(size * size, 2)``."""
    reach = np.arange(size) - size // 2
    return np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=2).reshape(-1, 2).astype(np.float64)


def _spread(labels: np.ndarray, pixels: np.ndarray, size: tuple[int, int]) -> list[int]:
    """A point of each class in turn, the rarest class first, not at the image's border where that can be."""
    margin = REACH
    inner = ((pixels > margin) & (pixels < np.array(size) - margin)).all(axis=1)
    allowed = np.flatnonzero(inner) if inner.sum() >= PATCHES else np.arange(len(pixels))
    classes, counts = np.unique(labels[allowed], return_counts=True)
    found: list[int] = []
    for turn in range(PATCHES):
        for each in classes[np.argsort(counts, kind="stable")]:
            members = allowed[labels[allowed] == each]
            place = (2 * turn + 1) * len(members) // (2 * PATCHES)
            if len(found) < PATCHES and place < len(members) and int(members[place]) not in found:
                found.append(int(members[place]))
    return found


def _patch(image: np.ndarray, pixel: np.ndarray, square: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """The image around a point, enlarged: the square patch as a frame, taps as dots, the point as a cross."""
    reach = size // 2 + REACH
    centre = np.floor(pixel).astype(int)
    side = 2 * reach + 1
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    crop = padded[centre[0] : centre[0] + side, centre[1] : centre[1] + side]
    factor = PATCH_WIDTH // side
    sheet = Image.fromarray(np.ascontiguousarray(crop.repeat(factor, axis=0).repeat(factor, axis=1)))
    draw = ImageDraw.Draw(sheet)

    def at(place: np.ndarray) -> tuple[float, float]:
        row, column = (place - (centre - reach)) * factor
        return float(column), float(row)

    corners = (*at(centre - size // 2), *at(centre + size // 2 + 1))
    draw.rectangle(corners, outline=(255, 255, 255), width=2)
    for start, end in zip(square, places):
        draw.line((*at(start), *at(end)), fill=(255, 255, 255), width=1)
        column, row = at(end)
        draw.ellipse((column - 3, row - 3, column + 3, row + 3), fill=(230, 159, 0), outline=(20, 20, 20))
    column, row = at(pixel.astype(np.float64))
    draw.line((column - 6, row, column + 6, row), fill=(213, 0, 60), width=2)
    draw.line((column, row - 6, column, row + 6), fill=(213, 0, 60), width=2)
    return np.asarray(sheet)


def _drawn(store: FrameStore, row: int, classes: np.ndarray) -> str:
    span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
    colours = point_colours(store.classes, classes)
    if not store.has_sweeps:
        picture = as_map(store.size, np.asarray(store.pixels[span]), colours, WIDTH)
    elif any(store.size):
        picture = over_image(np.asarray(store.images[row]), np.asarray(store.pixels[span]), colours, WIDTH)
    else:
        picture = from_above(np.asarray(store.points[span]), colours, WIDTH)
    return data_uri(png(picture, colours=96))


def _score(measured: Measured, name: str, position: int) -> str:
    if name not in measured.tasks:
        return ""
    value = image_scores(measured, name)[position]
    return "" if np.isnan(value) else f"mIoU {100 * value:.1f} %"
