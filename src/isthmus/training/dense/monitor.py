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
from isthmus.training.run import Run, write_arrays

Statistics = dict[str, np.ndarray]
"""Additive statistics per image by task, ``(n, S)``; rows of images without the task's label are zero."""


class DenseMonitor(Monitor):
    """Measures a validation and a test part; the rule ``source-val`` goes by :func:`selection_score`.

    Args:
        run: where measurements are written.
        store: has the validation part.
        tasks: all that are learnt.
        present: labels of ``store`` that may be read.
        tested: images that have the test part, and the tasks that they have labels of; by default ``store``.
        counted: tasks that checkpoints are chosen by, all by default.
        always_test: measure the test part at every evaluation, or only where a checkpoint is chosen.
        each_task: keep the best checkpoint of every single task as well (``val-<task>``).
    """

    def __init__(
        self,
        run: Run,
        store: ImageStore,
        tasks: Mapping[str, DenseTask],
        present: Mapping[str, np.ndarray],
        *,
        tested: tuple[ImageStore, Mapping[str, DenseTask]] | None = None,
        counted: tuple[str, ...] | None = None,
        always_test: bool = True,
        each_task: bool = False,
    ) -> None:
        super().__init__()
        self.test_store, self.tested_tasks = tested or (store, tasks)
        self.counted = {name: task for name, task in tasks.items() if counted is None or name in counted}
        self.each_task = each_task
        self.run = run
        self.store = store
        self.tasks = tasks
        self.present = present
        self.always_test = always_test
        self.validation, self.test = store.indices("val"), self.test_store.indices("test")

    def evaluate(
        self, predict: Predict, stage: str, step: int, *, last: bool, measures: Mapping[str, float]
    ) -> dict[str, float]:
        """``source-val``, the headline score of every task on the validation part, and ``confusion``.

        ``confusion`` is minus the largest running accuracy of a discriminator, at least one half (TADA: "very
        frequently lower than 55 %" is a sign of success that needs no label).
        """
        validated = measure(predict, self.store, self.validation, self.tasks, self.present)
        scores = {"source-val": selection_score(self.counted, validated)}
        accuracies = [value for name, value in measures.items() if name.startswith("accuracy/")]
        if accuracies and not any(math.isnan(value) for value in accuracies):
            scores["confusion"] = -max(0.5, *accuracies)
        scores |= {f"val/{name}": value for name, value in headlines(self.tasks, validated).items()}
        rules = {rule: score for rule, score in self.candidates(scores).items() if not rule.startswith("val-")}
        chosen = last or any(score >= self.best.get(rule, -np.inf) for rule, score in rules.items())
        everything = {name: self.test_store.present[:, column] for column, name in enumerate(self.test_store.tasks)}
        kept = {name: everything[name] for name in self.tested_tasks}
        measured: Statistics = {}
        if chosen or self.always_test:
            measured = measure(predict, self.test_store, self.test, self.tested_tasks, kept)
        write_arrays(
            self.run.path / "evaluations" / f"{stage}-{step:08d}.npz",
            step=np.array(step),
            source_val=np.array(scores["source-val"]),
            confusion=np.array(scores.get("confusion", np.nan)),
            rows=self.test,
            **{f"test/{name}": values for name, values in measured.items()},
            **{f"val/{name}": values for name, values in validated.items()},
        )
        return scores

    def candidates(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The validation score, where there is a validation part; ``confusion`` once a game has begun."""
        found = {rule: scores[rule] for rule in ("source-val", "confusion") if rule in scores}
        if self.each_task:
            for name, task in self.tasks.items():
                score = scores[f"val/{name}"]
                found[f"val-{name}"] = score if task.higher_is_better else -score
        return {rule: score for rule, score in found.items() if not math.isnan(score)}

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
            valid = batch.valid[name] & batch.present[name].reshape(-1, *[1] * (batch.valid[name].ndim - 1))
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
