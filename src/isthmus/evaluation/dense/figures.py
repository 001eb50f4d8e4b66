"""The figures of a report on dense predictions; what they share with other reports is in the module above."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import plotly.graph_objects as go

from isthmus.evaluation.figures import Curve, evaluation_curves
from isthmus.tasks.dense import DenseTask

PER_ROW = 4
NOT_FOR_SELECTION = "not used for selection"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training: the selection score, and every task's headline score on either part.

    ``test`` is empty where the recipe did not measure it.
    """

    global_step: int
    source_val: float
    validation: Mapping[str, float]
    test: Mapping[str, float]
    collapsed: bool = False


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it.

    ``stages`` are names and steps in order, ``losses`` the rows of ``metrics.jsonl`` that hold losses, ``chosen`` the
    global step of the evaluation that stands for the run.
    """

    label: str
    colour: str
    stages: tuple[tuple[str, int], ...]
    losses: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    chosen: int


def score_curves(runs: Sequence[Shown], tasks: Mapping[str, DenseTask]) -> go.Figure:
    """Headline scores over training: on the validation part, and dashed on the test part, which decided nothing."""

    def scores(name: str, part: Literal["validation", "test"]) -> Callable[[Shown], list[float]]:
        factor = tasks[name].display_factor
        return lambda run: [factor * getattr(each, part).get(name, math.nan) for each in run.evaluations]

    headings = {name: f"{escape(task.heading)} {'↑' if task.higher_is_better else '↓'}" for name, task in tasks.items()}
    curves = [Curve(f"validation {heading}", scores(name, "validation")) for name, heading in headings.items()]
    curves += [
        Curve(f"test {heading}<br>{NOT_FOR_SELECTION}", scores(name, "test"), "dash")
        for name, heading in headings.items()
    ]
    return evaluation_curves(runs, curves, height=270, per_row=min(PER_ROW, len(tasks)))
