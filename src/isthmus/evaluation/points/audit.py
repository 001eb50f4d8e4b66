r"""Which few target samples to label to decide between two runs, and the verdict once they are.

Only samples on which two runs differ can decide: with predictions :math:`a_i, b_i` and labels :math:`y_i` the
difference of their accuracies on n samples is

.. math:: \Delta = \frac1n \sum_{i \in D} d_i, \qquad d_i = [a_i = y_i] - [b_i = y_i] \in \{-1, 0, 1\},

D being the samples with :math:`a_i \ne b_i`. Of these N are drawn with known inclusion probabilities :math:`\pi_i`, and

.. math:: \hat\Delta = \frac1n \sum_{i \in S} \frac{d_i}{\pi_i}

is unbiased whatever the labels are (Horvitz and Thompson, JASA 1952). The draw is systematic in a random order
(Madow, Annals of Mathematical Statistics 1949; Hartley and Rao, 1962): exactly N samples, no sample twice, exact
probabilities. Its variance is estimated as for designs of high entropy (Deville 1999; Hajek 1964),

.. math:: \hat V = \frac{N}{N - 1} \sum_{i \in S} (1 - \pi_i) \Bigl(\frac{d_i}{\pi_i} - A\Bigr)^2, \qquad
          A = \frac{\sum_S (1 - \pi_i) d_i / \pi_i}{\sum_S (1 - \pi_i)},

which for equal probabilities is the textbook formula of simple random sampling. Few labels often agree all with each
other, and the formula would then claim certainty; so, in the manner of Agresti and Caffo (2000), the *variance* (not
the estimate) counts two further labels, one in favour of each run. Student's quantiles with N + 1 degrees of freedom.

The probabilities are either equal or in proportion to :math:`\sqrt{p_i(a_i) + p_i(b_i)}`, p being the mean of both
runs' probabilities: the choice that makes the variance least if p were right, since :math:`d_i^2 = 1` where the label
is one of the two (Neyman). No smaller than half the largest, so that a run that is wrongly sure cannot spoil it.

The verdict is about *these* target samples; new objects from new rooms vary more
(:func:`isthmus.evaluation.points.accuracy.overall_gain` resamples those, given all labels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from scipy.special import softmax

from isthmus.errors import IsthmusError

Draw = Literal["equal", "decisive"]


@dataclass(frozen=True)
class Plan:
    """Which samples to label.

    Attributes:
        rows: positions of the samples, ascending, ``(N,)`` int64.
        probability: with which each of them was drawn, in (0, 1], ``(N,)``.
        differing: on how many samples the runs differ.
        samples: how many there are, n.
    """

    rows: np.ndarray
    probability: np.ndarray
    differing: int
    samples: int


@dataclass(frozen=True)
class Verdict:
    """Accuracy of the first run less that of the second on the n samples, a share in [-1, 1], with its interval."""

    difference: float
    low: float
    high: float
    labelled: int
    differing: int
    samples: int

    @property
    def better(self) -> Literal["first", "second", "undecided"]:
        """The run in whose favour the interval excludes zero."""
        if self.low > 0:
            return "first"
        return "second" if self.high < 0 else "undecided"


def plan(first: np.ndarray, second: np.ndarray, labels: int, *, seed: int = 0, draw: Draw = "equal") -> Plan:
    """Draw at most ``labels`` samples, all from those on which two runs differ; all of these if they are no more.

    The same arguments give the same plan.

    Args:
        first, second: logits of both runs on the same samples, in the same order.
        labels: N, at least 1.
        seed: of the draw.
        draw: probabilities, see the module.

    Shape:
        - first, second: (n, K)

    Raises:
        IsthmusError: logits that do not fit together or are not finite, or no label to draw.
    """
    if labels < 1:
        raise IsthmusError(f"labels: expected at least 1, found {labels}")
    differing = disagreement(first, second)
    sizes = np.ones(len(differing)) if draw == "equal" else decisive(first[differing], second[differing])
    probability = inclusion_probabilities(sizes, labels)
    key = np.array([seed, 0], dtype=np.uint64)
    drawn = systematic(probability, np.random.Generator(np.random.Philox(key=key)))
    return Plan(differing[drawn], probability[drawn], len(differing), len(first))


def disagreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Positions of the samples that two runs predict differently, ascending. Shape: logits ``(n, K)`` twice."""
    if first.ndim != 2 or first.shape != second.shape:
        raise IsthmusError(
            f"audit: expected logits of one shape (n, K) from both runs, found {first.shape}, {second.shape}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise IsthmusError("audit: expected finite logits, found NaN or Inf")
    return np.flatnonzero(first.argmax(axis=1) != second.argmax(axis=1))


def decisive(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much each sample should be drawn: the root of the probability that one of the two runs is right.

    Shape: logits ``(M, K)`` twice to ``(M,)``, between half the largest and 1.
    """
    if not len(first):
        return np.zeros(0)
    rows = np.arange(len(first))
    probability = (softmax(first.astype(np.float64), axis=1) + softmax(second.astype(np.float64), axis=1)) / 2
    either = probability[rows, first.argmax(axis=1)] + probability[rows, second.argmax(axis=1)]
    wanted = np.sqrt(either)
    sizes: np.ndarray = np.maximum(wanted, wanted.max() / 2)
    return sizes


def inclusion_probabilities(sizes: np.ndarray, count: int) -> np.ndarray:
    """Probabilities in proportion to ``sizes`` that add up to ``count``; those that would exceed 1 are 1.

    Shape: ``(M,)`` greater than 0 to ``(M,)`` in (0, 1]; all 1 where ``count`` is M or more.
    """
    if count >= len(sizes):
        return np.ones(len(sizes))
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = count - certain.sum()
        probability = np.where(certain, 1.0, rest * sizes / sizes[~certain].sum())
        above = ~certain & (probability >= 1)
        if not above.any():
            return probability
        certain |= above


def systematic(probability: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A draw of exactly ``sum(probability)`` positions, ascending, each with its probability, in a random order.

    Shape: ``(M,)`` in (0, 1], with a whole sum, to ``(N,)`` int64.
    """
    certain = np.flatnonzero(probability >= 1)
    open_ = np.flatnonzero(probability < 1)
    count = round(float(probability[open_].sum()))
    if not count:
        return certain
    order = open_[random.permutation(len(open_))]
    ends = np.cumsum(probability[order])
    ends *= count / ends[-1]  # rounding must not lose the last one
    at = random.uniform() + np.arange(count)
    taken = order[np.minimum(np.searchsorted(ends, at, side="right"), len(order) - 1)]
    return np.sort(np.concatenate([certain, taken]))


def verdict(
    drawn: Plan, first: np.ndarray, second: np.ndarray, labels: np.ndarray, *, confidence: float = 0.95
) -> Verdict:
    """Which run is better on the samples, from the labels of the planned ones.

    Args:
        drawn: the plan.
        first, second: the logits that it was made from.
        labels: of ``drawn.rows``, in their order; :data:`isthmus.evaluation.points.label_sheet.OTHER`
            (which no run predicts) for an object of no class.
        confidence: of the interval, in (0, 1).

    Shape:
        - first, second: (n, K); labels: (N,) integers

    Raises:
        IsthmusError: labels that do not fit the plan, or logits other than those it was made from.
    """
    if labels.shape != drawn.rows.shape or not np.issubdtype(labels.dtype, np.integer):
        raise IsthmusError(f"labels: expected {len(drawn.rows)} integers, found {labels.dtype} {labels.shape}")
    differing = disagreement(first, second)
    if len(first) != drawn.samples or len(differing) != drawn.differing or not np.isin(drawn.rows, differing).all():
        raise IsthmusError("audit: expected the predictions that the plan was made from, found others")
    one, other = first[drawn.rows].argmax(axis=1), second[drawn.rows].argmax(axis=1)
    outcome = (one == labels).astype(np.float64) - (other == labels)
    estimate, variance, counted = total_of(outcome, drawn.probability, drawn.differing)
    half = float(stats.t.ppf((1 + confidence) / 2, counted + 1)) * math.sqrt(variance) if counted else 0.0
    most = drawn.differing / drawn.samples  # a sum over unequal probabilities can exceed what is possible
    difference, low, high = (min(max((estimate + sign * half) / drawn.samples, -most), most) for sign in (0, -1, 1))
    return Verdict(
        difference,
        low,
        high,
        len(labels),
        drawn.differing,
        drawn.samples,
    )


def total_of(outcome: np.ndarray, probability: np.ndarray, differing: int) -> tuple[float, float, int]:
    """Estimated sum of d over all differing samples, its variance, and how many labels were not certain to be drawn.

    Shape: d in {-1, 0, 1} ``(N,)``, probabilities ``(N,)``.
    """
    scaled = outcome / probability
    left_out = 1 - probability
    by_chance = probability < 1
    counted = int(by_chance.sum())
    if not counted:
        return float(scaled.sum()), 0.0, 0
    mean = (left_out * scaled).sum() / left_out.sum()
    # The two further labels are drawn as an average one would be.
    usual = left_out[by_chance].mean()
    size = (1 / probability[by_chance]).mean()
    spread = (left_out * (scaled - mean) ** 2).sum() + usual * ((size - mean) ** 2 + (size + mean) ** 2)
    return float(scaled.sum()), float(spread * counted / (counted + 1)), counted


def labels_needed(
    samples: int, differing: int, half_width: float, *, decisive_share: float = 1.0, confidence: float = 0.95
) -> int:
    """How many labels, drawn with equal probability, make the interval of :func:`verdict` about this narrow.

    Args:
        samples: n.
        differing: on how many the runs differ.
        half_width: of the interval, as a share of the n samples, greater than 0: 0.01 is one point of accuracy. To tell
            a difference of accuracies from zero it has to be smaller than the difference.
        decisive_share: of the differing samples, those where one run is right, in [0, 1]; 1 is the worst case.
        confidence: of the interval, in (0, 1).

    Returns:
        From 0 to ``differing``; all of them make the difference certain.

    Example:
        >>> labels_needed(1000, 200, 0.02), labels_needed(1000, 200, 0.2)
        (133, 0)
    """
    if not half_width > 0:
        raise IsthmusError(f"half_width: expected more than 0, found {half_width}")
    if half_width >= differing / samples:
        return 0  # no labels can move the difference further than this
    for count in range(1, differing):
        if expected_half_width(samples, differing, count, decisive_share, confidence) <= half_width:
            return count
    return differing


def expected_half_width(
    samples: int, differing: int, labels: int, decisive_share: float = 1.0, confidence: float = 0.95
) -> float:
    """About how far the interval of :func:`verdict` will reach to either side, as a share of the n samples.

    As :func:`labels_needed`, which inverts it: draws of equal probability, and runs that are right equally often.
    """
    if labels >= differing:
        return 0.0
    # The variance of verdict() with the two further labels.
    spread = (labels * decisive_share + 2) / (labels + 1)
    variance = differing**2 * (1 - labels / differing) * spread / labels
    return float(stats.t.ppf((1 + confidence) / 2, labels + 1)) * math.sqrt(variance) / samples
