"""Which image keeps which task's label: drawn by a rule, kept in a readable file, or read from a published one.

Settings of multi-task learning from partially annotated images (Li, Liu, Bilen, "Learning Multiple Dense Prediction
Tasks from Partially Annotated Data", CVPR 2022), given which labels each image has:

========== ============================================================================================================
setting    what is kept
========== ============================================================================================================
``full``   every label
``one``    one label of each image, every task about equally often
``random`` of an image with m labels a number drawn uniformly from 1 to m - 1, and of the subsets of that size one drawn
           uniformly; an image with a single label keeps it
``ratio``  one label of each image, the tasks in given proportions (9:1)
========== ============================================================================================================

The paper says of its "random labels" only that each image keeps at least one and at most K - 1. The published lists fit
the rule above: on PASCAL, where images without persons have four of the five labels, 1538, 1529, 1541 and 390 images
keep 1, 2, 3 and 4, as images with five labels stop at four and the others at three (a number uniform in 1 to 4 for all
would make each about 1250, subsets uniform in all would make 2 and 3 twice as frequent as 1). On NYUv2 with three tasks
405 keep one and 390 two. No seed was published with those lists, so the file is the definition of such a setting: read
it with :mod:`isthmus.data.published_labels`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.data.label_table import LabelTable, read_table, write_table
from isthmus.data.published_labels import MTPSL_COLUMNS, read_mtpsl_npy, read_mtpsl_pth
from isthmus.errors import DataError

Setting = Literal["full", "one", "random", "ratio"]

SETTINGS: tuple[Setting, ...] = ("full", "one", "random", "ratio")


def partial_labels(
    setting: Setting,
    tasks: Sequence[str],
    available: np.ndarray,
    *,
    ratio: Sequence[float] | None = None,
    seed: int,
) -> np.ndarray:
    """Draw which labels are kept.

    For "one" and "ratio" the tasks' totals are the reachable ones closest (in squares) to the exact proportions of the
    images that have any label. With all labels available those are the exact proportions rounded to whole numbers by
    largest remainder (so for "one" they differ by at most 1), and every choice with such totals is equally likely.

    Args:
        setting: see the module.
        tasks: names of the columns.
        available: ``(n, K)`` bool, which image has which label; an image without any stays without.
        ratio: for "ratio", and only then, K numbers of at least 0, the proportions of the tasks.
        seed: fixes the draw, with ``available`` and the order of its rows and columns. Numbers come from NumPy's
            ``default_rng``; keep the result with :func:`write_partial_labels` rather than the seed.

    Returns:
        ``(n, K)`` bool, a subset of ``available``.

    Raises:
        DataError: no such setting, a ratio that does not fit, or ``available`` is not ``(n, K)`` bool.
    """
    if setting not in SETTINGS:
        raise DataError(
            f"setting: expected one of {', '.join(SETTINGS)}, found {setting!r}{nearest(str(setting), SETTINGS)}"
        )
    if available.dtype != np.bool_ or available.ndim != 2 or available.shape[1] != len(tasks):
        raise DataError(
            f"available: expected bool of shape (n, {len(tasks)}) for the tasks {', '.join(tasks)}, found "
            f"{available.dtype} {available.shape}"
        )
    if (ratio is not None) != (setting == "ratio"):
        raise DataError(f"ratio: expected {'one number per task' if ratio is None else 'none'} for {setting!r}")
    if ratio is not None and (
        len(ratio) != len(tasks) or not all(0 <= share < inf for share in ratio) or not sum(ratio)
    ):
        raise DataError(
            f"ratio: expected {len(tasks)} numbers of at least 0, not all 0, for {', '.join(tasks)}, "
            f"found {list(ratio)}"
        )
    generator = np.random.default_rng(seed)
    if setting == "full":
        return available.copy()
    if setting == "random":
        return _random(available, generator)
    return _one_each(available, np.array([1] * len(tasks) if ratio is None else ratio, float), generator)


def _random(available: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    has = available.sum(axis=1)
    # Both draws have one row for each image and one column for each task, so no image shifts another's numbers.
    keep = 1 + np.floor(generator.random(len(available)) * np.maximum(has - 1, 1)).astype(np.int64)
    order = np.where(available, generator.random(available.shape), 2.0)
    rank = order.argsort(axis=1).argsort(axis=1)
    chosen: np.ndarray = (rank < keep[:, None]) & available
    return chosen


def _one_each(available: np.ndarray, ratio: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One label of each image, with totals as close to the ratio as the available labels allow."""
    images = np.flatnonzero(available.any(axis=1))
    wanted = len(images) * ratio / ratio.sum()
    shuffled = generator.permutation(images)
    # Images with little choice first, so that the others can make up for them.
    order = shuffled[np.argsort(available[shuffled].sum(axis=1), kind="stable")]
    chosen = np.zeros_like(available)
    lacking = wanted.copy()
    for image, tie in zip(order, generator.random((len(order), len(ratio)))):
        open_tasks = np.flatnonzero(available[image])
        task = max(open_tasks, key=lambda t: (lacking[t], tie[t]))
        chosen[image, task] = True
        lacking[task] -= 1
    while path := _improvement(chosen, available, lacking):
        for start, end in pairwise(path):
            movable = np.flatnonzero(chosen[:, start] & available[:, end])
            image = movable[generator.integers(len(movable))]
            chosen[image, start], chosen[image, end] = False, True
        lacking[path[0]] += 1
        lacking[path[-1]] -= 1
    return chosen


