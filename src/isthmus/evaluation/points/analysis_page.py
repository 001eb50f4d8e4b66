"""The page of an analysis: each figure of the paper under its number, what it shows, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isthmus.evaluation.figures import signed
from isthmus.evaluation.page import NAN, Section, figure_html, percent, render
from isthmus.evaluation.points import analysis_figures as drawn
from isthmus.evaluation.points import figures
from isthmus.evaluation.points.accuracy import select
from isthmus.evaluation.points.analysis import Analysis
from isthmus.evaluation.points.analysis_numbers import KEPT_SHARES
from isthmus.evaluation.points.analysis_sweep import command
from isthmus.evaluation.points.figures import Shown
from isthmus.evaluation.points.shapes import embed, source_shapes
from isthmus.training.points.build import open_domains

SHAPES = 3
"""Clouds shown at either end of the skewness."""

KEEP = "0.7"
"""The paper's share kept, at which rankings are compared in figures."""

CONFLICTS = {"cosine_oracle": "with the oracle", "cosine_class": "with classification",
             "ssl_oracle": "with the oracle", "ssl_class": "with classification"}  # fmt: skip


def page(analysis: Analysis) -> str:
    """The HTML of an analysis; loads the checkpoints of the rule for shapes and t-SNE."""
    from isthmus.evaluation.load import load_method

    methods = [load_method(run, analysis.rule) for run in analysis.runs]
    domains = [open_domains(run.recipe) for run in analysis.runs]
    shown = []
    for run, subject, data in zip(analysis.runs, analysis.subjects, domains):
        predictions: Any = select(run, store=data.target)
        chosen = predictions[analysis.rule]
        shown.append(Shown(subject.label, subject.colour, subject.stages, (), (), chosen.predictions, chosen.step))
    first = analysis.subjects[0]
    found = analysis.numbers
    lowest = source_shapes(analysis.runs[0].recipe, methods[0], domains[0].source)
    maps = []
    for run, subject, method, data in zip(analysis.runs, analysis.subjects, methods, domains):
        embedded = embed(run.recipe, method, data)
        if embedded is not None:
            maps.append((subject.label, embedded))
    sections = [
        _replay(analysis),
        _figure_1(analysis),
        Section(
            "confusion",
            "Figure 3: confusion matrices on the target",
            {"figure": figure_html(figures.confusion_matrices(shown), "confusion-figure")},
        ),
        _conflicts(analysis),
        _shapes(lowest),
        _losses(analysis),
        _pseudo(analysis),
        _alpha(analysis),
        _sweep(analysis),
        None
        if not maps
        else Section(
            "embedding",
            "Figure 11: features of both domains (t-SNE)",
            {"figure": figure_html(figures.embedding(maps, analysis.runs[0].recipe.classes), "embedding-figure")},
        ),
        None if found["causality"] is None else _causality(found["causality"]),
    ]
    recipe = analysis.runs[0].recipe
    return render(
        "isthmus.evaluation.points",
        template="analysis.html",
        title=f"Gradient conflicts of {first.label}, {recipe.setting}",
        sentence=_sentence(analysis),
        baselines=shown[1:],
        subject=shown[0],
        rule=analysis.rule,
        sections=[section for section in sections if section is not None],
        version=analysis.runs[0].state.get("versions", {}).get("isthmus", ""),
    )


def _sentence(analysis: Analysis) -> str:
    measured = analysis.subjects[0].measured
    return (
        f"{len(measured.steps['number'])} training steps were measured (every {analysis.plan.every} steps of "
        f"{' and '.join(analysis.plan.stages)}), {len(measured.samples['id'])} samples in all, with the gradients of "
        "the shared encoder. One run with one seed: nothing here says how much another seed would differ."
    )


def _replay(analysis: Analysis) -> Section:
    rows = []
    for subject in analysis.subjects:
        for stage, difference in subject.measured.differences.items():
            rows.append({"run": subject, "stage": stage, "same": difference == 0, "difference": f"{difference:.2g}"})
    return Section("replay", "How this was measured", {"rows": rows})


