"""Images with their truth and the predictions of several runs beside each other, as in Figure 4 of MTPSL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from isthmus.data.image_store import ImageStore
from isthmus.data.image_stream import read_batch
from isthmus.evaluation.dense.compare import significant
from isthmus.evaluation.dense.pictures import (
    DEGREES,
    Look,
    data_uri,
    enlarged,
    error_picture,
    error_scale,
    errors,
    has_errors,
    has_points,
    label_values,
    pixel_values,
    png,
)
from isthmus.evaluation.dense.points import SIDES
from isthmus.evaluation.dense.preview import number
from isthmus.evaluation.dense.scores import Measured
from isthmus.methods.base import Method
from isthmus.tasks.dense import DenseTask

IMAGES = 6
WIDTH = 176
"""Pictures are kept at most this wide, so that a page stays small."""
COLOURS = 255
LARGEST_ERROR = 98.0
"""Percentile of all errors of a task that has the brightest colour."""


class Pick(NamedTuple):
    """An image that is shown: its position among the measured ones, and why it is."""

    position: int
    why: str


class Cell(NamedTuple):
    """A picture as an address, what is written below it, and whether that is the best of its row."""

    picture: str
    caption: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One image of one task: the cells are those of the runs, None where one does not predict the task."""

    name: str
    why: str
    image: str
    truth: Cell
    predictions: list[Cell | None]
    errors: list[Cell | None]


@dataclass(frozen=True)
class Bar:
    """A colour bar with its ends in words."""

    title: str
    picture: str
    low: str
    high: str


@dataclass(frozen=True)
class Block:
    """All images of one task."""

    task: DenseTask
    rows: list[Row]
    classes: list[tuple[str, str]]
    bars: list[Bar] = field(default_factory=list)


class Predictor(NamedTuple):
    """A run's method in evaluation mode (None: nothing can be shown) and what was measured with these weights."""

    method: Method | None
    measured: Measured


