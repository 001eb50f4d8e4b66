"""The figures of a report on point clouds: one function per figure, from plain data to a plotly ``Figure``.

What needs target labels is dashed or says so in its title. Names from data and recipes are escaped, since plotly
reads its texts as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from isthmus.evaluation.figures import (
    PANELS_PER_ROW,
    Curve,
    evaluation_curves,
    finish,
    legend_entries,
    mark_stages,
    panels,
    place,
    rings,
    signed,
)
from isthmus.evaluation.points.accuracy import Predictions
from isthmus.evaluation.points.parts import PartPredictions
from isthmus.evaluation.points.shapes import Embedding, Shape

CLASS_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
"""Paul Tol's muted scheme, for at most ten classes; more are spread over a continuous scale."""

SYMBOLS = ("circle", "square", "triangle-up", "star", "pentagon", "hexagon")
NEEDS_LABELS = "needs target labels, not used for selection"
_SAMPLES_PER_COLUMN = 96


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training; accuracies are shares in [0, 1], that on the target needs its labels."""

    stage: str
    step: int
    global_step: int
    source_val: float
    label_free: float
    collapsed: bool
    target_accuracy: float


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it.

    ``stages`` are names and steps in order, ``losses`` the rows of ``metrics.jsonl`` that hold losses, ``predictions``
    those of the evaluation at ``chosen`` (a global step) in the last stage.
    """

    label: str
    colour: str
    stages: tuple[tuple[str, int], ...]
    losses: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    predictions: Predictions | PartPredictions
    chosen: int


@dataclass(frozen=True)
class GateLog:
    """What a gate saw of one domain: one entry per logged sample.

    ``steps`` are global, ``scores`` finite, ``labels`` the classes that the gated method knew (pseudo-labels on the
    target). All of one length.
    """

    domain: str
    steps: np.ndarray
    stages: np.ndarray
    scores: np.ndarray
    taking_part: np.ndarray
    labels: np.ndarray


def confusion_matrices(runs: Sequence[Shown], named: str = "class") -> go.Figure:
    """Row-normalised confusion matrices side by side; counts on hovering."""
    columns = min(len(runs), PANELS_PER_ROW)
    rows = -(-len(runs) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[escape(run.label) for run in runs],
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / rows,
    )
    names = [escape(name) for name in runs[0].predictions.classes]
    for index, run in enumerate(runs):
        counts = run.predictions.confusion.numpy()
        totals = counts.sum(axis=1, keepdims=True)
        share = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
        figure.add_heatmap(
            z=share,
            x=names,
            y=names,
            customdata=np.stack([counts, np.broadcast_to(totals, counts.shape)], axis=-1),
            hovertemplate="true %{y}, predicted %{x}<br>%{customdata[0]} of %{customdata[1]} (%{z:.0f} %)"
            f"<extra>{escape(run.label)}</extra>",
            text=[["" if not value >= 10 else f"{value:.0f}" for value in line] for line in share],
            texttemplate="%{text}" if len(names) <= 12 else "",
            textfont={"size": 10},
            coloraxis="coloraxis",
            row=index // columns + 1,
            col=index % columns + 1,
        )
    if columns == 1:
        figure.update_layout(width=620)
    figure.update_yaxes(autorange="reversed", title_text=f"true {named}", col=1)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-60, title_text="predicted")
    figure.update_layout(
        coloraxis={
            "colorscale": "Blues",
            "cmin": 0,
            "cmax": 100,
            "colorbar": {"title": {"text": "%"}, "thickness": 12},
        }
    )
    return finish(figure, rows * (170 + 22 * max(len(names), 8)), legend=None)


def score_curves(runs: Sequence[Shown], score_name: str, measure: str = "accuracy") -> go.Figure:
    """Source validation, the label-free score, and target accuracy at each evaluation; a ring is the one chosen."""
    curves = (
        Curve(f"source-val {measure}, %", lambda run: [100 * each.source_val for each in run.evaluations]),
        Curve(f"label-free score ({score_name})", lambda run: [each.label_free for each in run.evaluations]),
        Curve(
            f"target {measure}, %<br>{NEEDS_LABELS}",
            lambda run: [100 * each.target_accuracy for each in run.evaluations],
            "dash",
        ),
    )
    return evaluation_curves(runs, curves)


