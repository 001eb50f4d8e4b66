"""The HTML page of a run, whatever it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.errors import RunError
from isthmus.training.recipe import Rule
from isthmus.training.run import Run


def write_report(runs: Sequence[Run[Any]], out: Path | None = None, *, rule: Rule | None = None) -> Path:
    """Write the page of ``runs[0]``, with the others beside it, and return its path.

    Raises RunError for no run, runs of different kinds, or runs that cannot be shown beside each other.
    """
    kinds = sorted({run.recipe.kind for run in runs})
    if len(kinds) != 1:
        raise RunError(f"report: expected at least one run, all of one kind, found {', '.join(kinds) or 'none'}")
    chosen: Rule = rule or runs[0].recipe.rules[0]
    if kinds == ["points"]:
        from isthmus.evaluation.points.report import write_report as write_point_report

        return write_point_report(runs, out, rule=chosen)
    if kinds == ["frames"]:
        from isthmus.evaluation.frames.report import write_report as write_frame_report

        return write_frame_report(runs, out, rule=chosen)
    from isthmus.evaluation.dense.report import write_report as write_dense_report

    return write_dense_report(runs, out, rule=chosen)
