"""An audit as files: the sheet that a person fills in, the plan beside it, and the verdict once it is filled.

``sheet.csv`` has the names to label (:mod:`isthmus.evaluation.points.label_sheet`). ``sheet.plan.json`` holds all that
the verdict needs beside the labels: what both runs predict on every cloud, which clouds were drawn and with which
probability. So the verdict neither reads data nor predicts anew, and no later change of either can spoil labels that a
person has given. ``sheet.verdict.json`` is the verdict.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isthmus.data.publish import known_as
from isthmus.errors import DataError, IsthmusError, RunError
from isthmus.evaluation.points.accuracy import check_classifies
from isthmus.evaluation.points.audit import (
    Draw,
    Plan,
    Verdict,
    expected_half_width,
    labels_needed,
    plan,
    verdict,
)
from isthmus.evaluation.points.label_sheet import NO_CLASS, read_sheet, write_sheet
from isthmus.evaluation.points.outputs import outputs_on
from isthmus.evaluation.tables import Table
from isthmus.training.points.recipe import PointRun
from isthmus.training.recipe import Rule
from isthmus.training.run import Run, write_atomically

WIDTHS = (10.0, 5.0, 2.0, 1.0)
"""Half-widths of an interval, in points, that a verdict tells the number of labels for."""


class SavedPlan(BaseModel):
    """``sheet.plan.json``; both ``predictions`` are of all n clouds, as indices into ``classes``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    runs: tuple[str, str]
    rules: tuple[str, str]
    checkpoints: tuple[str, str]
    data: str
    store: str
    seed: int
    draw: Draw
    classes: tuple[str, ...]
    predictions: tuple[list[int], list[int]]
    rows: list[int]
    probability: list[float]
    names: list[str]
    differing: int = Field(ge=1)

    def drawn(self) -> Plan:
        """As it was drawn."""
        return Plan(np.array(self.rows), np.array(self.probability), self.differing, len(self.predictions[0]))

    def decisions(self, run: int) -> np.ndarray:
        """What one run predicts, as logits ``(n, K)`` that are 1 for the predicted class and 0 else."""
        found: np.ndarray = np.eye(len(self.classes))[self.predictions[run]]
        return found


_TOLD = 1.96 / (1.96 + 0.84)
"""An interval that reaches this share of the difference to either side leaves zero out with probability 0.8."""


def plan_file(sheet: Path) -> Path:
    """Where the plan of a sheet lies."""
    return sheet.with_suffix(".plan.json")


def verdict_file(sheet: Path) -> Path:
    """Where its verdict lies."""
    return sheet.with_suffix(".verdict.json")


