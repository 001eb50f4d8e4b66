"""Scores of a run of dense predictions, in all detail, on its own test part or on other labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from isthmus.data.image_store import ImageStore, prepare_images
from isthmus.data.images import ImageReader
from isthmus.data.readers.image_folder import ImageFolder
from isthmus.errors import RecipeError, RunError
from isthmus.evaluation.dense.compare import significant
from isthmus.evaluation.dense.scores import Measured, image_groups, image_key, only, score_gain, select
from isthmus.evaluation.load import load_method
from isthmus.evaluation.statistics import Interval
from isthmus.evaluation.tables import Table
from isthmus.tasks.dense import DenseTask
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.cache import cache_folder
from isthmus.training.dense.build import build_reader
from isthmus.training.dense.monitor import measure
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRun, ImageDataSpec
from isthmus.training.recipe import Rule

VISIBLE = 0.0005
"""A gain below this is 0.0 percentage points wherever it is written."""


def measured_on(run: DenseRun, data: str, rule: Rule, stage: str | None = None) -> Measured:
    """The statistics of the checkpoint that ``rule`` chose.

    ``data`` is ``target`` (the recipe's test part, from what was kept during training), ``source`` (the same, or the
    source's test part where there is a target), a folder of images and labels
    (:class:`isthmus.data.readers.image_folder.ImageFolder`), or a data set in YAML, of which all parts are used.
    """
    problem = DenseProblem(run.recipe)
    if data == "source" and problem.target is not None:
        test = problem.source.indices("test")
        if not len(test):
            raise RunError(f"{problem.source.path}: expected images in the source's test part, found none")
        return _measured(run, problem.source, test, problem.counted_tasks, rule, stage)
    if data in ("target", "source"):
        chosen = select(run, stage, problem)
        if rule not in chosen:
            raise RunError(f"--select: expected one of {', '.join(run.recipe.rules)}, found {rule!r}")
        return chosen[rule]
    reader: ImageReader
    if Path(data).is_dir():
        reader = _folder(Path(data), problem.source.tasks)
    else:
        try:
            spec: Any = TypeAdapter(ImageDataSpec).validate_python(yaml.safe_load(data))
        except (ValidationError, yaml.YAMLError) as error:
            raise RecipeError(
                f"--data: expected 'target', a folder, or a data set such as '{{kind: rooms, style: camera}}', "
                f"found {data!r}: {error}"
            ) from None
        reader = build_reader(spec)
    size = (int(problem.tested.size[0]), int(problem.tested.size[1]))
    store = prepare_images(reader, cache_folder(), size)
    shared = {name: task for name, task in problem.counted_tasks.items() if name in store.tasks}
    # Images without labels of the main task can still say how well the anchor task went.
    shared = shared or {name: task for name, task in problem.tasks.items() if name in store.tasks}
    for name in shared:
        if store.tasks[name] != problem.source.tasks[name]:
            raise RunError(
                f"--data: {name}: expected the classes {', '.join(problem.source.tasks[name])}, "
                f"found {', '.join(store.tasks[name])}"
            )
    if not shared:
        raise RunError(f"--data: expected labels of {', '.join(problem.tasks)}, found {', '.join(store.tasks)}")
    return _measured(run, store, np.arange(len(store)), shared, rule, stage)


def _measured(
    run: DenseRun,
    store: ImageStore,
    rows: np.ndarray,
    tasks: Mapping[str, DenseTask],
    rule: Rule,
    stage: str | None,
) -> Measured:
    """Statistics of predictions that are made now."""
    method = load_method(run, rule, stage=stage)
    present = {name: store.present[:, list(store.tasks).index(name)] for name in tasks}
    with torch.no_grad():
        statistics = measure(method.predict, store, rows, tasks, present)
    return Measured(-1, tasks, statistics, image_groups(store, rows), image_key(store, rows))


def _folder(root: Path, classes: Mapping[str, tuple[str, ...]]) -> ImageFolder:
    """A folder with the classes that the run knows; names of points in the folder say in which order its own are."""
    named = (root / "keypoints.txt").is_file()
    points = () if named else classes.get("keypoints", ())
    return ImageFolder(root, classes=classes.get("segmentation", ()), keypoints=points)


def score_table(ours: Measured) -> Table:
    """Every score of every task."""
    rows = []
    for name, task in ours.tasks.items():
        for score, value in ours.scores(name).items():
            if "/" not in score:
                factor = task.display_factor if score == task.headline else 1.0
                marked = f"{score} ({task.heading})" if score == task.headline else score
                rows.append((name, marked, f"{factor * value:.{significant(factor * value)}f}"))
    return Table(("task", "score", "value"), tuple(rows))


@dataclass(frozen=True)
class ClassScore:
    """The intersection over union of one class and, against a baseline, what it gained."""

    task: str
    name: str
    iou: float
    baseline: float | None = None
    gain: Interval | None = None

    @property
    def verdict(self) -> str:
        """``hurt`` and ``helped`` when the interval excludes zero, and the gain can be seen in a table of percentages;
        ``same`` without any difference; otherwise ``within noise``."""
        if np.isnan(self.iou):
            return "no pixel"
        if self.gain is not None and self.gain.estimate == self.gain.low == self.gain.high == 0:
            return "same"
        if self.gain is None or not self.gain.excludes_zero or abs(self.gain.estimate) < VISIBLE:
            return "within noise"
        return "helped" if self.gain.estimate > 0 else "hurt"


def class_scores(ours: Measured, baseline: Measured | None = None) -> list[ClassScore]:
    """Per class of the tasks with classes; gains are paired on the same images and clustered by room."""
    found = []
    for name, task in ours.tasks.items():
        scores = ours.scores(name)
        for each in task.classes:
            score = f"iou/{each}"
            if score not in scores:
                continue
            if baseline is None or name not in baseline.tasks:
                found.append(ClassScore(name, each, scores[score]))
            else:
                before = baseline.scores(name)[score]
                gain = score_gain([only(ours, [name])], [only(baseline, [name])], name, score)
                found.append(ClassScore(name, each, scores[score], before, gain))
    return found


def class_table(scores: list[ClassScore]) -> Table:
    """IoU per class in percent, with gains where there is a baseline."""
    headings = ("task", "class", "IoU [%]")
    if not any(score.gain is not None for score in scores):
        return Table(headings, tuple((s.task, s.name, _percent(s.iou)) for s in scores))
    rows = []
    for s in scores:
        gain = s.gain
        estimate, interval = _gain_cells(gain)
        rows.append((s.task, s.name, _percent(s.iou), _percent(s.baseline), estimate, interval, s.verdict))
    return Table((*headings, "baseline", "gain", "95 % interval", "verdict"), tuple(rows))


def _gain_cells(gain: Interval | None) -> tuple[str, str]:
    """A gain and its interval in percent; dashes for what cannot be had."""
    if gain is None or np.isnan(gain.estimate):
        return "–", "–"
    return f"{100 * gain.estimate:+.1f}", "–" if np.isnan(
        gain.low
    ) else f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def gain_text(gain: Interval) -> str:
    """A gain in percent with its 95 % interval, where there is one."""
    estimate, interval = _gain_cells(gain)
    return f"{estimate} %" if interval == "–" else f"{estimate} %, 95 % interval {interval}"


def counted_classes(tasks: Mapping[str, DenseTask]) -> list[str]:
    """Which classes a mean counts, for every task that does not count all of them."""
    lines = []
    for name, task in tasks.items():
        if isinstance(task, Segmentation) and task.counted is not None:
            counted = ", ".join(task.classes[index] for index in task.counted)
            lines.append(f"{name}: the mean counts {counted}; the other classes only as errors")
    return lines


def summary(ours: Measured, classes: list[ClassScore]) -> dict[str, Any]:
    """The same as JSON values; NaN becomes null."""

    def value(number: float) -> float | None:
        return None if np.isnan(number) else number

    return {
        "images": len(ours.groups),
        "scores": {name: {s: value(v) for s, v in ours.scores(name).items()} for name in ours.tasks},
        "gains": [
            {
                "task": c.task,
                "class": c.name,
                "gain": value(c.gain.estimate),
                "low": value(c.gain.low),
                "high": value(c.gain.high),
                "verdict": c.verdict,
            }
            for c in classes
            if c.gain is not None
        ],
    }


def headline_row(tasks: Mapping[str, DenseTask], ours: Measured) -> Table:
    """The row of the paper's tables."""
    values = [tasks[name].display_factor * ours.headline(name) for name in tasks]
    headings = tuple(f"{task.heading} {'↑' if task.higher_is_better else '↓'}" for task in tasks.values())
    return Table(headings, (tuple(f"{value:.{significant(value)}f}" for value in values),))


def _percent(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f}"
