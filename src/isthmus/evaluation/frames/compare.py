"""A table over runs on frames: mean IoU of the 2D, the 3D and the averaged prediction, as the papers print it.

Scores are in percent and gains in points. What xMUDA and DsCML print is chosen on labels of the target; here that is
the column ``test-selected (not usable)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.dense.compare import Row
from isthmus.evaluation.dense.scores import NOT_USABLE, Column, Measured, only, score_gain
from isthmus.evaluation.statistics import mean_and_spread
from isthmus.evaluation.tables import Table

OTHER: tuple[tuple[Column, str], ...] = (
    ("label-free", "label-free"),
    ("last", "last"),
    ("test-selected", NOT_USABLE),
)
"""Selection rules beside ``source-val``, of which the main prediction has a column."""


def table(rows: Sequence[Row], baseline: str | None = None) -> Table:
    """Mean ± standard deviation over seeds of every prediction's mean IoU at the ``source-val`` choice.

    Further columns are the last prediction (the average, where there are two streams) at the other choices and, with
    the name of a ``baseline`` method in the same setting, every prediction's gain over it at the ``source-val`` choice
    in points, with its 95 % interval over seeds and groups of test frames.

    Raises RunError where two rows could be the baseline, or it has no common seed.
    """
    names = [name for name in ("2D", "3D", "average") if any(name in _tasks(row) for row in rows)]
    main = names[-1]
    headings = ["setting", "method", "seeds", "frames", *(f"mIoU {name} [%] ↑" for name in names)]
    headings += [f"{main}, {title} [%]" for _, title in OTHER]
    if baseline is not None:
        headings += [f"gain {name} over {baseline} [points]" for name in names]
    lines = []
    for row in rows:
        cells = [row.setting, row.method, str(len(row.seeds)), str(len(row.selected[0]["last"].groups))]
        cells += [_cell(row, name, "source-val") for name in names]
        cells += [_cell(row, main, column) for column, _ in OTHER]
        if baseline is not None:
            cells += _gains(row, rows, baseline, names)
        lines.append(tuple(cells))
    return Table(tuple(headings), tuple(lines))


def _tasks(row: Row) -> list[str]:
    return list(row.selected[0]["last"].tasks)


def _cell(row: Row, name: str, column: Column) -> str:
    if name not in _tasks(row) or not any(column in measured for measured in row.selected):
        return ""
    mean, spread = mean_and_spread([100 * value for value in row.headlines(name, column)])
    if np.isnan(mean):
        return "–"
    return f"{mean:.1f}" if np.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"


def _gains(row: Row, rows: Sequence[Row], baseline: str, names: Sequence[str]) -> list[str]:
    if row.method == baseline:
        return [""] * len(names)
    images = row.selected[0]["last"].images
    matching = [
        other
        for other in rows
        if other.method == baseline and other.setting == row.setting and other.selected[0]["last"].images == images
    ]
    if not matching:
        return [""] * len(names)
    if len(matching) > 1:
        raise RunError(
            f"baseline {baseline}: expected one recipe of that name for {row.setting}, found {len(matching)} that "
            "differ in more than their seed"
        )
    pairs = _pairs(row, matching[0])
    return [_gain(pairs, name) for name in names]


def _pairs(row: Row, other: Row) -> list[tuple[Measured, Measured]]:
    """Both at the ``source-val`` choice, seed by seed."""
    theirs = dict(zip(other.seeds, other.selected))
    found = [
        (mine["source-val"], theirs[seed]["source-val"])
        for seed, mine in zip(row.seeds, row.selected)
        if seed in theirs
    ]
    if not found:
        raise RunError(f"{row.method} and {other.method}: expected a common seed, found {row.seeds}, {other.seeds}")
    return found


def _gain(pairs: Sequence[tuple[Measured, Measured]], name: str) -> str:
    if any(name not in each.tasks for pair in pairs for each in pair):
        return ""
    ours, theirs = ([only(pair[side], [name]) for pair in pairs] for side in (0, 1))
    gain = score_gain(ours, theirs, name, "mean_iou")
    if np.isnan(gain.estimate):
        return "–"
    text = f"{100 * gain.estimate:+.1f}"
    return f"{text} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]" if np.isfinite(gain.low) else text
