"""Three small sets of real objects with PointDA-10's labels: two of CAD models, one of sensor scans.

========== ============================================================ ==================================
name       what it is                                                   classes it lacks
========== ============================================================ ==================================
modelnet10 CAD models of ModelNet10, upright pose by registration       bookshelf, lamp, plant
webcad     models of other collections (Princeton Shape Benchmark,      bathtub
           SHREC, Labeled PSB, free furniture)
realscan   objects cut out of ScanNet scans and SUN RGB-D boxes         bathtub, plant
========== ============================================================ ==================================

The arrays lie in the ``objects`` folder of the data directory that the environment variable ``ISTHMUS_DATA``
names; they may not be redistributed. They are z up. Left out here: models whose upright pose is doubtful
(``align_ok``, ``up_ok``) and objects of none of the ten classes.

Splits: ``modelnet10`` has its official test part and ``webcad`` its suggested one, and of what remains two
objects in ten go to validation (DefRec's rule over the order of the file). ``realscan`` shows the same room
several times, so whole rooms are dealt out, the largest first, each to the part that lacks most of its share
of 60, 20 and 20 % of the objects; a set this small is usually adapted and measured over all its parts.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from isthmus.data.clouds import POINTDA_CLASSES, Part, Sample, eighty_twenty
from isthmus.data.data_directory import data_file
from isthmus.data.files import stamp
from isthmus.errors import DataError

_FILES = {
    "modelnet10": "modelnet10_1024.npz",
    "webcad": "webcad_2048.npz",
    "realscan": "realscan_1024.npz",
}
_FIELDS = {
    "modelnet10": ("points", "pointda_label", "name", "split", "align_ok"),
    "webcad": ("points", "pointda_label", "name", "suggested_split", "up_ok"),
    "realscan": ("points", "pointda_label", "scan", "instance", "room"),
}
_SHARES: dict[Part, int] = {"train": 60, "val": 20, "test": 20}


@dataclass(frozen=True)
class RealObjects:
    """One of the three sets, as a reader.

    Args:
        name: which set.
        root: the data directory that has ``objects/`` in it; ``None`` takes the one ``ISTHMUS_DATA`` names.
    """

    name: Literal["modelnet10", "webcad", "realscan"]
    root: Path | None = None

    def __post_init__(self) -> None:
        if self.name not in _FILES:
            raise DataError(f"name: expected one of {', '.join(_FILES)}, found {self.name!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """PointDA-10's ten classes, also those that the set has no object of."""
        return POINTDA_CLASSES

    @property
    def path(self) -> Path:
        """The file of the set.

        Raises:
            DataError: there is no such file, or neither ``root`` nor ``ISTHMUS_DATA`` is given.
        """
        return data_file(Path("objects") / _FILES[self.name], f"the set {self.name!r}", root=self.root)

    def fingerprint(self) -> dict[str, Any]:
        """The file's name, size and modification time."""
        path = self.path
        return {
            "reader": "real_objects",
            "version": 1,
            "name": self.name,
            "files": stamp([path], path.parent),
        }

    def samples(self) -> Iterator[Sample]:
        """The usable objects in the order of the file.

        Raises:
            DataError: the file cannot be read or lacks an array.
        """
        arrays = _arrays(self.path, _FIELDS[self.name])
        labels = arrays["pointda_label"].astype(np.int64)
        usable = labels >= 0
        for flag in ("align_ok", "up_ok"):
            usable &= arrays.get(flag, True)
        kept = np.flatnonzero(usable)
        if self.name == "realscan":
            names = [f"{scan}/{number}" for scan, number in zip(arrays["scan"], arrays["instance"])]
            groups = [str(room) for room in arrays["room"]]
            parts = _by_room([groups[index] for index in kept])
        else:
            names = [str(name) for name in arrays["name"]]
            groups = [""] * len(names)
            split = arrays["split" if self.name == "modelnet10" else "suggested_split"]
            parts = _by_split([str(part) for part in split[kept]])
        for index, part in zip(kept, parts):
            points = arrays["points"][index].astype(np.float32)
            yield Sample(points, int(labels[index]), names[index], part, groups[index])


def _arrays(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {field: archive[field] for field in fields}
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected the arrays {', '.join(fields)}, found {error}") from error


def _by_split(split: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    training = 0
    for official in split:
        if official == "test":
            parts.append("test")
        else:
            parts.append(eighty_twenty(training))
            training += 1
    return parts


def _by_room(rooms: Sequence[str]) -> list[Part]:
    sizes = Counter(rooms)
    lacking = {part: share * len(rooms) for part, share in _SHARES.items()}
    dealt: dict[str, Part] = {}
    for room in sorted(sizes, key=lambda name: (-sizes[name], name)):
        part = max(lacking, key=lambda name: lacking[name])
        dealt[room] = part
        lacking[part] -= 100 * sizes[room]
    return [dealt[room] for room in rooms]
