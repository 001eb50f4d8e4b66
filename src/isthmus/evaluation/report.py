"""One self-contained HTML page of a run: what it reached, whom it hurt, how it was trained and chosen.

The page needs no network: plotly.js lies within, once. Everything on it is worked out from the run folder and the
prepared data, so that the same run gives the same page. Target labels are opened here to measure, and what needs them
says so; the only thing written is the page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from scipy import stats

from isthmus.data.clouds import PARTS
from isthmus.data.store import CloudStore
from isthmus.errors import RunError
from isthmus.evaluation import figures
from isthmus.evaluation.accuracy import (
    COLUMNS,
    NOT_USABLE,
    ClassGain,
    Column,
    Predictions,
    Selected,
    class_gains,
    labelled_predictions,
    overall_gain,
    select,
)
from isthmus.evaluation.figures import Evaluation, GateLog, Shown, signed
from isthmus.evaluation.predict import load_method
from isthmus.evaluation.shapes import Embedding, embed, source_shapes
from isthmus.methods.base import Method
from isthmus.tasks.classification import class_accuracy
from isthmus.training.build import Domains, open_domains, part_rows
from isthmus.training.recipe import CustomSpec, DomainSpec, Recipe, SelfSupervisedSpec, direction, domain_name
from isthmus.training.run import Rule, Run, read_arrays, write_atomically

SHAPES = 4
"""Clouds shown at either end of the skewness."""

EMBEDDED_RUNS = 3
LISTED = 20
"""At most this many skipped clouds are listed by name, and this many differences between two recipes."""

NAN = "–"


def write_report(runs: Sequence[Run], out: Path | None = None, *, rule: Rule = "label-free") -> Path:
    """Write the page of ``runs[0]``, with the others beside it, and return its path.

    Args:
        runs: finished runs on the same target clouds; the first is the subject, the others are what it is compared
            with (source only, the host without its gate).
        out: the HTML file; ``report.html`` in the subject's folder by default.
        rule: which checkpoint of the last stage stands for a run wherever one has to.

    Raises:
        RunError: no run, one that is not finished, or one measured on other target clouds than the first.
    """
    if not runs:
        raise RunError("report: expected at least one run, found none")
    subjects = _open(runs, rule)
    path = out or runs[0].path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _page(subjects, rule).encode())
    return path


@dataclass(frozen=True)
class _Subject:
    """A run with its data and everything that is measured of it."""

    run: Run
    domains: Domains
    shown: Shown
    selected: Mapping[str, Mapping[Column, Selected]]
    marked: bool
    """Whether training looked at target labels."""


@dataclass
class _Section:
    """A part of the page: paragraphs, tables and figures by the names that the template asks for."""

    anchor: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)


def _open(runs: Sequence[Run], rule: Rule) -> list[_Subject]:
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")
    score = runs[0].recipe.label_free_score
    subjects: list[_Subject] = []
    for run, label, colour in zip(runs, _labels(runs), figures.run_colours(len(runs))):
        domains = open_domains(run.recipe)
        selected = {stage.name: select(run, stage.name, domains.target) for stage in run.recipe.stages}
        last = run.recipe.stages[-1]
        chosen = selected[last.name][rule]
        shown = Shown(
            label=label,
            colour=colour,
            stages=tuple((stage.name, stage.steps) for stage in run.recipe.stages),
            losses=tuple(row for row in run.rows("metrics") if any(key.startswith("loss/") for key in row)),
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


def _labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run, as short as tells them apart: the recipe's, its seed, its folder."""
    names = [run.recipe.name.rsplit("/", 1)[-1] for run in runs]
    for more in ([f"seed {run.recipe.seed}" for run in runs], [run.path.resolve().name for run in runs]):
        counts = Counter(names)
        names = [f"{name} ({extra})" if counts[name] > 1 else name for name, extra in zip(names, more)]
    counts = Counter(names)
    return [f"{name} [{index}]" if counts[name] > 1 else name for index, name in enumerate(names, start=1)]


def _evaluations(run: Run, store: CloudStore, score: str) -> list[Evaluation]:
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
                    target_accuracy=labelled_predictions(store, arrays["rows"], arrays["logits"]).accuracy,
                )
            )
        before += stage.steps
    return found