def draw_sheet(
    first: PointRun,
    second: PointRun,
    labels: int,
    sheet: Path,
    *,
    seed: int = 0,
    draw: Draw = "equal",
    data: str = "target",
    rules: tuple[Rule, Rule] = ("label-free", "label-free"),
) -> list[str | Table]:
    """Draw ``labels`` clouds on which the runs differ; write the sheet and its plan; what to tell the person.

    Nothing is written where the runs agree on every cloud.

    Raises:
        RunError: a run that is not finished, does not classify clouds or has other classes or clouds.
        IsthmusError: there is such a sheet already, or no label to draw.
    """
    _check_pair(first, second)
    if sheet.suffix.lower() != ".csv":
        raise DataError(f"{sheet}: expected a file .csv for the sheet, found {sheet.suffix or 'no suffix'}")
    if sheet.exists():
        raise IsthmusError(f"{sheet}: expected no such file, found one; labels may be in it")
    if plan_file(sheet).exists():
        raise IsthmusError(f"{plan_file(sheet)}: expected no such file, found the plan of a sheet that was moved")
    one, other = outputs_on(first, data, rules[0]), outputs_on(second, data, rules[1])
    if not one.is_of(other):
        raise RunError(
            f"{second.path}: target data: expected that of {first.path}, {len(one.rows)} clouds of prepared data "
            f"{known_as(one.store.path)[0][:12]}, found {len(other.rows)} of {known_as(other.store.path)[0][:12]}; "
            "--data names clouds for both"
        )
    drawn = plan(one.logits, other.logits, labels, seed=seed, draw=draw)
    if not drawn.differing:
        return [
            f"{first.path} and {second.path} predict the same on all {drawn.samples} clouds: there is nothing to decide"
        ]
    names = one.names
    saved = SavedPlan(
        runs=(str(first.path), str(second.path)),
        rules=rules,
        checkpoints=(_checkpoint(first, rules[0]), _checkpoint(second, rules[1])),
        data=data,
        store=known_as(one.store.path)[0],
        seed=seed,
        draw=draw,
        classes=first.recipe.classes,
        predictions=(one.logits.argmax(axis=1).tolist(), other.logits.argmax(axis=1).tolist()),
        rows=drawn.rows.tolist(),
        probability=drawn.probability.tolist(),
        names=[names[row] for row in drawn.rows],
        differing=drawn.differing,
    )
    sheet.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(plan_file(sheet), saved.model_dump_json(indent=1).encode())
    write_sheet(sheet, saved.names)
    half = expected_half_width(drawn.samples, drawn.differing, len(drawn.rows))
    root = getattr(first.recipe.target.data, "root", None) if data == "target" else None
    where = "" if root is None else f"; names are files below {root}"
    told = f"{len(drawn.rows)} of these were drawn"
    expected = (
        f"Expected: the difference of accuracies to about ± {100 * half:.1f} points (95 % interval) or closer; "
        f"it is within ± {100 * drawn.differing / drawn.samples:.1f} in any case"
    )
    if len(drawn.rows) == drawn.differing:
        told, expected = "all of these were drawn", f"Expected: the exact difference on these {drawn.samples} clouds"
    return [
        f"The runs differ on {drawn.differing} of {drawn.samples} clouds; {told}{where}",
        f"written: {sheet}. Give every name a label: {', '.join(saved.classes)}, "
        f"or {NO_CLASS} for an object of no class",
        expected,
        f"Then: isthmus audit {first.path} {second.path} --sheet {sheet}",
    ]


def conclude(first: PointRun, second: PointRun, sheet: Path, *, width: float | None = None) -> list[str | Table]:
    """The verdict of a filled sheet, written beside it too; what to tell the person.

    Args:
        first, second: the runs that the sheet was drawn for, in either order.
        sheet: filled.
        width: half-width of an interval in points of accuracy, of which the number of labels is asked for.

    Raises:
        RunError: other runs, or trained anew since.
        DataError: a sheet or plan that cannot be read; names file and line or field.
    """
    _check_pair(first, second)
    saved = _read_plan(sheet)
    turned = _turned(saved, first, second, sheet)
    labels = read_sheet(sheet, saved.names, saved.classes)
    ours, theirs = saved.decisions(int(turned)), saved.decisions(int(not turned))
    result = verdict(saved.drawn(), ours, theirs, labels)
    decided = _decisive_share(saved, labels)
    needed = _needed(result, decided, WIDTHS if width is None else (width,))
    values: dict[str, Any] = {
        "runs": [str(first.path), str(second.path)],
        "better": {"first": str(first.path), "second": str(second.path)}.get(result.better),
        **vars(result),
        "confidence": 0.95,
        "decisive_share": decided,
        "labels_needed": [{"half_width": points / 100, "labels": count} for points, count in needed],
        "sheet": str(sheet),
        "data": saved.data,
        "store": saved.store,
    }
    write_atomically(verdict_file(sheet), json.dumps(values, indent=1).encode())
    return _told(result, first, second, needed, decided, verdict_file(sheet))


