"""Intervals for accuracies and for the difference between two runs on the same objects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval, and how large a difference has to be to be seen."""

    estimate: float
    low: float
    high: float
    standard_error: float
    freedom: float = np.inf
    """Degrees of freedom of the standard error."""

    @property
    def smallest_detectable(self) -> float:
        """The effect that a two-sided test at 5 % finds with probability 0.8; 2.8 standard errors or more."""
        return float((stats.t.ppf(0.975, self.freedom) + stats.t.ppf(0.8, self.freedom)) * self.standard_error)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def clustered_mean(values: np.ndarray, groups: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of ``values`` ``(n,)`` with a bootstrap that resamples whole ``groups`` ``(n,)`` (rooms), not objects.

    For two runs on the same objects pass the differences (correct minus correct): a paired bootstrap. With a single
    group there is nothing to resample and the interval is NaN.
    """
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan)
    _, cluster = np.unique(groups, return_inverse=True)
    totals = np.bincount(cluster, weights=values)
    counts = np.bincount(cluster).astype(float)
    estimate = float(np.mean(values))
    if len(counts) < 2:
        return Interval(estimate, np.nan, np.nan, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (totals, counts),
            lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return Interval(
        estimate,
        float(result.confidence_interval.low),
        float(result.confidence_interval.high),
        float(result.standard_error),
    )


def crossed_mean(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Mean of ``values`` ``(S, n)``, S seeds on the same n objects, with an interval for new seeds *and* new groups.

    The variance is that of the mean over seeds plus the clustered one over objects; the interval is Student's with
    Welch-Satterthwaite degrees of freedom, so three seeds that disagree give a wide one. With a single seed only the
    objects count, and the interval says nothing about training again.
    """
    over_objects = clustered_mean(values.mean(axis=0), groups)
    if len(values) < 2 or np.isnan(over_objects.standard_error):
        return over_objects
    clusters = len(np.unique(groups))
    return crossed_interval(over_objects.estimate, values.mean(axis=1), over_objects.standard_error, clusters)


def crossed_interval(estimate: float, by_seed: np.ndarray, of_groups: float, clusters: int) -> Interval:
    """Interval of an estimate for new seeds *and* new groups.

    ``by_seed`` ``(S,)`` are the estimates of at least two seeds, ``of_groups`` the standard error over ``clusters``
    resampled groups. The variance is the sum of both; Student's distribution with Welch-Satterthwaite degrees of
    freedom.
    """
    of_seeds = float(np.var(by_seed, ddof=1)) / len(by_seed)
    of_objects = of_groups**2
    total = of_seeds + of_objects
    if not total > 0:
        return Interval(estimate, estimate, estimate, float(total))
    freedom = total**2 / (of_seeds**2 / (len(by_seed) - 1) + of_objects**2 / (clusters - 1))
    error = float(np.sqrt(total))
    half = float(stats.t.ppf(0.975, freedom)) * error
    return Interval(estimate, estimate - half, estimate + half, error, freedom)


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