def _page(subjects: Sequence[_Subject], rule: Rule) -> str:
    subject = subjects[0]
    method = None if isinstance(subject.run.recipe.method, CustomSpec) else load_method(subject.run, rule)
    sections = [
        _results(subjects, rule),
        _per_class(subjects),
        _Section(
            "confusion",
            "Confusion matrices",
            {"figure": _html(figures.confusion_matrices([each.shown for each in subjects]), "confusion-figure")},
        ),
        _training(subjects),
        _gate(subject),
        _shapes(subject, method),
        _embedding(subjects, method, rule),
        _selection(subjects),
        _data(subject),
        _recipe(subjects),
    ]
    environment = Environment(
        loader=PackageLoader("isthmus.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    recipe = subject.run.recipe
    return environment.get_template("report.html").render(
        title=f"{subject.shown.label}, {direction(recipe)}",
        sentence=_sentence(subject),
        baselines=[each.shown for each in subjects[1:]],
        subject=subject.shown,
        marked=[each.shown.label for each in subjects if each.marked],
        subject_marked=subject.marked,
        rule=rule,
        score=recipe.label_free_score,
        sections=[section for section in sections if section is not None],
        version=subject.run.state.get("versions", {}).get("isthmus", ""),
        plotlyjs=Markup(get_plotlyjs()),
    )


def _sentence(subject: _Subject) -> str:
    recipe = subject.run.recipe
    stages = " then ".join(f"{stage.steps} steps ({stage.name})" for stage in recipe.stages)
    clouds, parts = len(subject.shown.predictions.labels), " and ".join(recipe.target.evaluate_on)
    return (
        f"{_method(recipe)}, in the direction {domain_name(recipe.source)} to {domain_name(recipe.target)}, with a "
        f"{'DGCNN' if recipe.network.kind == 'dgcnn' else 'PointNet'} on {recipe.points} points per cloud, seed "
        f"{recipe.seed}, for {stages}, and measured on the {clouds} labelled clouds of the target's {parts} part"
        f"{'s' if len(recipe.target.evaluate_on) > 1 else ''}."
    )


def _method(recipe: Recipe) -> str:
    spec = recipe.method
    if isinstance(spec, CustomSpec):
        return f"The method “{spec.name}” (of the user's own making)"
    if not isinstance(spec, SelfSupervisedSpec):
        return "Classification of source labels alone" if spec.kind == "source-only" else "An oracle on target labels"
    where = "both domains" if spec.pretext_on == "both" else "the target"
    parts = [f"Classification beside deformation-reconstruction (DefRec, {spec.pretext.region}) on {where}"]
    if spec.mixup:
        parts.append("with point-cloud mixup (PCM)")
    if spec.gate is None:
        parts.append("without a gate")
    else:
        share = f"{100 * spec.gate.keep:.0f} %"
        if spec.gate.keep_end is not None:
            share += f" to {100 * spec.gate.keep_end:.0f} %"
        verb = "weighs labelled samples by" if spec.gate.kind == "scaled" else "lets through"
        parts.append(f"behind a {spec.gate.kind} gate that {verb} {share}")
    return " ".join(parts)


def _results(subjects: Sequence[_Subject], rule: Rule) -> _Section:
    rows = []
    for each in subjects:
        for number, stage in enumerate(each.run.recipe.stages):
            cells = [
                {
                    "overall": _percent(chosen.predictions.accuracy),
                    "mean": _percent(chosen.predictions.mean_class_accuracy),
                    "step": chosen.step,
                    "shown": column == rule and number == len(each.run.recipe.stages) - 1,
                }
                for column, chosen in ((column, each.selected[stage.name][column]) for column in COLUMNS)
            ]
            rows.append({"run": each, "first": number == 0, "stage": stage.name, "cells": cells})
    headings = [NOT_USABLE if column == "target-selected" else column for column in COLUMNS]
    clouds = len(subjects[0].shown.predictions.labels)
    seeds = sorted({each.run.recipe.seed for each in subjects})
    collapsed = [
        each.shown.label
        for each in subjects
        for point in each.shown.evaluations
        if point.collapsed and point.global_step == each.shown.chosen
    ]
    values = {"rows": rows, "headings": headings, "clouds": clouds, "seeds": seeds, "collapsed": collapsed}
    return _Section("results", "Results", values)


def _per_class(subjects: Sequence[_Subject]) -> _Section:
    ours = subjects[0].shown.predictions
    counts, accuracy = ours.confusion.sum(dim=1).tolist(), _class_accuracy(ours)
    gains = [class_gains(ours, each.shown.predictions) for each in subjects[1:]]
    overall = [overall_gain(ours, each.shown.predictions) for each in subjects[1:]]
    rows = [
        {
            "name": name,
            "count": counts[index],
            "accuracy": _percent(accuracy[index]),
            "against": [_gain_cells(line[index]) for line in gains],
            "verdicts": {line[index].verdict for line in gains},
        }
        for index, name in enumerate(ours.classes)
    ]
    total = {
        "accuracy": _percent(ours.accuracy),
        "against": [
            _gain_cells(ClassGain("all", len(ours.labels), each.shown.predictions.accuracy, ours.accuracy, gain))
            for each, gain in zip(subjects[1:], overall)
        ],
    }
    summaries = [{"baseline": each.shown, **_hurt_and_helped(line)} for each, line in zip(subjects[1:], gains)]
    figure = None
    if gains:
        titled = [(each.shown.label, line) for each, line in zip(subjects[1:], gains)]
        figure = _html(figures.class_gains(titled), "gains-figure")
    values = {
        "rows": rows,
        "total": total,
        "summaries": summaries,
        "figure": figure,
        "clouds": len(ours.labels),
        "by_chance": f"{100 * (1 - 0.95 ** sum(count > 0 for count in counts)):.0f}",
    }
    return _Section("classes", "Per class", values)


def _gain_cells(gain: ClassGain) -> dict[str, str]:
    """Baseline, gain and interval as text; for no sample, and for an interval that cannot be had, a dash."""
    interval = gain.gain
    return {
        "baseline": _percent(gain.baseline),
        "gain": _points(interval.estimate),
        "interval": f"[{_points(interval.low)}, {_points(interval.high)}]" if math.isfinite(interval.low) else NAN,
        "verdict": "within noise" if "noise" in gain.verdict else gain.verdict,
    }


def _hurt_and_helped(gains: Sequence[ClassGain]) -> dict[str, list[str]]:
    ordered = sorted((gain for gain in gains if gain.count), key=lambda gain: gain.gain.estimate)
    named = {gain.name: f"{gain.name} ({_points(gain.gain.estimate)})" for gain in ordered}
    return {
        "hurt": [named[gain.name] for gain in ordered if gain.verdict == "hurt"],
        "helped": [named[gain.name] for gain in ordered[::-1] if gain.verdict == "helped"],
    }


def _training(subjects: Sequence[_Subject]) -> _Section:
    shown = [each.shown for each in subjects]
    return _Section(
        "training",
        "Training",
        {
            "losses": _html(figures.loss_curves(shown), "losses-figure"),
            "scores": _html(figures.score_curves(shown, subjects[0].run.recipe.label_free_score), "scores-figure"),
        },
    )


def _gate(subject: _Subject) -> _Section | None:
    logs = _gate_logs(subject.run)
    spec = subject.run.recipe.method
    if not logs:
        return None
    gate = spec.gate if isinstance(spec, SelfSupervisedSpec) else None
    name = "skewness" if gate is not None and gate.kind == "skewness" else "score"
    stages, classes = subject.shown.stages, subject.run.recipe.classes
    return _Section(
        "gate",
        f"Gate: {'saliency-map skewness' if name == 'skewness' else 'scores'} and what it let through",
        {
            "name": name,
            "kind": "unknown" if gate is None else gate.kind,
            "side": getattr(gate, "keep_side", "low"),
            "log_every": subject.run.recipe.log_every,
            "samples": sum(len(log.scores) for log in logs),
            "extremes": _extremes(logs, classes),
            "scores": _html(figures.gate_scores(logs, stages, name), "gate-scores-figure"),
            "shares": _html(figures.gate_shares(logs, stages, classes), "gate-shares-figure"),
        },
    )


def _gate_logs(run: Run) -> list[GateLog]:
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


def _shapes(subject: _Subject, method: Method | None) -> _Section | None:
    if method is None:
        return None
    ordered = source_shapes(subject.run.recipe, method, subject.domains.source)
    if not ordered:
        return None
    count = min(SHAPES, (len(ordered) + 1) // 2)
    spec = subject.run.recipe.method
    gate = spec.gate if isinstance(spec, SelfSupervisedSpec) else None
    skews = [shape.skewness for shape in ordered]
    return _Section(
        "shapes",
        "Shapes with the lowest and the highest skewness",
        {
            "measured": len(ordered),
            "kept": getattr(gate, "keep_side", None),
            "quantiles": [signed(value) for value in np.quantile(skews, [0.0, 0.5, 1.0])],
            "lowest": _html(figures.shapes(ordered[:count]), "lowest-figure"),
            "highest": _html(figures.shapes(ordered[::-1][:count]), "highest-figure"),
        },
    )


def _embedding(subjects: Sequence[_Subject], method: Method | None, rule: Rule) -> _Section | None:
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
    figure = _html(figures.embedding(panels, subjects[0].run.recipe.classes), "embedding-figure")
    return _Section("embedding", "Features of both domains", {"figure": figure, "counts": counts})


def _selection(subjects: Sequence[_Subject]) -> _Section:
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
                    _percent(best - last[column].predictions.accuracy)
                    for column in ("source-val", "label-free", "last")
                ],
            }
        )
    score = subjects[0].run.recipe.label_free_score
    figure = _html(figures.selection([each.shown for each in subjects], score), "selection-figure")
    return _Section("selection", "How far to trust the selection", {"rows": rows, "figure": figure})


