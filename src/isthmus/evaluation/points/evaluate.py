"""Predictions of a run on labelled data, and the tables that say what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from isthmus.data.store import CloudStore, prepare
from isthmus.errors import RecipeError
from isthmus.evaluation.load import load_method
from isthmus.evaluation.points.accuracy import ClassGain, Predictions, Selected, measured, select
from isthmus.evaluation.points.parts import PartPredictions
from isthmus.evaluation.points.predict import predict_store
from isthmus.evaluation.tables import Table
from isthmus.tasks.classification import class_accuracy
from isthmus.training.points.build import PREPARED_POINTS, cache_folder, domain_reader, open_domains, part_rows
from isthmus.training.points.data_specs import DataSpec, DomainSpec, FolderSpec
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule


def predictions_on(run: PointRun, data: str, rule: Rule, stage: str | None = None) -> Predictions | PartPredictions:
    """Predictions of the checkpoint that ``rule`` chose, on ``data`` with its labels.

    ``data`` is ``target`` (the recipe's evaluation parts, from the predictions kept during training), ``source``
    (its test part), a folder ``root/class/[split/]file``, or a data set in YAML, of which all parts are used.
    """
    if data == "target":
        selected: Mapping[Any, Selected] = select(run, stage)
        return selected[rule].predictions
    if data == "source":
        store = open_domains(run.recipe).source
        rows = part_rows(store, run.recipe.source.evaluate_on)
    else:
        store = _store(run, data)
        rows = np.arange(len(store))
    logits = predict_store(load_method(run, rule, stage=stage), store, rows, run.recipe.points)
    return measured(store, rows, logits)


def _store(run: PointRun, data: str) -> CloudStore:
    spec: Any
    if Path(data).is_dir():
        spec = FolderSpec(root=Path(data))
    else:
        try:
            spec = TypeAdapter(DataSpec).validate_python(yaml.safe_load(data))
        except (ValidationError, yaml.YAMLError) as error:
            raise RecipeError(
                f"--data: expected 'target', 'source', a folder, or a data set such as "
                f"'{{kind: objects, name: realscan}}', found {data!r}: {error}"
            ) from None
    reader = domain_reader(DomainSpec(data=spec, drop="*"), run.recipe.classes, source=False)
    return prepare(reader, cache_folder(), max(PREPARED_POINTS, run.recipe.points))


def per_class_table(ours: Predictions, gains: list[ClassGain] | None = None) -> Table:
    """Accuracy per class and, against a baseline, the gain with its interval."""
    headings = ("class", "clouds", "accuracy")
    accuracy, counts = class_accuracy(ours.confusion), ours.confusion.sum(dim=1)
    rows = [(name, str(int(counts[i])), _percent(float(accuracy[i]))) for i, name in enumerate(ours.classes)]
    if gains is None:
        return Table(headings, tuple(rows))
    return Table(
        (*headings, "baseline", "gain", "95 % interval", "verdict"),
        tuple(
            (
                *row,
                _percent(gain.baseline),
                "–" if gain.count == 0 else f"{100 * gain.gain.estimate:+.1f}",
                "–" if gain.count == 0 else f"[{100 * gain.gain.low:+.1f}, {100 * gain.gain.high:+.1f}]",
                gain.verdict,
            )
            for row, gain in zip(rows, gains)
        ),
    )


def confusion_table(ours: Predictions) -> Table:
    """Counts; rows are the truth, columns the prediction."""
    rows = tuple((name, *(str(int(count)) for count in line)) for name, line in zip(ours.classes, ours.confusion))
    return Table(("truth \\ predicted", *ours.classes), rows)


def summary(ours: Predictions, gains: list[ClassGain] | None = None) -> dict[str, Any]:
    """The same as JSON values; NaN becomes null."""
    result: dict[str, Any] = {
        "clouds": len(ours.labels),
        "overall_accuracy": ours.accuracy,
        "mean_class_accuracy": ours.mean_class_accuracy,
        "classes": list(ours.classes),
        "class_accuracy": [None if np.isnan(a) else a for a in class_accuracy(ours.confusion).tolist()],
        "confusion": ours.confusion.tolist(),
    }
    if gains is not None:
        result["gains"] = [
            {"class": g.name, "clouds": g.count, "verdict": g.verdict}
            | ({} if not g.count else {"gain": g.gain.estimate, "low": g.gain.low, "high": g.gain.high})
            for g in gains
        ]
    return result


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"
