"""The figures of an analysis of gradient conflicts, from measured numbers to plotly figures.

Source and target have a symbol each, a run its colour, as in the reports. Everything here needs target labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from isthmus.evaluation.figures import RUN_COLOURS, finish, legend_entries, mark_stages, panels, place, smooth
from isthmus.evaluation.points.analysis_numbers import GROUPS, STEP_COSINES, by_step, groups_of, parts
from isthmus.evaluation.points.analysis_sweep import Sweep, mean_curve
from isthmus.evaluation.points.conflict import ALPHAS, step_correlation
from isthmus.evaluation.points.replay import Measured

SHADES = ("#1B3A5C", "#3B6A9B", "#7FA8C9", "#D9A15B", "#B4560F")
"""Of the groups, from the least skewed to the most."""

SAMPLES = 2000
"""At most this many samples are drawn in a scatter."""


@dataclass(frozen=True)
class Subject:
    """A measured run as figures show it; ``stages`` are the names and steps of all its stages."""

    label: str
    colour: str
    stages: tuple[tuple[str, int], ...]
    measured: Measured


def skewness_over_steps(subjects: Sequence[Subject]) -> go.Figure:
    """Figure 1 of the paper: one marker per step, its shade the time."""
    shown = [(subject, part) for subject in subjects for part in parts(subject.measured) if _scored(part[2])]
    figure = panels([f"{escape(s.label)}<br>{stage}, {domain}" for s, (stage, domain, _) in shown], height=330)
    for index, (subject, (stage, _, table)) in enumerate(shown):
        steps = subject.measured.steps
        here = steps["stage"] == stage
        row, column = place(index)
        figure.add_scatter(
            x=[np.nanmean(values) for (values,) in by_step(table, "coupled")],
            y=steps["ssl_oracle"][here],
            mode="markers",
            marker={"color": steps["number"][here], "colorscale": "Blues_r", "size": 8, "line": {"width": 0.5}},
            text=steps["number"][here],
            hovertemplate="step %{text}: mean skewness %{x:.2f}, cosine %{y:.3f}<extra></extra>",
            showlegend=False,
            row=row,
            col=column,
        )
    figure.update_xaxes(title_text="mean skewness of the step")
    figure.update_yaxes(title_text="cosine of the step", col=1)
    return finish(figure, figure.layout.height, legend=None)


def skewness_within_steps(subjects: Sequence[Subject]) -> go.Figure:
    """The rank correlation of skewness with the cosine in every measured step, as a histogram; and its mean."""
    shown = [(subject, part) for subject in subjects for part in parts(subject.measured) if _scored(part[2])]
    figure = panels([f"{escape(s.label)}<br>{stage}, {domain}" for s, (stage, domain, _) in shown], height=290)
    for index, (subject, (_, _, table)) in enumerate(shown):
        row, column = place(index)
        values = np.array([step_correlation(a, b) for a, b in by_step(table, "coupled", "cosine_oracle")])
        values = values[np.isfinite(values)]
        figure.add_histogram(
            x=values,
            xbins={"start": -1.0, "end": 1.0, "size": 0.1},
            marker={"color": subject.colour, "line": {"color": "white", "width": 1}},
            hovertemplate="%{x}: %{y} steps<extra></extra>",
            showlegend=False,
            row=row,
            col=column,
        )
        figure.add_vline(x=0, line={"color": "#444", "width": 1}, row=row, col=column)
        if len(values):
            figure.add_vline(
                x=float(values.mean()), line={"color": "#222", "width": 2, "dash": "dash"}, row=row, col=column
            )
    figure.update_xaxes(title_text="rank correlation within a step", range=[-1, 1])
    figure.update_yaxes(title_text="steps", col=1)
    return finish(figure, figure.layout.height, legend=None)


def conflicts_over_training(subjects: Sequence[Subject]) -> go.Figure:
    """Figures 4 and 9: cosines of whole gradients over training, a panel for each pair."""
    figure = panels(list(STEP_COSINES.values()), height=290, per_row=2)
    for index, name in enumerate(STEP_COSINES):
        row, column = place(index, 2)
        for subject in subjects:
            _curve(figure, subject, subject.measured.steps[name], row, column)
        figure.add_hline(y=0, line={"color": "#444", "width": 1}, row=row, col=column)
    figure.update_yaxes(title_text="cosine", col=1)
    return _over_training(figure, subjects, len(STEP_COSINES))


def shares_over_training(subjects: Sequence[Subject]) -> go.Figure:
    """The share of samples whose self-supervised gradient is in conflict, over training, by domain and kind."""
    kinds = {"cosine_oracle": "with the oracle", "cosine_class": "with classification"}
    domains = list(dict.fromkeys(subjects[0].measured.samples["domain"].tolist()))
    titles = [f"{domain} samples in conflict<br>{text}" for text in kinds.values() for domain in domains]
    figure = panels(titles, height=290, per_row=2)
    for index, (name, domain) in enumerate((name, domain) for name in kinds for domain in domains):
        row, column = place(index, 2)
        for subject in subjects:
            samples, found = subject.measured.samples, []
            for step in subject.measured.steps["global_step"]:
                here = (samples["global_step"] == step) & (samples["domain"] == domain) & np.isfinite(samples[name])
                found.append(100 * (samples[name][here] < 0).mean() if here.any() else np.nan)
            _curve(figure, subject, np.array(found), row, column)
    figure.update_yaxes(range=[0, 100])
    figure.update_yaxes(title_text="%", col=1)
    return _over_training(figure, subjects, len(titles))


def cosines_over_training(subjects: Sequence[Subject]) -> go.Figure:
    """The cosines of single samples over training: mean, and a band from the lower to the upper quartile."""
    kinds = {"cosine_oracle": "with the oracle", "cosine_class": "with classification"}
    domains = list(dict.fromkeys(subjects[0].measured.samples["domain"].tolist()))
    panel = [(name, domain) for name in kinds for domain in domains]
    figure = panels([f"{domain} samples<br>{kinds[name]}" for name, domain in panel], height=290, per_row=2)
    for index, (name, domain) in enumerate(panel):
        row, column = place(index, 2)
        for subject in subjects:
            samples, steps = subject.measured.samples, subject.measured.steps
            values = []
            for step in steps["global_step"]:
                here = (samples["global_step"] == step) & (samples["domain"] == domain) & np.isfinite(samples[name])
                found = samples[name][here]
                values.append([*np.quantile(found, [0.25, 0.75]), found.mean()] if here.any() else [np.nan] * 3)
            low, high, mean = (_smooth(line, steps["stage"]) for line in np.array(values).T)
            common = {"x": steps["global_step"], "legendgroup": subject.label, "showlegend": False}
            for line, fill in ((low, None), (high, "tonexty")):
                figure.add_scatter(
                    y=line, mode="lines", line={"width": 0, "color": subject.colour}, fill=fill, hoverinfo="skip",
                    fillcolor=_faint(subject.colour), row=row, col=column, **common,
                )  # fmt: skip
            figure.add_scatter(
                y=mean,
                mode="lines",
                line={"color": subject.colour, "width": 2},
                hovertemplate=f"%{{y:.3f}} at step %{{x}}<extra>{escape(subject.label)}</extra>",
                row=row,
                col=column,
                **common,
            )
        figure.add_hline(y=0, line={"color": "#444", "width": 1}, row=row, col=column)
    figure.update_yaxes(title_text="cosine", col=1)
    return _over_training(figure, subjects, len(panel))


def losses_by_group(subject: Subject) -> go.Figure:
    """Figure 6: both losses over training, for the groups by skewness within the step."""
    samples, steps = subject.measured.samples, subject.measured.steps["global_step"]
    shown = list(dict.fromkeys(domain for _, domain, table in parts(subject.measured) if _scored(table)))
    names = {"loss": "self-supervised loss", "class_loss": "classification loss"}
    figure = panels([f"{title}<br>{domain}" for domain in shown for title in names.values()], height=300, per_row=2)
    for index, (domain, name) in enumerate((domain, name) for domain in shown for name in names):
        row, column = place(index, 2)
        here = samples["domain"] == domain
        table = {key: values[here] for key, values in samples.items()}
        groups = groups_of(table)
        for group in range(GROUPS):
            means = []
            for step in steps:
                members = (table["global_step"] == step) & (groups == group)
                means.append(float(np.nanmean(table[name][members])) if members.any() else np.nan)
            figure.add_scatter(
                x=steps,
                y=_smooth(np.array(means), subject.measured.steps["stage"]),
                mode="lines",
                line={"color": SHADES[group], "width": 2},
                hovertemplate="%{y:.3f} at step %{x}<extra>" + _group(group) + "</extra>",
                legendgroup=_group(group),
                showlegend=False,
                row=row,
                col=column,
            )
    figure.update_yaxes(rangemode="tozero")
    for at in range(1, place(2 * len(shown) - 1, 2)[0]):
        figure.update_xaxes(title_text="", row=at)
    mark_stages(figure, subject.stages, 2 * len(shown), per_row=2)
    entries = [(_group(g), {"symbol": "square", "color": SHADES[g]}, _group(g)) for g in range(GROUPS)]
    legend_entries(figure, entries)
    return figure


def cosines_by_group(rows: Sequence[dict[str, Any]]) -> go.Figure:
    """Mean cosine of each group by skewness, with its interval, by stage and domain."""
    figure = panels([f"{escape(row['stage'])}, {row['domain']}" for row in rows], height=300)
    texts = (("cosine_oracle", "with the oracle", RUN_COLOURS[0]), ("cosine_class", "with classification", "#B4560F"))
    for index, row in enumerate(rows):
        at, column = place(index)
        for name, text, colour in texts:
            centre = np.array([each["estimate"] for each in row[name]], dtype=float)
            ends = [np.array([each[end] for each in row[name]], dtype=float) for end in ("low", "high")]
            figure.add_scatter(
                x=[_group(group) for group in range(GROUPS)],
                y=centre,
                error_y={"array": np.nan_to_num(ends[1] - centre), "arrayminus": np.nan_to_num(centre - ends[0])},
                mode="lines+markers",
                line={"color": colour, "width": 2},
                hovertemplate="%{x}: %{y:.3f}<extra>" + text + "</extra>",
                legendgroup=text,
                showlegend=False,
                row=at,
                col=column,
            )
        figure.add_hline(y=0, line={"color": "#444", "width": 1}, row=at, col=column)
    figure.update_xaxes(title_text="", type="category", tickfont={"size": 11})
    figure.update_yaxes(title_text="mean cosine", col=1)
    legend_entries(figure, [(text, {"symbol": "circle", "color": colour}, text) for _, text, colour in texts])
    return figure


def pseudo_against_true(subject: Subject) -> go.Figure | None:
    """Figure 7: the skewness with pseudo-labels over that with true ones; and their difference over training."""
    samples = subject.measured.samples
    both = np.isfinite(samples["coupled"]) & np.isfinite(samples["coupled_truth"]) & (samples["domain"] == "target")
    if not both.any():
        return None
    figure = panels(["each sample", "mean difference over training"], height=380, per_row=2)
    right = samples["label"] == samples["truth"]
    drawn = np.flatnonzero(both)
    drawn = drawn[np.linspace(0, len(drawn) - 1, min(SAMPLES, len(drawn))).round().astype(int)]
    kinds = ((right, "pseudo-label is right", "#7FA8C9"), (~right, "pseudo-label is wrong", "#B4560F"))
    for members, text, colour in kinds:
        chosen = drawn[members[drawn]]
        figure.add_scatter(
            x=samples["coupled_truth"][chosen],
            y=samples["coupled"][chosen],
            mode="markers",
            marker={"color": colour, "size": 5, "opacity": 0.6},
            hovertemplate="true %{x:.2f}, pseudo %{y:.2f}<extra>" + text + "</extra>",
            legendgroup=text,
            showlegend=False,
            row=1,
            col=1,
        )
        points = []
        for step in np.unique(samples["global_step"][both]):
            here = both & members & (samples["global_step"] == step)
            if here.any():
                points.append((step, (samples["coupled"][here] - samples["coupled_truth"][here]).mean()))
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[value for _, value in points],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate="%{y:.3f} at step %{x}<extra>" + text + "</extra>",
            legendgroup=text,
            showlegend=False,
            row=1,
            col=2,
        )
    ends = [float(f(samples[name][drawn])) for name in ("coupled", "coupled_truth") for f in (np.min, np.max)]
    line = {"color": "#444", "width": 1, "dash": "dot"}
    figure.add_scatter(
        x=[min(ends), max(ends)], y=[min(ends), max(ends)], mode="lines", line=line, hoverinfo="skip",
        showlegend=False, row=1, col=1,
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": "#444", "width": 1}, row=1, col=2)
    figure.update_xaxes(title_text="skewness with the true label", row=1, col=1)
    figure.update_yaxes(title_text="with the pseudo-label", row=1, col=1)
    figure.update_yaxes(title_text="pseudo less true", row=1, col=2)
    legend_entries(figure, [(text, {"symbol": "circle", "color": colour}, text) for _, text, colour in kinds])
    return figure


def alpha_overlap(rows: Sequence[dict[str, Any]], keep: str) -> go.Figure:
    """Figure 8, left, without training: rank correlation and shared keep-set against alpha 1, over alpha."""
    titles = ["rank correlation with alpha 1", f"share of what is kept at {float(keep):g} that alpha 1 keeps"]
    figure = panels(titles, height=320, per_row=2)
    names = list(dict.fromkeys((row["stage"], row["domain"]) for row in rows))
    for number, name in enumerate(names):
        members = [row for row in rows if (row["stage"], row["domain"]) == name]
        text, colour = f"{name[0]}, {name[1]}", RUN_COLOURS[number % len(RUN_COLOURS)]
        for column, values in enumerate(
            ([row["rank_correlation"] for row in members], [row["same_kept"][keep]["estimate"] for row in members]), 1
        ):
            figure.add_scatter(
                x=[row["alpha"] for row in members],
                y=values,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                hovertemplate="alpha %{x:g}: %{y:.3f}<extra>" + escape(text) + "</extra>",
                legendgroup=text,
                showlegend=False,
                row=1,
                col=column,
            )
        legend_entries(figure, [(text, {"symbol": "circle", "color": colour}, text)])
    figure.update_xaxes(title_text="alpha", type="log", tickvals=list(ALPHAS))
    figure.update_yaxes(range=[0, 1.03])
    return figure


def sweep_accuracy(rows: Sequence[dict[str, Any]], rule: str) -> go.Figure:
    """Figure 8: target accuracy over beta (the share kept) and over alpha where that varies; seeds, mean, spread."""
    lists = {"keep": "beta, the share kept"}
    if len({row["alpha"] for row in rows} - {None}) > 1:
        lists["alpha"] = "alpha"
    figure = panels(list(lists.values()), height=340, per_row=len(lists))
    for column, (name, title) in enumerate(lists.items(), start=1):
        other = "alpha" if name == "keep" else "keep"
        for number, fixed in enumerate(dict.fromkeys(row[other] for row in rows if row[other] is not None)):
            members = [row for row in rows if row[other] in (fixed, None) and row[name] is not None]
            members = sorted(members, key=lambda row: row[name])
            if name == "alpha" and len({row[name] for row in members}) < 2:
                continue
            colour, text = RUN_COLOURS[number % len(RUN_COLOURS)], f"{other} {fixed:g}"
            figure.add_scatter(
                x=[row[name] for row in members for _ in row[rule]["values"]],
                y=[100 * value for row in members for value in row[rule]["values"]],
                mode="markers",
                marker={"color": colour, "size": 5, "opacity": 0.5},
                hoverinfo="skip",
                showlegend=False,
                row=1,
                col=column,
            )
            figure.add_scatter(
                x=[row[name] for row in members],
                y=[100 * row[rule]["mean"] for row in members],
                error_y={"array": np.nan_to_num([100 * row[rule]["spread"] for row in members])},
                mode="lines+markers",
                line={"color": colour, "width": 2},
                hovertemplate=f"{name} %{{x:g}}: %{{y:.1f}} %<extra>{text}</extra>",
                name=text,
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=title, row=1, col=column)
    figure.update_yaxes(title_text="target accuracy, %", col=1)
    return figure


def sweep_curves(sweep: Sweep, stages: Sequence[tuple[str, int]]) -> go.Figure:
    """Figure 10: target accuracy over training for each setting, mean over seeds strong, seeds faint."""
    figure = panels(["target accuracy over training, %"], height=400)
    for number, setting in enumerate(sweep.settings()):
        members, colour = sweep.of(setting), RUN_COLOURS[number % len(RUN_COLOURS)]
        text = f"keep {setting[0]:g}" + (", no gate" if setting[1] is None else f", alpha {setting[1]:g}")
        for curve in members if len(members) > 1 else ():
            figure.add_scatter(
                x=curve.steps, y=[100 * v for v in curve.target], mode="lines", line={"color": colour, "width": 1},
                opacity=0.3, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        steps, mean = mean_curve(members)
        figure.add_scatter(
            x=steps,
            y=100 * mean,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate=f"%{{y:.1f}} % at step %{{x}}<extra>{text}</extra>",
            name=text,
        )
    mark_stages(figure, stages, 1)
    return figure


def _scored(table: dict[str, np.ndarray]) -> bool:
    """Whether any sample has a skewness."""
    return bool(np.isfinite(table["coupled"]).any())


def _group(group: int) -> str:
    low, high = 100 * group // GROUPS, 100 * (group + 1) // GROUPS
    return f"{low}–{high} %"


def _faint(colour: str) -> str:
    """A colour like ``#0072B2`` at a fifth of its strength."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.2)"


