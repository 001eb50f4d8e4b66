"""A table over runs: methods and directions, mean and spread over seeds, four selection columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.accuracy import COLUMNS, NOT_USABLE, Column, Selected, select
from isthmus.evaluation.statistics import Interval, crossed_mean, mean_and_spread
from isthmus.training.build import open_domains
from isthmus.training.recipe import Recipe, direction
from isthmus.training.run import Run

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


def collect(runs: Sequence[Run]) -> list[Row]:
    """One row per method, direction and stage; runs that differ in their seed only share a row."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")
        groups.setdefault(_without_seed(run.recipe), []).append(run)
    rows = []
    for members in groups.values():
        recipe = members[0].recipe
        for first, second in combinations(members, 2):
            if first.recipe.seed == second.recipe.seed:
                raise RunError(f"{first.path} and {second.path}: expected different seeds, found {recipe.seed} twice")
        store = open_domains(recipe).target
        for stage in recipe.stages:
            chosen = tuple(select(run, stage.name, store) for run in members)
            rows.append(
                Row(
                    direction=direction(recipe),
                    method=recipe.name.rsplit("/", 1)[-1],
                    stage=stage.name,
                    seeds=tuple(run.recipe.seed for run in members),
                    overall={c: [each[c].predictions.accuracy for each in chosen] for c in COLUMNS},
                    mean_class={c: [each[c].predictions.mean_class_accuracy for each in chosen] for c in COLUMNS},
                    selected=chosen,
                    uses_target_labels=recipe.uses_target_labels,
                )
            )
    return rows


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


@dataclass(frozen=True)
class Table:
    """Headings and rows of text, written in any of the formats people paste."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        """Comma-separated values."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headings, *self.rows])
        return out.getvalue()

    def latex(self) -> str:
        """A booktabs tabular."""

        def line(cells: tuple[str, ...]) -> str:
            text = " & ".join(cells).replace("%", r"\%").replace("_", r"\_")
            return text.replace("±", r"$\pm$").replace("→", r"$\to$") + r" \\"

        body = "\n".join(line(row) for row in self.rows)
        columns = "l" * len(self.headings)
        return (
            f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(self.headings)}\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n"
        )


def table(rows: Sequence[Row], baseline: str | None = None) -> Table:
    """Percentages, mean ± standard deviation over seeds: overall accuracy (mean-class accuracy).

    With the name of a ``baseline`` method, a last column gives the gain in overall accuracy at the label-free choice
    with its 95 % interval over seeds and target objects.
    """
    headings = ["direction", "method", "stage", "seeds", "clouds", *HEADINGS.values()]
    if baseline is not None:
        headings.append(f"gain over {baseline}, label-free")
    lines = []
    for row in rows:
        clouds = len(row.selected[0]["last"].predictions.labels)
        cells = [row.direction, _marked(row), row.stage, str(len(row.seeds)), str(clouds)]
        cells += [f"{_percent(row.overall[c])} ({_percent(row.mean_class[c])})" for c in COLUMNS]
        if baseline is not None:
            cells.append(_gain_cell(row, rows, baseline))
        lines.append(tuple(cells))
    return Table(tuple(headings), tuple(lines))


def write(table: Table, folder: Path, name: str = "table", *, overwrite: bool = False) -> list[Path]:
    """Write Markdown, CSV and LaTeX beside each other; raises RunError before it would replace one."""
    folder.mkdir(parents=True, exist_ok=True)
    existing = [folder / f"{name}{suffix}" for suffix in (".md", ".csv", ".tex")]
    if not overwrite and any(file.exists() for file in existing):
        raise RunError(f"{folder}: expected no {name}.md, .csv or .tex, found one; --overwrite replaces them")
    files = []
    for suffix, text in ((".md", table.markdown()), (".csv", table.csv()), (".tex", table.latex())):
        (folder / f"{name}{suffix}").write_text(text)
        files.append(folder / f"{name}{suffix}")
    return files


def _gain_cell(row: Row, rows: Sequence[Row], baseline: str) -> str:
    same = [r for r in rows if r.method == baseline and r.direction == row.direction]
    # A method of one stage is trained as long as all stages of the others together.
    single = not any(r.stage != row.stage and r.method == row.method for r in rows if r.direction == row.direction)
    matching = same[-1:] if single else [r for r in same if r.stage == row.stage]
    if not matching or row.method == baseline:
        return ""
    gain = paired_gain(row, matching[0])
    return (
        f"{100 * gain.estimate:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]; "
        f"detectable {100 * gain.smallest_detectable:.1f}"
    )


def _marked(row: Row) -> str:
    return f"{row.method} (target labels)" if row.uses_target_labels else row.method


def _percent(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.1f}" if np.isnan(spread) else f"{100 * mean:.1f} ± {100 * spread:.1f}"


def _without_seed(recipe: Recipe) -> str:
    skipped = {"seed", "engine", "log_every", "checkpoint_every"}
    return json.dumps(recipe.model_dump(mode="json", exclude=skipped), sort_keys=True)
