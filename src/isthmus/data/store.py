"""Object clouds, read once, made alike, and kept where random batches are cheap.

:func:`prepare` turns any reader into a folder of arrays which :class:`CloudStore` opens by memory mapping, so
a prepared data set starts in milliseconds and its memory is shared between processes. What happens to a
cloud:

1. its mean (over all its points) moves to the origin and its largest radius becomes 1;
2. with fewer than ``MIN_POINTS`` distinct points, or a number that is not finite, the object is skipped,
   counted and listed with the reason;
3. a cloud of more than ``REDUCE * size`` points is first thinned to that many by a random choice that depends
   on nothing but its size (the farthest point always stays). Farthest-point sampling costs
   ``points * size`` steps, and four candidates per point kept already give an even covering;
4. farthest-point sampling orders it, starting at the point farthest from the centre, so the first m points
   are the even subsample of m points, for every m;
5. a cloud with fewer than ``size`` distinct points is continued by repeating those in that order.

Steps 1 and 4 are those of PointDA-10 as DefRec prepares it (Achituve, Maron, Chechik, "Self-Supervised
Learning for Domain Adaptation on Point Clouds", WACV 2021). Differences: the start of the sampling is fixed
rather than drawn at each reading, so every run sees the same points. Because the mean is that of the whole
cloud, the mean of the stored subsample is near the origin but not at it.

Labels of points, where the reader gives any, go the way of their points through steps 3 to 5 and into a file of
their own, ``point_labels.npy``. A store of objects without them has no such file.

Only ``np.load(allow_pickle=False)`` reads the arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.data import publish
from isthmus.data.clouds import NO_POINT_LABEL, PARTS, Reader, Sample
from isthmus.data.publish import Skipped, open_array, read_meta
from isthmus.errors import DataError
from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.geometry.transforms import unit_sphere

STORE_VERSION = 1
MIN_POINTS = 16
REDUCE = 4

_BATCH = 128
_STALE_SECONDS = publish.STALE_SECONDS
_META_FIELDS = {
    "classes": list,
    "names": list,
    "groups": list,
    "size": int,
    "fingerprint": dict,
    "skipped": list,
}


class CloudStore:
    """A prepared data set on disk.

    Opening checks that every file has the size its header promises, so a truncated cache is reported here and
    not as a crash in the middle of an epoch.

    Args:
        path: the folder that :func:`prepare` returned in ``CloudStore.path``.

    Attributes:
        points: ``(n, size, 3)`` float32 memory map, z up, largest radius 1; any prefix along the second axis
            is an even subsample.
        parts: ``(n,)`` int8, index into ``isthmus.data.clouds.PARTS``.
        classes: the data set's own classes.
        names: ``n`` unique names.
        groups: ``n`` groups, ``""`` where there is none.
        size: points per cloud.
        skipped: objects left out, with reasons.
        fingerprint: what the reader said that the data depends on.

    Raises:
        DataError: a file is missing, truncated or not what ``prepare`` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        meta = read_meta(self.path / "meta.json", _META_FIELDS)
        self.classes: tuple[str, ...] = tuple(meta["classes"])
        self.names: tuple[str, ...] = tuple(meta["names"])
        self.groups: tuple[str, ...] = tuple(meta["groups"])
        self.size: int = meta["size"]
        self.skipped: tuple[Skipped, ...] = tuple(Skipped(**entry) for entry in meta["skipped"])
        self.fingerprint: dict[str, Any] = meta["fingerprint"]
        self.points = open_array(self.path / "points.npy", (len(self), self.size, 3), np.float32)
        self.parts = np.array(open_array(self.path / "parts.npy", (len(self),), np.int8))

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[type[CloudStore], tuple[Path]]:
        """Travel to a worker process as a path: a pickled memory map would carry all its points along."""
        return CloudStore, (self.path,)

    @cached_property
    def labels(self) -> np.ndarray:
        """``(n,)`` int64, index into ``classes`` or -1.

        The file is opened at the first access and not before: a target domain whose labels nobody asks for
        trains without them, even if ``labels.npy`` is taken away.

        Raises:
            DataError: the file is missing or not what ``prepare`` writes.
        """
        return np.array(open_array(self.path / "labels.npy", (len(self),), np.int64))

    @cached_property
    def point_labels(self) -> np.ndarray:
        """``(n, size)`` uint8 memory map, index into ``classes`` or 255; aligned with ``points``.

        Opened at the first access and not before, as :attr:`labels`.

        Raises:
            DataError: the points of this data set have no labels, or the file is not what ``prepare`` writes.
        """
        path = self.path / "point_labels.npy"
        if not path.exists():
            raise DataError(f"{path}: expected a label for each point, found a data set without labels of points")
        return open_array(path, (len(self), self.size), np.uint8)

    def indices(self, part: str) -> np.ndarray:
        """Positions of the clouds of one part ("train", "val" or "test"), ascending, int64."""
        if part not in PARTS:
            raise DataError(f"part: expected one of {', '.join(PARTS)}, found {part!r}")
        return np.flatnonzero(self.parts == PARTS.index(part))


