"""A labelling sheet: a CSV file with the columns ``name,label``, written with empty labels and read with filled ones.

It shows no prediction, so that none can sway who labels. A label is the name of a class, or ``none`` for an object that
belongs to no class, which every run gets wrong.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.errors import DataError, IsthmusError

COLUMNS = ["name", "label"]
NO_CLASS = "none"
OTHER = -1
"""The label of an object that belongs to no class."""


def write_sheet(path: Path, names: Sequence[str]) -> None:
    """A labelling sheet: a row for each name, its label empty. Raises IsthmusError rather than replace a file."""
    if len(set(names)) != len(names):
        raise IsthmusError(f"{path}: expected different names, found one twice")
    try:
        with path.open("x", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *([name, ""] for name in names)])
    except FileExistsError:
        raise IsthmusError(f"{path}: expected no such file, found one; labels may be in it") from None


def read_sheet(path: Path, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Labels of a filled sheet in the order of ``names``, ``(N,)`` int64; rows may stand in any order.

    Raises DataError that names the line: other columns, an unknown name or class, a name twice, or labels missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a readable CSV file, found {error}") from None
    if not lines or [cell.strip() for cell in lines[0]] != COLUMNS:
        raise DataError(f"{path}: line 1: expected the columns name,label, found {lines[0] if lines else 'nothing'}")
    known = {name: index for index, name in enumerate(classes)} | {NO_CLASS: OTHER}
    wanted = set(names)
    found: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{path}: line {number}"
        if len(line) != len(COLUMNS):
            raise DataError(f"{where}: expected 2 cells, found {len(line)}")
        name, label = line[0], line[1].strip()
        if name not in wanted or name in found:
            problem = "a second time" if name in found else "not among those to label"
            raise DataError(f"{where}: name: expected each of the {len(names)} names once, found {name!r} {problem}")
        if not label:
            continue
        if label not in known:
            hint = nearest(label, known)
            raise DataError(f"{where}: label: expected one of {', '.join(known)}, found {label!r}{hint}")
        found[name] = known[label]
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{path}: expected a label for each of the {len(names)} names, found {len(missing)} without, "
            f"first {missing[0]!r}; leaving hard ones out would bias the verdict (of no class: {NO_CLASS})"
        )
    return np.array([found[name] for name in names], dtype=np.int64)