def gate_scores(logs: Sequence[GateLog], stages: Sequence[tuple[str, int]], score_name: str) -> go.Figure:
    """How the scores are spread over training, per domain, as the share of each step bin; and their mean."""
    total = sum(steps for _, steps in stages)
    figure = panels([escape(log.domain) for log in logs], height=330, per_row=2)
    for index, log in enumerate(logs):
        at = place(index, 2)
        low, high = np.quantile(log.scores, [0.005, 0.995])
        if high - low < 1e-6:
            low, high = low - 0.5, high + 0.5
        logged = np.unique(log.steps)
        covered = (logged[-1] - logged[0]) * len(logged) / max(len(logged) - 1, 1) or total
        wanted = min(len(logged), len(log.scores) // _SAMPLES_PER_COLUMN) * total / covered
        columns = int(np.clip(wanted, 1, 60))
        step_edges, score_edges = np.linspace(0, total, columns + 1), np.linspace(low, high, 25)
        inside = log.scores.clip(low, high)
        counts, _, _ = np.histogram2d(log.steps - 0.5, inside, bins=(step_edges, score_edges))
        samples = counts.sum(axis=1, keepdims=True)
        share = np.where(samples > 0, 100 * counts / np.maximum(samples, 1), np.nan)
        middle = (step_edges[1:] + step_edges[:-1]) / 2
        figure.add_heatmap(
            x=middle,
            y=(score_edges[1:] + score_edges[:-1]) / 2,
            z=share.T,
            coloraxis="coloraxis",
            hovertemplate=f"around step %{{x:.0f}}, {score_name} %{{y:.2f}}: %{{z:.1f}} % of samples<extra></extra>",
            row=at[0],
            col=at[1],
        )
        column = np.clip(np.digitize(log.steps - 0.5, step_edges) - 1, 0, columns - 1)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(column, log.scores, columns) / np.bincount(column, minlength=columns)
        figure.add_scatter(
            x=middle,
            y=mean,
            mode="lines",
            name="mean",
            line={"color": "#222", "width": 2},
            hovertemplate="mean %{y:.2f}<extra></extra>",
            showlegend=index == 0,
            row=at[0],
            col=at[1],
        )
    figure.update_yaxes(title_text=score_name, col=1)
    bar = {"title": {"text": "% of<br>samples"}, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": "Blues", "cmin": 0, "colorbar": bar})
    mark_stages(figure, stages, len(logs), per_row=2)
    figure.update_xaxes(range=[0, total])
    return figure


def gate_shares(logs: Sequence[GateLog], stages: Sequence[tuple[str, int]], classes: Sequence[str]) -> go.Figure:
    """Share of each class that the gate let through, per stage and domain, beside the share of all (the line)."""
    shown = [(log, stage) for stage, _ in stages for log in logs if (log.stages == stage).any()]
    titles = [
        f"{escape(stage)}, {escape(log.domain)}<br>all: {100 * log.taking_part[log.stages == stage].mean():.0f} %"
        for log, stage in shown
    ]
    figure = panels(titles, height=310, legend=None)
    for index, (log, stage) in enumerate(shown):
        at, here = place(index), log.stages == stage
        kept, labels = log.taking_part[here], log.labels[here]
        known = labels >= 0
        counts = np.bincount(labels[known], minlength=len(classes))
        let_through = np.bincount(labels[known], kept[known], len(classes))
        share = np.where(counts > 0, 100 * let_through / np.maximum(counts, 1), np.nan)
        figure.add_bar(
            x=[escape(name) for name in classes],
            y=share,
            marker={"color": "#7FA8C9"},
            customdata=np.stack([let_through, counts], axis=-1),
            hovertemplate="%{x}: %{customdata[0]} of %{customdata[1]} logged samples (%{y:.0f} %)<extra></extra>",
            showlegend=False,
            row=at[0],
            col=at[1],
        )
        figure.add_hline(
            y=100 * float(kept.mean()),
            line={"color": "#222", "width": 1.5, "dash": "dot"},
            row=at[0],
            col=at[1],
        )
    figure.update_yaxes(range=[0, 105])
    figure.update_yaxes(title_text="let through, %", col=1)
    figure.update_xaxes(tickangle=-60, title_text="", tickfont={"size": 11})
    return figure


def shapes(clouds: Sequence[Shape]) -> go.Figure:
    """Clouds in 3D side by side, to be turned, coloured by saliency relative to the largest in the cloud."""
    figure = make_subplots(
        rows=1,
        cols=len(clouds),
        specs=[[{"type": "scene"}] * len(clouds)],
        subplot_titles=[f"<b>{escape(cloud.class_name)}</b>  skewness {signed(cloud.skewness)}" for cloud in clouds],
        horizontal_spacing=0.01,
    )
    for column, cloud in enumerate(clouds, start=1):
        largest = max(float(np.abs(cloud.saliency).max()), 1e-30)
        x, y, z = cloud.points.T
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            marker={"size": 3.5, "color": cloud.saliency / largest, "coloraxis": "coloraxis"},
            hovertemplate=f"%{{marker.color:.2f}}<extra>{escape(cloud.name)}</extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        low, high = cloud.points.min(axis=0), cloud.points.max(axis=0)
        half = 0.52 * float((high - low).max())
        ranges = {
            f"{axis}axis": {"visible": False, "range": [middle - half, middle + half]}
            for axis, middle in zip("xyz", ((low + high) / 2).tolist())
        }
        figure.update_scenes(aspectmode="cube", camera={"eye": {"x": 1.1, "y": 1.1, "z": 0.6}}, row=1, col=column)
        figure.update_scenes(ranges, row=1, col=column)
    scale = [[0.0, "#542788"], [0.5, "#C9C9C9"], [1.0, "#E07B00"]]
    bar = {"title": {"text": "saliency"}, "thickness": 12, "tickvals": [-1, 0, 1]}
    figure.update_layout(coloraxis={"colorscale": scale, "cmin": -1, "cmax": 1, "colorbar": bar})
    finish(figure, 310, legend=None)
    return figure.update_layout(margin={"l": 0, "r": 0, "t": 50, "b": 0})


def embedding(panels: Sequence[tuple[str, Embedding]], classes: Sequence[str]) -> go.Figure:
    """Two-dimensional maps of both domains: the class is the colour, the domain the marker."""
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=[escape(title) for title, _ in panels], horizontal_spacing=0.03
    )
    colours = class_colours(len(classes))
    for column, (_, embedded) in enumerate(panels, start=1):
        for domain, symbol in (("source", "circle-open"), ("target", "diamond")):
            for label in [*range(len(classes)), -1]:
                members = (embedded.labels == label) & (embedded.domains == domain)
                if not members.any():
                    continue
                name = classes[label] if label >= 0 else "no label"
                figure.add_scatter(
                    x=embedded.positions[members, 0],
                    y=embedded.positions[members, 1],
                    mode="markers",
                    marker={"symbol": symbol, "size": 7, "color": colours[label] if label >= 0 else "#BBBBBB"},
                    text=[escape(embedded.names[row]) for row in np.flatnonzero(members)],
                    hovertemplate=f"%{{text}}<br>{domain}, {escape(name)}<extra></extra>",
                    legendgroup=name,
                    showlegend=False,
                    row=1,
                    col=column,
                )
    shown = sorted({int(label) for _, embedded in panels for label in embedded.labels if label >= 0})
    legend_entries(
        figure,
        [(domain, {"symbol": symbol, "color": "#444"}, f"domain {domain}")
         for domain, symbol in (("source", "circle-open"), ("target", "diamond"))]
        + [(classes[label], {"symbol": "circle", "color": colours[label]}, classes[label]) for label in shown],
    )  # fmt: skip
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, mirror=True)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, mirror=True)
    return finish(figure, 470, legend="below")


