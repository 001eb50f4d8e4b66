"""What the figures of all reports have in common: colours, panels, curves over training, gains of classes.

A run has one colour in all figures (Okabe and Ito, distinguishable by the colour-blind); vermilion is kept for harm.
Names from data and recipes are escaped, since plotly reads its texts as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import cycle, pairwise
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from isthmus.evaluation.statistics import Interval

RUN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#5C4B99", "#666666")
HURT, HELPED, NEUTRAL = "#D55E00", "#0072B2", "#8A8A8A"
PANELS_PER_ROW = 3
LONGEST_TITLE = 28
"""Characters that fit above one of four panels."""


class Evaluated(Protocol):
    """One evaluation during training."""

    @property
    def global_step(self) -> int:
        """Steps over all stages."""

    @property
    def collapsed(self) -> bool:
        """Whether predictions had collapsed onto few classes."""


class ShownRun(Protocol):
    """A run as a page shows it."""

    @property
    def label(self) -> str:
        """Its name on the page."""

    @property
    def colour(self) -> str:
        """Its colour in every figure."""

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Names and steps in order."""

    @property
    def losses(self) -> tuple[dict[str, Any], ...]:
        """The rows of ``metrics.jsonl`` that hold losses."""

    @property
    def evaluations(self) -> Sequence[Evaluated]:
        """In the order of training."""

    @property
    def chosen(self) -> int:
        """The global step of the evaluation that stands for the run."""


class Gain(Protocol):
    """What one class gained over a baseline; the interval is NaN where nothing could be measured."""

    @property
    def name(self) -> str:
        """The class."""

    @property
    def gain(self) -> Interval:
        """A difference of shares in [0, 1]."""

    @property
    def verdict(self) -> str:
        """``hurt``, ``helped``, or anything else."""


class Curve(NamedTuple):
    """One panel of scores over training: its title, the value at each evaluation of a run, how the line is drawn."""

    title: str
    values: Callable[[Any], Sequence[float]]
    dash: Literal["solid", "dash"] = "solid"


def class_gains(gains: Sequence[tuple[str, Sequence[Gain]]], score: str) -> go.Figure:
    """Gain in ``score`` of each class over each baseline (title, gains) in percentage points, with 95 % intervals."""
    figure = make_subplots(
        rows=1, cols=len(gains), shared_yaxes=True, subplot_titles=[f"over {escape(title)}" for title, _ in gains]
    )
    for column, (_, classes) in enumerate(gains, start=1):
        for gain in classes:
            if np.isnan(gain.gain.estimate):
                continue
            centre, interval = 100 * gain.gain.estimate, gain.gain
            known = np.isfinite(interval.low)
            figure.add_scatter(
                x=[centre],
                y=[escape(gain.name)],
                error_x={
                    "array": [100 * interval.high - centre if known else 0],
                    "arrayminus": [centre - 100 * interval.low if known else 0],
                },
                marker={"color": {"hurt": HURT, "helped": HELPED}.get(gain.verdict, NEUTRAL), "size": 9},
                hovertemplate=f"{escape(gain.name)}: %{{x:+.1f}} points, {gain.verdict}<extra></extra>",
                showlegend=False,
                row=1,
                col=column,
            )
        figure.add_vline(x=0, line={"color": "#444", "width": 1}, row=1, col=column)
        figure.update_xaxes(title_text=f"gain in {score}, points", row=1, col=column)
    names = [escape(gain.name) for gain in gains[0][1]]
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4])
    return finish(figure, 90 + 24 * len(names), legend=None)


def loss_curves(runs: Sequence[ShownRun]) -> go.Figure:
    """One panel per loss over all stages: batch values faint, a running mean strong; unweighted."""
    names = list(dict.fromkeys(key for run in runs for row in run.losses for key in row if key.startswith("loss/")))
    figure = panels([_broken(name.removeprefix("loss/")) for name in names], height=270, per_row=4)
    for index, name in enumerate(names):
        row_of, column_of = place(index, 4)
        for run in runs:
            rows = [row for row in run.losses if name in row]
            if not rows:
                continue
            steps, values = [row["global_step"] for row in rows], np.array([row[name] for row in rows])
            stages = np.array([row["stage"] for row in rows])
            common = {"legendgroup": run.label, "x": steps, "row": row_of, "col": column_of}
            figure.add_scatter(
                y=values,
                mode="lines",
                line={"color": run.colour, "width": 1},
                opacity=0.25,
                showlegend=False,
                hoverinfo="skip",
                **common,
            )
            figure.add_scatter(
                y=smooth(values, stages),
                mode="lines" if len(rows) > 1 else "markers",
                line={"color": run.colour, "width": 2},
                hovertemplate=f"%{{y:.3f}} at step %{{x}}<extra>{escape(run.label)}</extra>",
                showlegend=False,
                **common,
            )
        figure.update_yaxes(rangemode="tozero", row=row_of, col=column_of)
    figure.update_xaxes(range=[0, longest(runs)])
    run_legend(figure, runs)
    mark_stages(figure, runs[0].stages, len(names), per_row=4)
    return figure


def _broken(name: str) -> str:
    """The title of a panel, in two lines where one is too short for it."""
    first, slash, rest = name.partition("/")
    return f"{escape(first + slash)}<br>{escape(rest)}" if len(name) > LONGEST_TITLE and rest else escape(name)


