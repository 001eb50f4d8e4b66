"""Conflicts over the training of a finished run: the training is repeated, and looked at from within.

A run keeps few checkpoints, but a step is a function of the recipe and its number: trained again, on the same machine
and versions, it goes through the same weights. So the recipe is trained once more into a folder beside the
measurements, every k-th step is measured (:func:`isthmus.evaluation.points.conflict.observe`) into a file of its own,
and in the end the weights are held against those of the run. A killed replay goes on from its last checkpoint and does
not measure again what lies there. ANALYSIS: uses target labels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from isthmus.data.batch import Batch
from isthmus.data.publish import known_as
from isthmus.data.randomness import Progress
from isthmus.data.store import CloudStore
from isthmus.data.stream import KnownLabels
from isthmus.errors import RunError
from isthmus.evaluation.points.accuracy import check_classifies
from isthmus.evaluation.points.conflict import Table, observe
from isthmus.methods.base import Method
from isthmus.methods.gated import GatedMethod
from isthmus.training.engine import Reporter, train
from isthmus.training.points.build import open_domains, true_labels
from isthmus.training.points.method_specs import GatedSpec
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import read_arrays, write_arrays, write_atomically

MEASURED = 60
"""About so many steps are measured where nothing is said."""

_STEP = "step."
"""Begins the names of what belongs to the whole step in a file."""


@dataclass(frozen=True)
class Plan:
    """Which steps are measured: every ``every``-th of these stages, and the last one of each."""

    every: int
    stages: tuple[str, ...]

    def measures(self, stage: str, step: int, steps: int) -> bool:
        """Whether ``step`` of ``steps``, counted from 1, is one of them."""
        return stage in self.stages and (step % self.every == 0 or step == steps)


@dataclass(frozen=True)
class Measured:
    """What a replay measured.

    ``samples`` has the columns of :class:`isthmus.evaluation.points.conflict.Step` and for each row ``stage``, ``step``
    (counted from 1 within it) and ``global_step``; ``steps`` a row for each measured step, with its cosines.
    ``differences`` is the largest difference of a weight of the replay from the run's, by stage; 0.0 is bit for bit.
    """

    samples: Table
    steps: Table
    differences: dict[str, float]


class _Enough(Exception):
    """The last stage that was asked for is done."""


class Probe:
    """An observer of training that writes a file for every step that the plan measures."""

    def __init__(self, run: PointRun, folder: Path, plan: Plan, store: CloudStore) -> None:
        truth = true_labels(store, run.recipe)
        assert isinstance(truth, KnownLabels)
        if not truth.present.any():
            raise RunError(
                f"{run.path}: expected labelled target clouds to analyse conflicts, found none in {store.path}"
            )
        self.truth = torch.from_numpy(np.where(truth.present, truth.labels, -1))
        self.run = run
        self.folder = folder
        self.plan = plan
        names = [stage.name for stage in run.recipe.stages]
        self.last = max(names.index(name) for name in plan.stages)

    def __call__(self, method: Method, batches: dict[str, Batch], progress: Progress) -> None:
        """Measure the step, if it is to be and was not; ends the training behind the last stage of the plan."""
        if progress.stage > self.last:
            raise _Enough
        stage, step = self.run.recipe.stages[progress.stage].name, progress.step + 1
        file = self.folder / f"{stage}-{step:08d}.npz"
        if not self.plan.measures(stage, step, progress.steps) or file.is_file():
            return
        if "target" not in batches:
            raise RunError(f"{self.run.path}: {stage}: expected batches of the target domain, found none to analyse")
        assert isinstance(method, GatedMethod)
        target = batches["target"].sample_id
        truth = self.truth[target.cpu()].to(target.device)
        if not (truth >= 0).any():  # Nothing to compare with: a target of which few samples are labelled.
            return
        try:
            found = observe(method, batches, truth, progress)
        except ValueError as error:
            raise RunError(f"{self.run.path}: {stage} step {step}: {error}") from None
        before = sum(each.steps for each in self.run.recipe.stages[: progress.stage])
        position = {"number": np.array(step), "global_step": np.array(before + step), "stage": np.array(stage)}
        whole = {_STEP + name: np.array(value) for name, value in {**position, **found.cosines}.items()}
        write_arrays(file, **found.samples, **whole)


def plan_of(run: PointRun, every: int | None, stages: tuple[str, ...]) -> Plan:
    """The steps that are measured of a run; about :data:`MEASURED` of all stages by default.

    Raises RunError for a run whose conflicts cannot be measured, and for stages that it does not have.
    """
    check_classifies(run)
    recipe = run.recipe
    if not isinstance(recipe.method, GatedSpec):
        raise RunError(
            f"{run.path}: expected a run with a self-supervised loss that a gate could restrict (method.kind "
            f"self-supervised or self-distillation), found method.kind {recipe.method.kind!r}"
        )
    if not run.finished:
        raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")
    if recipe.engine.devices * recipe.engine.num_nodes > 1:
        raise RunError(
            f"{run.path}: expected a run of one process, which training again repeats bit for bit, found "
            f"{recipe.engine.devices * recipe.engine.num_nodes}"
        )
    names = tuple(stage.name for stage in recipe.stages)
    unknown = [name for name in stages if name not in names]
    if unknown:
        raise RunError(f"{run.path}: --stages: expected some of {', '.join(names)}, found {', '.join(unknown)}")
    chosen = tuple(name for name in names if not stages or name in stages)
    total = sum(stage.steps for stage in recipe.stages if stage.name in chosen)
    return Plan(every or max(1, round(total / MEASURED)), chosen)


def measure(run: PointRun, folder: Path, plan: Plan, *, reporter: Reporter | None = None) -> Measured:
    """Train the recipe of ``run`` again and measure the steps of ``plan``; goes on with what lies in ``folder``.

    Raises RunError where the folder holds measurements of another run, plan or version.
    """
    _claim(run, folder, plan)
    done = folder / "replay.json"
    if not done.is_file():
        domains = open_domains(run.recipe)
        run.check_store("source", known_as(domains.source.path))
        run.check_store("target", known_as(domains.target.path))
        again, probe = folder / "replay", Probe(run, folder, plan, domains.target)
        with suppress(_Enough):
            train(run.recipe, again, resume=True, reporter=reporter, observer=probe)
        reached = run.recipe.stages[: probe.last + 1]
        differences = {stage.name: _difference(run, type(run).open(again), stage.name) for stage in reached}
        write_atomically(done, json.dumps(differences, indent=1).encode())
    # A run within the folder would be taken for another result of the same seed by whoever searches for runs.
    shutil.rmtree(folder / "replay", ignore_errors=True)
    return read(folder, plan)


def read(folder: Path, plan: Plan) -> Measured:
    """What :func:`measure` wrote, in the order of training.

    Raises RunError where no step could be measured.
    """
    files = [file for stage in plan.stages for file in sorted(folder.glob(f"{stage}-{'[0-9]' * 8}.npz"))]
    if not files:
        raise RunError(f"{folder}: expected measured steps of {', '.join(plan.stages)}, found no batch with labels")
    tables, steps = [], []
    for file in files:
        arrays = read_arrays(file)
        whole = {name.removeprefix(_STEP): arrays.pop(name) for name in list(arrays) if name.startswith(_STEP)}
        size = len(arrays["id"])
        arrays |= {
            "stage": np.full(size, whole["stage"]),
            "step": np.full(size, whole["number"]),
            "global_step": np.full(size, whole["global_step"]),
        }
        tables.append(arrays)
        steps.append(whole)
    samples = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    columns = {name: np.array([step[name] for step in steps]) for name in steps[0]}
    return Measured(samples, columns, json.loads((folder / "replay.json").read_text()))


def settings(run: PointRun, plan: Plan) -> dict[str, Any]:
    """What measurements depend on, as JSON values."""
    weights = run.weights_file(run.recipe.stages[-1].name, "last")
    return {
        "run": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "every": plan.every,
        "stages": list(plan.stages),
        "versions": {name: value for name, value in run.state.get("versions", {}).items() if name == "isthmus"},
    }


def _claim(run: PointRun, folder: Path, plan: Plan) -> None:
    """Take the folder for these measurements, or see that it holds them."""
    file, wanted = folder / "settings.json", settings(run, plan)
    if file.is_file():
        found = cast(dict[str, Any], json.loads(file.read_text()))
        if found != wanted:
            names = ", ".join(name for name in wanted if found.get(name) != wanted[name])
            raise RunError(
                f"{folder}: expected measurements of this run with the same settings to go on with, found others "
                f"({names}); --overwrite replaces them, or choose another --out"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(wanted, indent=1).encode())


def _difference(run: PointRun, again: PointRun, stage: str) -> float:
    """Largest difference of a weight at the end of a stage; infinite where one is not finite or of another shape."""
    ours, theirs = run.weights("last", stage), again.weights("last", stage)
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        return float("inf")
    if all(torch.equal(ours[name], theirs[name]) for name in ours):
        return 0.0
    largest = max(
        float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours if ours[name].numel()
    )
    return largest if np.isfinite(largest) else float("inf")