def selection(runs: Sequence[Shown], score_name: str, measure: str = "accuracy") -> go.Figure:
    """The label-free score against the target's ``measure``: one marker per evaluation, its shape the stage."""
    figure = go.Figure()
    for run in runs:
        order = {name: SYMBOLS[index % len(SYMBOLS)] for index, (name, _) in enumerate(run.stages)}
        figure.add_scatter(
            x=[each.label_free for each in run.evaluations],
            y=[100 * each.target_accuracy for each in run.evaluations],
            mode="markers",
            marker={
                "color": run.colour,
                "symbol": ["x" if each.collapsed else order[each.stage] for each in run.evaluations],
                "size": [15 if each.global_step == run.chosen else 8 for each in run.evaluations],
                "line": {"color": "#222", "width": rings(run)},
            },
            text=[f"{escape(each.stage)} step {each.step}" for each in run.evaluations],
            hovertemplate=f"%{{text}}<br>score %{{x:.4g}}, target %{{y:.1f}} %<extra>{escape(run.label)}</extra>",
            name=escape(run.label),
            showlegend=False,
        )
    legend_entries(figure, [(run.label, {"symbol": "circle", "color": run.colour}, run.label) for run in runs])
    stages = max((run.stages for run in runs), key=len)
    if len(stages) > 1:
        entries = [
            (name, {"symbol": SYMBOLS[index % len(SYMBOLS)], "color": "#666"}, f"stage {name}")
            for index, (name, _) in enumerate(stages)
        ]
        legend_entries(figure, entries)
    figure.update_xaxes(title_text=f"label-free score ({score_name})")
    figure.update_yaxes(title_text=f"target {measure}, %")
    return finish(figure, 400)


def class_colours(count: int) -> list[str]:
    """A colour for each class."""
    if count <= len(CLASS_COLOURS):
        return list(CLASS_COLOURS[:count])
    colours: list[str] = sample_colorscale("Turbo", np.linspace(0, 1, count).tolist())
    return colours
