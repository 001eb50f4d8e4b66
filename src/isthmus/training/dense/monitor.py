"""What a run of dense predictions looks at while it trains: scores on held-out source images, and statistics kept.

Checkpoints are chosen by the validation part and its (partial) labels. The test part is measured as well, so that a
report can show what choosing on it would have been worth, as the literature does; nothing in training reads that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from isthmus.data.image_store import ImageStore
from isthmus.data.image_stream import image_batches
from isthmus.tasks.dense import DenseTask
from isthmus.training.problem import Monitor, Predict
from isthmus.training.recipe import Rule
from isthmus.training.run import Run, write_arrays

Statistics = dict[str, np.ndarray]
"""Additive statistics per image by task, ``(n, S)``; rows of images without the task's label are zero."""


class DenseMonitor(Monitor):
    """Measures a validation and a test part; the rule ``source-val`` goes by :func:`selection_score`."""

    def __init__(
        self,
        run: Run,
        store: ImageStore,
        tasks: Mapping[str, DenseTask],
        present: Mapping[str, np.ndarray],
        *,
        always_test: bool = True,
    ) -> None:
        super().__init__()
        self.run = run
        self.store = store
        self.tasks = tasks
        self.present = present
        self.always_test = always_test
        self.validation, self.test = store.indices("val"), store.indices("test")

    def evaluate(self, predict: Predict, stage: str, step: int, *, last: bool) -> dict[str, float]:
        """``source-val``, and the headline score of every task on the validation part."""
        validated = measure(predict, self.store, self.validation, self.tasks, self.present)
        scores = {"source-val": selection_score(self.tasks, validated)}
        scores |= {f"val/{name}": value for name, value in headlines(self.tasks, validated).items()}
        chosen = last or scores["source-val"] >= self.best.get("source-val", -np.inf)
        everything = {name: self.store.present[:, column] for column, name in enumerate(self.store.tasks)}
        kept = {name: everything[name] for name in self.tasks}
        measured = measure(predict, self.store, self.test, self.tasks, kept) if chosen or self.always_test else {}
        write_arrays(
            self.run.path / "evaluations" / f"{stage}-{step:08d}.npz",
            step=np.array(step),
            source_val=np.array(scores["source-val"]),
            rows=self.test,
            **{f"test/{name}": values for name, values in measured.items()},
            **{f"val/{name}": values for name, values in validated.items()},
        )
        return scores

    def candidates(self, scores: Mapping[str, float]) -> dict[Rule, float]:
        """The validation score, where there is a validation part."""
        return {} if math.isnan(scores["source-val"]) else {"source-val": scores["source-val"]}

    def summary(self, scores: Mapping[str, float]) -> str:
        """Headline scores of the validation part."""
        if math.isnan(scores["source-val"]):
            return "no validation images"
        return "validation: " + ", ".join(
            f"{task.heading} {task.display_factor * scores[f'val/{name}']:.3g}" for name, task in self.tasks.items()
        )


@torch.no_grad()
def measure(
    predict: Predict,
    store: ImageStore,
    rows: np.ndarray,
    tasks: Mapping[str, DenseTask],
    present: Mapping[str, np.ndarray],
) -> Statistics:
    """Statistics of predictions on ``rows`` of a store, row by row; labels that ``present`` holds back are not read."""
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in tasks}
    for batch in image_batches(store, rows, present):
        outputs = predict(batch.inputs)
        for name, task in tasks.items():
            valid = batch.valid[name] & batch.present[name][:, None, None]
            output = outputs[name].float().cpu()
            pieces[name].append(task.statistics(output, batch.labels[name], valid).cpu().numpy())
    return {name: np.concatenate(found) if found else np.zeros((0, 0)) for name, found in pieces.items()}


def headlines(tasks: Mapping[str, DenseTask], statistics: Statistics) -> dict[str, float]:
    """The headline score of every task over all rows; NaN without a label."""
    result = {}
    for name, task in tasks.items():
        total = torch.from_numpy(statistics[name]).sum(dim=0)
        result[name] = float(task.scores(total)[task.headline]) if total.numel() else float("nan")
    return result


def selection_score(tasks: Mapping[str, DenseTask], statistics: Statistics) -> float:
    """The mean of the logarithms of the headline scores, errors counted negatively; NaN without any.

    A difference of two such scores is the mean relative gain of one checkpoint over the other, to first order, with no
    single-task baseline to compare with.
    """
    logs = []
    for name, value in headlines(tasks, statistics).items():
        if not math.isnan(value):
            log = math.log(max(value, 1e-6))
            logs.append(log if tasks[name].higher_is_better else -log)
    return sum(logs) / len(logs) if logs else float("nan")
