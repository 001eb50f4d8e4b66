"""What a run looks at while it trains: source validation, label-free scores, and predictions kept for later.

No target label is opened here. Predictions on the target's evaluation clouds are written down; whoever asks for their
accuracy later (``isthmus.evaluation``) opens the labels then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from isthmus.data.store import CloudStore
from isthmus.data.stream import clouds
from isthmus.errors import DataError
from isthmus.training.build import Domains, class_prior, part_rows
from isthmus.training.recipe import Recipe
from isthmus.training.run import Run, write_arrays
from isthmus.training.selection import collapsed, information_maximisation, nuclear_norm

Predict = Callable[[Tensor], Tensor]
"""Clouds ``(B, N, 3)`` to class logits ``(B, K)``."""

MONITORED = 500
"""At most this many clouds, evenly spread, serve each score that is computed during training."""


class Monitor:
    """Evaluates a method in training and remembers the best score of each selection rule, stage by stage.

    Label-free scores are taken on the target's validation part, which pseudo-labels never touch unless the recipe
    trains on it, and on the training part where there is none. Equal scores go to the later step. A prediction that has
    collapsed (few classes) is vetoed as a label-free choice.
    """

    def __init__(self, recipe: Recipe, run: Run, domains: Domains) -> None:
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
        self.best: dict[str, float] = {}

    def evaluate(self, predict: Predict, stage: str, step: int) -> dict[str, float]:
        """Scores after ``step`` steps of ``stage``; writes the predictions into the run."""
        source = self.logits(predict, self.domains.source, self.source_rows)
        target = self.logits(predict, self.domains.target, self.target_rows)
        measured = self.logits(predict, self.domains.target, self.evaluation_rows)
        labels = self.domains.source.labels[self.source_rows]
        scores = {
            "source-val": float((source.argmax(1).numpy() == labels).mean()),
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

    def improved(self, scores: dict[str, float]) -> list[str]:
        """The selection rules for which these scores are the best of the stage so far."""
        candidates = {"source-val": scores["source-val"]}
        if not scores["collapsed"]:
            candidates["label-free"] = scores[self.recipe.label_free_score]
        better = [rule for rule, score in candidates.items() if score >= self.best.get(rule, -np.inf)]
        self.best.update({rule: candidates[rule] for rule in better})
        return better

    def logits(self, predict: Predict, store: CloudStore, rows: np.ndarray) -> Tensor:
        """Predictions for rows of a store, in order. Shape: ``(len(rows), K)`` on the CPU, float32."""
        parts = [predict(points).float().cpu() for points in clouds(store, rows, self.recipe.points)]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.recipe.classes))


def _at_most(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
