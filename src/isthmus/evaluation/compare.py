"""One table over runs, whatever they learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.errors import RunError
from isthmus.evaluation.tables import Table
from isthmus.training.run import Run


def comparison(runs: Sequence[Run[Any]], baseline: str | None = None) -> Table:
    """Methods by setting, mean and spread over seeds; with gains over the method called ``baseline``.

    Raises RunError for runs that are not finished or of different kinds.
    """
    kinds = sorted({run.recipe.kind for run in runs})
    if len(kinds) != 1:
        raise RunError(f"expected runs of one kind, found {', '.join(kinds) or 'none'}")
    if kinds == ["points"]:
        from isthmus.evaluation.points.compare import collect, table

        return table(collect(runs), baseline)
    from isthmus.evaluation.dense.compare import collect as collect_dense
    from isthmus.evaluation.dense.compare import table as dense_table

    if kinds == ["frames"]:
        from isthmus.evaluation.frames.compare import table as frame_table

        return frame_table(collect_dense(runs), baseline)
    return dense_table(collect_dense(runs), baseline)
