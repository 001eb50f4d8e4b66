"""The analysis of gradient conflicts: the figures of SM-DSB's Section V from our own runs, with what they do not show.

``analyse`` measures (by training again, see :mod:`isthmus.evaluation.points.replay`), works out the numbers and writes
a folder: ``analysis.html``, ``analysis.json`` with every number on it, ``samples.csv`` and ``steps.csv`` with what was
measured, and ``measured/`` with a file for each step. ANALYSIS: uses target labels, and says so.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import IsthmusError, RunError
from isthmus.evaluation.figures import run_colours
from isthmus.evaluation.page import run_labels
from isthmus.evaluation.points import analysis_numbers as numbers
from isthmus.evaluation.points.analysis_figures import Subject
from isthmus.evaluation.points.analysis_sweep import Sweep, read_sweep, summary
from isthmus.evaluation.points.causality import additive_noise
from isthmus.evaluation.points.conflict import Table
from isthmus.evaluation.points.replay import Measured, Plan, measure, plan_of
from isthmus.training.engine import Reporter, Silent
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule, write_atomically

PAGE = "analysis.html"


@dataclass(frozen=True)
class Analysis:
    """What the page is made of: runs with their measurements, numbers, and a sweep if there is one."""

    runs: tuple[PointRun, ...]
    subjects: tuple[Subject, ...]
    plan: Plan
    numbers: dict[str, Any]
    sweep: Sweep | None
    sweep_folder: Path | None
    rule: Rule


def analyse(
    run: PointRun,
    out: Path | None = None,
    *,
    against: PointRun | None = None,
    sweep: Path | None = None,
    every: int | None = None,
    stages: tuple[str, ...] = (),
    rule: Rule | None = None,
    causality: bool = True,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Measure, and write the folder; returns the path of the page.

    Args:
        run: a finished run of point clouds with a self-supervised loss, with or without a gate.
        out: the folder; ``analysis`` in the run's by default. An interrupted analysis goes on.
        against: another such run, shown beside it: the one without the gate.
        sweep: a folder of finished runs that differ in ``method.gate.keep`` and ``method.gate.alpha``.
        every: every so many steps are measured; about 60 in all by default.
        stages: only these; all by default.
        rule: whose checkpoint stands for a run in t-SNE, shapes and confusion matrices.
        causality: whether to run the additive-noise tests, which fit some thousand Gaussian processes.
        overwrite: replace an analysis that is there.
        reporter: told of the training that is repeated.

    Raises:
        RunError: another kind of run, one that is not finished, or a folder with another analysis in it.
    """
    folder, shown = out or run.path / "analysis", reporter or Silent()
    plan = plan_of(run, every, stages)
    runs = (run,) if against is None else (run, against)
    if against is not None:
        plan_of(against, plan.every, stages)
    chosen: Rule = rule or run.recipe.rules[0]
    _check_folder(folder, overwrite)
    found = None if sweep is None else read_sweep(run, sweep)
    shown.message("ANALYSIS: target labels are opened to measure; nothing here is a way to choose or train a model")
    subjects = []
    for each, name, label, colour in zip(runs, ("run", "against"), run_labels(runs), run_colours(len(runs))):
        own = Plan(plan.every, plan_of(each, plan.every, stages).stages)
        measured = _measured(each, folder / "measured" / name, own, shown, overwrite)
        for stage, difference in measured.differences.items():
            same = "the same to the last bit" if difference == 0 else f"a largest difference of {difference:.2g}"
            shown.message(f"{each.path}: weights of {stage} trained again: {same}")
        lengths = tuple((stage.name, stage.steps) for stage in each.recipe.stages)
        subjects.append(Subject(label, colour, lengths, measured))
    values = _numbers(subjects)
    if causality:
        shown.message("additive-noise tests, of the first run")
    values |= {
        "causality": _causality(subjects[0].measured) if causality else None,
        "uses_target_labels": True,
        "runs": [str(each.path) for each in runs],
        "every": plan.every,
        "stages": list(plan.stages),
        "select": chosen,
        "sweep": None if found is None else {"rows": summary(found), "left_out": found.left_out},
    }
    analysis = Analysis(runs, tuple(subjects), plan, values, found, sweep, chosen)
    from isthmus.evaluation.points.analysis_page import page

    text = page(analysis)
    write_atomically(folder / "samples.csv", _csv([(s.label, s.measured.samples) for s in subjects]))
    write_atomically(folder / "steps.csv", _csv([(s.label, s.measured.steps) for s in subjects]))
    write_atomically(folder / "analysis.json", json.dumps(_plain(values), indent=1).encode())
    write_atomically(folder / PAGE, text.encode())
    return folder / PAGE