def _data(subject: _Subject) -> _Section:
    recipe, domains = subject.run.recipe, subject.domains
    tables = [
        _domain_table("source", domains.source, recipe.source),
        _domain_table("target", domains.target, recipe.target),
    ]
    pseudo = []
    for stage in recipe.stages:
        file = subject.run.path / f"pseudo_labels.{stage.name}.npz"
        if file.is_file():
            pseudo.append({"stage": stage.name, **_pseudo_labels(read_arrays(file), domains.target, recipe)})
    return _Section("data", "Data", {"tables": tables, "pseudo": pseudo, "classes": recipe.classes})


def _domain_table(domain: str, store: CloudStore, spec: DomainSpec) -> dict[str, Any]:
    def counts(label: int) -> list[int]:
        return [int((store.labels[store.indices(part)] == label).sum()) for part in PARTS]

    uses: dict[str, Sequence[str]] = {"trained on": spec.train_on}
    if len(store.indices("val")):
        uses["selected by"] = ("val",)
    if domain == "target":
        uses["measured on"] = spec.evaluate_on
    rows = [(name, counts(label)) for label, name in enumerate(store.classes)]
    if (store.labels < 0).any():
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


def _pseudo_labels(arrays: Mapping[str, np.ndarray], store: CloudStore, recipe: Recipe) -> dict[str, Any]:
    """How many pseudo-labels there are and how many are right, in all and per pseudo-class."""
    rows = part_rows(store, recipe.target.train_on)
    labels, present, truth = arrays["labels"][rows], arrays["present"][rows], store.labels[rows]
    known = present & (truth >= 0)

    def line(name: str, members: np.ndarray) -> dict[str, Any]:
        right = (labels == truth)[members & known]
        return {"name": name, "count": int((members & present).sum()), "right": _percent(_mean(right))}

    return {
        "of": len(rows),
        "total": line("all", np.ones(len(rows), dtype=bool)),
        "rows": [line(name, labels == index) for index, name in enumerate(recipe.classes)],
    }


