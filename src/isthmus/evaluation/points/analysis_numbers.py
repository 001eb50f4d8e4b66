"""From measured steps to the numbers of an analysis: plain dictionaries, ready for JSON.

Samples of one step share their weights, so intervals resample whole steps; steps of one run follow each other, so they
say how far one run is a matter of chance and nothing about other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats

from isthmus.evaluation.points.conflict import ALPHAS, Table, within_steps
from isthmus.evaluation.points.replay import Measured
from isthmus.evaluation.statistics import Interval, clustered_mean
from isthmus.gates.base import lowest

GROUPS = 5
"""Samples of a step are sorted into so many groups by their skewness."""

KEPT_SHARES = (0.3, 0.5, 0.7)
"""Shares kept at which two rankings are compared."""

STEP_COSINES = {
    "oracle_step": "whole step with the oracle",
    "ssl_oracle": "self-supervised with the oracle",
    "class_oracle": "classification with the oracle",
    "ssl_class": "self-supervised with classification",
}
"""The cosines of whole gradients that are shown, as in Figures 4 and 9."""


def parts(measured: Measured) -> Iterator[tuple[str, str, Table]]:
    """The samples of each stage and domain: ``(stage, domain, table)``."""
    samples = measured.samples
    for stage in dict.fromkeys(measured.steps["stage"].tolist()):
        for domain in dict.fromkeys(samples["domain"].tolist()):
            here = (samples["stage"] == stage) & (samples["domain"] == domain)
            yield stage, domain, {name: column[here] for name, column in samples.items()}


def by_step(table: Table, *names: str) -> list[tuple[np.ndarray, ...]]:
    """The given columns, step by step."""
    places = [np.flatnonzero(table["global_step"] == step) for step in np.unique(table["global_step"])]
    return [tuple(table[name][here] for name in names) for here in places]


def skewness_and_conflict(measured: Measured) -> list[dict[str, Any]]:
    """Figure 1: over steps, and within steps. For samples with a label that training knew."""
    rows = []
    for stage, domain, table in parts(measured):
        if not np.isfinite(table["coupled"]).any():
            continue
        steps = measured.steps["stage"] == stage
        whole = measured.steps["ssl_oracle"][steps]
        means = np.array([np.nanmean(values) for (values,) in by_step(table, "coupled")])
        row: dict[str, Any] = {"stage": stage, "domain": domain, "over_steps": _spearman(means, whole)}
        row["over_steps_changes"] = _spearman(np.diff(means), np.diff(whole))
        for kind in ("coupled", "separate"):
            for cosine in ("cosine_oracle", "cosine_class"):
                scores, cosines, samples = zip(*by_step(table, kind, cosine, "id"))
                found = within_steps(list(scores), list(cosines), list(samples))
                row[f"{kind}_{cosine}"] = {"rho": found.rho, "p_value": found.p_value, "steps": found.steps}
        rows.append(row)
    return rows


def conflicts(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """Figures 4 and 9: how often and how far gradients disagree, by stage."""
    whole, single = [], []
    for stage in dict.fromkeys(measured.steps["stage"].tolist()):
        here = measured.steps["stage"] == stage
        for name, title in STEP_COSINES.items():
            values = measured.steps[name][here]
            values = values[np.isfinite(values)]
            order = np.arange(len(values))
            third = max(1, len(values) // 3)
            whole.append(
                {
                    "stage": stage,
                    "name": name,
                    "title": title,
                    "mean": interval(clustered_mean(values, order)),
                    "negative": interval(clustered_mean((values < 0).astype(float), order)),
                    "first_third": _mean(values[:third]),
                    "last_third": _mean(values[-third:]),
                }
            )
    for stage, domain, table in parts(measured):
        for name in ("cosine_oracle", "cosine_class"):
            finite = np.isfinite(table[name])
            values, steps = table[name][finite], table["global_step"][finite]
            single.append(
                {
                    "stage": stage,
                    "domain": domain,
                    "name": name,
                    "mean": interval(clustered_mean(values, steps)),
                    "negative": interval(clustered_mean((values < 0).astype(float), steps)),
                }
            )
    return {"steps": whole, "samples": single}


def groups_of(table: Table, score: str = "coupled") -> np.ndarray:
    """Group of each sample by its skewness within its step, 0 the least skewed; -1 without one. Shape: ``(n,)``."""
    groups = np.full(len(table["id"]), -1)
    for step in np.unique(table["global_step"]):
        here = np.flatnonzero((table["global_step"] == step) & np.isfinite(table[score]))
        if len(here):
            groups[here] = (stats.rankdata(table[score][here], method="ordinal") - 1) * GROUPS // len(here)
    return groups


def losses_by_skewness(measured: Measured) -> list[dict[str, Any]]:
    """Figure 6: losses and cosines of the groups, and of the two most skewed groups less the two least skewed."""
    rows = []
    for stage, domain, table in parts(measured):
        groups = groups_of(table)
        if not (groups >= 0).any():
            continue
        row: dict[str, Any] = {"stage": stage, "domain": domain}
        for name in ("loss", "class_loss", "cosine_oracle", "cosine_class", "norm"):
            known = (groups >= 0) & np.isfinite(table[name])
            row[name] = [
                interval(
                    clustered_mean(table[name][known & (groups == g)], table["global_step"][known & (groups == g)])
                )
                for g in range(GROUPS)
            ]
            row[f"{name}_high_less_low"] = interval(
                _contrast(table, name, known & (groups != GROUPS // 2), groups > GROUPS // 2)
            )
        for name in ("loss", "class_loss"):  # Section V-C speaks of a larger variance over training
            steps = _pairs(table, name, np.where(np.isfinite(table[name]), groups, -1))
            means = [[values[own == g].mean() for values, own in steps if (own == g).any()] for g in range(GROUPS)]
            row[f"{name}_variance"] = [float(np.var(each)) if each else float("nan") for each in means]
        chosen = np.isfinite(table["taking_part"]) & np.isfinite(table["score"])
        if chosen.any() and 0 < table["taking_part"][chosen].mean() < 1:
            for name in ("loss", "cosine_oracle", "cosine_class"):
                known = chosen & np.isfinite(table[name])
                row[f"{name}_kept_less_dropped"] = interval(_contrast(table, name, known, table["taking_part"] == 1))
        rows.append(row)
    return rows


def pseudo_against_true(measured: Measured) -> list[dict[str, Any]]:
    """Figure 7: what pseudo-labels change in the skewness of target samples, and in what a gate keeps."""
    rows = []
    for stage, domain, table in parts(measured):
        known = np.isfinite(table["coupled"]) & np.isfinite(table["coupled_truth"])
        if domain != "target" or not known.any():
            continue
        right = table["label"] == table["truth"]
        row: dict[str, Any] = {
            "stage": stage,
            "samples": int(known.sum()),
            "right": interval(clustered_mean(right[known].astype(float), table["global_step"][known])),
        }
        for name, members in (("all", known), ("wrong", known & ~right)):
            for kind in ("coupled", "separate"):
                change = table[kind][members] - table[f"{kind}_truth"][members]
                steps = table["global_step"][members]
                row[f"{kind}_{name}"] = interval(clustered_mean(change, steps))
                row[f"{kind}_{name}_size"] = interval(clustered_mean(np.abs(change), steps))
        for kind in ("coupled", "separate"):
            names = kind, f"{kind}_truth"
            row[f"{kind}_same_kept"] = {str(keep): _overlap(table, *names, keep) for keep in KEPT_SHARES}
            row[f"{kind}_rank_correlation"] = _within(table, *names)
        rows.append(row)
    return rows


def alphas(measured: Measured) -> list[dict[str, Any]]:
    """Figure 8, left, without training: how other exponents of the radius would rank the measured samples."""
    rows = []
    for stage, domain, table in parts(measured):
        if not np.isfinite(table["alpha_1"]).any():
            continue
        for alpha in ALPHAS:
            name = f"alpha_{alpha:g}"
            rows.append(
                {
                    "stage": stage,
                    "domain": domain,
                    "alpha": alpha,
                    "rank_correlation": _within(table, name, "alpha_1"),
                    "same_kept": {str(keep): _overlap(table, name, "alpha_1", keep) for keep in KEPT_SHARES},
                    "rho_with_conflict": _within(table, name, "cosine_oracle"),
                }
            )
    return rows


def interval(found: Interval) -> dict[str, float]:
    """An interval as JSON values."""
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def _pairs(table: Table, name: str, groups: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    return by_step({**table, "group": groups}, name, "group")


def _contrast(table: Table, name: str, known: np.ndarray, first: np.ndarray) -> Interval:
    """Mean over steps of the mean of ``first`` less the mean of the others, in steps that have both."""
    found = []
    for step in np.unique(table["global_step"]):
        here = known & (table["global_step"] == step)
        if (here & first).any() and (here & ~first).any():
            found.append(table[name][here & first].mean() - table[name][here & ~first].mean())
    return clustered_mean(np.array(found), np.arange(len(found)))


def _overlap(table: Table, first: str, second: str, keep: float) -> dict[str, float]:
    """Share of what one ranking keeps of a step that the other keeps as well, by the gate's own rule."""
    shares = []
    for one, other in by_step(table, first, second):
        both = np.isfinite(one) & np.isfinite(other)
        kept = [lowest(torch.from_numpy(values[both]), keep).numpy() for values in (one, other)]
        if both.any() and kept[0].any():
            shares.append((kept[0] & kept[1]).sum() / kept[0].sum())
    return interval(clustered_mean(np.array(shares), np.arange(len(shares))))


def _within(table: Table, first: str, second: str) -> float:
    """Mean rank correlation of two columns within steps."""
    pairs = by_step(table, first, second)
    return within_steps([a for a, _ in pairs], [b for _, b in pairs], permutations=0).rho


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation; NaN for fewer than three pairs or constant ones."""
    return within_steps([first], [second], permutations=0).rho


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
