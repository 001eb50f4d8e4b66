"""One answer over all directions: does a method beat a baseline? Paired over directions and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from isthmus.evaluation.points.accuracy import Column
from isthmus.evaluation.points.compare import HEADINGS, Row, counterpart
from isthmus.evaluation.tables import Table

USABLE: tuple[Column, ...] = ("source-val", "label-free", "last")
EXACT = 2**16
"""Exchanges that are all gone through where there are no more of them: up to 16 pairs."""


@dataclass(frozen=True)
class PooledGain:
    """A mean difference in accuracy over directions, each the mean over its seeds; shares in [-1, 1].

    ``low`` and ``high`` bound the mean for *new directions*: Student's interval of the directions' means (of the seeds,
    where there is one direction). ``p_value``, two-sided, is that of exchanging the two methods within each pair of
    the same direction and seed: it speaks of these directions only, and needs six pairs to fall below 0.05.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    directions: int
    pairs: int


def pooled_gain(differences: Sequence[np.ndarray]) -> PooledGain:
    """Pool paired differences, one array ``(S,)`` over the seeds of each direction."""
    if not differences or not all(len(each) for each in differences):
        raise ValueError("pooled_gain: expected at least one direction and one seed in each, found none")
    means = np.array([each.mean() for each in differences])
    units = means if len(means) > 1 else differences[0]
    estimate = float(means.mean())
    half = float(stats.t.ppf(0.975, len(units) - 1) * stats.sem(units)) if len(units) > 1 else np.nan
    weights = np.concatenate([np.full(len(each), 1 / len(each) / len(means)) for each in differences])
    values = np.concatenate(differences)

    def weighted(ours: np.ndarray, theirs: np.ndarray, axis: int) -> Any:
        return ((ours - theirs) * weights).sum(axis=axis).round(12)  # ties are ties

    p_value = 1.0  # of one pair, which exchanged is as far from 0
    if len(values) > 1:
        p_value = stats.permutation_test(
            (values, np.zeros_like(values)),
            weighted,
            permutation_type="samples",
            vectorized=True,
            n_resamples=EXACT,
            rng=np.random.default_rng(0),
        ).pvalue
    return PooledGain(estimate, estimate - half, estimate + half, float(p_value), len(means), len(values))


def pooled_table(rows: Sequence[Row], baseline: str) -> Table:
    """Gain of every method over ``baseline``, see ``counterpart``, over the directions and seeds that both have.

    Rules that use target labels are left out.
    """
    lines = []
    for method, stage in dict.fromkeys((row.method, row.stage) for row in rows):
        if method == baseline:
            continue
        ours = [row for row in rows if (row.method, row.stage) == (method, stage)]
        pairs = []
        for row in ours:
            other = counterpart(row, rows, baseline)
            if other is not None and set(row.seeds) & set(other.seeds):
                pairs.append((row, other))
        if not pairs:
            continue
        gains = [pooled_gain([_differences(*pair, column) for pair in pairs]) for column in USABLE]
        name = f"{method} (target labels)" if ours[0].uses_target_labels else method
        lines.append((name, stage, str(gains[0].directions), str(gains[0].pairs), *map(_cell, gains)))
    headings = ("method", "stage", "directions", "pairs", *(f"{HEADINGS[c]}: gain over {baseline}" for c in USABLE))
    return Table(headings, tuple(lines))


def _differences(ours: Row, theirs: Row, column: Column) -> np.ndarray:
    """Accuracies of the seeds that both have on the objects that both have, ours less theirs, ``(S,)``."""
    found = []
    for place, seed in enumerate(ours.seeds):
        if seed in theirs.seeds:
            own = ours.selected[place][column].predictions
            other = theirs.selected[theirs.seeds.index(seed)][column].predictions
            _, here, there = np.intersect1d(own.names, other.names, return_indices=True)
            found.append(float(own.correct[here].mean() - other.correct[there].mean()))
    return np.array(found)


def _cell(gain: PooledGain) -> str:
    interval = "" if np.isnan(gain.low) else f" [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    chance = f"; p = {gain.p_value:.3f}" if gain.pairs > 1 else ""  # one pair exchanged is as far from 0
    return f"{100 * gain.estimate:+.1f}{interval}{chance}"
