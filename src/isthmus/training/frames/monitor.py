"""What a run on frames looks at while it trains: source validation, a label-free score, and statistics kept for later.

Checkpoints are chosen on the source's validation part, or by a score of the target's validation *predictions*. Labels
of the target's test part are measured with, so that a table can show what choosing on them would be worth; nothing in
training reads those numbers. (xMUDA and DsCML choose the best checkpoint of each stream on labelled target validation
frames.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from isthmus.data.frame_store import FrameStore
from isthmus.data.frame_stream import LABEL, frame_batches
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.problem import Monitor, Predict
from isthmus.training.run import Run, write_arrays
from isthmus.training.selection import collapsed, information_maximisation

Statistics = dict[str, np.ndarray]
"""Confusion matrices per frame by prediction (2D, 3D, average), ``(n, K * K)``."""


class FrameMonitor(Monitor):
    """Measures the source's validation part and the target's validation and test parts.

    Args:
        run: where measurements are written.
        source: has the validation part.
        target: has the test part.
        tasks: the predictions, by name; the last one stands for the model (the average, where there are two streams).
        prior: class frequencies of the source's training labels.
    """

    def __init__(
        self,
        run: Run,
        source: FrameStore,
        target: FrameStore,
        tasks: Mapping[str, Segmentation],
        prior: torch.Tensor,
    ) -> None:
        super().__init__()
        self.run = run
        self.source, self.target = source, target
        self.tasks = tasks
        self.prior = prior
        self.main = list(tasks)[-1]
        self.validation, self.unlabelled = source.indices("val"), target.indices("val")
        self.test = target.indices("test")

    def evaluate(
        self, predict: Predict, stage: str, step: int, *, last: bool, measures: Mapping[str, float]
    ) -> dict[str, float]:
        """``source-val``: the logarithms of the mean IoU, averaged over predictions; ``label-free``: information
        maximisation of the average on the target's validation frames, whose labels are not read."""
        validated = measure(predict, self.source, self.validation, self.tasks)
        measured = measure(predict, self.target, self.test, self.tasks)
        found = mean_ious(self.tasks, validated)
        known = [math.log(max(value, 1e-6)) for value in found.values() if not math.isnan(value)]
        scores = {"source-val": sum(known) / len(known) if known else math.nan}
        scores |= {f"val/{name}": value for name, value in found.items()}
        logits = self._sampled(predict)
        if logits is not None:
            scores["label-free"] = information_maximisation(logits, self.prior)
            scores["collapsed"] = float(collapsed(logits, self.prior))
        write_arrays(
            self.run.path / "evaluations" / f"{stage}-{step:08d}.npz",
            step=np.array(step),
            source_val=np.array(scores["source-val"]),
            label_free=np.array(scores.get("label-free", np.nan)),
            collapsed=np.array(scores.get("collapsed", 0.0)),
            rows=self.test,
            **{f"test/{name}": values for name, values in measured.items()},
            **{f"val/{name}": values for name, values in validated.items()},
        )
        return scores

    def _sampled(self, predict: Predict) -> torch.Tensor | None:
        """Logits of every 16th point of the target's validation frames. Shape: ``(n, K)``."""
        found = []
        for batch in frame_batches(self.target, self.unlabelled, {}):
            logits = predict(batch.inputs)[self.main].float().cpu()[:, :, 0].transpose(1, 2)
            found.append(logits[batch.inputs["present_points"]][::16])
        return torch.cat(found) if found else None

    def candidates(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Source validation, and the label-free score unless predictions have collapsed."""
        found = {"source-val": scores["source-val"]}
        if not scores.get("collapsed") and "label-free" in scores:
            found["label-free"] = scores["label-free"]
        return {rule: score for rule, score in found.items() if not math.isnan(score)}

    def summary(self, scores: Mapping[str, float]) -> str:
        """Mean IoU of the source's validation part."""
        if math.isnan(scores["source-val"]):
            return "no validation frames"
        return "validation: " + ", ".join(f"mIoU {name} {100 * scores[f'val/{name}']:.1f} %" for name in self.tasks)


@torch.no_grad()
def measure(
    predict: Predict, store: FrameStore, rows: np.ndarray, tasks: Mapping[str, Segmentation]
) -> dict[str, np.ndarray]:
    """Statistics of predictions on ``rows`` of a store with all of its labels, row by row.

    Where there are no rows, labels are not opened either.
    """
    if not len(rows):
        return {name: np.zeros((0, 0)) for name in tasks}
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in tasks}
    for batch in frame_batches(store, rows, {LABEL: store.labels}):
        outputs = predict(batch.inputs)
        for name, task in tasks.items():
            statistics = task.statistics(outputs[name].float().cpu(), batch.labels[LABEL], batch.valid[LABEL])
            pieces[name].append(statistics.numpy())
    return {name: np.concatenate(found) for name, found in pieces.items()}


def mean_ious(tasks: Mapping[str, Segmentation], statistics: Statistics) -> dict[str, float]:
    """The mean IoU of every prediction over all frames, in [0, 1]; NaN without a label."""
    result = {}
    for name, task in tasks.items():
        total = torch.from_numpy(statistics[name]).sum(dim=0)
        result[name] = float(task.scores(total)["mean_iou"]) if total.numel() else float("nan")
    return result
