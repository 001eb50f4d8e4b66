"""How far label-free estimates of accuracy were off, on finished runs whose target labels are known."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from isthmus.errors import DataError, RunError
from isthmus.evaluation.points.estimates import NAMES, Estimates, estimate
from isthmus.evaluation.points.outputs import Outputs, outputs_on, source_validation
from isthmus.evaluation.runs import grouped, once
from isthmus.evaluation.tables import Table
from isthmus.training.points.build import Domains, open_domains
from isthmus.training.points.recipe import PointRun
from isthmus.training.recipe import Rule
from isthmus.training.run import Run

ALL = "all"
"""The rows of the table that are about all runs together."""

HEADINGS = (
    "direction",
    "estimate",
    "runs",
    "mean absolute error",
    "bias",
    "rank correlation",
    "rank correlation in a direction",
    "gains",
    "error of gain",
    "right sign of gain",
)
SHIPPED = Path(__file__).with_name("estimate_errors.csv")


@dataclass(frozen=True)
class Case:
    """One run whose accuracy is known."""

    run: str
    direction: str
    method: str
    seed: int
    accuracy: float
    estimates: Estimates


@dataclass(frozen=True)
class Measured:
    """How far one estimate was off over several runs. NaN where too few of them can say.

    Attributes:
        runs: how many.
        error: mean absolute error, in points.
        bias: mean of estimate less truth, in points.
        rank: Spearman's correlation of estimates and true accuracies over all runs.
        rank_within: the same in each direction of at least three runs, averaged: which of several runs on the same
            target is better.
        gains: how many pairs of a run and one of the baseline have direction and seed in common.
        gain_error: mean absolute error of the estimated gain over the baseline, in points.
        right_sign: share of true gains other than zero whose sign is estimated rightly, in %.
    """

    runs: int
    error: float
    bias: float
    rank: float
    rank_within: float
    gains: int
    gain_error: float
    right_sign: float


def usable(runs: Sequence[Run[Any]], *, with_target_labels: bool = False) -> tuple[list[PointRun], list[str]]:
    """Those of many runs that estimates are for, and why the others are left out, as one line each.

    Left out are runs that are not finished or do not classify clouds, those on a target without labels, and unless
    asked for those that learnt from target labels (an oracle, the cosine gate). Of runs of one recipe and seed, which
    several suites may have, the first is kept.
    """
    kept: list[PointRun] = []
    reasons: Counter[str] = Counter()
    for run in runs:
        if run.recipe.kind != "points" or run.recipe.predicts != "class":
            reasons["do not classify clouds"] += 1
        elif not run.finished:
            reasons["are not finished"] += 1
        elif run.recipe.target.data.kind == "unlabelled":
            reasons["have a target without labels"] += 1
        elif run.recipe.uses_target_labels and not with_target_labels:
            reasons["learnt from target labels (--with-oracles takes them in)"] += 1
        else:
            kept.append(run)
    kept, again = once(kept)
    if again:
        reasons["have the recipe and seed of another"] = len(again)
    return kept, [f"left out: {count} that {reason}" for reason, count in reasons.items()]


def cases(
    runs: Sequence[PointRun], rule: Rule | None = None, on_progress: Callable[[], object] = lambda: None
) -> list[Case]:
    """Truth and estimates of finished runs at the checkpoint that ``rule`` (default: the recipe's own) chose last.

    Runs that differ in their seed alone serve each other for the agreement.

    Raises RunError for a target without labels, and as :func:`isthmus.evaluation.runs.grouped`.
    """
    found = []
    opened: dict[str, Domains] = {}
    for members in grouped(runs):
        recipe = members[0].recipe
        data = recipe.model_dump_json(include={"source", "target", "classes", "points"})
        if data not in opened:
            opened[data] = open_domains(recipe)
        domains, chosen = opened[data], rule or recipe.rules[0]
        outputs = [_labelled(run, chosen, domains) for run in members]
        for index, (run, own) in enumerate(zip(members, outputs)):
            source = source_validation(run, chosen, domains=domains)
            others = [each.logits for place, each in enumerate(outputs) if place != index]
            found.append(
                Case(
                    str(run.path),
                    recipe.setting,
                    recipe.method_name,
                    run.recipe.seed,
                    float((own.logits.argmax(axis=1) == own.labels()).mean()),
                    estimate(source.logits, source.labels(), own.logits, others),
                )
            )
            on_progress()
    return found


def _labelled(run: PointRun, rule: Rule, domains: Domains) -> Outputs:
    outputs = outputs_on(run, "target", rule, domains=domains).labelled()
    if not len(outputs.rows):
        raise RunError(f"{run.path}: expected labelled target clouds to measure on, found none")
    return outputs


def errors(found: Sequence[Case], baseline: str | None = None) -> dict[str, Measured]:
    """By field of :class:`Estimates`, over runs that have it; gains are those over the method ``baseline``."""
    result = {}
    for field in NAMES:
        having = [each for each in found if getattr(each.estimates, field) is not None]
        if having:
            result[field] = _measured(having, field, baseline)
    return result


def _measured(having: Sequence[Case], field: str, baseline: str | None) -> Measured:
    guess = np.array([getattr(each.estimates, field) for each in having])
    truth = np.array([each.accuracy for each in having])
    directions = np.array([each.direction for each in having])
    within = [_rank(guess[directions == name], truth[directions == name]) for name in np.unique(directions)]
    within = [value for value in within if not np.isnan(value)]
    base = {(each.direction, each.seed): row for row, each in enumerate(having) if each.method == baseline}
    pairs = [
        (row, base[each.direction, each.seed])
        for row, each in enumerate(having)
        if each.method != baseline and (each.direction, each.seed) in base
    ]
    after, before = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    wanted, gain = truth[after] - truth[before], guess[after] - guess[before]
    decided = wanted != 0
    return Measured(
        len(having),
        100 * float(np.abs(guess - truth).mean()),
        100 * float((guess - truth).mean()),
        _rank(guess, truth),
        float(np.mean(within)) if within else float("nan"),
        len(pairs),
        100 * float(np.abs(gain - wanted).mean()) if pairs else float("nan"),
        100 * float((np.sign(gain) == np.sign(wanted))[decided].mean()) if decided.any() else float("nan"),
    )


def _rank(guess: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's correlation of at least three pairs; NaN where one side does not vary."""
    if len(guess) < 3 or np.ptp(guess) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(spearmanr(guess, truth).statistic)


def table(found: Sequence[Case], baseline: str | None = None) -> Table:
    """A row for each estimate over all runs, then one for each direction. Errors in points, shares in %."""
    rows = []
    directions = sorted({each.direction for each in found})
    for name in (ALL, *(directions if len(directions) > 1 else ())):
        own = [each for each in found if name in (ALL, each.direction)]
        for field, each in errors(own, baseline).items():
            numbers = (_number(each.rank, ".2f"), _number(each.rank_within, ".2f"))
            cells = (str(each.runs), _number(each.error), _number(each.bias, "+.1f"), *numbers)
            gains = (str(each.gains), _number(each.gain_error), _number(each.right_sign, ".0f"))
            rows.append((name, NAMES[field], *cells, *gains))
    return Table(HEADINGS, tuple(rows))


def cases_table(found: Sequence[Case]) -> Table:
    """A row for each run: its true accuracy and all estimates, in %."""
    rows = []
    for each in found:
        values = [getattr(each.estimates, field) for field in NAMES]
        shares = ["–" if value is None else f"{100 * value:.2f}" for value in values]
        rows.append((each.direction, each.method, str(each.seed), f"{100 * each.accuracy:.2f}", *shares))
    return Table(("direction", "method", "seed", "accuracy", *NAMES.values()), tuple(rows))


def _number(value: float, form: str = ".1f") -> str:
    return "–" if np.isnan(value) else format(value, form)


def shipped(file: Path = SHIPPED) -> dict[str, Measured]:
    """Errors over all runs as a ``table.csv`` of :func:`table` has them, by default the one that comes with Isthmus.

    Raises DataError for another file.
    """
    try:
        with file.open(newline="", encoding="utf-8") as text:
            lines = list(csv.reader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: expected a readable CSV file, found {error}") from None
    if not lines or tuple(lines[0]) != HEADINGS:
        raise DataError(f"{file}: line 1: expected {','.join(HEADINGS)}, found {','.join(lines[0]) if lines else ''}")
    fields = {name: field for field, name in NAMES.items()}
    result = {}
    for number, line in enumerate(lines[1:], start=2):
        if line[:1] != [ALL]:
            continue
        try:
            field, values = fields[line[1]], [float("nan") if cell == "–" else float(cell) for cell in line[2:]]
            runs, off, bias, rank, within, gains, gain_off, sign = values
        except (KeyError, IndexError, ValueError):
            raise DataError(f"{file}: line {number}: expected an estimate and 8 numbers, found {line}") from None
        result[field] = Measured(int(runs), off, bias, rank, within, int(gains), gain_off, sign)
    return result
