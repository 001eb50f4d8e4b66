"""What ``isthmus evaluate`` shows of a run, whatever it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.tables import Table
from isthmus.training.recipe import Rule
from isthmus.training.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Lines and tables to show in order, and the same as JSON values."""

    parts: tuple[str | Table, ...]
    values: dict[str, Any]


def evaluation(
    run: Run[Any],
    against: Run[Any] | None,
    data: str,
    rule: Rule,
    stage: str | None = None,
    seeds: Sequence[Run[Any]] = (),
) -> Evaluation:
    """Scores of the checkpoint that ``rule`` chose on ``data``, and what they gained ``against`` another run there.

    Classifiers of clouds also get estimates of their accuracy that read no label; ``seeds`` are runs that differ from
    ``run`` in their seed alone, for the one that asks how often they agree.
    """
    if against is not None and against.recipe.kind != run.recipe.kind:
        raise RunError(f"--against: expected a run of kind {run.recipe.kind!r}, found {against.recipe.kind!r}")
    if run.recipe.kind == "points":
        from isthmus.evaluation.points.evaluate import classifier, parts_of_shapes

        if run.recipe.predicts == "class":
            return Evaluation(*classifier(run, against, data, rule, stage, seeds))
        if not seeds:
            return Evaluation(*parts_of_shapes(run, against, data, rule, stage))
    if seeds:
        raise RunError(f"--seeds: expected a run that classifies clouds, found {run.path}, which does not")
    if run.recipe.kind == "frames":
        return _frames(run, against, data, rule, stage)
    return _dense(run, against, data, rule, stage)


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
