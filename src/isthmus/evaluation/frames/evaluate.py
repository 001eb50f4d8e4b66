"""Scores of a run on frames: mean IoU of the 2D, the 3D and the averaged prediction, and of every class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from isthmus.data.frame_reading import reading_workers
from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.errors import RecipeError, RunError
from isthmus.evaluation.dense.scores import Measured, image_groups, image_key, only, score_gain, select, shared_tasks
from isthmus.evaluation.load import load_method
from isthmus.evaluation.statistics import Interval
from isthmus.evaluation.tables import Table
from isthmus.training.cache import cache_folder
from isthmus.training.frames.build import build_reader
from isthmus.training.frames.monitor import measure
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.frames.recipe import FrameDataSpec, FrameRun
from isthmus.training.recipe import Rule


def measured_frames(run: FrameRun, data: str, rule: Rule, stage: str | None = None) -> Measured:
    """The statistics of the checkpoint that ``rule`` chose.

    ``data`` is ``target`` (the target's test part, from what was kept during training), ``source`` (the source's test
    part), or a data set in YAML, of which all labelled frames of all parts are used.

    Raises:
        RunError: there is no frame to measure on, or the data set has other classes or no images for the 2D stream.
        RecipeError: ``data`` is none of these.
    """
    problem = FrameProblem(run.recipe)
    if data == "target":
        chosen = select(run, stage, problem)
        if rule not in chosen:
            raise RunError(f"--select: expected one of {', '.join(run.recipe.rules)}, found {rule!r}")
        return chosen[rule]
    if data == "source":
        store = problem.source
        rows = store.indices("test")
        if not len(rows):
            raise RunError(f"{store.path}: expected frames in the source's test part, found none")
    else:
        store = _other(run, problem, data)
        rows = np.flatnonzero(store.present)
        if not len(rows):
            raise RunError("--data: expected frames with labels, found none")
    method = load_method(run, rule, stage=stage)
    with torch.no_grad():
        statistics = measure(method.predict, store, rows, problem.tasks)
    return Measured(-1, problem.tasks, statistics, image_groups(store, rows), image_key(store, rows))


def _other(run: FrameRun, problem: FrameProblem, data: str) -> FrameStore:
    """The frames of a data set that the recipe does not name, at the size that the run was trained at."""
    try:
        spec: Any = TypeAdapter(FrameDataSpec).validate_python(yaml.safe_load(data))
    except (ValidationError, yaml.YAMLError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecipeError(
            "--data: expected 'target', 'source', or a data set such as '{kind: lidar-streets, domain: night}', "
            f"found {data!r}: {why}"
        ) from None
    size = (int(problem.target.size[0]), int(problem.target.size[1]))
    wanted = size if any(size) else None
    store = prepare_frames(build_reader(spec), cache_folder(), wanted, workers=reading_workers(4))
    if store.classes != problem.source.classes:
        raise RunError(
            f"--data: expected the classes {', '.join(problem.source.classes)}, found {', '.join(store.classes)}"
        )
    if "2D" in run.recipe.streams and not any(store.size):
        raise RunError("--data: expected images for the 2D stream, found sweeps alone")
    return store


def prediction_gains(ours: Measured, theirs: Measured) -> dict[str, Interval]:
    """What the mean IoU of each prediction that both have gained, as a difference of shares."""
    ours, theirs = shared_tasks(ours, theirs)
    return {name: score_gain([only(ours, [name])], [only(theirs, [name])], name, "mean_iou") for name in ours.tasks}


def mean_row(ours: Measured) -> Table:
    """The row of the papers' tables: mean IoU of every prediction in percent."""
    headings = tuple(f"{task.heading} ↑" for task in ours.tasks.values())
    return Table(headings, (tuple(_percent(ours.headline(name)) for name in ours.tasks),))


def class_columns(ours: Measured) -> Table:
    """IoU of every class in percent, a column for each prediction."""
    tasks = list(ours.tasks)
    scores = {name: ours.scores(name) for name in tasks}
    rows = [(each, *(_percent(scores[name][f"iou/{each}"]) for name in tasks)) for each in ours.tasks[tasks[0]].classes]
    rows.append(("mean", *(_percent(scores[name]["mean_iou"]) for name in tasks)))
    return Table(("class", *(f"IoU {name} [%]" for name in tasks)), tuple(rows))


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"
