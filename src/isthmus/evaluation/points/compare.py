"""A table over runs on point clouds: methods and directions, mean and spread over seeds, four selection columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.points.accuracy import COLUMNS, NOT_USABLE, Column, Selected, select
from isthmus.evaluation.recipe_differences import differences
from isthmus.evaluation.runs import grouped
from isthmus.evaluation.statistics import Interval, crossed_mean, mean_and_spread
from isthmus.evaluation.tables import Table
from isthmus.training.points.build import open_domains
from isthmus.training.points.recipe import PointRecipe, PointRun

HEADINGS: dict[Column, str] = {
    "source-val": "source-val",
    "label-free": "label-free",
    "last": "last",
    "target-selected": NOT_USABLE,
}


@dataclass(frozen=True)
class Row:
    """One method in one direction and stage, over its seeds. Accuracies are shares in [0, 1]."""

    direction: str
    method: str
    stage: str
    seeds: tuple[int, ...]
    overall: dict[Column, list[float]]
    mean_class: dict[Column, list[float]]
    selected: tuple[dict[Column, Selected], ...]
    uses_target_labels: bool


def collect(runs: Sequence[PointRun]) -> list[Row]:
    """One row per method, direction and stage; runs that differ in their seed only share a row.

    Recipes of one name in one direction are told apart by the fields in which they differ: ``sm-dsb (gate.keep 0.5)``.
    """
    rows = []
    groups = grouped(runs)
    for members in groups:
        recipe = members[0].recipe
        alike = [
            others[0].recipe
            for others in groups
            if (others[0].recipe.setting, others[0].recipe.method_name) == (recipe.setting, recipe.method_name)
        ]
        store = open_domains(recipe).target
        for stage in recipe.stages:
            chosen = tuple(select(run, stage.name, store) for run in members)
            rows.append(
                Row(
                    direction=recipe.setting,
                    method=_name(recipe, alike),
                    stage=stage.name,
                    seeds=tuple(run.recipe.seed for run in members),
                    overall={c: [each[c].predictions.accuracy for each in chosen] for c in COLUMNS},
                    mean_class={c: [each[c].predictions.mean_class_accuracy for each in chosen] for c in COLUMNS},
                    selected=chosen,
                    uses_target_labels=recipe.uses_target_labels,
                )
            )
    return rows


def _name(recipe: PointRecipe, alike: Sequence[PointRecipe]) -> str:
    """The method's name, with the fields in which recipes of the same name and direction differ from one another."""
    if len(alike) == 1:
        return recipe.method_name
    fields = dict.fromkeys(row[0] for other in alike for row in differences(alike[0], other) if row[0] != "seed")
    own = {row[0]: row[1] for other in alike for row in differences(recipe, other)}
    told = [f"{field.removeprefix('method.')} {own[field]}" for field in fields if field in own]
    return f"{recipe.method_name} ({', '.join(told)})"


def paired_gain(row: Row, baseline: Row, column: Column = "label-free") -> Interval:
    """Gain in overall accuracy over ``baseline``, averaged over the seeds both have, clustered by group.

    The interval covers both new seeds and new target objects (rooms). Where the two were measured on different parts
    (an oracle), the objects that both have are compared.
    """
    pairs = [
        (row.selected[i][column].predictions, baseline.selected[baseline.seeds.index(seed)][column].predictions)
        for i, seed in enumerate(row.seeds)
        if seed in baseline.seeds
    ]
    if not pairs:
        raise RunError(
            f"{row.method} and {baseline.method}: expected a common seed, found {row.seeds}, {baseline.seeds}"
        )
    _, here, there = np.intersect1d(pairs[0][0].names, pairs[0][1].names, return_indices=True)
    differences = np.stack([ours.correct[here] - theirs.correct[there] for ours, theirs in pairs])
    return crossed_mean(differences, pairs[0][0].groups[here])


def counterpart(row: Row, rows: Sequence[Row], baseline: str) -> Row | None:
    """The row of ``baseline`` that ``row`` is fairly held against in its direction, None if there is none.

    The same stage. The last stages of both where one of the two has a single one, which is trained as long as all
    stages of the others together, and where the last stage has another name than all of the baseline's.
    """
    same = [r for r in rows if r.method == baseline and r.direction == row.direction]
    own = [r for r in rows if r.method == row.method and r.direction == row.direction]
    if not same or row.method == baseline:
        return None
    found = None if 1 in (len(own), len(same)) else next((r for r in same if r.stage == row.stage), None)
    return same[-1] if found is None and row is own[-1] else found


def table(rows: Sequence[Row], baseline: str | None = None) -> Table:
    """Percentages, mean ± standard deviation over seeds: overall accuracy (mean-class accuracy), or where
    points are labelled the shapes' mean IoU (mean over parts).

    With the name of a ``baseline`` method, a last column gives the gain in overall accuracy at the label-free choice
    with its 95 % interval over seeds and target objects.
    """
    headings = ["direction", "method", "stage", "seeds", "clouds", *HEADINGS.values()]
    if baseline is not None:
        headings.append(f"gain over {baseline}, label-free")
    lines = []
    for row in rows:
        clouds = len(row.selected[0]["last"].predictions.names)
        cells = [row.direction, _marked(row), row.stage, str(len(row.seeds)), str(clouds)]
        cells += [f"{_percent(row.overall[c])} ({_percent(row.mean_class[c])})" for c in COLUMNS]
        if baseline is not None:
            cells.append(_gain_cell(row, rows, baseline))
        lines.append(tuple(cells))
    return Table(tuple(headings), tuple(lines))


def _gain_cell(row: Row, rows: Sequence[Row], baseline: str) -> str:
    other = counterpart(row, rows, baseline)
    if other is None:
        return ""
    gain = paired_gain(row, other)
    return (
        f"{100 * gain.estimate:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]; "
        f"detectable {100 * gain.smallest_detectable:.1f}"
    )


def _marked(row: Row) -> str:
    return f"{row.method} (target labels)" if row.uses_target_labels else row.method


def _percent(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.1f}" if np.isnan(spread) else f"{100 * mean:.1f} ± {100 * spread:.1f}"
