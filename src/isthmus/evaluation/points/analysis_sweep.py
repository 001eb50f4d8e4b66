"""Accuracy over what a gate keeps and over its exponent, from runs that somebody trained: Figures 8 and 10.

Nothing is trained here. Runs that differ from the run under analysis in ``method.gate.keep``, ``method.gate.alpha`` and
the seed alone are taken together; a run without a gate keeps everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.points.accuracy import Column, labelled_predictions, select
from isthmus.evaluation.recipe_differences import differences
from isthmus.evaluation.runs import run_folders, without_seed
from isthmus.training.points.build import open_domains
from isthmus.training.points.method_specs import GatedSpec, SkewnessGateSpec
from isthmus.training.points.recipe import PointRecipe, PointRun
from isthmus.training.run import Run, read_arrays


@dataclass(frozen=True)
class Curve:
    """One run: its setting, target accuracy in [0, 1] by selection column, and at each evaluation in training."""

    keep: float
    alpha: float | None
    seed: int
    accuracy: dict[Column, float]
    steps: list[int]
    target: list[float]
    source_val: list[float]


@dataclass
class Sweep:
    """Runs that belong together, and what was left out with the reason."""

    curves: list[Curve] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def settings(self) -> list[tuple[float, float | None]]:
        """Pairs of keep and alpha, ascending; without an alpha there was no gate."""
        found = {(curve.keep, curve.alpha) for curve in self.curves}
        return sorted(found, key=lambda pair: (pair[0], -1.0 if pair[1] is None else pair[1]))

    def of(self, setting: tuple[float, float | None]) -> list[Curve]:
        """The runs of one setting, by seed."""
        members = [curve for curve in self.curves if (curve.keep, curve.alpha) == setting]
        return sorted(members, key=lambda curve: curve.seed)


def read_sweep(run: PointRun, folder: Path) -> Sweep:
    """The finished runs in ``folder`` that differ from ``run`` in the gate's keep and alpha and in the seed alone.

    Raises RunError for a folder without any such run, and for two runs of one setting and seed.
    """
    sweep, wanted = Sweep(), _rest(run.recipe)
    seen: dict[tuple[str, int], Path] = {}
    for path in run_folders([folder]):
        other: PointRun = Run.open(path)
        reason = _unfit(run, other, wanted)
        if reason is not None:
            sweep.left_out.append(f"{path}: {reason}")
            continue
        key = without_seed(other.recipe), other.recipe.seed
        if key in seen:
            raise RunError(f"{seen[key]} and {other.path}: expected different seeds, found {other.recipe.seed} twice")
        seen[key] = other.path
        sweep.curves.append(_curve(other))
    if not sweep.curves:
        reasons = "; ".join(sweep.left_out[:3])
        raise RunError(
            f"{folder}: --sweep: expected finished runs that differ from {run.path} in method.gate.keep and "
            f"method.gate.alpha alone, found none{': ' + reasons if reasons else ''}. {command(run, folder)} trains one"
        )
    return sweep


def command(run: PointRun, folder: Path, keep: float = 0.5) -> str:
    """What a person types to train a run of the sweep."""
    out = folder / f"keep-{keep:g}-seed-{run.recipe.seed}"
    recipe = run.path / "recipe.yaml"
    return f"isthmus train {recipe} --method.gate.keep {keep:g} --seed {run.recipe.seed} --out {out}"


def summary(sweep: Sweep) -> list[dict[str, Any]]:
    """Mean and spread over seeds for each setting and selection column, as JSON values; NaN for one seed's spread."""
    rows = []
    for setting in sweep.settings():
        members = sweep.of(setting)
        row: dict[str, Any] = {"keep": setting[0], "alpha": setting[1], "seeds": [each.seed for each in members]}
        for column in members[0].accuracy:
            values = np.array([each.accuracy[column] for each in members])
            spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            row[column] = {"mean": float(values.mean()), "spread": spread, "values": values.tolist()}
        rows.append(row)
    return rows


def _rest(recipe: PointRecipe) -> str:
    """All of a recipe but what a sweep changes, as text."""
    values = json.loads(without_seed(recipe))
    values.pop("name", None)
    gate = values["method"].pop("gate") or {}
    values["gate"] = {name: value for name, value in gate.items() if name not in ("keep", "alpha")}
    return json.dumps(values, sort_keys=True)


def _unfit(run: PointRun, other: PointRun, wanted: str) -> str | None:
    """Why a run does not belong to the sweep; None if it does."""
    if not other.finished:
        return f"status {other.state.get('status')!r}"
    if not isinstance(other.recipe, PointRecipe) or not isinstance(other.recipe.method, GatedSpec):
        return "no run of a method that can have a gate"
    rest = _rest(other.recipe)
    if other.recipe.method.gate is None:
        ours = {**json.loads(wanted), "gate": {}}
        rest, wanted = json.dumps(json.loads(rest), sort_keys=True), json.dumps(ours, sort_keys=True)
    if rest == wanted:
        return None
    skipped = ("seed", "log_every", "checkpoint_every", "method.gate.keep", "method.gate.alpha")
    fields = [name for name, _, _ in differences(run.recipe, other.recipe) if name not in skipped]
    return f"differs in {', '.join(fields[:3])}"


def _curve(run: PointRun) -> Curve:
    assert isinstance(run.recipe.method, GatedSpec)
    gate, store = run.recipe.method.gate, open_domains(run.recipe).target
    steps, target, source, before = [], [], [], 0
    for stage in run.recipe.stages:
        for file in run.evaluations(stage.name):
            arrays = read_arrays(file)
            steps.append(before + int(arrays["step"]))
            target.append(labelled_predictions(store, arrays["rows"], arrays["logits"]).accuracy)
            source.append(float(arrays["source_val"]))
        before += stage.steps
    return Curve(
        keep=1.0 if gate is None else gate.keep,
        alpha=gate.alpha if isinstance(gate, SkewnessGateSpec) else None,
        seed=run.recipe.seed,
        accuracy={column: chosen.predictions.accuracy for column, chosen in select(run, store=store).items()},
        steps=steps,
        target=target,
        source_val=source,
    )


def mean_curve(curves: Sequence[Curve]) -> tuple[list[int], np.ndarray]:
    """Steps, and target accuracy at each of them, averaged over seeds. All curves have the same steps."""
    return curves[0].steps, np.mean([curve.target for curve in curves], axis=0)