@dataclass
class CheckReport:
    """What :func:`check` found.

    ``counts`` gives, for each part, the number of usable clouds of every class in the order of ``classes``;
    ``unlabelled`` the number without a class; ``problems`` the objects that cannot be used, with reasons. A cloud
    with labels of points counts for every class that one of its points has.
    """

    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    unlabelled: int = 0
    problems: list[Skipped] = field(default_factory=list)


def prepare(reader: Reader, cache: Path, size: int, *, progress: bool = False) -> CloudStore:
    """Read a data set once, or open what an earlier call with the same data left behind.

    The store is written into a private folder and renamed at the end. So a process that is killed leaves no
    half store (its folder is removed once nothing has been written into it for an hour), and of two processes
    preparing the same data the slower one throws its copy away and uses the other's.

    Args:
        reader: the data set.
        cache: folder that holds stores, made if needed; the store's own folder in it is named by a hash of
            the reader's fingerprint, ``size`` and ``STORE_VERSION``.
        size: points kept per cloud, at least 1.
        progress: show a progress line on standard error.

    Raises:
        DataError: no usable sample at all, a label or a part out of range, a name that comes twice, or an
            existing store that is damaged.
    """
    if size < 1:
        raise DataError(f"size: expected at least 1 point per cloud, found {size}")
    cache = Path(cache)
    fingerprint = reader.fingerprint()
    final = cache / _key(fingerprint, size)
    publish.build(
        final, lambda folder: _write(reader, folder, size, fingerprint, progress), stale_seconds=_STALE_SECONDS
    )
    return CloudStore(final)


def check(reader: Reader) -> CheckReport:
    """Read everything that :func:`prepare` would read and write nothing.

    Raises:
        DataError: as :func:`prepare`, except that a data set without any usable sample is a report of zeros.
    """
    report = CheckReport(reader.classes, {part: [0] * len(reader.classes) for part in PARTS})
    for sample, _ in _usable(reader, report.problems):
        if sample.point_labels is not None:
            found = np.unique(sample.point_labels[sample.point_labels != NO_POINT_LABEL])
            for label in found.tolist():
                report.counts[sample.part][label] += 1
            report.unlabelled += not len(found)
        elif sample.label < 0:
            report.unlabelled += 1
        else:
            report.counts[sample.part][sample.label] += 1
    return report


def _usable(reader: Reader, skipped: list[Skipped]) -> Iterator[tuple[Sample, np.ndarray]]:
    """Every usable sample with its normalised points; the others are added to ``skipped``."""
    for sample in publish.readable(reader.samples(), skipped):
        if not -1 <= sample.label < len(reader.classes):
            raise DataError(f"{sample.name}: label: expected -1 to {len(reader.classes) - 1}, found {sample.label}")
        _check_point_labels(sample, len(reader.classes))
        points = normalised(sample.points)
        if isinstance(points, str):
            skipped.append(Skipped(sample.name, points))
        else:
            yield sample, points


def _check_point_labels(sample: Sample, classes: int) -> None:
    labels = sample.point_labels
    if labels is None:
        return
    if labels.shape != sample.points.shape[:1] or labels.dtype != np.uint8:
        raise DataError(
            f"{sample.name}: point_labels: expected uint8 of shape {sample.points.shape[:1]}, one for each point, "
            f"found {labels.dtype} of shape {labels.shape}"
        )
    wrong = labels[(labels >= classes) & (labels != NO_POINT_LABEL)]
    if len(wrong):
        raise DataError(
            f"{sample.name}: point_labels: expected 0 to {classes - 1}, or {NO_POINT_LABEL} for none, found {wrong[0]}"
        )


