"""What a run looks at while it trains: source validation, label-free scores, and predictions kept for later.

No target label is opened here. Predictions on the target's evaluation clouds are written down; whoever asks for their
accuracy later (``isthmus.evaluation``) opens the labels then.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from isthmus.data.store import CloudStore
from isthmus.data.stream import KnownPointLabels, clouds
from isthmus.errors import DataError
from isthmus.tasks.shape_parts import ShapeParts
from isthmus.training.points.build import Domains, class_prior, part_rows
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.problem import Monitor, Predict
from isthmus.training.run import Run, write_arrays
from isthmus.training.selection import collapsed, information_maximisation, nuclear_norm

MONITORED = 500
"""At most this many clouds, evenly spread, serve each score that is computed during training."""


class PointMonitor(Monitor):
    """Evaluates a method in training and remembers the best score of each selection rule, stage by stage.

    Label-free scores are taken on the target's validation part, which pseudo-labels never touch unless the recipe
    trains on it, and on the training part where there is none. Equal scores go to the later step. A prediction that has
    collapsed (few classes) is vetoed as a label-free choice.
    """

    def __init__(self, recipe: PointRecipe, run: Run, domains: Domains) -> None:
        super().__init__()
        self.recipe = recipe
        self.run = run
        self.domains = domains
        self.prior = class_prior(recipe, domains)
        validation = part_rows(domains.source, ("val",))
        if not len(validation):
            raise DataError(f"{domains.source.path}: source: expected validation clouds (part 'val'), found none")
        self.source_rows = _at_most(validation, MONITORED)
        held_out = part_rows(domains.target, ("val",))
        unlabelled = held_out if len(held_out) else part_rows(domains.target, recipe.target.train_on)
        self.target_rows = _at_most(unlabelled, MONITORED)
        self.evaluation_rows = part_rows(domains.target, recipe.target.evaluate_on)
        if not len(self.evaluation_rows) and recipe.target.data.kind != "unlabelled":
            parts = ", ".join(recipe.target.evaluate_on)
            raise DataError(f"{domains.target.path}: target.evaluate_on: expected clouds in {parts}, found none")

    def evaluate(
        self, predict: Predict, stage: str, step: int, *, last: bool, measures: Mapping[str, float]
    ) -> dict[str, float]:
        """Scores after ``step`` steps of ``stage``; writes the predictions into the run."""
        source = logits(predict, self.domains.source, self.source_rows, self.recipe)
        target = logits(predict, self.domains.target, self.target_rows, self.recipe)
        measured = logits(predict, self.domains.target, self.evaluation_rows, self.recipe)
        if self.recipe.predicts == "parts":
            task = ShapeParts(self.recipe.classes)
            label, valid = KnownPointLabels(self.domains.source.point_labels).of(self.source_rows, self.recipe.points)
            right = float(task.scores(task.statistics(source, label, valid).sum(dim=0))["mean_iou"])
            target = target[:, :, 0].transpose(1, 2).flatten(0, 1)  # label-free scores count points
        else:
            right = float((source.argmax(1).numpy() == self.domains.source.labels[self.source_rows]).mean())
        scores = {
            "source-val": right,
            "im": information_maximisation(target, self.prior),
            "bnm": nuclear_norm(target),
            "collapsed": float(collapsed(target, self.prior)),
        }
        write_arrays(
            self.run.path / "evaluations" / f"{stage}-{step:08d}.npz",
            step=np.array(step),
            logits=measured.numpy(),
            rows=self.evaluation_rows,
            **{name.replace("-", "_"): np.array(score) for name, score in scores.items()},
        )
        return scores

    def candidates(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Accuracy on the source's validation part, and the label-free score unless predictions have collapsed."""
        found: dict[str, float] = {"source-val": scores["source-val"]}
        if not scores["collapsed"]:
            found["label-free"] = scores[self.recipe.label_free_score]
        return found

    def summary(self, scores: Mapping[str, float]) -> str:
        """What checkpoints can be chosen by."""
        text = f"source-val {scores['source-val']:.3f}, label-free {scores[self.recipe.label_free_score]:.3f}"
        return text + (" (collapsed onto few classes)" if scores["collapsed"] else "")


def logits(predict: Predict, store: CloudStore, rows: np.ndarray, recipe: PointRecipe) -> Tensor:
    """Logits for rows of a store, in order: ``(len(rows), K)``, or of points ``(len(rows), K, 1, N)``. CPU, float32."""
    task = recipe.predicts
    parts = [predict({"points": points})[task].float().cpu() for points in clouds(store, rows, recipe.points)]
    return torch.cat(parts) if parts else torch.zeros(0, len(recipe.classes))


def _at_most(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
