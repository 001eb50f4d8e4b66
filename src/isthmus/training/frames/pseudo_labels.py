"""Which predictions on the target's points become labels for the next stage.

xMUDA's refinement after Li et al. (CVPR 2019), stream by stream: of each predicted class the predictions that are at
least as sure as its median, and any above 0.9, over all points of the training part together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isthmus.data.frame_store import FrameStore
from isthmus.data.frame_stream import frame_batches
from isthmus.data.frames import NO_LABEL
from isthmus.training.problem import Predict


def predicted(
    predict: Predict, store: FrameStore, rows: np.ndarray, streams: tuple[str, ...]
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Classes (uint8) and their probabilities (float32) of all points of a store by stream, ``(sum N,)`` each.

    Points of frames that are not in ``rows`` have :data:`isthmus.data.frames.NO_LABEL` and 0.
    """
    total = len(store.points)
    found = {name: (np.full(total, NO_LABEL, np.uint8), np.zeros(total, np.float32)) for name in streams}
    for batch in frame_batches(store, rows, {}):
        outputs = predict(batch.inputs)
        present = batch.inputs["present_points"].numpy()
        for name in streams:
            probability, label = outputs[name].float().softmax(dim=1)[:, :, 0].max(dim=1)
            for index, row in enumerate(batch.sample_id.tolist()):
                span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
                found[name][0][span] = label[index].cpu().numpy()[present[index]]
                found[name][1][span] = probability[index].cpu().numpy()[present[index]]
    return found


def refined(
    labels: np.ndarray, confidence: np.ndarray, *, min_confidence: float, class_share: float, sure: float
) -> np.ndarray:
    """The labels that are kept, NO_LABEL for the others. Shape: ``(n,)`` uint8.

    A prediction is kept if its probability is at least ``min_confidence``, and at least the ``1 - class_share``
    quantile of its class (0.5: the median) or ``sure``, whichever is lower.
    """
    kept = np.full_like(labels, NO_LABEL)
    for each in np.unique(labels[labels != NO_LABEL]):
        members = labels == each
        threshold = min(float(np.quantile(confidence[members], 1 - class_share)), sure)
        kept[members & (confidence >= max(threshold, min_confidence))] = each
    return kept
