"""One self-contained HTML page of a run: what it reached, whom it hurt, how it was trained and chosen.

The page needs no network: plotly.js lies within, once. Everything on it is worked out from the run folder and the
prepared data, so that the same run gives the same page. Target labels are opened here to measure, and what needs them
says so; the only thing written is the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy import stats

from isthmus.data.clouds import NO_POINT_LABEL, PARTS
from isthmus.data.store import CloudStore
from isthmus.errors import RunError
from isthmus.evaluation.figures import class_gains as class_gains_figure
from isthmus.evaluation.figures import loss_curves, run_colours, signed
from isthmus.evaluation.load import load_method
from isthmus.evaluation.page import (
    LISTED,
    NAN,
    Section,
    by_chance,
    check_finished,
    figure_html,
    gain_cells,
    hurt_and_helped,
    logged_losses,
    page_path,
    percent,
    recipe_section,
    render,
    run_labels,
)
from isthmus.evaluation.points import figures
from isthmus.evaluation.points.accuracy import (
    COLUMNS,
    NOT_USABLE,
    ClassGain,
    Column,
    Predictions,
    Selected,
    class_gains,
    measured,
    overall_gain,
    select,
)
from isthmus.evaluation.points.figures import Evaluation, GateLog, Shown
from isthmus.evaluation.points.part_gallery import gallery
from isthmus.evaluation.points.parts import PartPredictions, part_gains
from isthmus.evaluation.points.shapes import Embedding, embed, source_shapes
from isthmus.evaluation.points.words import sentence
from isthmus.methods.base import Method
from isthmus.tasks.classification import class_accuracy
from isthmus.training.points.build import Domains, open_domains, part_rows
from isthmus.training.points.data_specs import DomainSpec, domain_name
from isthmus.training.points.method_specs import (
    CustomSpec,
    GatedSpec,
)
from isthmus.training.points.recipe import PointRecipe, PointRun
from isthmus.training.run import Rule, read_arrays, write_atomically

SHAPES = 4
"""Clouds shown at either end of the skewness."""

EMBEDDED_RUNS = 3


def write_report(runs: Sequence[PointRun], out: Path | None = None, *, rule: Rule = "label-free") -> Path:
    """Write the page of ``runs[0]``, with the others beside it, and return its path.

    Args:
        runs: finished runs on the same target clouds; the first is the subject, the others are what it is compared
            with (source only, the host without its gate).
        out: the HTML file; ``report.html`` in the subject's folder by default.
        rule: which checkpoint of the last stage stands for a run wherever one has to.

    Raises:
        RunError: no run, one that is not finished, or one measured on other target clouds than the first.
    """
    check_finished(runs)
    if len({run.recipe.predicts for run in runs}) > 1:
        raise RunError("report: expected runs that all classify clouds or all label their points, found both")
    subjects = _open(runs, rule)
    path = page_path(runs[0], out)
    write_atomically(path, _page(subjects, rule).encode())
    return path


@dataclass(frozen=True)
class _Subject:
    """A run with its data and everything that is measured of it."""

    run: PointRun
    domains: Domains
    shown: Shown
    selected: Mapping[str, Mapping[Column, Selected]]
    marked: bool
    """Whether training looked at target labels."""


def _open(runs: Sequence[PointRun], rule: Rule) -> list[_Subject]:
    score = runs[0].recipe.label_free_score
    subjects: list[_Subject] = []
    for run, label, colour in zip(runs, run_labels(runs), run_colours(len(runs))):
        domains = open_domains(run.recipe)
        selected = {stage.name: select(run, stage.name, domains.target) for stage in run.recipe.stages}
        last = run.recipe.stages[-1]
        of_last: Mapping[Any, Selected] = selected[last.name]
        chosen = of_last[rule]
        shown = Shown(
            label=label,
            colour=colour,
            stages=tuple((stage.name, stage.steps) for stage in run.recipe.stages),
            losses=logged_losses(run),
            evaluations=tuple(_evaluations(run, domains.target, score)),
            predictions=chosen.predictions,
            chosen=sum(stage.steps for stage in run.recipe.stages[:-1]) + chosen.step,
        )
        first = subjects[0].shown.predictions if subjects else shown.predictions
        if (shown.predictions.names, shown.predictions.classes) != (first.names, first.classes):
            raise RunError(
                f"{run.path}: expected the same {len(first.names)} target clouds and the same classes as "
                f"{runs[0].path}, found {len(shown.predictions.names)} clouds, others among them"
            )
        subjects.append(_Subject(run, domains, shown, selected, run.recipe.uses_target_labels))
    return subjects


def _evaluations(run: PointRun, store: CloudStore, score: str) -> list[Evaluation]:
    found, before = [], 0
    for stage in run.recipe.stages:
        for file in run.evaluations(stage.name):
            arrays = read_arrays(file)
            step = int(arrays["step"])
            found.append(
                Evaluation(
                    stage=stage.name,
                    step=step,
                    global_step=before + step,
                    source_val=float(arrays["source_val"]),
                    label_free=float(arrays[score]),
                    collapsed=bool(arrays["collapsed"]),
                    target_accuracy=measured(store, arrays["rows"], arrays["logits"]).accuracy,
                )
            )
        before += stage.steps
    return found


def _page(subjects: Sequence[_Subject], rule: Rule) -> str:
    subject = subjects[0]
    method = None if isinstance(subject.run.recipe.method, CustomSpec) else load_method(subject.run, rule)
    parts = subject.run.recipe.predicts == "parts"
    sections = [
        _results(subjects, rule),
        _per_class(subjects),
        gallery([(each.run, each.shown) for each in subjects], subject.domains.target) if parts else None,
        _confusion(subjects),
        _training(subjects),
        _gate(subject),
        None if parts else _shapes(subject, method),
        None if parts else _embedding(subjects, method, rule),
        _selection(subjects),
        _data(subject),
        recipe_section([each.run for each in subjects], [each.shown for each in subjects]),
    ]
    recipe = subject.run.recipe
    return render(
        "isthmus.evaluation.points",
        title=f"{subject.shown.label}, {recipe.setting}",
        sentence=sentence(recipe, len(subject.shown.predictions.names)),
        words=_words(recipe),
        baselines=[each.shown for each in subjects[1:]],
        subject=subject.shown,
        marked=[each.shown.label for each in subjects if each.marked],
        subject_marked=subject.marked,
        rule=rule,
        score=recipe.label_free_score,
        sections=[section for section in sections if section is not None],
        version=subject.run.state.get("versions", {}).get("isthmus", ""),
    )


def _results(subjects: Sequence[_Subject], rule: Rule) -> Section:
    rows = []
    for each in subjects:
        for number, stage in enumerate(each.run.recipe.stages):
            cells = [
                {
                    "overall": percent(chosen.predictions.accuracy),
                    "mean": percent(chosen.predictions.mean_class_accuracy),
                    "step": chosen.step,
                    "shown": column == rule and number == len(each.run.recipe.stages) - 1,
                }
                for column, chosen in ((column, each.selected[stage.name][column]) for column in COLUMNS)
            ]
            rows.append({"run": each, "first": number == 0, "stage": stage.name, "cells": cells})
    headings = [NOT_USABLE if column == "target-selected" else column for column in COLUMNS]
    clouds = len(subjects[0].shown.predictions.names)
    seeds = sorted({each.run.recipe.seed for each in subjects})
    collapsed = [
        each.shown.label
        for each in subjects
        for point in each.shown.evaluations
        if point.collapsed and point.global_step == each.shown.chosen
    ]
    values = {"rows": rows, "headings": headings, "clouds": clouds, "seeds": seeds, "collapsed": collapsed}
    return Section("results", "Results", values)


def _per_class(subjects: Sequence[_Subject]) -> Section:
    ours = subjects[0].shown.predictions
    if isinstance(ours, PartPredictions):
        counts, accuracy = ours.shapes_with, ours.class_scores
    else:
        counts, accuracy = ours.confusion.sum(dim=1).tolist(), _class_accuracy(ours)
    gains = [_class_gains(ours, each.shown.predictions) for each in subjects[1:]]
    overall = [overall_gain(ours, each.shown.predictions) for each in subjects[1:]]
    rows = [
        {
            "name": name,
            "count": counts[index],
            "score": percent(accuracy[index]),
            "against": [gain_cells(line[index].baseline, line[index]) for line in gains],
            "verdicts": {line[index].verdict for line in gains},
        }
        for index, name in enumerate(ours.classes)
    ]
    total = {
        "name": "all",
        "count": len(ours.names),
        "score": percent(ours.accuracy),
        "against": [
            gain_cells(before, ClassGain("all", len(ours.names), before, ours.accuracy, gain))
            for before, gain in zip((each.shown.predictions.accuracy for each in subjects[1:]), overall)
        ],
    }
    summaries = [{"baseline": each.shown, **hurt_and_helped(line)} for each, line in zip(subjects[1:], gains)]
    figure = None
    if gains:
        titled = [(each.shown.label, line) for each, line in zip(subjects[1:], gains)]
        score = "accuracy" if isinstance(ours, Predictions) else "IoU"
        figure = figure_html(class_gains_figure(titled, score), "gains-figure")
    values = {
        "rows": rows,
        "total": total,
        "summaries": summaries,
        "figure": figure,
        "by_chance": by_chance(sum(count > 0 for count in counts)),
    }
    return Section("classes", "Per class" if isinstance(ours, Predictions) else "Per part", values)


def _class_gains(ours: Predictions | PartPredictions, baseline: Predictions | PartPredictions) -> list[ClassGain]:
    """Of each class, or each part; runs of both kinds are not shown beside each other."""
    if isinstance(ours, Predictions):
        return class_gains(ours, cast(Predictions, baseline))
    found = part_gains(ours, cast(PartPredictions, baseline))
    return [
        ClassGain(name, count, before, score, gain)
        for name, count, score, (before, gain) in zip(ours.classes, ours.shapes_with, ours.class_scores, found)
    ]


def _confusion(subjects: Sequence[_Subject]) -> Section:
    named = _words(subjects[0].run.recipe)["class"]
    figure = figures.confusion_matrices([each.shown for each in subjects], named)
    return Section("confusion", "Confusion matrices", {"figure": figure_html(figure, "confusion-figure")})


def _training(subjects: Sequence[_Subject]) -> Section:
    shown, recipe = [each.shown for each in subjects], subjects[0].run.recipe
    return Section(
        "training",
        "Training",
        {
            "losses": figure_html(loss_curves(shown), "losses-figure"),
            "scores": figure_html(
                figures.score_curves(shown, recipe.label_free_score, _words(recipe)["score"]), "scores-figure"
            ),
            "scores_note": "A cross: predictions had collapsed.",
        },
    )


def _gate(subject: _Subject) -> Section | None:
    logs = _gate_logs(subject.run)
    spec = subject.run.recipe.method
    if not logs:
        return None
    gate = spec.gate if isinstance(spec, GatedSpec) else None
    name = "skewness" if gate is not None and gate.kind == "skewness" else "score"
    stages, classes = subject.shown.stages, subject.run.recipe.classes
    return Section(
        "gate",
        f"Gate: {'saliency-map skewness' if name == 'skewness' else 'scores'} and what it let through",
        {
            "name": name,
            "kind": "unknown" if gate is None else gate.kind,
            "side": getattr(gate, "keep_side", "low"),
            "log_every": subject.run.recipe.log_every,
            "samples": sum(len(log.scores) for log in logs),
            "extremes": _extremes(logs, classes),
            "scores": figure_html(figures.gate_scores(logs, stages, name), "gate-scores-figure"),
            # Shapes with labelled points have no class of their own.
            "shares": figure_html(figures.gate_shares(logs, stages, classes), "gate-shares-figure")
            if subject.run.recipe.predicts == "class"
            else None,
        },
    )


def _gate_logs(run: PointRun) -> list[GateLog]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in run.rows("gate"):
        rows.setdefault(row["domain"], []).append(row)
    logs = []
    for domain, members in rows.items():
        lengths = [len(row["scores"]) for row in members]
        logs.append(
            GateLog(
                domain=domain,
                steps=np.repeat([row["global_step"] for row in members], lengths),
                stages=np.repeat([row["stage"] for row in members], lengths),
                scores=np.concatenate([row["scores"] for row in members]).astype(np.float64),
                taking_part=np.concatenate([row["taking_part"] for row in members]).astype(np.float64),
                labels=np.concatenate([row["labels"] for row in members]).astype(np.int64),
            )
        )
    return logs


def _extremes(logs: Sequence[GateLog], classes: Sequence[str]) -> list[dict[str, str]]:
    """The class let through least and most, per domain, among those with 20 logged samples or more."""
    found = []
    for log in logs:
        shares = {
            name: float(log.taking_part[log.labels == label].mean())
            for label, name in enumerate(classes)
            if (log.labels == label).sum() >= 20
        }
        if len(shares) >= 2:
            least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
            found.append(
                {
                    "domain": log.domain,
                    "least": f"{least} ({100 * shares[least]:.0f} %)",
                    "most": f"{most} ({100 * shares[most]:.0f} %)",
                }
            )
    return found


def _shapes(subject: _Subject, method: Method | None) -> Section | None:
    if method is None:
        return None
    ordered = source_shapes(subject.run.recipe, method, subject.domains.source)
    if not ordered:
        return None
    count = min(SHAPES, (len(ordered) + 1) // 2)
    spec = subject.run.recipe.method
    gate = spec.gate if isinstance(spec, GatedSpec) else None
    skews = [shape.skewness for shape in ordered]
    return Section(
        "shapes",
        "Shapes with the lowest and the highest skewness",
        {
            "measured": len(ordered),
            "kept": getattr(gate, "keep_side", None),
            "quantiles": [signed(value) for value in np.quantile(skews, [0.0, 0.5, 1.0])],
            "lowest": figure_html(figures.shapes(ordered[:count]), "lowest-figure"),
            "highest": figure_html(figures.shapes(ordered[::-1][:count]), "highest-figure"),
        },
    )


def _embedding(subjects: Sequence[_Subject], method: Method | None, rule: Rule) -> Section | None:
    panels: list[tuple[str, Embedding]] = []
    for index, each in enumerate(subjects[:EMBEDDED_RUNS]):
        if index > 0:
            method = None if isinstance(each.run.recipe.method, CustomSpec) else load_method(each.run, rule)
        embedded = None if method is None else embed(each.run.recipe, method, each.domains)
        if embedded is not None:
            panels.append((each.shown.label, embedded))
    if not panels:
        return None
    counts = {name: int((panels[0][1].domains == name).sum()) for name in ("source", "target")}
    figure = figure_html(figures.embedding(panels, subjects[0].run.recipe.classes), "embedding-figure")
    return Section("embedding", "Features of both domains", {"figure": figure, "counts": counts})


def _selection(subjects: Sequence[_Subject]) -> Section:
    rows = []
    for each in subjects:
        evaluations = each.shown.evaluations
        scores = [point.label_free for point in evaluations]
        accuracies = [point.target_accuracy for point in evaluations]
        rank = math.nan
        if len(evaluations) >= 4 and len(set(scores)) > 1 and len(set(accuracies)) > 1:
            rank = float(stats.spearmanr(scores, accuracies).statistic)
        last = each.selected[each.run.recipe.stages[-1].name]
        best = last["target-selected"].predictions.accuracy
        rows.append(
            {
                "run": each.shown,
                "evaluations": len(evaluations),
                "collapsed": sum(point.collapsed for point in evaluations),
                "rank": NAN if math.isnan(rank) else signed(rank, 2),
                "lost": [
                    percent(best - last[column].predictions.accuracy) for column in ("source-val", "label-free", "last")
                ],
            }
        )
    recipe = subjects[0].run.recipe
    shown = [each.shown for each in subjects]
    figure = figure_html(figures.selection(shown, recipe.label_free_score, _words(recipe)["score"]), "selection-figure")
    return Section("selection", "How far to trust the selection", {"rows": rows, "figure": figure})


def _data(subject: _Subject) -> Section:
    recipe, domains = subject.run.recipe, subject.domains
    tables = [
        _domain_table("source", domains.source, recipe.source, recipe),
        _domain_table("target", domains.target, recipe.target, recipe),
    ]
    pseudo = []
    for stage in recipe.stages:
        file = subject.run.path / f"pseudo_labels.{stage.name}.npz"
        if file.is_file():
            pseudo.append({"stage": stage.name, **_pseudo_labels(read_arrays(file), domains.target, recipe)})
    return Section("data", "Data", {"tables": tables, "pseudo": pseudo, "classes": recipe.classes})


def _domain_table(domain: str, store: CloudStore, spec: DomainSpec, recipe: PointRecipe) -> dict[str, Any]:
    def counts(label: int) -> list[int | str]:
        if recipe.predicts == "parts":
            shares = [(store.point_labels[store.indices(part), : recipe.points] == label) for part in PARTS]
            return [percent(float(share.mean())) if share.size else NAN for share in shares]
        return [int((store.labels[store.indices(part)] == label).sum()) for part in PARTS]

    uses: dict[str, Sequence[str]] = {"trained on": spec.train_on}
    if len(store.indices("val")):
        uses["selected by"] = ("val",)
    if domain == "target":
        uses["measured on"] = spec.evaluate_on
    rows = [(name, counts(label)) for label, name in enumerate(store.classes)]
    if recipe.predicts == "class" and (store.labels < 0).any():
        rows.append(("no label", counts(-1)))
    return {
        "domain": domain,
        "name": domain_name(spec),
        "uses": [", ".join(use for use, parts in uses.items() if part in parts) for part in PARTS],
        "rows": rows,
        "totals": [len(store.indices(part)) for part in PARTS],
        "skipped": store.skipped[:LISTED],
        "skipped_count": len(store.skipped),
    }


def _pseudo_labels(arrays: Mapping[str, np.ndarray], store: CloudStore, recipe: PointRecipe) -> dict[str, Any]:
    """How many pseudo-labels there are and how many are right, in all and per pseudo-class."""
    rows = part_rows(store, recipe.target.train_on)
    labels = arrays["labels"][rows].ravel()
    if recipe.predicts == "parts":
        truth = store.point_labels[rows, : recipe.points].ravel()
        present, known = labels != NO_POINT_LABEL, truth != NO_POINT_LABEL
    else:
        truth = store.labels[rows]
        present, known = arrays["present"][rows], truth >= 0
    known = known & present

    def line(name: str, members: np.ndarray) -> dict[str, Any]:
        right = (labels == truth)[members & known]
        return {"name": name, "count": int((members & present).sum()), "right": percent(_mean(right))}

    return {
        "of": len(labels),
        "total": line("all", np.ones(len(labels), dtype=bool)),
        "rows": [line(name, labels == index) for index, name in enumerate(recipe.classes)],
    }


def _words(recipe: PointRecipe) -> dict[str, str]:
    """What the page calls things."""
    if recipe.predicts == "parts":
        return {
            "clouds": "shapes",
            "counted": "points",
            "class": "part",
            "classes": "parts",
            "score": "shape mIoU",
            "overall": "Mean intersection over union of shapes (each the mean over its parts)",
            "class_score": "IoU",
            "class_scores": "Intersections over union (IoU) of parts, over the shapes that have them,",
            "held_out": "the highest shape mIoU",
        }
    return {
        "clouds": "clouds",
        "counted": "clouds",
        "class": "class",
        "classes": "classes",
        "score": "accuracy",
        "overall": "Overall accuracy",
        "class_score": "accuracy",
        "class_scores": "Accuracies",
        "held_out": "the highest accuracy",
    }


def _class_accuracy(predictions: Predictions) -> list[float]:
    values: list[float] = class_accuracy(predictions.confusion).tolist()
    return values


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