def normalised(points: np.ndarray) -> np.ndarray | str:
    """The cloud in the unit sphere, ``(n, 3)`` float32; or why it cannot be used."""
    if points.ndim != 2 or points.shape[1] != 3:
        return f"expected points of shape (n, 3), found {points.shape}"
    if not np.issubdtype(points.dtype, np.floating):
        return f"expected floating-point coordinates, found {points.dtype}"
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        return f"expected finite coordinates, found NaN or infinity in {int((~finite).sum())} points"
    if len(points) < MIN_POINTS:
        return f"expected at least {MIN_POINTS} points, found {len(points)}"
    unit = unit_sphere(points)
    distinct = len(np.unique(unit, axis=0))
    if distinct < MIN_POINTS:
        return f"expected at least {MIN_POINTS} distinct points, found {distinct} among {len(points)}"
    return unit


def _thinned(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most ``count`` of the points, ascending, that of the farthest from the centre among them."""
    if len(points) <= count:
        return np.arange(len(points))
    farthest = int((points**2).sum(axis=1).argmax())
    kept = np.random.default_rng(len(points)).choice(len(points), count, replace=False)
    if farthest not in kept:
        kept[0] = farthest
    return np.sort(kept)


def farthest_order(clouds: list[np.ndarray], size: int) -> np.ndarray:
    """``(len(clouds), size)`` int64: which point of each cloud is at each place of farthest-point order.

    Cut, or repeated, to ``size``.
    """
    kept = [_thinned(cloud, REDUCE * size) for cloud in clouds]
    out = np.empty((len(clouds), size), dtype=np.int64)
    by_length: dict[int, list[int]] = {}
    for index, rows in enumerate(kept):
        by_length.setdefault(len(rows), []).append(index)
    for length, members in by_length.items():
        batch = torch.from_numpy(np.stack([clouds[index][kept[index]] for index in members]))
        # Named, because thinning can move the centroid of a cloud, which is the origin, a little.
        farthest = batch.square().sum(dim=2).argmax(dim=1)
        order = farthest_point_order(batch, min(length, size), farthest).numpy()
        for row, index in enumerate(members):
            chosen = kept[index][order[row]]
            # Points that coincide with a chosen one are 0 away from it, so all the distinct ones come first.
            distinct = len(np.unique(clouds[index][chosen], axis=0))
            out[index] = chosen[np.arange(size) % distinct]
    return out


def in_farthest_order(clouds: list[np.ndarray], size: int) -> np.ndarray:
    """``(len(clouds), size, 3)``: every cloud in farthest-point order, cut or repeated to ``size``."""
    return _taken(clouds, farthest_order(clouds, size))


def _taken(clouds: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    return np.stack([cloud[rows] for cloud, rows in zip(clouds, order)]).astype(np.float32, copy=False)


def _write(reader: Reader, folder: Path, size: int, fingerprint: dict[str, Any], progress: bool) -> None:
    skipped: list[Skipped] = []
    kept: list[Sample] = []
    pending: list[np.ndarray] = []
    pending_labels: list[np.ndarray | None] = []
    point_labels: list[np.ndarray | None] = []
    with open(folder / "points.npy", "w+b") as file, publish.progress_line("clouds", shown=progress) as show:

        def flush() -> None:
            if pending:
                order = farthest_order(pending, size)
                file.write(_taken(pending, order).tobytes())
                point_labels.extend(
                    None if labels is None else labels[rows] for labels, rows in zip(pending_labels, order)
                )
                pending.clear()
                pending_labels.clear()
            show(len(kept), len(skipped))

        publish.write_header(file, (0, size, 3), np.float32)
        for sample, points in _usable(reader, skipped):
            kept.append(sample._replace(points=np.empty((0, 3), np.float32), point_labels=None))
            pending.append(points)
            pending_labels.append(sample.point_labels)
            if len(pending) == _BATCH:
                flush()
        flush()
        if not kept:
            raise DataError(publish.nothing_usable(skipped))
        publish.write_header(file, (len(kept), size, 3), np.float32)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "labels.npy", np.array([sample.label for sample in kept], dtype=np.int64))
    np.save(folder / "parts.npy", np.array([PARTS.index(sample.part) for sample in kept], dtype=np.int8))
    if any(labels is not None for labels in point_labels):
        none = np.full(size, NO_POINT_LABEL, dtype=np.uint8)
        np.save(folder / "point_labels.npy", np.stack([none if labels is None else labels for labels in point_labels]))
    meta = {
        "version": STORE_VERSION,
        "classes": reader.classes,
        "names": [sample.name for sample in kept],
        "groups": [sample.group for sample in kept],
        "size": size,
        "fingerprint": fingerprint,
        "skipped": [entry._asdict() for entry in skipped],
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _key(fingerprint: dict[str, Any], size: int) -> str:
    return publish.key({"fingerprint": fingerprint, "size": size, "version": STORE_VERSION})
