"""Parts of shapes that a run predicted, scored shape by shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from isthmus.data.store import CloudStore
from isthmus.data.stream import KnownPointLabels
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
    def mean_class_accuracy(self) -> float:
        """Mean over the parts of their intersection over union, in [0, 1]."""
        return float(np.nanmean([self._scores[f"iou/{name}"] for name in self.classes]))

    def table(self) -> Table:
        """Intersection over union by part, over the shapes that have it in truth or prediction."""
        counts = self.statistics[:, 4 + len(self.classes) :].sum(dim=0).tolist()
        scores = [self._scores[f"iou/{name}"] for name in self.classes]
        rows = [
            (name, str(int(count)), "–" if np.isnan(score) else f"{100 * score:.1f}")
            for name, count, score in zip(self.classes, counts, scores)
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
    return PartPredictions(store.classes, statistics, np.array(groups), tuple(store.names[row] for row in kept))