def picks(measured: Measured, count: int = IMAGES) -> list[Pick]:
    """Images spread evenly over the groups, and those that went best and worst; the same for the same measurement.

    An image's worth is its mean rank over the tasks that it has labels of.
    """
    total = len(measured.groups)
    worth = image_worth(measured)
    best, worst = int(np.argmax(worth)), int(np.argmin(worth))
    chosen = {best: "best of this run"}
    chosen.setdefault(worst, "worst of this run")
    groups = list(dict.fromkeys(measured.groups.tolist()))
    for place in np.linspace(0, len(groups) - 1, max(count - len(chosen), 1)).round().astype(int):
        members = np.flatnonzero(measured.groups == groups[place])
        free = [int(position) for position in members if int(position) not in chosen]
        if free and len(chosen) < count:
            chosen[free[len(free) // 2]] = ""
    for position in range(total):
        if len(chosen) < min(count, total):
            chosen.setdefault(position, "")
    return [Pick(position, chosen[position]) for position in sorted(chosen)]


def image_worth(measured: Measured) -> np.ndarray:
    """Mean rank of each image over tasks, in [0, 1], 1 where every task went best. Shape: ``(n,)``."""
    ranks = []
    for name, task in measured.tasks.items():
        score = image_scores(measured, name) * (1 if task.higher_is_better else -1)
        known = np.flatnonzero(np.isfinite(score))
        rank = np.full(len(score), np.nan)
        rank[known[np.argsort(score[known], kind="stable")]] = np.linspace(0, 1, len(known))
        ranks.append(rank)
    table = np.stack(ranks)
    counted = np.isfinite(table)
    mean: np.ndarray = np.where(counted, table, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return np.where(counted.any(axis=0), mean, 0.5)


def image_scores(measured: Measured, task: str) -> np.ndarray:
    """The headline score of every image by itself, NaN without a label. Shape: ``(n,)``."""
    statistics = torch.from_numpy(measured.statistics[task])
    scores: np.ndarray = measured.tasks[task].scores(statistics)[measured.tasks[task].headline].numpy()
    return scores


def score_text(task: DenseTask, value: float) -> str:
    """A headline score with its name and unit, ``mIoU 31.4 %``."""
    name, _, unit = task.heading.removesuffix("]").partition(" [")
    shown = task.display_factor * value
    return f"{name} {shown:.{min(significant(shown), 3)}f}{'' if unit == '°' else ' '}{unit}".rstrip()


@torch.no_grad()
def blocks(store: ImageStore, rows: np.ndarray, chosen: Sequence[Pick], runs: Sequence[Predictor]) -> list[Block]:
    """One block for each task of the first run.

    Args:
        store: prepared images with their labels.
        rows: those of the store that were measured, in order.
        chosen: which of them are shown.
        runs: the first is the subject.
    """
    tasks = runs[0].measured.tasks
    shown = rows[[pick.position for pick in chosen]]
    present = {name: store.present[:, list(store.tasks).index(name)] for name in tasks}
    batch = read_batch(store, shown, present, "test")
    outputs = []
    for run in runs:
        device = "cpu" if run.method is None else next(run.method.parameters()).device
        inputs = {name: values.to(device) for name, values in batch.inputs.items()}
        outputs.append({} if run.method is None else run.method.predict(inputs))
    images = [np.asarray(store.images[row]) for row in shown]
    found = []
    for name, task in tasks.items():
        truth, valid = label_values(task, batch.labels[name]), batch.valid[name].numpy()
        predicted = [
            pixel_values(run.measured.tasks[name], run.measured.tasks[name].activate(output[name]))
            if name in output and name in run.measured.tasks
            else None
            for run, output in zip(runs, outputs)
        ]
        scores = np.array(
            [
                image_scores(run.measured, name)[[pick.position for pick in chosen]]
                if values is not None
                else np.full(len(chosen), np.nan)
                for run, values in zip(runs, predicted)
            ]
        )
        names = [store.names[row] for row in shown]
        found.append(_block(task, names, chosen, images, truth, valid, predicted, scores))
    return found


def _block(
    task: DenseTask,
    names: Sequence[str],
    chosen: Sequence[Pick],
    images: Sequence[np.ndarray],
    truth: np.ndarray,
    valid: np.ndarray,
    predicted: Sequence[np.ndarray | None],
    scores: np.ndarray,
) -> Block:
    look = Look.of(task, truth, valid)
    wrong = [None if values is None or not has_errors(task) else errors(task, values, truth) for values in predicted]
    largest = _largest_error(task, wrong, valid)
    best = _best(task, scores)
    rows = []
    for index, pick in enumerate(chosen):
        here = valid[index]
        picture = data_uri(png(look.on_image(images[index], truth[index], WIDTH, here), colours=COLOURS))
        truth_cell = Cell(picture, "" if here.any() else "no label")
        predictions: list[Cell | None] = []
        below: list[Cell | None] = []
        for run, values in enumerate(predicted):
            if values is None:
                predictions.append(None)
                below.append(None)
                continue
            score = scores[run, index]
            caption = "" if np.isnan(score) else score_text(task, float(score))
            picture = data_uri(png(look.on_image(images[index], values[index], WIDTH), colours=COLOURS))
            predictions.append(Cell(picture, caption, best[run, index]))
            found = wrong[run]
            below.append(None if found is None else Cell(address(error_picture(found[index], largest, here)), ""))
        rows.append(
            Row(names[index], pick.why, address(images[index], photograph=True), truth_cell, predictions, below)
        )
    return Block(task, rows, _keys(look), _bars(task, look, largest))


def _keys(look: Look) -> list[tuple[str, str]]:
    """Names and colours of the classes, or of the sides of points."""
    if has_points(look.task):
        keys = list(SIDES.items())
    else:
        keys = list(zip(look.task.classes, look.colours.tolist())) if look.task.classes else []
    return [(name, f"rgb({red}, {green}, {blue})") for name, (red, green, blue) in keys]


def _best(task: DenseTask, scores: np.ndarray) -> np.ndarray:
    """Which run is best in each image, false throughout where there is only one. Shape: ``(R, n)`` to ``(R, n)``."""
    if len(scores) < 2:
        return np.zeros(scores.shape, dtype=bool)
    signed = np.where(np.isnan(scores), -np.inf, scores if task.higher_is_better else -scores)
    return (signed == signed.max(axis=0)) & np.isfinite(signed)


def _largest_error(task: DenseTask, wrong: Sequence[np.ndarray | None], valid: np.ndarray) -> float:
    if task.name == "normals":
        return DEGREES
    known = [found[valid] for found in wrong if found is not None]
    pixels = np.concatenate(known) if known else np.zeros(0)
    return float(np.percentile(pixels, LARGEST_ERROR)) if len(pixels) else 1.0


def _bars(task: DenseTask, look: Look, largest: float) -> list[Bar]:
    ramp = np.linspace(0, 1, 160)[None].repeat(10, axis=0)
    bars = []
    unit = " m" if task.name == "depth" else ""
    if look.has_scale:
        title = "depth" if task.name == "depth" else "value" if has_errors(task) else "probability"
        bars.append(Bar(title, _raw(look.scale(ramp)), number(look.low) + unit, number(look.high) + unit))
    if has_errors(task):
        high = f"{number(largest)}°" if task.name == "normals" else number(largest) + unit
        bars.append(Bar("error", _raw(error_scale(ramp)), "0", f"{high} or more"))
    return bars


def address(rgb: np.ndarray, *, photograph: bool = False) -> str:
    """A picture as an address that holds all of it, at most :data:`WIDTH` wide and in at most 255 colours."""
    return data_uri(png(enlarged(rgb, WIDTH, smooth=photograph), colours=COLOURS))


def _raw(rgb: np.ndarray) -> str:
    return data_uri(png(rgb))
