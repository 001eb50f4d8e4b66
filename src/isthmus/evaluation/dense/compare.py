"""A table over runs of dense predictions: every task's headline score, and the mean relative gain over a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.dense.scores import (
    NOT_USABLE,
    Column,
    Measured,
    TestedProblem,
    mean_relative_gain,
    open_tested,
    select,
)
from isthmus.evaluation.runs import grouped, without_seed
from isthmus.evaluation.statistics import Interval, mean_and_spread
from isthmus.evaluation.tables import Table
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.recipe import DenseRecipe, ScanNetViewsSpec
from isthmus.training.recipe import Recipe
from isthmus.training.run import Run

HEADINGS: dict[Column, str] = {"source-val": "", "last": "last", "test-selected": NOT_USABLE}


@dataclass(frozen=True)
class Row:
    """One method in one setting, over its seeds, at the end of its last stage."""

    setting: str
    method: str
    seeds: tuple[int, ...]
    selected: tuple[dict[Column, Measured], ...]

    def headlines(self, task: str, column: Column = "source-val") -> list[float]:
        """The task's score of every seed."""
        return [measured[column].headline(task) for measured in self.selected if column in measured]

    def scores(self, task: str, score: str, column: Column = "source-val") -> list[float]:
        """Any score of a task, of every seed."""
        return [measured[column].scores(task)[score] for measured in self.selected if column in measured]


def collect(runs: Sequence[Run[Any]]) -> list[Row]:
    """One row per method and setting; runs that differ in their seed only share a row.

    Folds of one data set (other rooms held out, otherwise the same) share a row as well: the images of all test parts
    are put together, seed by seed.
    """
    rows = []
    for members in grouped(runs, _without_folds):
        folds: dict[int, list[dict[Column, Measured]]] = {}
        problems: dict[str, TestedProblem] = {}
        for run in sorted(members, key=lambda run: run.recipe.setting):  # the same order of folds for every method
            problem = problems.get(run.recipe.setting) or open_tested(run.recipe)
            problems[run.recipe.setting] = problem
            folds.setdefault(run.recipe.seed, []).append(select(run, problem=problem))
        incomplete = [seed for seed, found in folds.items() if len(found) != len(problems)]
        if incomplete:
            raise RunError(
                f"{members[0].recipe.name}: expected {len(problems)} folds of every seed, found "
                f"{len(folds[incomplete[0]])} of seed {incomplete[0]}"
            )
        rows.append(
            Row(
                setting=_setting(members[0].recipe),
                method=_method(members[0].recipe),
                seeds=tuple(folds),
                selected=tuple(folds_together(found) for found in folds.values()),
            )
        )
    return rows


def _without_folds(recipe: Recipe) -> str:
    values = json.loads(without_seed(recipe))
    for domain in ("source", "target"):
        if values.get(domain) and values[domain]["data"]["kind"] == "scannet-views":
            values[domain]["data"] = "scannet-views"
            values["name"] = recipe.method_name
    return json.dumps(values, sort_keys=True)


def _method(recipe: Recipe) -> str:
    return recipe.method_name + (" (target labels)" if recipe.uses_target_labels else "")


def _setting(recipe: Recipe) -> str:
    """The setting without the rooms that a fold holds out."""
    setting = recipe.setting
    if not isinstance(recipe, DenseRecipe):
        return setting
    for domain in (recipe.source, recipe.target):
        if domain is not None and isinstance(domain.data, ScanNetViewsSpec):
            setting = setting.replace(f" (test {'+'.join(domain.data.test_rooms)})", "")
    return setting


def folds_together(folds: list[dict[Column, Measured]]) -> dict[Column, Measured]:
    """Test parts of several folds as one, for the choices that all of them have. Each fold chooses by itself."""
    result: dict[Column, Measured] = {}
    for column in (each for each in folds[0] if all(each in fold for fold in folds)):
        parts = [fold[column] for fold in folds]
        statistics = {name: np.concatenate([part.statistics[name] for part in parts]) for name in parts[0].tasks}
        groups = np.concatenate([part.groups for part in parts])
        images = "+".join(part.images for part in parts)
        result[column] = Measured(parts[0].step, parts[0].tasks, statistics, groups, images)
    return result


