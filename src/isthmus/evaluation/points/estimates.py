r"""How accurate is a run on its target? Estimates that read no target label.

Each takes logits of the same network: of the source's validation part, with its labels, and of the target. All are in
[0, 1]. None of them can be right in every case: which target accuracies are possible given unlabelled target samples
depends on how the domains differ (Garg et al., ICLR 2022). So they are shown with the error that they were
found to make on runs whose target accuracy is known.

- **Average confidence**: the mean probability of the predicted class; right for a network that is calibrated on the
  target, and too high for most.
- **Difference of confidences** (Guillory et al., "Predicting with confidence on unseen distributions", ICCV 2021): the
  source accuracy, less what the average confidence falls by from source to target. The paper also fits a line from this
  difference to the loss of accuracy over many shifts; here it is taken as it is.
- **Average thresholded confidence** (ATC; Garg et al., "Leveraging unlabeled data to predict out-of-distribution
  performance", ICLR 2022): the share of target samples whose score is not below the threshold at which
  that share equals the accuracy on the source.
- **Agreement** of networks that differ in their seed alone (Jiang et al., "Assessing generalization of SGD via
  disagreement", ICLR 2022): the share of target samples on which two of them predict the same. In expectation it is the
  accuracy if their *ensemble* is calibrated class by class. It sees no mistake that all seeds make alike.

Confidences and ATC may be taken after temperature scaling on the source (Guo et al., "On calibration of modern neural
networks", ICML 2017): divide all logits by :func:`temperature`. Garg et al. report ATC both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, xlogy

from isthmus.errors import DataError

Score = Literal["entropy", "confidence"]

NAMES = {
    "source_accuracy": "accuracy on the source",
    "average_confidence": "average confidence",
    "scaled_confidence": "average confidence, scaled",
    "difference_of_confidences": "difference of confidences",
    "thresholded_confidence": "thresholded confidence",
    "scaled_thresholded_confidence": "thresholded confidence, scaled",
    "agreement": "agreement of seeds",
}
"""The fields of :class:`Estimates` in words. The first is no estimate but what all of them have to beat."""


def average_confidence(target: np.ndarray) -> float:
    """Mean probability of the predicted class. Shape: logits ``(n, K)``."""
    return float(_scores(_checked(target, "target"), "confidence").mean())


def difference_of_confidences(source: np.ndarray, labels: np.ndarray, target: np.ndarray) -> float:
    """Source accuracy less the fall in average confidence.

    Args:
        source: logits of source validation samples.
        labels: their classes.
        target: logits of target samples.

    Shape:
        - source: (m, K), labels: (m,) integers in [0, K), target: (n, K)

    Example:
        >>> sure, unsure = np.array([[9.0, -9.0]]), np.array([[0.0, 0.0]])
        >>> round(difference_of_confidences(sure, np.array([0]), unsure), 3)
        0.5
    """
    accuracy = _correct(source, labels).mean()
    fall = average_confidence(source) - average_confidence(target)
    return float(np.clip(accuracy - fall, 0, 1))


def thresholded_confidence(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, *, score: Score = "entropy"
) -> float:
    """ATC: the share of target samples that score at least the source's threshold.

    The threshold is the lowest score of the source at which no more samples score at least as much than were right:
    the ``round(m * accuracy)``-th highest. Where everything on the source is wrong it is out of reach.

    Args:
        source: logits of source validation samples.
        labels: their classes.
        target: logits of target samples.
        score: negative entropy (the better one in the paper) or probability of the predicted class.

    Shape:
        - source: (m, K), labels: (m,) integers in [0, K), target: (n, K)
    """
    right = int(_correct(source, labels).sum())
    if right == 0:
        return 0.0
    threshold = np.sort(_scores(source, score))[::-1][right - 1]
    return float((_scores(_checked(target, "target"), score) >= threshold).mean())


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of samples for which two networks predict the same class. Shape: logits ``(n, K)`` twice."""
    return mean_agreement([first, second])


