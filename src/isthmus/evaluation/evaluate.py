"""What ``isthmus evaluate`` shows of a run, whatever it learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.tables import Table
from isthmus.training.recipe import Rule
from isthmus.training.run import Run

if TYPE_CHECKING:
    from isthmus.evaluation.points.accuracy import Predictions
    from isthmus.evaluation.points.parts import PartPredictions
    from isthmus.evaluation.statistics import Interval


@dataclass(frozen=True)
class Evaluation:
    """Lines and tables to show in order, and the same as JSON values."""

    parts: tuple[str | Table, ...]
    values: dict[str, Any]


def evaluation(run: Run[Any], against: Run[Any] | None, data: str, rule: Rule, stage: str | None = None) -> Evaluation:
    """Scores of the checkpoint that ``rule`` chose on ``data``, and what they gained ``against`` another run there."""
    if against is not None and against.recipe.kind != run.recipe.kind:
        raise RunError(f"--against: expected a run of kind {run.recipe.kind!r}, found {against.recipe.kind!r}")
    if run.recipe.kind == "points":
        return _points(run, against, data, rule, stage)
    if run.recipe.kind == "frames":
        return _frames(run, against, data, rule, stage)
    return _dense(run, against, data, rule, stage)


def _points(run: Run[Any], against: Run[Any] | None, data: str, rule: Rule, stage: str | None) -> Evaluation:
    from isthmus.evaluation.points.accuracy import class_gains, overall_gain
    from isthmus.evaluation.points.evaluate import confusion_table, per_class_table, predictions_on, summary
    from isthmus.evaluation.points.parts import PartPredictions

    ours = predictions_on(run, data, rule, stage)
    theirs = None if against is None else predictions_on(against, data, rule, stage)
    if isinstance(ours, PartPredictions):
        return _parts(ours, theirs, against, rule)
    if isinstance(theirs, PartPredictions):
        raise RunError("--against: expected a run that classifies clouds, found one that labels their points")
    gains = None if theirs is None else class_gains(ours, theirs)
    parts: list[str | Table] = [
        f"{len(ours.labels)} clouds, checkpoint: {rule}",
        f"overall accuracy     {100 * ours.accuracy:.1f} %",
        f"mean-class accuracy  {100 * ours.mean_class_accuracy:.1f} %",
        per_class_table(ours, gains),
        confusion_table(ours),
    ]
    if against is not None and theirs is not None and gains is not None:
        hurt = [each.name for each in gains if each.verdict == "hurt"]
        parts.append(_gain_line(overall_gain(ours, theirs), against))
        parts.append(f"classes hurt: {', '.join(hurt) or 'none beyond noise'}")
    return Evaluation(tuple(parts), summary(ours, gains))


def _parts(
    ours: PartPredictions, theirs: Predictions | PartPredictions | None, against: Run[Any] | None, rule: Rule
) -> Evaluation:
    from isthmus.evaluation.points.accuracy import overall_gain
    from isthmus.evaluation.points.parts import PartPredictions

    parts: list[str | Table] = [
        f"{len(ours.names)} shapes, checkpoint: {rule}",
        f"shape mIoU       {100 * ours.accuracy:.1f} %",
        f"mean over parts  {100 * ours.mean_class_accuracy:.1f} %",
        ours.table(),
    ]
    values = ours.summary()
    if against is not None:
        if not isinstance(theirs, PartPredictions):
            raise RunError("--against: expected a run that labels points, found one that classifies clouds")
        gain = overall_gain(ours, theirs)
        parts.append(_gain_line(gain, against))
        values["gain"] = {"gain": gain.estimate, "low": gain.low, "high": gain.high}
    return Evaluation(tuple(parts), values)


def _gain_line(gain: Interval, against: Run[Any]) -> str:
    return (
        f"gain over {against.path}: {100 * gain.estimate:+.1f} points, 95 % interval "
        f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], "
        f"smallest detectable {100 * gain.smallest_detectable:.1f}"
    )


def _dense(run: Run[Any], against: Run[Any] | None, data: str, rule: Rule, stage: str | None) -> Evaluation:
    from isthmus.evaluation.dense.evaluate import (
        class_scores,
        class_table,
        counted_classes,
        gain_text,
        headline_row,
        measured_on,
        score_table,
        summary,
    )
    from isthmus.evaluation.dense.scores import mean_relative_gain, shared_tasks

    ours = measured_on(run, data, rule, stage)
    theirs = None if against is None else measured_on(against, data, rule, None)
    if theirs is not None:
        theirs = shared_tasks(ours, theirs)[1]
    classes = class_scores(ours, theirs)
    groups = len(np.unique(ours.groups))
    parts: list[str | Table] = [
        f"{len(ours.groups)} images of {groups} groups (rooms, streets...), checkpoint: {rule}",
        headline_row(ours.tasks, ours),
        score_table(ours),
    ]
    if classes:
        parts.append(class_table(classes))
    parts += counted_classes(ours.tasks)
    values = summary(ours, classes)
    if against is not None and theirs is not None:
        gain = mean_relative_gain(*([each] for each in shared_tasks(ours, theirs)))
        hurt = [f"{each.name} ({each.task})" for each in classes if each.verdict == "hurt"]
        parts.append(f"mean relative gain over {against.path} ({', '.join(theirs.tasks)}): {gain_text(gain)}")
        parts.append(f"classes hurt: {', '.join(hurt) or 'none beyond noise'}")
        numbers = {"gain": gain.estimate, "low": gain.low, "high": gain.high}
        values["mean_relative_gain"] = {name: None if np.isnan(value) else value for name, value in numbers.items()}
    return Evaluation(tuple(parts), values)


def _frames(run: Run[Any], against: Run[Any] | None, data: str, rule: Rule, stage: str | None) -> Evaluation:
    from isthmus.evaluation.dense.evaluate import class_scores, class_table, summary
    from isthmus.evaluation.dense.scores import shared_tasks
    from isthmus.evaluation.frames.evaluate import class_columns, mean_row, measured_frames, prediction_gains

    ours = measured_frames(run, data, rule, stage)
    theirs = None if against is None else measured_frames(against, data, rule)
    if theirs is not None and against is not None:
        theirs = shared_tasks(ours, theirs)[1]
        if not theirs.tasks:
            raise RunError(f"{against.path}: expected a prediction of {', '.join(ours.tasks)}, found none of them")
    classes = class_scores(ours, theirs)
    groups = len(np.unique(ours.groups))
    parts: list[str | Table] = [
        f"{len(ours.groups)} frames of {groups} groups (streets, sequences...), checkpoint: {rule}",
        mean_row(ours),
        class_columns(ours) if theirs is None else class_table(classes),
    ]
    values = summary(ours, classes)
    values["frames"] = values.pop("images")
    if against is not None and theirs is not None:
        gains = prediction_gains(ours, theirs)
        for name, gain in gains.items():
            interval = "" if np.isnan(gain.low) else f", 95 % interval [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
            parts.append(f"gain in mIoU {name} over {against.path}: {100 * gain.estimate:+.1f} points{interval}")
        hurt = [f"{each.name} ({each.task})" for each in classes if each.verdict == "hurt"]
        parts.append(f"classes hurt: {', '.join(hurt) or 'none beyond noise'}")
        values["mean_iou_gains"] = {
            name: {
                key: None if np.isnan(value) else value
                for key, value in (("gain", gain.estimate), ("low", gain.low), ("high", gain.high))
            }
            for name, gain in gains.items()
        }
    return Evaluation(tuple(parts), values)
