"""Shapes in pictures: the true parts, what each run takes their points for, and where the first of them is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from isthmus.data.clouds import NO_POINT_LABEL
from isthmus.data.store import CloudStore
from isthmus.errors import RunError
from isthmus.evaluation.figures import HURT, finish, legend_entries
from isthmus.evaluation.page import Section, figure_html
from isthmus.evaluation.points.figures import Shown, class_colours
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import read_arrays

WORST = 5
"""Shapes in the table of mistakes."""

UNKNOWN, RIGHT = "#BBBBBB", "#D9D9D9"
SEEN_RUNS = 3


@dataclass(frozen=True)
class Labelled:
    """A shape: points ``(N, 3)``, true parts ``(N,)`` (255: none), what each run says ``(runs, N)``, and its scores."""

    name: str
    points: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    scores: tuple[float, ...]


def gallery(runs: Sequence[tuple[PointRun, Shown]], store: CloudStore) -> Section:
    """The section of a page that shows single shapes; the runs were measured on the same ones."""
    shapes = labelled_shapes(runs, store)
    subject, others = runs[0][1], [shown for _, shown in runs[1:]]
    chosen = chosen_shapes(shapes)
    classes = subject.predictions.classes
    return Section(
        "gallery",
        "Shapes and their parts",
        {
            "shapes": len(chosen),
            "of": len(shapes),
            "hurt": others[0] if most_lost(shapes) else None,
            "figure": figure_html(pictures(chosen, [shown.label for _, shown in runs], classes), "gallery-figure"),
            "others": others,
            "worst": [
                {
                    "name": shape.name,
                    "score": f"{100 * shape.scores[0]:.1f}",
                    "others": [f"{100 * score:.1f}" for score in shape.scores[1:]],
                    **mistakes(shape, classes),
                }
                for shape in sorted(shapes, key=lambda shape: shape.scores[0])[:WORST]
            ],
        },
    )


def labelled_shapes(runs: Sequence[tuple[PointRun, Shown]], store: CloudStore) -> list[Labelled]:
    """All shapes that the runs were measured on, with the predictions of the evaluation that stands for each run.

    Raises:
        RunError: the predictions of a run cannot be found.
    """
    said: list[dict[str, np.ndarray]] = []
    for run, shown in runs:
        stage = run.recipe.stages[-1]
        step = shown.chosen - sum(each.steps for each in run.recipe.stages[:-1])
        for file in run.evaluations(stage.name):
            arrays = read_arrays(file)
            if int(arrays["step"]) == step:
                labels = arrays["logits"].argmax(axis=1)[:, 0]
                said.append({store.names[row]: each for row, each in zip(arrays["rows"], labels)})
                break
        else:
            raise RunError(f"{run.path}: expected predictions of step {step} of {stage.name!r}, found none")
    row_of = {name: row for row, name in enumerate(store.names)}
    shapes = []
    for index, name in enumerate(runs[0][1].predictions.names):
        points = min(len(each[name]) for each in said)
        row = row_of[name]
        shapes.append(
            Labelled(
                name,
                np.asarray(store.points[row, :points]),
                np.asarray(store.point_labels[row, :points]),
                np.stack([each[name][:points] for each in said]),
                tuple(float(shown.predictions.correct[index]) for _, shown in runs),
            )
        )
    return shapes


def chosen_shapes(shapes: Sequence[Labelled]) -> list[Labelled]:
    """The lowest, middle and highest score of the first run, and what it lost most against the second."""
    ordered = sorted(shapes, key=lambda shape: shape.scores[0])
    wanted = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    lost = most_lost(shapes)
    if lost is not None:
        wanted.append(lost)
    return list({shape.name: shape for shape in wanted}.values())


def most_lost(shapes: Sequence[Labelled]) -> Labelled | None:
    """The shape on which the first run is farthest below the second; None without a second, or if on none."""
    if len(shapes[0].scores) < 2:
        return None
    lost = min(shapes, key=lambda shape: shape.scores[0] - shape.scores[1])
    return lost if lost.scores[0] < lost.scores[1] else None


def mistakes(shape: Labelled, classes: Sequence[str], *, at_most: int = 3) -> dict[str, str]:
    """How many points the first run has wrong, in percent, and which parts it took for which most often."""
    known = shape.truth != NO_POINT_LABEL
    truth, said = shape.truth[known].astype(np.int64), shape.said[0][known]
    pairs = np.bincount((truth * len(classes) + said)[truth != said], minlength=len(classes) ** 2)
    common = [int(pair) for pair in np.argsort(-pairs, kind="stable")[:at_most] if pairs[pair]]
    words = [
        f"{classes[pair // len(classes)]} as {classes[pair % len(classes)]} ({100 * pairs[pair] / len(truth):.0f} %)"
        for pair in common
    ]
    return {"wrong": f"{100 * float((truth != said).mean()):.0f}", "mistakes": ", ".join(words) or "none"}


def pictures(shapes: Sequence[Labelled], labels: Sequence[str], classes: Sequence[str]) -> go.Figure:
    """A row for each shape: the truth, up to three runs, the errors of the first. Flat, so that many fit a page."""
    labels = labels[:SEEN_RUNS]
    titles = ["truth", *map(escape, labels), f"errors of {escape(labels[0])}"]
    figure = make_subplots(
        rows=len(shapes), cols=len(titles), column_titles=titles, horizontal_spacing=0.01, vertical_spacing=0.02
    )
    colours = np.array([*class_colours(len(classes)), *[UNKNOWN] * (256 - len(classes))])
    names = np.array([*map(escape, classes), *["no label"] * (256 - len(classes))])
    for row, shape in enumerate(shapes, start=1):
        flat, order = side_view(shape.points)
        wrong = (shape.said[0] != shape.truth) & (shape.truth != NO_POINT_LABEL)
        columns = [shape.truth, *shape.said[: len(labels)]]
        paints = [colours[each] for each in columns]
        paints.append(np.where(shape.truth == NO_POINT_LABEL, UNKNOWN, np.where(wrong, HURT, RIGHT)))
        texts = [names[each] for each in columns]
        texts.append(np.array([f"{names[t]} as {names[s]}" for t, s in zip(shape.truth, shape.said[0])]))
        below = [escape(shape.name), *(f"mIoU {100 * score:.1f} %" for score in shape.scores[: len(labels)]), ""]
        for column, (paint, text, caption) in enumerate(zip(paints, texts, below), start=1):
            figure.add_scatter(
                x=flat[order, 0],
                y=flat[order, 1],
                mode="markers",
                marker={"size": 4.5, "color": paint[order].tolist()},
                text=text[order].tolist(),
                hovertemplate=f"%{{text}}<extra>{escape(shape.name)}</extra>",
                showlegend=False,
                row=row,
                col=column,
            )
            figure.update_xaxes(title_text=caption, title_font={"size": 11}, title_standoff=2, row=row, col=column)
            number = (row - 1) * len(titles) + column
            figure.update_yaxes(scaleanchor=f"x{number if number > 1 else ''}", row=row, col=column)
    finish(figure, 90 + 250 * len(shapes), legend="below")
    legend_entries(
        figure, [(name, {"symbol": "circle", "color": colours[index]}, name) for index, name in enumerate(classes)]
    )
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, showline=False, range=[-1.05, 1.05])
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, showline=False, range=[-1.05, 1.05])
    return figure


def side_view(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points lie in a picture from the side on which the shape is widest, and the order, farthest first.

    Shape: ``(N, 3)`` with z up to ``(N, 2)`` and ``(N,)``.
    """
    level = points[:, :2] - points[:, :2].mean(axis=0)
    axes = np.linalg.eigh(level.T @ level)[1]
    across, depth = level @ axes[:, 1], level @ axes[:, 0]
    middle = (points[:, 2].max() + points[:, 2].min()) / 2
    return np.stack([across, points[:, 2] - middle], axis=1), np.argsort(depth, kind="stable")