def mean_agreement(seeds: Sequence[np.ndarray]) -> float:
    """Mean :func:`agreement` over all pairs of at least two networks. Shape: logits ``(n, K)`` each."""
    if len(seeds) < 2 or len({each.shape for each in seeds}) > 1:
        raise DataError(f"agreement: expected two or more logits of one shape, found {[each.shape for each in seeds]}")
    predicted = [_checked(each, "target").argmax(axis=1) for each in seeds]
    return float(np.mean([(one == other).mean() for one, other in combinations(predicted, 2)]))


def temperature(source: np.ndarray, labels: np.ndarray) -> float:
    """The number by which logits are divided so that the source's labels are most likely, between 0.01 and 100.

    Shape: ``(m, K)``, ``(m,)``. The negative log-likelihood is convex in its inverse, so the one minimum is found.
    """
    logits = _checked(source, "source").astype(np.float64)
    rows = np.arange(len(logits))
    _correct(source, labels)

    def loss(inverse: float) -> float:
        scaled = logits * inverse
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    return 1 / float(minimize_scalar(loss, bounds=(0.01, 100.0), method="bounded", options={"xatol": 1e-6}).x)


@dataclass(frozen=True)
class Estimates:
    """What can be said of a run's accuracy on its target without labels; ``agreement`` is None for a single seed.

    ``scaled`` ones are taken after temperature scaling on the source.
    """

    source_accuracy: float
    average_confidence: float
    scaled_confidence: float
    difference_of_confidences: float
    thresholded_confidence: float
    scaled_thresholded_confidence: float
    agreement: float | None

    def errors(self, accuracy: float) -> dict[str, float]:
        """Estimate less the true accuracy, by name, of those that there are."""
        return {name: value - accuracy for name, value in vars(self).items() if value is not None}


def estimate(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, others: Sequence[np.ndarray] = ()
) -> Estimates:
    """All estimates of one network; ``others`` are target logits of the same method with other seeds.

    Shape: ``(m, K)``, ``(m,)``, ``(n, K)``, and ``(n, K)`` each.

    Raises DataError for shapes that do not fit, labels out of range, no samples, or logits that are not finite.
    """
    heat = temperature(source, labels)
    return Estimates(
        source_accuracy=float(_correct(source, labels).mean()),
        average_confidence=average_confidence(target),
        scaled_confidence=average_confidence(target / heat),
        difference_of_confidences=difference_of_confidences(source, labels, target),
        thresholded_confidence=thresholded_confidence(source, labels, target),
        scaled_thresholded_confidence=thresholded_confidence(source / heat, labels, target / heat),
        # Of this network with each other one; pairs of others say nothing of it.
        agreement=float(np.mean([agreement(target, other) for other in others])) if others else None,
    )


def _scores(logits: np.ndarray, score: Score) -> np.ndarray:
    """How sure each prediction is, higher is surer. Shape: ``(n, K)`` to ``(n,)`` float64."""
    log_probability = log_softmax(logits.astype(np.float64), axis=1)
    if score == "confidence":
        sure: np.ndarray = np.exp(log_probability.max(axis=1))
    else:
        probability = np.exp(log_probability)
        sure = xlogy(probability, probability).sum(axis=1)
    return sure


def _correct(source: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which samples are predicted right, ``(m,)`` bool; checks both."""
    logits = _checked(source, "source")
    if labels.shape != logits.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels: expected {len(logits)} integers, found {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"labels: expected 0 to {logits.shape[1] - 1}, found {labels.min()} to {labels.max()}")
    right: np.ndarray = logits.argmax(axis=1) == labels
    return right


def _checked(logits: np.ndarray, name: str) -> np.ndarray:
    if logits.ndim != 2 or not len(logits) or not np.isfinite(logits).all():
        raise DataError(f"{name}: expected finite logits (n, K) of at least one sample, found shape {logits.shape}")
    return logits