def gain_over(row: Row, baseline: Row, column: Column = "source-val") -> Interval:
    """Mean relative gain over tasks, averaged over the seeds that both have."""
    ours, theirs = [], []
    for position, seed in enumerate(row.seeds):
        if seed in baseline.seeds:
            other = baseline.selected[baseline.seeds.index(seed)]
            if column in row.selected[position] and column in other:
                ours.append(row.selected[position][column])
                theirs.append(other[column])
    if not ours:
        raise RunError(
            f"{row.method} and {baseline.method}: expected a common seed, found {row.seeds}, {baseline.seeds}"
        )
    return mean_relative_gain(ours, theirs)


def table(rows: Sequence[Row], baseline: str | None = None) -> Table:
    """Mean ± standard deviation over seeds of every task's score at the ``source-val`` choice.

    Where all rows are measured on one and the same task, all of its scores have a column.

    With the name of a ``baseline`` method in the same setting and on the same test images (single-task learning,
    usually), columns give the mean relative gain over it: at the ``source-val`` choice with its 95 % interval over
    seeds and groups of test images, and what the other choices would have given.

    Raises RunError where two rows could be the baseline, or it has other tasks or no common seed.
    """
    tasks: dict[str, DenseTask] = {}
    for row in rows:
        tasks |= {name: task for name, task in row.selected[0]["last"].tasks.items() if name not in tasks}
    details = _details(rows, tasks)
    headings = ["setting", "method", "seeds", "images", *(_arrow(task) for task in tasks.values()), *details.values()]
    if baseline is not None:
        headings += [f"gain over {baseline} [%]", "gain, last [%]", f"gain, {NOT_USABLE} [%]"]
    lines = []
    for row in rows:
        images = len(row.selected[0]["last"].groups)
        cells = [row.setting, row.method, str(len(row.seeds)), str(images)]
        cells += [_cell(task, row.headlines(name)) if _has(row, name) else "" for name, task in tasks.items()]
        cells += [_plain(row.scores(next(iter(tasks)), score)) for score in details]
        if baseline is not None:
            cells += _gains(row, rows, baseline)
        lines.append(tuple(cells))
    return Table(tuple(headings), tuple(lines))


def _details(rows: Sequence[Row], tasks: Mapping[str, DenseTask]) -> dict[str, str]:
    """Further scores with their headings, where there is a single task: those of the data set, not of its classes."""
    if len(tasks) != 1:
        return {}
    ((name, task),) = tasks.items()
    found = rows[0].selected[0]["last"].scores(name)
    return {score: score.replace("_", " ") for score in found if "/" not in score and score != task.headline}


def _plain(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    digits = significant(mean)
    return f"{mean:.{digits}f}" if np.isnan(spread) else f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _has(row: Row, task: str) -> bool:
    return task in row.selected[0]["last"].tasks


def _arrow(task: DenseTask) -> str:
    return f"{task.heading} {'↑' if task.higher_is_better else '↓'}"


def _cell(task: DenseTask, values: list[float]) -> str:
    return _plain([task.display_factor * value for value in values])


def significant(value: float) -> int:
    """Decimals that show a score to about four digits."""
    if np.isnan(value) or value == 0:
        return 1
    return int(np.clip(3 - np.floor(np.log10(abs(value))), 1, 5)) - (1 if abs(value) >= 1 else 0)


def _same_test(row: Row, other: Row) -> bool:
    return row.setting == other.setting and row.selected[0]["last"].images == other.selected[0]["last"].images


def _gains(row: Row, rows: Sequence[Row], baseline: str) -> list[str]:
    matching = [other for other in rows if other.method == baseline and _same_test(row, other)]
    if not matching or row.method == baseline:
        return ["", "", ""]
    if len(matching) > 1:
        raise RunError(
            f"baseline {baseline}: expected one recipe of that name for {row.setting}, found {len(matching)} that "
            "differ in more than their seed"
        )
    cells = []
    for column in HEADINGS:
        if not all(column in measured for measured in (*row.selected, *matching[0].selected)):
            cells.append("–")
            continue
        gain = gain_over(row, matching[0], column)
        text = "–" if np.isnan(gain.estimate) else f"{100 * gain.estimate:+.1f}"
        known = column == "source-val" and np.isfinite(gain.low)
        cells.append(f"{text} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]" if known else text)
    return cells
