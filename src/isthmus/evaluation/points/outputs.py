"""What a run says of clouds, before anybody opens a label of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from isthmus.data.class_map import ClassMap
from isthmus.data.mapped import Mapped
from isthmus.data.publish import known_as, left_out
from isthmus.data.store import CloudStore, prepare
from isthmus.errors import RecipeError, RunError
from isthmus.evaluation.load import device_of, load_method
from isthmus.evaluation.points.accuracy import choices_without_labels
from isthmus.evaluation.points.predict import predict_store
from isthmus.training.points.build import (
    PREPARED_POINTS,
    Domains,
    build_reader,
    cache_folder,
    open_domains,
    part_rows,
)
from isthmus.training.points.data_specs import DataSpec, FolderSpec
from isthmus.training.points.recipe import PointRun
from isthmus.training.recipe import explain
from isthmus.training.run import Rule, read_arrays


@dataclass(frozen=True)
class Outputs:
    """Logits of one model for rows of a store.

    Attributes:
        store: the prepared clouds.
        rows: positions in it, ascending, ``(n,)`` int64.
        logits: ``(n, K)``, or of points ``(n, K, 1, N)``.
    """

    store: CloudStore
    rows: np.ndarray
    logits: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clouds."""
        return tuple(self.store.names[row] for row in self.rows)

    def labels(self) -> np.ndarray:
        """Opens the clouds' labels: ``(n,)`` int64, -1 where there is none."""
        found: np.ndarray = self.store.labels[self.rows]
        return found

    def labelled(self) -> Outputs:
        """The clouds that have a label; opens the labels."""
        return self.only(self.labels() >= 0)

    def only(self, kept: np.ndarray) -> Outputs:
        """Some of the clouds; ``kept`` is ``(n,)`` bool."""
        return Outputs(self.store, self.rows[kept], self.logits[kept])

    def is_of(self, other: Outputs) -> bool:
        """Whether both are of the same clouds of the same data."""
        same = known_as(self.store.path)[0] == known_as(other.store.path)[0]
        return same and np.array_equal(self.rows, other.rows)


def outputs_on(
    run: PointRun, data: str, rule: Rule, stage: str | None = None, domains: Domains | None = None
) -> Outputs:
    """Logits of the checkpoint that ``rule`` chose in ``stage`` (the last by default), on ``data``.

    Args:
        run: a finished run.
        data: ``target`` (the recipe's evaluation parts, from the predictions kept during training; where those parts
            have no clouds, as in a folder without labels, all clouds of the target), ``source`` (its test part), a
            folder ``root/class/[split/]file``, or a data set in YAML, of which all parts are used.
        rule: which checkpoint.
        stage: name of a stage.
        domains: the recipe's data where it is open already.

    Raises:
        RunError: the run is not finished, or the data has changed since.
        RecipeError: ``data`` names no data set.
    """
    if data not in ("target", "source"):
        store = _store(run, data)
        return _predicted(run, store, np.arange(len(store)), rule, stage)
    domains = domains or open_domains(run.recipe)
    if data == "source":
        return _predicted(run, domains.source, part_rows(domains.source, run.recipe.source.evaluate_on), rule, stage)
    store = domains.target
    run.check_store("target", known_as(store.path))
    name = stage or run.recipe.stages[-1].name
    points = [read_arrays(file) for file in run.evaluations(name)]
    if not points:
        raise RunError(f"{run.path}: expected evaluations of stage {name!r}, found none; is the run finished?")
    choices = choices_without_labels(points, run.recipe.label_free_score)
    chosen = points[{str(name): place for name, place in choices.items()}[rule]]
    if len(chosen["rows"]):
        return Outputs(store, chosen["rows"], chosen["logits"])
    return _predicted(run, store, np.arange(len(store)), rule, stage)


def source_validation(run: PointRun, rule: Rule, stage: str | None = None, domains: Domains | None = None) -> Outputs:
    """The same checkpoint on all of the source's validation part, computed anew. All clouds there have labels."""
    store = (domains or open_domains(run.recipe)).source
    run.check_store("source", known_as(store.path))
    return _predicted(run, store, store.indices("val"), rule, stage)


def _predicted(run: PointRun, store: CloudStore, rows: np.ndarray, rule: Rule, stage: str | None) -> Outputs:
    method = load_method(run, rule, stage=stage).to(device_of(run.recipe))
    return Outputs(store, rows, predict_store(method, store, rows, run.recipe.points))


def left_out_of(run: PointRun, data: str) -> list[str]:
    """What of ``data`` says nothing about a run: classes that it does not know, files that cannot be read."""
    if data in ("target", "source"):
        return []
    classes = _reader(run, data).left_out
    unknown = [f"left out: {', '.join(classes)}, which the run has no class for"] if classes else []
    return unknown + left_out("data", _store(run, data).skipped)


def _store(run: PointRun, data: str) -> CloudStore:
    return prepare(_reader(run, data), cache_folder(), max(PREPARED_POINTS, run.recipe.points))


def _reader(run: PointRun, data: str) -> Mapped:
    spec: Any
    if Path(data).is_dir():
        spec = FolderSpec(root=Path(data))
    else:
        try:
            spec = TypeAdapter(DataSpec).validate_python(yaml.safe_load(data))
        except (ValidationError, yaml.YAMLError) as error:
            why = "; ".join(map(explain, error.errors())) if isinstance(error, ValidationError) else str(error)
            raise RecipeError(
                f"--data: expected 'target', 'source', a folder that exists, or a data set such as "
                f"'{{kind: objects, name: realscan}}', found {data!r}{f' ({why})' if '{' in data else ''}"
            ) from None
    # A set without labels has no classes either, none of which could be left out.
    mapped = Mapped(build_reader(spec), ClassMap(run.recipe.classes, drop="*"))
    if mapped.left_out and mapped.left_out == tuple(mapped.reader.classes):
        raise RunError(
            f"--data: expected classes of the run ({', '.join(run.recipe.classes)}), found {', '.join(mapped.left_out)}"
        )
    return mapped
