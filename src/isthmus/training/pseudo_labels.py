"""Which predictions on the target become labels for the next stage."""

from __future__ import annotations

import numpy as np

from isthmus.data.stream import KnownLabels


def choose(
    logits: np.ndarray, rows: np.ndarray, total: int, *, min_confidence: float = 0.0, class_share: float = 1.0
) -> KnownLabels:
    """Pseudo-labels by confidence, balanced over the predicted classes.

    ``logits`` ``(m, K)`` are predictions for the samples ``rows`` ``(m,)`` of a store of ``total``. A prediction
    counts when its probability is at least ``min_confidence`` and it is among the ``ceil(class_share * n_c)`` surest of
    the n_c predictions of its class. SM-DSB takes "the model's maximum confidence score per sample" (III-A): all of
    them, which both defaults do.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    predicted, confidence = probability.argmax(axis=1), probability.max(axis=1)
    chosen = confidence >= min_confidence
    for label in np.unique(predicted):
        members = np.flatnonzero(predicted == label)
        surest = members[np.argsort(-confidence[members], kind="stable")]
        chosen[surest[int(np.ceil(class_share * len(members))) :]] = False
    labels, present = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=bool)
    labels[rows], present[rows] = predicted, chosen
    return KnownLabels(labels, present)
