"""Tables over runs, whatever they learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.errors import RunError
from isthmus.evaluation.tables import Table
from isthmus.training.run import Run


def comparison(runs: Sequence[Run[Any]], baseline: str | None = None) -> dict[str, Table]:
    """Tables by the name of their files.

    ``table``: methods by setting, mean and spread over seeds; with gains over the method called ``baseline``.
    ``pooled``, for clouds in several directions: the gains over all directions and seeds at once.

    Raises RunError for runs that are not finished or of different kinds, and for a baseline that none of them is.
    """
    kinds = sorted({run.recipe.kind for run in runs})
    if len(kinds) != 1:
        raise RunError(f"expected runs of one kind, found {', '.join(kinds) or 'none'}")
    if kinds == ["points"]:
        from isthmus.evaluation.points.compare import collect, table
        from isthmus.evaluation.points.pooled import pooled_table

        rows = collect(runs)
        _check_baseline(baseline, [row.method for row in rows])
        tables = {"table": table(rows, baseline)}
        if baseline is not None and len({row.direction for row in rows}) > 1:
            tables["pooled"] = pooled_table(rows, baseline)
        return tables
    from isthmus.evaluation.dense.compare import collect as collect_dense
    from isthmus.evaluation.dense.compare import table as dense_table

    found = collect_dense(runs)
    _check_baseline(baseline, [row.method for row in found])
    if kinds == ["frames"]:
        from isthmus.evaluation.frames.compare import table as frame_table

        return {"table": frame_table(found, baseline)}
    return {"table": dense_table(found, baseline)}


def _check_baseline(baseline: str | None, methods: Sequence[str]) -> None:
    if baseline is not None and baseline not in methods:
        raise RunError(f"--baseline: expected one of {', '.join(dict.fromkeys(methods))}, found {baseline!r}")
