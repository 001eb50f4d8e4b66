"""Parts of shapes that a run predicted, scored shape by shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from isthmus.data.store import CloudStore
from isthmus.data.stream import KnownPointLabels
from isthmus.errors import RunError
from isthmus.evaluation.dense.scores import Measured, score_gain
from isthmus.evaluation.statistics import Interval
from isthmus.evaluation.tables import Table
from isthmus.tasks.shape_parts import ShapeParts


@dataclass(frozen=True)
class PartPredictions:
    """What one model is worth on shapes with labelled points; answers to the words of ``Predictions``."""

    classes: tuple[str, ...]
    statistics: torch.Tensor
    """``(n, 4 + 2 K)`` of :class:`isthmus.tasks.shape_parts.ShapeParts`, a row for each shape."""
    groups: np.ndarray
    """``(n,)`` what must be resampled together: the group of a shape, or its own name."""
    names: tuple[str, ...]
    confusion: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    """``(K, K)`` labelled points of all shapes, rows are the truth."""

    @cached_property
    def _scores(self) -> dict[str, float]:
        task = ShapeParts(self.classes)
        return {name: float(score) for name, score in task.scores(self.statistics.sum(dim=0)).items()}

    @property
    def correct(self) -> np.ndarray:
        """``(n,)`` mean intersection over union of each shape, in [0, 1]."""
        return self.statistics[:, 0].numpy()

    @property
    def accuracy(self) -> float:
        """Mean over the shapes of their mean intersection over union, in [0, 1]."""
        return self._scores["mean_iou"]

    @property
    def shapes_with(self) -> list[int]:
        """How many shapes have each part in truth or prediction."""
        counts: list[float] = self.statistics[:, 4 + len(self.classes) :].sum(dim=0).tolist()
        return [int(count) for count in counts]

    @property
    def class_scores(self) -> list[float]:
        """Intersection over union by part, over the shapes that have it in truth or prediction."""
        return [self._scores[f"iou/{name}"] for name in self.classes]

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the parts of their intersection over union, in [0, 1]."""
        return float(np.nanmean(self.class_scores))

    def table(self) -> Table:
        """Intersection over union by part, over the shapes that have it in truth or prediction."""
        rows = [
            (name, str(count), "–" if np.isnan(score) else f"{100 * score:.1f}")
            for name, count, score in zip(self.classes, self.shapes_with, self.class_scores)
        ]
        return Table(("part", "shapes", "IoU"), tuple(rows))

    def summary(self) -> dict[str, Any]:
        """The same as JSON values; NaN becomes null."""
        scores = {name: None if np.isnan(score) else score for name, score in self._scores.items()}
        return {"shapes": len(self.names), "classes": list(self.classes), **scores}


def labelled_parts(store: CloudStore, rows: np.ndarray, logits: np.ndarray) -> PartPredictions:
    """Predictions ``(n, K, 1, N)`` for ``rows`` of a store, with their labels; shapes without one are left out."""
    label, valid = KnownPointLabels(store.point_labels).of(rows, logits.shape[-1])
    known = valid.flatten(1).any(dim=1)
    task = ShapeParts(store.classes)
    statistics = task.statistics(torch.from_numpy(logits)[known], label[known], valid[known])
    kept = rows[known.numpy()]
    groups = [store.groups[row] or store.names[row] for row in kept]
    names = tuple(store.names[row] for row in kept)
    count = len(store.classes)
    pairs = label[:, 0] * count + torch.from_numpy(logits.argmax(axis=1)[:, 0])
    confusion = torch.bincount(pairs[valid[:, 0]], minlength=count**2).view(count, count)
    return PartPredictions(store.classes, statistics, np.array(groups), names, confusion)


def part_gains(ours: PartPredictions, baseline: PartPredictions) -> list[tuple[float, Interval]]:
    """Of each part the baseline's score, and the difference to it with its interval, paired and clustered by group.

    Raises:
        RunError: other parts, or other shapes.
    """
    if ours.classes != baseline.classes or ours.names != baseline.names:
        raise RunError(
            f"expected the same {len(ours.names)} shapes and parts in both runs, found {len(baseline.names)} shapes, "
            "others among them"
        )
    task = ShapeParts(ours.classes)
    sides = [Measured(0, {"parts": task}, {"parts": each.statistics.numpy()}, each.groups) for each in (ours, baseline)]
    return [
        (before, score_gain([sides[0]], [sides[1]], "parts", f"iou/{name}"))
        for name, before in zip(ours.classes, baseline.class_scores)
    ]