def _recipe(subjects: Sequence[_Subject]) -> _Section:
    own = subjects[0].run
    return _Section(
        "recipe",
        "Recipe and how to repeat it",
        {
            "yaml": own.recipe.dump(),
            "versions": own.state.get("versions", {}),
            "seconds": own.state.get("seconds"),
            "differences": [
                {"baseline": each.shown, "rows": _differences(own.recipe, each.run.recipe)} for each in subjects[1:]
            ],
            "report_command": "isthmus report " + " ".join(each.run.path.resolve().name for each in subjects),
        },
    )


def _differences(ours: Recipe, theirs: Recipe) -> list[tuple[str, str, str]]:
    """Fields in which two recipes differ: dotted name, ours, theirs."""
    left, right = (recipe.model_dump(mode="json", exclude={"name", "engine"}) for recipe in (ours, theirs))
    rows = list(_differing(left, right, ""))
    return rows if len(rows) <= LISTED else [*rows[:LISTED], (f"and {len(rows) - LISTED} more fields", "", "")]


def _differing(ours: Any, theirs: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """Walk two recipes; where one lacks a group of fields, or the kind differs, the group is one difference."""
    if ours == theirs:
        return
    if _grouped(ours) and _grouped(theirs):
        left, right = (dict(value if isinstance(value, dict) else enumerate(value)) for value in (ours, theirs))
        if left.get("kind") == right.get("kind"):
            for key in dict.fromkeys([*left, *right]):
                yield from _differing(left.get(key), right.get(key), f"{name}.{key}" if name else str(key))
            return
    yield name, _short(ours), _short(theirs)


def _grouped(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind") or value.get("name") or value)
    return NAN if value is None else str(value)


def _html(figure: go.Figure, name: str) -> Markup:
    """A figure as a ``div`` that draws itself with the page's plotly.js."""
    # Named one by one: the default set has a button that sends the figure to a server.
    buttons = [["toImage", "resetCameraDefault3d" if "scene" in figure.layout else "resetScale2d"]]
    config = {"displaylogo": False, "responsive": True, "modeBarButtons": buttons}
    return Markup(figure.to_html(config, full_html=False, include_plotlyjs=False, div_id=name))


def _class_accuracy(predictions: Predictions) -> list[float]:
    values: list[float] = class_accuracy(predictions.confusion).tolist()
    return values


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _percent(value: float) -> str:
    return NAN if math.isnan(value) else f"{100 * value:.1f}"


def _points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return NAN if math.isnan(value) else signed(100 * value)
