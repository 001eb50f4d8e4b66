"""What a run of dense predictions is worth on its test part, from the statistics that it kept while training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import RunError
from isthmus.evaluation.statistics import Interval, crossed_interval
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.monitor import Statistics, selection_score
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.problem import open_problem
from isthmus.training.recipe import Recipe
from isthmus.training.run import Run, read_arrays

Column = Literal["source-val", "last", "confusion", "label-free", "test-selected"]
COLUMNS: tuple[Column, ...] = ("source-val", "last", "confusion", "label-free", "test-selected")
NOT_USABLE = "test-selected (not usable)"

RESAMPLES = 1000
LOOKED_AT = 16
"""So many images are compared by their content when two runs are to have been measured on the same ones."""


class Tested(Protocol):
    """What has a test part: a store of images or of frames."""

    path: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def content(self, row: int) -> bytes:
        """What tells a sample from others of the same name."""
        ...


class TestedProblem(Protocol):
    """A recipe with its data, as far as measuring goes."""

    @property
    def tested(self) -> Tested:
        """The samples whose test part counts."""
        ...

    @property
    def tested_tasks(self) -> Mapping[str, DenseTask]:
        """What is measured."""
        ...

    @property
    def counted_tasks(self) -> Mapping[str, DenseTask]:
        """What should be measured."""
        ...

    @property
    def stores(self) -> dict[str, tuple[str, ...]]:
        """See :class:`isthmus.training.problem.Problem`."""
        ...


@dataclass(frozen=True)
class Measured:
    """The statistics of one checkpoint on the images of a test part, row by row.

    ``groups`` ``(n,)`` is what must be resampled together: the room or street of an image, or its own name. ``images``
    says which images these are (:func:`image_key`).
    """

    step: int
    tasks: Mapping[str, DenseTask]
    statistics: Statistics
    groups: np.ndarray
    images: str = ""

    def scores(self, task: str) -> dict[str, float]:
        """All scores of a task over all images."""
        total = torch.from_numpy(self.statistics[task]).sum(dim=0)
        return {name: float(value) for name, value in self.tasks[task].scores(total).items()}

    def headline(self, task: str) -> float:
        """The score that stands for a task."""
        return self.scores(task)[self.tasks[task].headline]


def open_tested(recipe: Recipe) -> TestedProblem:
    """The data of a recipe whose runs keep statistics of their test part."""
    problem = open_problem(recipe)
    assert isinstance(problem, DenseProblem | FrameProblem)
    return problem


def select(run: Run[Any], stage: str | None = None, problem: TestedProblem | None = None) -> dict[Column, Measured]:
    """Test statistics as each selection rule would have chosen them, in ``stage`` (default: the last).

    ``source-val`` and ``last`` look at no test image. ``test-selected`` is the best of all checkpoints on the very
    images it is measured with, as released code chooses: shown for comparison, not usable. It is left out where the
    recipe measured the test part at chosen checkpoints only.
    """
    stage = stage or run.recipe.stages[-1].name
    problem = problem or open_tested(run.recipe)
    for domain, names in problem.stores.items():
        run.check_store(domain, names)
    files = run.evaluations(stage)
    if not files:
        raise RunError(f"{run.path}: expected evaluations of stage {stage!r}, found none; is the run finished?")
    points = [read_arrays(file) for file in files]
    measured = [_measured(point, problem) for point in points]
    validation = [float(point["source_val"]) for point in points]
    chosen: dict[Column, int] = {"last": len(points) - 1}
    chosen["source-val"] = chosen["last"] if np.isnan(validation).all() else _latest_best(validation)
    for rule in ("confusion", "label-free"):
        if rule in run.recipe.rules:
            scores = [float(point[rule.replace("-", "_")]) for point in points]
            chosen[rule] = chosen["last"] if np.isnan(scores).all() else _latest_best(scores)
    if all(each is not None for each in measured):
        found = [selection_score(each.tasks, each.statistics) for each in measured if each is not None]
        chosen["test-selected"] = _latest_best(found)
    result: dict[Column, Measured] = {}
    for rule in COLUMNS:
        if rule in chosen and (one := measured[chosen[rule]]) is not None:
            result[rule] = one
    return result


def _measured(point: dict[str, np.ndarray], problem: TestedProblem) -> Measured | None:
    if not problem.tested_tasks:
        raise RunError(
            f"{problem.tested.path}: expected labels of {', '.join(problem.counted_tasks)} to measure, found none"
        )
    if not all(f"test/{name}" in point for name in problem.tested_tasks):
        return None
    rows = point["rows"]
    if not len(rows):
        raise RunError(f"{problem.tested.path}: expected images in the test part, found none")
    return Measured(
        int(point["step"]),
        problem.tested_tasks,
        {name: point[f"test/{name}"] for name in problem.tested_tasks},
        image_groups(problem.tested, rows),
        image_key(problem.tested, rows),
    )


def image_groups(store: Tested, rows: np.ndarray) -> np.ndarray:
    """The group of each image, or its own name. Shape: ``(len(rows),)``."""
    return np.array([store.groups[row] or store.names[row] for row in rows])


def image_key(store: Tested, rows: np.ndarray) -> str:
    """Which images these are, as far as their names, their size and the content of a few of them tell.

    Names alone do not: a simulator gives the same names to the rooms of another seed.
    """
    size = [int(side) for side in store.size]
    digest = hashlib.sha256(json.dumps([size, [store.names[row] for row in rows]]).encode())
    for position in np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int)):
        digest.update(store.content(int(rows[position])))
    return digest.hexdigest()


def _latest_best(scores: list[float]) -> int:
    known = [-np.inf if np.isnan(score) else score for score in scores]
    return max(range(len(known)), key=lambda index: (known[index], index))


def shared_tasks(ours: Measured, theirs: Measured) -> tuple[Measured, Measured]:
    """Two measurements of the tasks that both have."""
    names = [name for name in ours.tasks if name in theirs.tasks]
    return only(ours, names), only(theirs, names)


def only(measured: Measured, names: Sequence[str]) -> Measured:
    """A measurement of some of its tasks."""
    tasks: Mapping[str, DenseTask] = {name: measured.tasks[name] for name in names}
    return Measured(
        measured.step, tasks, {name: measured.statistics[name] for name in names}, measured.groups, measured.images
    )


def relative_gain(task: DenseTask, ours: Tensor, baseline: Tensor) -> Tensor:
    """Relative gain of a headline score over a baseline, positive where it is better. Any shape."""
    difference = (ours - baseline) / baseline
    return difference if task.higher_is_better else -difference


def mean_relative_gain(ours: list[Measured], baseline: list[Measured]) -> Interval:
    """The mean over tasks of the relative gain, averaged over pairs of runs (of one seed each).

    The interval covers new seeds and new groups of test images: whole groups are resampled, the same ones for both
    sides and all seeds. With a single pair only the groups count.

    Raises RunError where the two were not measured on the same images and tasks.
    """
    for each in (*ours, *baseline):
        if set(each.tasks) != set(ours[0].tasks):
            raise RunError(
                f"mean relative gain: expected runs of the tasks {', '.join(ours[0].tasks)}, found one of "
                f"{', '.join(each.tasks)}"
            )

    def gain(a: Measured, b: Measured, weights: Tensor | None) -> Tensor:
        gains = [
            relative_gain(task, _headline(a, name, weights), _headline(b, name, weights))
            for name, task in a.tasks.items()
        ]
        return torch.stack(gains).mean(dim=0)

    return crossed_gain(ours, baseline, gain)


def score_gain(ours: list[Measured], baseline: list[Measured], task: str, score: str) -> Interval:
    """Difference of one score (``iou/chair``), averaged over pairs of runs; the interval as in
    :func:`mean_relative_gain`."""

    def gain(a: Measured, b: Measured, weights: Tensor | None) -> Tensor:
        return _score(a, task, score, weights) - _score(b, task, score, weights)

    return crossed_gain(ours, baseline, gain)


def crossed_gain(
    ours: list[Measured],
    baseline: list[Measured],
    gain: Callable[[Measured, Measured, Tensor | None], Tensor],
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """A gain, a function of two measurements and of how often each group is counted, over seeds and groups.

    ``gain`` gets weights ``(R, G)`` for R resamplings of G groups (ascending), or None for all images once.
    """
    groups = ours[0].groups
    for each in (*ours, *baseline):
        if not np.array_equal(each.groups, groups) or each.images != ours[0].images:
            raise RunError(f"expected runs measured on the same {len(groups)} images, found {len(each.groups)} others")
    clusters = len(np.unique(groups))
    by_seed = np.array([float(gain(a, b, None)) for a, b in zip(ours, baseline)])
    estimate = float(by_seed.mean())
    if clusters < 2:
        return Interval(estimate, np.nan, np.nan, np.nan)
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples))
    resampled = torch.stack([gain(a, b, weights.double()) for a, b in zip(ours, baseline)]).mean(dim=0).numpy()
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) < 2:
        return Interval(estimate, np.nan, np.nan, np.nan)
    error = float(resampled.std(ddof=1))
    if len(by_seed) < 2:
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Interval(estimate, float(low), float(high), error)
    return crossed_interval(estimate, by_seed, error, clusters)


def _headline(measured: Measured, task: str, weights: Tensor | None) -> Tensor:
    return _score(measured, task, measured.tasks[task].headline, weights)


def _score(measured: Measured, task: str, score: str, weights: Tensor | None) -> Tensor:
    statistics = torch.from_numpy(measured.statistics[task])
    if weights is None:
        total = statistics.sum(dim=0)
    else:
        _, group = np.unique(measured.groups, return_inverse=True)
        by_group = torch.zeros(int(group.max()) + 1, statistics.shape[1], dtype=torch.float64)
        total = weights @ by_group.index_add(0, torch.from_numpy(group), statistics)
    return measured.tasks[task].scores(total)[score]
