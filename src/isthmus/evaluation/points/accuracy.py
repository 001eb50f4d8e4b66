"""What a run's predictions are worth, once somebody asks and target labels are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from isthmus.data.publish import known_as
from isthmus.data.store import CloudStore
from isthmus.errors import RunError
from isthmus.evaluation.points.parts import PartPredictions, labelled_parts
from isthmus.evaluation.statistics import Interval, clustered_mean
from isthmus.tasks.classification import Classification, class_accuracy, mean_class_accuracy, overall_accuracy
from isthmus.training.points.build import open_domains
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import read_arrays

Column = Literal["source-val", "label-free", "last", "target-selected"]
COLUMNS: tuple[Column, ...] = ("source-val", "label-free", "last", "target-selected")
NOT_USABLE = "target-selected (not usable)"


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model on labelled clouds, row by row."""

    classes: tuple[str, ...]
    logits: np.ndarray
    """``(n, K)``."""
    labels: np.ndarray
    """``(n,)`` int64."""
    groups: np.ndarray
    """``(n,)`` what must be resampled together: the group of a cloud, or its own name."""
    names: tuple[str, ...]

    @property
    def correct(self) -> np.ndarray:
        """``(n,)`` 0.0 or 1.0."""
        return (self.logits.argmax(axis=1) == self.labels).astype(np.float64)

    @property
    def confusion(self) -> Tensor:
        """``(K, K)``, rows are the truth."""
        metric = Classification(self.classes).metric()
        metric.update(torch.from_numpy(self.logits), torch.from_numpy(self.labels))
        confusion: Tensor = metric.compute()
        return confusion

    @property
    def accuracy(self) -> float:
        """Overall accuracy in [0, 1]."""
        return overall_accuracy(self.confusion)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes that have clouds, in [0, 1]."""
        return mean_class_accuracy(self.confusion)


def labelled_predictions(store: CloudStore, rows: np.ndarray, logits: np.ndarray) -> Predictions:
    """Predictions for ``rows`` of a store, with their labels; clouds without a label are left out."""
    labels = store.labels[rows]
    known = labels >= 0
    names = [store.names[row] for row in rows[known]]
    groups = [store.groups[row] or store.names[row] for row in rows[known]]
    return Predictions(store.classes, logits[known], labels[known], np.array(groups), tuple(names))


def measured(store: CloudStore, rows: np.ndarray, logits: np.ndarray) -> Predictions | PartPredictions:
    """Predictions for ``rows`` of a store with their labels, which are those of clouds or of points."""
    return labelled_parts(store, rows, logits) if logits.ndim == 4 else labelled_predictions(store, rows, logits)


P = TypeVar("P", bound=Predictions | PartPredictions)


@dataclass(frozen=True)
class Selected(Generic[P]):
    """The evaluation that one selection rule picks in one stage of a run."""

    step: int
    predictions: P


def check_classifies(run: PointRun) -> None:
    """Raises RunError for a run that labels points, where a class for each cloud is expected."""
    if run.recipe.predicts != "class":
        raise RunError(f"{run.path}: expected a run that classifies clouds, found one that labels their points")


def select(run: PointRun, stage: str | None = None, store: CloudStore | None = None) -> dict[Column, Selected]:
    """The run's target predictions as each selection rule would have chosen them, in ``stage`` (default: the last).

    ``source-val``, ``label-free`` and ``last`` use no target label. ``target-selected`` is the best of all
    checkpoints on the very labels it is measured with: shown for comparison with the literature, not usable.
    """
    stage = stage or run.recipe.stages[-1].name
    store = store or open_domains(run.recipe).target
    run.check_store("target", known_as(store.path))
    files = run.evaluations(stage)
    if not files:
        advice = "" if run.finished else f"; it is not finished: isthmus train --resume {run.path}"
        raise RunError(f"{run.path}: expected evaluations of stage {stage!r}, found none{advice}")
    points = [read_arrays(file) for file in files]
    predictions = [measured(store, point["rows"], point["logits"]) for point in points]
    if not predictions[0].names:
        raise RunError(
            f"{run.path}: expected labelled target clouds to measure on, found none (target.data.kind "
            f"{run.recipe.target.data.kind!r}); evaluate, audit and predict need no labels"
        )
    chosen: dict[Column, int] = {
        **choices_without_labels(points, run.recipe.label_free_score),
        "target-selected": _latest_best([each.accuracy for each in predictions]),
    }
    return {rule: Selected(int(points[i]["step"]), predictions[i]) for rule, i in chosen.items()}


def choices_without_labels(points: Sequence[Mapping[str, np.ndarray]], score: str) -> dict[Column, int]:
    """Which of a stage's evaluations, in the order of training, each rule chooses that opens no target label."""
    usable = [float(point[score]) if not point["collapsed"] else -np.inf for point in points]
    return {
        "source-val": _latest_best([float(point["source_val"]) for point in points]),
        "label-free": _latest_best(usable) if max(usable) > -np.inf else len(points) - 1,
        "last": len(points) - 1,
    }


def _latest_best(scores: list[float]) -> int:
    return max(range(len(scores)), key=lambda index: (scores[index], index))


@dataclass(frozen=True)
class ClassGain:
    """What one class gained over a baseline, as a difference of accuracies with its interval."""

    name: str
    count: int
    baseline: float
    accuracy: float
    gain: Interval

    @property
    def verdict(self) -> str:
        """``hurt`` and ``helped`` when the interval excludes zero; otherwise which way the estimate points."""
        if self.count == 0:
            return "no sample"
        if self.gain.excludes_zero:
            return "helped" if self.gain.estimate > 0 else "hurt"
        if self.gain.estimate == 0:
            return "same"
        return "higher, within noise" if self.gain.estimate > 0 else "lower, within noise"


def class_gains(ours: Predictions, baseline: Predictions) -> list[ClassGain]:
    """Per class, the paired difference to ``baseline`` on the same clouds, clustered by group."""
    if ours.classes != baseline.classes:
        raise RunError(f"--against: expected the classes {ours.classes} in both runs, found {baseline.classes}")
    if ours.names != baseline.names:
        raise RunError(
            f"--against: expected the same {len(ours.names)} clouds in both runs, found {len(baseline.names)} others"
        )
    before, after = class_accuracy(baseline.confusion), class_accuracy(ours.confusion)
    difference = ours.correct - baseline.correct
    gains = []
    for label, name in enumerate(ours.classes):
        members = ours.labels == label
        gain = clustered_mean(difference[members], ours.groups[members])
        gains.append(ClassGain(name, int(members.sum()), float(before[label]), float(after[label]), gain))
    return gains


def overall_gain(ours: P, baseline: P) -> Interval:
    """Paired difference of overall accuracy (of parts: of the shapes' mean IoU), clustered by group."""
    if ours.names != baseline.names:
        raise RunError(
            f"--against: expected the same {len(ours.names)} clouds in both runs, found {len(baseline.names)} others"
        )
    return clustered_mean(ours.correct - baseline.correct, ours.groups)