def _smooth(values: np.ndarray, stages: np.ndarray) -> np.ndarray:
    """A running mean within each stage, over what is known. Shape: ``(n,)`` twice."""
    known = np.isfinite(values)
    smoothed = np.full(len(values), np.nan)
    if known.any():
        smoothed[known] = smooth(values[known], stages[known])
    return smoothed


def _curve(figure: go.Figure, subject: Subject, values: np.ndarray, row: int, column: int) -> None:
    """Values at the measured steps faint, a running mean strong."""
    steps = subject.measured.steps
    common = {"x": steps["global_step"], "legendgroup": subject.label, "showlegend": False, "row": row, "col": column}
    figure.add_scatter(
        y=values,
        mode="markers",
        marker={"color": subject.colour, "size": 4, "opacity": 0.4},
        hoverinfo="skip",
        **common,
    )
    figure.add_scatter(
        y=_smooth(values, steps["stage"]),
        mode="lines",
        line={"color": subject.colour, "width": 2},
        hovertemplate=f"%{{y:.3f}} at step %{{x}}<extra>{escape(subject.label)}</extra>",
        **common,
    )


def _over_training(figure: go.Figure, subjects: Sequence[Subject], count: int) -> go.Figure:
    for row in range(1, place(count - 1, 2)[0]):
        figure.update_xaxes(title_text="", row=row)
    mark_stages(figure, subjects[0].stages, count, per_row=2)
    figure.update_xaxes(range=[0, 1.02 * max(sum(steps for _, steps in each.stages) for each in subjects)])
    legend_entries(figure, [(each.label, {"symbol": "square", "color": each.colour}, each.label) for each in subjects])
    return figure