def _figure_1(analysis: Analysis) -> Section:
    rows = []
    for subject in analysis.subjects:
        for row in analysis.numbers["figure_1"][subject.label]:
            cells = [row[f"{kind}_cosine_oracle"] for kind in ("coupled", "separate")] + [row["coupled_cosine_class"]]
            rows.append(
                {
                    "run": subject,
                    "stage": row["stage"],
                    "domain": row["domain"],
                    "over_steps": _number(row["over_steps"]),
                    "changes": _number(row["over_steps_changes"]),
                    "cells": [
                        {"rho": _number(c["rho"]), "p": _p(c["p_value"]), "sure": c["p_value"] < 0.05} for c in cells
                    ],
                }
            )
    values = {
        "rows": rows,
        "over_steps": figure_html(drawn.skewness_over_steps(analysis.subjects), "over-steps-figure"),
        "within": figure_html(drawn.skewness_within_steps(analysis.subjects), "within-figure"),
    }
    return Section("skewness", "Figure 1: does skewness go with conflict?", values)


def _conflicts(analysis: Analysis) -> Section:
    whole, single = [], []
    for subject in analysis.subjects:
        found = analysis.numbers["figures_4_and_9"][subject.label]
        for row in found["steps"]:
            thirds = [_number(row["first_third"]), _number(row["last_third"])]
            whole.append({"run": subject, **row, **_both(row), "thirds": thirds})
        for row in found["samples"]:
            single.append({"run": subject, **row, **_both(row), "title": CONFLICTS[row["name"]]})
    values = {
        "whole": whole,
        "single": single,
        "cosines": figure_html(drawn.conflicts_over_training(analysis.subjects), "cosines-figure"),
        "samples": figure_html(drawn.cosines_over_training(analysis.subjects), "sample-cosines-figure"),
        "shares": figure_html(drawn.shares_over_training(analysis.subjects), "shares-figure"),
    }
    return Section("conflicts", "Figures 4 and 9: both kinds of conflict over training", values)


def _both(row: dict[str, Any]) -> dict[str, str]:
    return {"mean_text": _interval(row["mean"], _number), "negative_text": _interval(row["negative"], percent)}