def evaluation_curves(
    runs: Sequence[ShownRun], curves: Sequence[Curve], *, height: int = 330, per_row: int = PANELS_PER_ROW
) -> go.Figure:
    """One panel per curve; a ring is the evaluation that was chosen, a cross one whose predictions had collapsed."""
    figure = panels([curve.title for curve in curves], height=height, per_row=per_row)
    figure.update_annotations(yshift=4)
    for run in runs:
        steps = [each.global_step for each in run.evaluations]
        symbols = ["x" if each.collapsed else "circle" for each in run.evaluations]
        sizes = [12 if each.global_step == run.chosen else 6 for each in run.evaluations]
        for index, curve in enumerate(curves):
            row, column = place(index, per_row)
            figure.add_scatter(
                x=steps,
                y=curve.values(run),
                mode="lines+markers",
                line={"color": run.colour, "width": 2, "dash": curve.dash},
                marker={"symbol": symbols, "size": sizes, "line": {"color": "#222", "width": rings(run)}},
                hovertemplate=f"%{{y:.4g}} at step %{{x}}<extra>{escape(run.label)}</extra>",
                legendgroup=run.label,
                showlegend=False,
                row=row,
                col=column,
            )
    for row in range(1, place(len(curves) - 1, per_row)[0]):
        figure.update_xaxes(title_text="", row=row)  # the next row's titles may have two lines
    run_legend(figure, runs)
    mark_stages(figure, runs[0].stages, len(curves), per_row)
    figure.update_xaxes(range=[0, 1.02 * longest(runs)])
    return figure


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, a typographic minus; plain zero where it rounds to that."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def run_colours(count: int) -> list[str]:
    """A colour for each run, the subject's first; they repeat after the seventh."""
    return [colour for colour, _ in zip(cycle(RUN_COLOURS), range(count))]


def rings(run: ShownRun) -> list[float]:
    """Widths of outlines: only the chosen evaluation has one."""
    return [2.0 if each.global_step == run.chosen else 0.0 for each in run.evaluations]


def smooth(values: np.ndarray, stages: np.ndarray) -> np.ndarray:
    """Centred running mean over a fifteenth of the values, never across two stages. Shape: ``(n,)`` twice."""
    half = len(values) // 30
    smoothed = np.empty(len(values))
    for index in range(len(values)):
        near = slice(max(0, index - half), index + half + 1)
        smoothed[index] = values[near][stages[near] == stages[index]].mean()
    return smoothed


def panels(
    titles: Sequence[str],
    *,
    height: int,
    per_row: int = PANELS_PER_ROW,
    legend: Literal["above", None] = "above",
) -> go.Figure:
    """An empty figure of equal panels, row by row, each ``height`` pixels high."""
    columns = min(len(titles), per_row) or 1
    rows = -(-len(titles) // columns) or 1
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        horizontal_spacing=0.07,
        vertical_spacing=0.3 / rows if rows > 1 else 0.0,
    )
    figure.update_xaxes(title_text="step", title_standoff=4)
    return finish(figure, height * rows + 30, legend=legend)


def place(index: int, per_row: int = PANELS_PER_ROW) -> tuple[int, int]:
    """Row and column of a panel, from 1."""
    return index // per_row + 1, index % per_row + 1


def longest(runs: Sequence[ShownRun]) -> int:
    """Steps of the longest run."""
    return max(sum(steps for _, steps in run.stages) for run in runs)


def run_legend(figure: go.Figure, runs: Sequence[ShownRun]) -> None:
    """A legend of runs."""
    legend_entries(figure, [(run.label, {"symbol": "square", "color": run.colour}, run.label) for run in runs])


def legend_entries(figure: go.Figure, entries: Iterable[tuple[str, dict[str, str], str]]) -> None:
    """Legend entries of their own (text, marker, group), so that they do not depend on which traces a panel has."""
    for name, marker, group in entries:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", marker={"size": 9, **marker}, name=escape(name), legendgroup=group,
        )  # fmt: skip


def mark_stages(
    figure: go.Figure, stages: Sequence[tuple[str, int]], count: int, per_row: int = PANELS_PER_ROW
) -> None:
    """A line in each of ``count`` panels where a stage of the subject ends and the next begins, with its name."""
    at = 0
    for (_, steps), (name, _) in pairwise(stages):
        at += steps
        for index in range(count):
            row, column = place(index, per_row)
            figure.add_vline(
                x=at,
                line={"color": "#999", "width": 1, "dash": "dot"},
                annotation={"text": escape(name), "font": {"size": 10, "color": "#666"}},
                annotation_position="top right",
                row=row,
                col=column,
            )


def finish(figure: go.Figure, height: int, *, legend: Literal["above", "below", None] = "above") -> go.Figure:
    """Size, fonts, margins and axes of every figure."""
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#222"}
    where: dict[str, Any] = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top", "y": -0.04}
    if legend == "above":
        where |= {"yref": "container", "y": 0.995}
    figure.update_layout(
        template="plotly_white",
        height=height,
        font=font,
        margin={"l": 10, "r": 10, "t": 70 if legend == "above" else 45, "b": 10},
        legend=where,
        hoverlabel={"font": font},
    )
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(showline=True, linecolor="#999", automargin=True)
    figure.update_yaxes(showline=True, linecolor="#999", automargin=True)
    return figure
