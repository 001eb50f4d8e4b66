"""The figures of a report on dense predictions; what they share with other reports is in the module above."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from isthmus.evaluation.dense.features import Plane
from isthmus.evaluation.figures import (
    Curve,
    ShownRun,
    evaluation_curves,
    finish,
    legend_entries,
    longest,
    mark_stages,
    panels,
    place,
    run_legend,
)
from isthmus.evaluation.page import NAN
from isthmus.tasks.dense import DenseTask

PER_ROW = 4
NOT_FOR_SELECTION = "not used for selection"
CONFUSED = 0.55
"""TADA: a discriminator "very frequently lower than 55 %" is a sign that adaptation works."""
DOMAINS: dict[str, dict[str, Any]] = {
    "source": {"symbol": "circle", "color": "#444444", "size": 7, "opacity": 0.75},
    "target": {"symbol": "diamond", "color": "#B3196B", "size": 7, "opacity": 0.75},
}
"""Markers of the two domains, in colours that no run has."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training: the selection score, and every task's headline score on either part.

    ``test`` is empty where the recipe did not measure it.
    """

    global_step: int
    source_val: float
    validation: Mapping[str, float]
    test: Mapping[str, float]
    collapsed: bool = False


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it.

    ``stages`` are names and steps in order, ``losses`` the rows of ``metrics.jsonl`` that hold losses, ``chosen`` the
    global step of the evaluation that stands for the run.
    """

    label: str
    colour: str
    stages: tuple[tuple[str, int], ...]
    losses: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    chosen: int


def score_curves(
    runs: Sequence[Shown], tasks: Mapping[str, DenseTask], tested: Mapping[str, DenseTask] | None = None
) -> go.Figure:
    """Headline scores over training: on the validation part, and dashed on the test part, which decided nothing.

    ``tested`` are the tasks that the test part is measured for, all by default.
    """
    tested = tasks if tested is None else tested

    def scores(name: str, part: Literal["validation", "test"]) -> Callable[[Shown], list[float]]:
        factor = tasks[name].display_factor
        return lambda run: [factor * getattr(each, part).get(name, math.nan) for each in run.evaluations]

    headings = {name: f"{escape(task.heading)} {'↑' if task.higher_is_better else '↓'}" for name, task in tasks.items()}
    curves = [Curve(f"validation {heading}", scores(name, "validation")) for name, heading in headings.items()]
    curves += [
        Curve(f"test {heading}<br>{NOT_FOR_SELECTION}", scores(name, "test"), "dash")
        for name, heading in headings.items()
        if name in tested
    ]
    together = len(curves) if len(curves) <= PER_ROW else len(tasks)
    return evaluation_curves(runs, curves, height=270, per_row=min(PER_ROW, together))


def accuracy_names(runs: Sequence[ShownRun]) -> list[str]:
    """``accuracy/<tap>`` of every discriminator that was logged."""
    found = (key for run in runs for row in run.losses for key in row if key.startswith("accuracy/"))
    return list(dict.fromkeys(found))


def accuracy_curves(runs: Sequence[ShownRun], threshold: float = CONFUSED) -> go.Figure | None:
    """The running accuracy of each discriminator in percent, with the line below which it is confused; None without."""
    names = accuracy_names(runs)
    if not names:
        return None
    figure = panels([escape(name.removeprefix("accuracy/")) for name in names], height=270, per_row=PER_ROW)
    for index, name in enumerate(names):
        row, column = place(index, PER_ROW)
        for run in runs:
            rows = [each for each in run.losses if name in each]
            if not rows:
                continue
            figure.add_scatter(
                x=[each["global_step"] for each in rows],
                y=[100 * each[name] for each in rows],
                mode="lines+markers" if len(rows) < 30 else "lines",
                line={"color": run.colour, "width": 2},
                marker={"size": 5},
                hovertemplate=f"%{{y:.1f}} % at step %{{x}}<extra>{escape(run.label)}</extra>",
                legendgroup=run.label,
                showlegend=False,
                row=row,
                col=column,
            )
        figure.add_hline(
            y=100 * threshold,
            line={"color": "#B3196B", "width": 1.5, "dash": "dash"},
            annotation={"text": f"{100 * threshold:g} %", "font": {"size": 10, "color": "#B3196B"}},
            annotation_position="bottom right",
            row=row,
            col=column,
        )
        # A discriminator that a game drives in circles can be wrong more often than by guessing.
        least = min(100 * each[name] for run in runs for each in run.losses if name in each)
        figure.update_yaxes(range=[min(40, least - 3), 102], ticksuffix=" %", row=row, col=column)
    figure.update_xaxes(range=[0, 1.02 * longest(runs)])
    run_legend(figure, [run for run in runs if accuracy_names([run])])
    mark_stages(figure, runs[0].stages, len(names), PER_ROW)
    return figure


class FeatureRow(NamedTuple):
    """Features of one run at one tap, a plane for every location (None where there is none)."""

    label: str
    tap: str
    planes: Sequence[Plane | None]


def feature_planes(rows: Sequence[FeatureRow], locations: Sequence[str]) -> go.Figure:
    """A row of panels for each run and tap, a column for each location; the domains in two colours."""
    figure = make_subplots(
        rows=len(rows),
        cols=len(locations),
        column_titles=[escape(name) for name in locations],
        row_titles=[f"{escape(row.label)}<br><b>{escape(row.tap)}</b>" for row in rows],
        horizontal_spacing=0.02,
        vertical_spacing=0.2 / max(len(rows), 2),
    )
    finish(figure, 215 * len(rows) + 90)
    for row_of, row in enumerate(rows, start=1):
        for column, plane in enumerate(row.planes, start=1):
            where = {"row": row_of, "col": column}
            if plane is None:
                figure.add_scatter(x=[None], y=[None], showlegend=False, **where)
            else:
                for name, places in (("source", plane.source), ("target", plane.target)):
                    figure.add_scatter(
                        x=places[:, 0].tolist(),
                        y=places[:, 1].tolist(),
                        mode="markers",
                        marker=DOMAINS[name],
                        hovertemplate=f"{name}<extra></extra>",
                        legendgroup=name,
                        showlegend=False,
                        **where,
                    )
            figure.add_annotation(
                text=NAN if plane is None else f"gap {plane.gap:.2f} · {100 * plane.explained:.0f} %",
                xref="x domain",
                yref="y domain",
                x=0.02,
                y=1.0,
                yanchor="bottom",
                xanchor="left",
                showarrow=False,
                font={"size": 11, "color": "#666"},
                **where,
            )
    figure.update_xaxes(showticklabels=False, zeroline=False, mirror=True)
    figure.update_yaxes(showticklabels=False, zeroline=False, mirror=True)
    for annotation in figure.layout.annotations[: len(locations)]:
        annotation.yshift = 16
    figure.update_layout(margin={"t": 80})
    legend_entries(figure, [(name, marker, name) for name, marker in DOMAINS.items()])
    return figure