def _shapes(ordered: Sequence[Any]) -> Section | None:
    if not ordered:
        return None
    count = min(SHAPES, (len(ordered) + 1) // 2)
    return Section(
        "shapes",
        "Figure 5: shapes with the lowest and the highest skewness",
        {
            "measured": len(ordered),
            "lowest": figure_html(figures.shapes(ordered[:count]), "lowest-figure"),
            "highest": figure_html(figures.shapes(ordered[::-1][:count]), "highest-figure"),
        },
    )


def _losses(analysis: Analysis) -> Section | None:
    subject = analysis.subjects[0]
    found = analysis.numbers["figure_6"][subject.label]
    if not found:
        return None
    names = {"loss": "self-supervised loss", "class_loss": "classification loss",
             "cosine_oracle": "cosine with the oracle", "cosine_class": "cosine with classification"}  # fmt: skip
    rows = []
    for row in found:
        for name, title in names.items():
            if all(math.isnan(each["estimate"]) for each in row[name]):
                continue
            kept = row.get(f"{name}_kept_less_dropped")
            rows.append(
                {
                    "stage": row["stage"],
                    "domain": row["domain"],
                    "title": title,
                    "groups": [_number(each["estimate"], plain=True) for each in row[name]],
                    "contrast": _interval(row[f"{name}_high_less_low"], _number),
                    "kept": NAN if kept is None else _interval(kept, _number),
                }
            )
    values = {
        "rows": rows,
        "subject": subject,
        "losses": figure_html(drawn.losses_by_group(subject), "losses-figure"),
        "cosines": figure_html(drawn.cosines_by_group(found), "group-cosines-figure"),
    }
    return Section("losses", "Figure 6: losses and conflicts by skewness", values)


def _pseudo(analysis: Analysis) -> Section:
    subject = analysis.subjects[0]
    figure = drawn.pseudo_against_true(subject)
    rows = [
        {
            "stage": row["stage"],
            "samples": row["samples"],
            "right": _interval(row["right"], percent),
            "kind": text,
            "all": _interval(row[f"{kind}_all"], _number),
            "size": _number(row[f"{kind}_all_size"]["estimate"], plain=True),
            "wrong": _interval(row[f"{kind}_wrong"], _number),
            "rank": _number(row[f"{kind}_rank_correlation"]),
            "same": [percent(row[f"{kind}_same_kept"][str(keep)]["estimate"]) for keep in KEPT_SHARES],
        }
        for row in analysis.numbers["figure_7"][subject.label]
        for kind, text in (("coupled", "coupled"), ("separate", "eval"))
    ]
    html = None if figure is None else figure_html(figure, "pseudo-figure")
    return Section(
        "pseudo",
        "Figure 7: skewness with pseudo-labels against true labels",
        {"rows": rows, "figure": html, "keeps": KEPT_SHARES, "subject": subject},
    )


def _alpha(analysis: Analysis) -> Section | None:
    subject = analysis.subjects[0]
    found = analysis.numbers["figure_8_alpha"][subject.label]
    if not found:
        return None
    rows = [
        {
            "stage": row["stage"],
            "domain": row["domain"],
            "alpha": f"{row['alpha']:g}",
            "rank": _number(row["rank_correlation"]),
            "same": [percent(row["same_kept"][str(keep)]["estimate"]) for keep in KEPT_SHARES],
            "conflict": _number(row["rho_with_conflict"]),
        }
        for row in found
    ]
    figure = figure_html(drawn.alpha_overlap(found, KEEP), "alpha-figure")
    values = {"rows": rows, "figure": figure, "keeps": KEPT_SHARES, "subject": subject}
    return Section("alpha", "Figure 8, left, without training: what alpha changes in the ranking", values)


def _sweep(analysis: Analysis) -> Section:
    run, sweep, found = analysis.runs[0], analysis.sweep, analysis.numbers["sweep"]
    title = "Figures 8 and 10: accuracy over beta and alpha"
    if sweep is None or analysis.sweep_folder is None:
        example = run.path.parent / "sweep"
        again = f"isthmus analyse {run.path} --sweep {example} --overwrite"
        return Section("sweep", title, {"rows": [], "train": command(run, example), "again": again})
    rows = [
        {
            "keep": f"{row['keep']:g}",
            "alpha": "no gate" if row["alpha"] is None else f"{row['alpha']:g}",
            "seeds": ", ".join(map(str, row["seeds"])),
            "cells": [_mean_and_spread(row[column]) for column in ("source-val", "label-free", "last")],
        }
        for row in found["rows"]
    ]
    values = {
        "rows": rows,
        "left_out": found["left_out"],
        "few": min(len(row["seeds"]) for row in found["rows"]) < 3,
        "accuracy": figure_html(drawn.sweep_accuracy(found["rows"], analysis.rule), "sweep-figure"),
        "curves": figure_html(drawn.sweep_curves(sweep, analysis.subjects[0].stages), "sweep-curves-figure"),
        "train": command(run, analysis.sweep_folder),
    }
    return Section("sweep", title, values)


def _mean_and_spread(cell: dict[str, Any]) -> str:
    return percent(cell["mean"]) + ("" if math.isnan(cell["spread"]) else f" ± {percent(cell['spread'])}")


def _causality(rows: list[dict[str, Any]]) -> Section:
    shown = []
    for row in rows:
        line = {name: row[name] for name in ("stage", "domain", "between")} | {"conflict": CONFLICTS[row["conflict"]]}
        if "reason" in row:
            shown.append(line | {"reason": row["reason"]})
            continue
        cells = [_number(row[way]["hsic"]) for way in ("forward", "backward")]
        p_values = [_p(row[way]["p_value"]) for way in ("forward", "backward")]
        verdict = {"first to second": "skewness to conflict", "second to first": "conflict to skewness"}
        shown.append(
            line
            | {"pairs": row["pairs"], "cells": list(zip(cells, p_values)), "difference": _number(row["difference"])}
            | {"difference_p": _p(row["difference_p"]), "verdict": verdict.get(row["verdict"], row["verdict"])}
        )
    return Section("causality", "Section V-C: is skewness the cause? Additive-noise test", {"rows": shown})


def _number(value: float, *, plain: bool = False) -> str:
    if not np.isfinite(value):
        return NAN
    return f"{value:.3f}".replace("-", "−") if plain else signed(value, 3)


def _p(value: float) -> str:
    return NAN if not np.isfinite(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _interval(found: dict[str, float], text: Callable[[float], str]) -> str:
    if not np.isfinite(found["low"]):
        return text(found["estimate"])
    return f"{text(found['estimate'])} [{text(found['low'])}, {text(found['high'])}]"