def _improvement(chosen: np.ndarray, available: np.ndarray, lacking: np.ndarray) -> list[int]:
    """Tasks along which images can be passed on so that the sum of ``lacking ** 2`` falls; empty if there are none.

    If no such path is left the sum is the smallest there is (for equal shares: Harvey, Ladner, Lovasz, Tamir,
    "Semi-matchings for bipartite graphs and load balancing", 2006).
    """
    movable = chosen.T.astype(np.int64) @ available.astype(np.int64) > 0
    for start in np.argsort(lacking, kind="stable"):
        before: dict[int, int] = {int(start): -1}
        waiting = [int(start)]
        for task in waiting:
            for other in np.flatnonzero(movable[task]):
                if int(other) not in before:
                    before[int(other)] = task
                    waiting.append(int(other))
        end = max(waiting, key=lambda t: lacking[t])
        # Moving one image changes the sum by 2 (lacking[start] - lacking[end] + 1).
        if lacking[end] - lacking[start] > 1 + 1e-9:
            path = [end]
            while before[path[0]] >= 0:
                path.insert(0, before[path[0]])
            return path
    return []


def write_partial_labels(
    path: Path,
    names: Sequence[str],
    tasks: Sequence[str],
    kept: np.ndarray,
    *,
    note: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Keep a choice of labels in a file of :mod:`isthmus.data.label_table`.

    Args:
        path: the file, ``.json``; its folder is made if needed.
        names: names of the images, the rows of ``kept``.
        tasks: the columns of ``kept``.
        kept: ``(n, K)`` bool.
        note: how it was made (setting, seed), for the reader; it means nothing here.
        overwrite: replace a file that is there.

    Raises:
        DataError: names, tasks and ``kept`` do not fit, the file has another suffix, or it is there and was not to be
            replaced.
    """
    if Path(path).suffix.lower() != ".json":
        raise DataError(f"{path}: expected a name that ends in .json for a file of partial labels")
    write_table(Path(path), LabelTable.of(tasks, names, kept), note=note, overwrite=overwrite)


def read_partial_labels(
    path: Path, names: Sequence[str], tasks: Sequence[str], known: Collection[str] = ()
) -> np.ndarray:
    """Which of these images keeps which task's label, from a file of any kind.

    ``.json`` is our own (:mod:`isthmus.data.label_table`), ``.pth`` and ``.npy`` are MTPSL's
    (:mod:`isthmus.data.published_labels`). A label that is kept here need not exist in the data: combine the result
    with the data set's ``present``.

    Args:
        path: the file.
        names: names of the images, the rows; all must be in the file.
        tasks: the columns; the same tasks as in the file, in any order.
        known: other images of the data set that may be in the file (of another part, or left out as unreadable).

    Returns:
        ``(n, K)`` bool.

    Raises:
        DataError: the file is not what it should be, or names or tasks do not fit.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".pth":
        datasets = [name for name, columns in MTPSL_COLUMNS.items() if set(columns) == set(tasks)]
        if not datasets:
            expected = " or ".join(", ".join(columns) for columns in MTPSL_COLUMNS.values())
            raise DataError(f"{path}: tasks: expected {expected} with a .pth file, found {', '.join(tasks)}")
        table = read_mtpsl_pth(path, datasets[0])
    elif suffix == ".npy":
        table = read_mtpsl_npy(path)
    elif suffix == ".json":
        table = read_table(path)
    else:
        raise DataError(f"{path}: expected a .json, .pth or .npy file of partial labels, found {suffix or 'no suffix'}")
    return table.matrix(tasks, names, known)