def _told(
    result: Verdict,
    first: Run[Any],
    second: Run[Any],
    needed: list[tuple[float, int]],
    decided: float,
    file: Path,
) -> list[str | Table]:
    low, high = 100 * result.low, 100 * result.high
    words = {
        "first": f"{first.path} is better",
        "second": f"{second.path} is better",
        "undecided": "undecided: the interval holds zero",
    }
    parts: list[str | Table] = [
        words[result.better],
        f"accuracy of {first.path} less that of {second.path}: {100 * result.difference:+.1f} points, "
        f"95 % interval [{low:+.1f}, {high:+.1f}]",
        f"from {result.labelled} labels of {result.differing} clouds on which the runs differ, "
        f"of {result.samples} in all; on {100 * decided:.0f} % of the labelled ones one run is right",
    ]
    if result.better == "undecided" and result.difference and result.labelled < result.differing:
        half_width = abs(result.difference) * _TOLD
        count = labels_needed(result.samples, result.differing, half_width, decisive_share=decided)
        parts.append(
            f"if the difference is what it seems, about {count} labels in all tell it from zero, four times in five"
        )
    if result.labelled == result.differing:
        parts.append(
            f"all clouds on which they differ have labels, so this is certain of these {result.samples} clouds; "
            "for other clouds of the kind the interval of isthmus evaluate --against holds"
        )
    rows = tuple((f"± {points:g}", str(count)) for points, count in needed)
    parts.append(Table(("95 % interval, points", "labels needed in all, about"), rows))
    parts.append(f"written: {file}")
    return parts


def _needed(result: Verdict, decided: float, widths: tuple[float, ...]) -> list[tuple[float, int]]:
    for points in widths:
        if not points > 0:
            raise IsthmusError(f"--width: expected more than 0 points, found {points}")
    return [
        (points, labels_needed(result.samples, result.differing, points / 100, decisive_share=decided))
        for points in widths
    ]


def _decisive_share(saved: SavedPlan, labels: np.ndarray) -> float:
    """Of the clouds on which the runs differ, about how many one of them gets right, in [0, 1] (Hajek's ratio)."""
    predicted = np.array(saved.predictions)[:, saved.rows]
    weight = 1 / np.array(saved.probability)
    return float((weight * (predicted == labels).any(axis=0)).sum() / weight.sum())


def _check_pair(first: PointRun, second: PointRun) -> None:
    for run in (first, second):
        if run.recipe.kind != "points":
            raise RunError(f"{run.path}: expected a run that classifies clouds, found kind {run.recipe.kind!r}")
        check_classifies(run)
        if not run.finished:
            raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")
    if first.recipe.classes != second.recipe.classes:
        raise RunError(
            f"{second.path}: classes: expected those of {first.path}, {', '.join(first.recipe.classes)}, "
            f"found {', '.join(second.recipe.classes)}"
        )


def _checkpoint(run: PointRun, rule: str) -> str:
    """A digest of the weights behind a run's predictions."""
    file = run.weights_file(run.recipe.stages[-1].name, rule)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{file}: expected the weights of a finished stage, found {error}") from None


def _turned(saved: SavedPlan, first: PointRun, second: PointRun, sheet: Path) -> bool:
    """Whether the runs are given in the other order than that of the plan. Raises RunError for other runs."""
    for turned, runs in ((False, (first, second)), (True, (second, first))):
        if tuple(_checkpoint(run, rule) for run, rule in zip(runs, saved.rules)) == saved.checkpoints:
            return turned
    raise RunError(
        f"{plan_file(sheet)}: checkpoints: expected the runs that the sheet was drawn for, "
        f"{saved.runs[0]} and {saved.runs[1]} as they were then, found {first.path} and {second.path}"
    )


def _read_plan(sheet: Path) -> SavedPlan:
    file = plan_file(sheet)
    try:
        saved = SavedPlan.model_validate_json(file.read_bytes())
    except OSError:
        raise DataError(f"{file}: expected the plan that was written with {sheet}, found none") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "the whole"
        raise DataError(f"{file}: {field}: expected a plan of isthmus audit, found: {problem['msg']}") from None
    counts = {len(saved.rows), len(saved.probability), len(saved.names)}
    samples, classes = len(saved.predictions[0]), len(saved.classes)
    fits = (
        len(counts) == 1
        and len(saved.predictions[1]) == samples
        and all(0 <= row < samples for row in saved.rows)
        and all(0 < share <= 1 for share in saved.probability)
        and all(0 <= each < classes for run in saved.predictions for each in run)
    )
    if not fits:
        raise DataError(f"{file}: expected rows, probabilities and predictions that fit together, found others")
    return saved
