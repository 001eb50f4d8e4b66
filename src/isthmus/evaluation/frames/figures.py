"""The figures of a report on frames; what they share with other reports is in the module above."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from isthmus.evaluation.figures import Curve, evaluation_curves, finish
from isthmus.evaluation.frames.gallery import View
from isthmus.evaluation.frames.pictures import point_colours
from isthmus.tasks.dense import DenseTask

PER_ROW = 3
MOST_POINTS = 6000
"""More points of a sweep are thinned out, so that the page stays small."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training: mean IoU by prediction on the source's validation and the target's test part."""

    global_step: int
    source_val: float
    label_free: float
    validation: Mapping[str, float]
    test: Mapping[str, float]
    collapsed: bool


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it; see :class:`isthmus.evaluation.figures.ShownRun`."""

    label: str
    colour: str
    stages: tuple[tuple[str, int], ...]
    losses: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    chosen: int


def score_curves(runs: Sequence[Shown], tasks: Mapping[str, DenseTask]) -> go.Figure:
    """Mean IoU over training of every prediction on either domain, and the label-free score."""

    def scores(name: str, part: Literal["validation", "test"]) -> Callable[[Shown], list[float]]:
        return lambda run: [100 * getattr(each, part).get(name, math.nan) for each in run.evaluations]

    curves = [Curve(f"source validation, mIoU {escape(name)} [%]", scores(name, "validation")) for name in tasks]
    curves += [
        Curve(f"target test, mIoU {escape(name)} [%]<br>not used for selection", scores(name, "test"), "dash")
        for name in tasks
    ]
    curves.append(
        Curve("label-free score<br>(information maximisation)", lambda run: [e.label_free for e in run.evaluations])
    )
    return evaluation_curves(runs, curves, height=270, per_row=len(tasks) if len(tasks) > 1 else PER_ROW)


def turnable(shown: View, classes: Sequence[str]) -> go.Figure:
    """One sweep in 3D; buttons choose whose classes colour it."""
    keep = np.unique(np.linspace(0, len(shown.points) - 1, MOST_POINTS).round().astype(int))
    points = shown.points[keep].astype(np.float64).round(2)
    figure = go.Figure()
    names = [*map(escape, classes), "no label"]
    for index, (who, found) in enumerate(shown.classes.items()):
        here = found[keep]
        rgb = point_colours(classes, here)
        figure.add_scatter3d(
            x=points[:, 0].tolist(),
            y=points[:, 1].tolist(),
            z=points[:, 2].tolist(),
            mode="markers",
            marker={"size": 2.2, "color": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb.tolist()]},
            text=[names[min(int(each), len(classes))] for each in here],
            hovertemplate="%{text}<extra></extra>",
            visible=index == 0,
            showlegend=False,
            name=who,
        )
    buttons = [
        {
            "label": who,
            "method": "restyle",
            "args": [{"visible": [other == who for other in shown.classes]}],
        }
        for who in shown.classes
    ]
    finish(figure, 560, legend=None)
    ahead = points[:, :2].mean(axis=0)
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9) if np.linalg.norm(ahead) > 3 else np.array([1.0, 0.0])
    eye = {"x": -1.75 * float(ahead[0]), "y": -1.75 * float(ahead[1]), "z": 1.0}
    axis = {"visible": False}
    figure.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "top",
                "buttons": buttons,
                "active": 0,
                "showactive": True,
            }
        ],
        scene={
            "xaxis": axis,
            "yaxis": axis,
            "zaxis": axis,
            "aspectmode": "data",
            "camera": {"eye": eye, "center": {"x": 0, "y": 0, "z": -0.1}},
            "bgcolor": "#1c1c1c",
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )
    return figure
