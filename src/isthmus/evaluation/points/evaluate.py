"""Predictions of a run on labelled data, and the tables that say what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isthmus.errors import IsthmusError, RunError
from isthmus.evaluation.points.accuracy import (
    ClassGain,
    Predictions,
    class_gains,
    labelled_predictions,
    overall_gain,
)
from isthmus.evaluation.points.label_free import (
    counts_table,
    counts_values,
    estimated,
    estimates_section,
    of_seeds,
    other_seeds,
)
from isthmus.evaluation.points.outputs import Outputs, left_out_of, outputs_on
from isthmus.evaluation.points.parts import PartPredictions, labelled_parts
from isthmus.evaluation.statistics import Interval
from isthmus.evaluation.tables import Table
from isthmus.tasks.classification import class_accuracy
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule

Shown = tuple[tuple[str | Table, ...], dict[str, Any]]
"""Lines and tables to show in order, and the same as JSON values."""


def classifier(
    run: PointRun, against: PointRun | None, data: str, rule: Rule, stage: str | None, seeds: Sequence[PointRun]
) -> Shown:
    """What there is to say of a run that classifies clouds, with labels or without: see ``isthmus evaluate``.

    Where clouds of ``data`` have labels, all numbers are about those; otherwise only what needs none is shown.
    """
    if against is not None and against.recipe.predicts != "class":
        raise RunError("--against: expected a run that classifies clouds, found one that labels their points")
    others, left_out = other_seeds(run, seeds), left_out_of(run, data)
    ours = outputs_on(run, data, rule, stage)
    theirs = None if against is None else outputs_on(against, data, rule, stage)
    labelled = bool((ours.labels() >= 0).any())
    if labelled:
        ours, theirs = ours.labelled(), theirs and theirs.labelled()
    if against is not None and theirs is not None:
        _check_same(run, ours, against, theirs)
    parts, values, accuracies = _scores(ours, against, theirs, rule) if labelled else _counts(ours, rule)
    parts, values = [*left_out, *parts], {"left_out": left_out, **values}
    if data == "source":
        return tuple(parts), values
    try:
        own = estimated(run, ours, rule, stage, of_seeds(others, data, rule, stage, labelled))
        other = None if against is None or theirs is None else estimated(against, theirs, rule, stage)
    except IsthmusError as error:
        if others or not labelled:
            raise
        # Scores come from kept predictions; only estimates need weights and the source.
        return (*parts, f"no estimates without labels: {error}"), values
    more, numbers = estimates_section(own, other, accuracy=accuracies[0], baseline=accuracies[1])
    return (*parts, *more), values | numbers


def _check_same(run: PointRun, ours: Outputs, against: PointRun, theirs: Outputs) -> None:
    if ours.store.classes != theirs.store.classes:
        raise RunError(
            f"--against: expected the classes {ours.store.classes} in both runs, found {theirs.store.classes}"
        )
    if ours.names != theirs.names:
        raise RunError(
            f"--against: expected the same {len(ours.names)} clouds in {run.path} and {against.path}, "
            f"found {len(theirs.names)} others"
        )


def _scores(
    ours: Outputs, against: PointRun | None, theirs: Outputs | None, rule: Rule
) -> tuple[list[str | Table], dict[str, Any], tuple[float | None, float | None]]:
    """Lines, values, and the accuracies of both."""
    found = labelled_predictions(ours.store, ours.rows, ours.logits)
    baseline = None if theirs is None else labelled_predictions(theirs.store, theirs.rows, theirs.logits)
    gains = None if baseline is None else class_gains(found, baseline)
    parts: list[str | Table] = [
        f"{len(found.labels)} clouds, checkpoint: {rule}",
        f"overall accuracy     {100 * found.accuracy:.1f} %",
        f"mean-class accuracy  {100 * found.mean_class_accuracy:.1f} %",
        per_class_table(found, gains),
        confusion_table(found),
    ]
    if against is not None and baseline is not None and gains is not None:
        hurt = [each.name for each in gains if each.verdict == "hurt"]
        parts.append(_gain_line(overall_gain(found, baseline), against))
        parts.append(f"classes hurt: {', '.join(hurt) or 'none beyond noise'}")
    return parts, summary(found, gains), (found.accuracy, None if baseline is None else baseline.accuracy)


def _counts(ours: Outputs, rule: Rule) -> tuple[list[str | Table], dict[str, Any], tuple[None, None]]:
    """The same where there are no labels."""
    parts: list[str | Table] = [
        f"{len(ours.rows)} clouds, checkpoint: {rule}",
        "these clouds have no labels, so no accuracy can be measured; what follows is what the run itself says. "
        "isthmus audit tells with few labels which of two runs is better",
        counts_table(ours),
    ]
    return parts, counts_values(ours), (None, None)


def parts_of_shapes(run: PointRun, against: PointRun | None, data: str, rule: Rule, stage: str | None) -> Shown:
    """The same of a run that labels points. Raises RunError where the shapes have no labels."""
    if against is not None and against.recipe.predicts != "parts":
        raise RunError("--against: expected a run that labels points, found one that classifies clouds")
    left_out = left_out_of(run, data)
    ours = part_predictions_on(run, data, rule, stage)
    parts: list[str | Table] = [
        *left_out,
        f"{len(ours.names)} shapes, checkpoint: {rule}",
        f"shape mIoU       {100 * ours.accuracy:.1f} %",
        f"mean over parts  {100 * ours.mean_class_accuracy:.1f} %",
        ours.table(),
    ]
    values = {"left_out": left_out, **ours.summary()}
    if against is not None:
        gain = overall_gain(ours, part_predictions_on(against, data, rule, stage))
        parts.append(_gain_line(gain, against))
        values["gain"] = {"gain": gain.estimate, "low": gain.low, "high": gain.high}
    return tuple(parts), values


def part_predictions_on(run: PointRun, data: str, rule: Rule, stage: str | None = None) -> PartPredictions:
    """Labels of points that a run predicted, on ``data`` as :func:`isthmus.evaluation.points.outputs.outputs_on`."""
    found = outputs_on(run, data, rule, stage)
    predictions = labelled_parts(found.store, found.rows, found.logits)
    if not predictions.names:
        raise RunError(f"{run.path}: expected shapes with labelled points to measure on, found none")
    return predictions


def _gain_line(gain: Interval, against: PointRun) -> str:
    return (
        f"gain over {against.path}: {100 * gain.estimate:+.1f} points, 95 % interval "
        f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], "
        f"smallest detectable {100 * gain.smallest_detectable:.1f}"
    )


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