def _check_folder(folder: Path, overwrite: bool) -> None:
    """An analysis goes into a new folder, one that was interrupted, or with ``overwrite`` one that is there."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: expected a folder, found a file")
    if (folder / PAGE).exists() and not overwrite:
        raise RunError(f"{folder / PAGE}: expected no analysis, found one; --overwrite replaces it")
    ours = {PAGE, "analysis.json", "samples.csv", "steps.csv", "measured"}
    others = [file.name for file in folder.iterdir() if file.name not in ours] if folder.is_dir() else []
    if others:
        raise RunError(f"{folder}: expected a new folder or one of an analysis, found {others[0]}")


def _measured(run: PointRun, folder: Path, plan: Plan, reporter: Reporter, overwrite: bool) -> Measured:
    """Measure, or read what was measured before with the same settings; others go only where that was asked for."""
    try:
        return measure(run, folder, plan, reporter=reporter)
    except RunError as error:
        if not overwrite or "--overwrite" not in str(error):
            raise
    shutil.rmtree(folder)
    return measure(run, folder, plan, reporter=reporter)


def _numbers(subjects: list[Subject]) -> dict[str, Any]:
    works: dict[str, Callable[[Measured], Any]] = {
        "figure_1": numbers.skewness_and_conflict,
        "figures_4_and_9": numbers.conflicts,
        "figure_6": numbers.losses_by_skewness,
        "figure_7": numbers.pseudo_against_true,
        "figure_8_alpha": numbers.alphas,
    }
    found: dict[str, Any] = {}
    for name, work in works.items():
        found[name] = {subject.label: work(subject.measured) for subject in subjects}
    found["replay"] = {subject.label: subject.measured.differences for subject in subjects}
    return found


def _causality(measured: Measured) -> list[dict[str, Any]]:
    """The additive-noise test of skewness and each kind of conflict, within steps and over steps.

    A row without numbers says in ``reason`` why.
    """
    rows: list[dict[str, Any]] = []
    for stage, domain, table in numbers.parts(measured):
        if not np.isfinite(table["coupled"]).any():
            continue
        for cosine in ("cosine_oracle", "cosine_class"):
            where = {"stage": stage, "domain": domain, "between": "samples within steps", "conflict": cosine}
            rows.append(where | _tested(table["coupled"], table[cosine], table["global_step"]))
        steps = measured.steps["stage"] == stage
        means = np.array([np.nanmean(values) for (values,) in numbers.by_step(table, "coupled")])
        for cosine in ("ssl_oracle", "ssl_class"):
            where = {"stage": stage, "domain": domain, "between": "steps, as in the paper", "conflict": cosine}
            rows.append(where | _tested(means, measured.steps[cosine][steps], None))
    return rows


def _tested(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    try:
        found = additive_noise(first, second, groups=groups, permutations=499, refits=39)
    except IsthmusError as error:
        return {"reason": str(error)}
    return {**asdict(found), "verdict": found.verdict()}


def _csv(tables: list[tuple[str, Table]]) -> bytes:
    """One table of several runs, a row per sample or step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(tables[0][1])
    writer.writerow(["run", *names])
    for label, table in tables:
        writer.writerows([label, *row] for row in zip(*(table[name].tolist() for name in names)))
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    """JSON knows no NaN: ``null`` instead."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
