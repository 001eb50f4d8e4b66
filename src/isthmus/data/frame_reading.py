"""Frames read by several processes, checked, and brought to one size, in the order of the data set.

Worker processes read runs of neighbouring frames, since neighbours may share what is costly to make (a simulated
street). They are forked where the system can: a script needs no ``__main__`` guard, a reader defined in it needs not be
picklable, and what the reader has loaded by then is shared. Workers touch NumPy and Pillow only.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from isthmus.data.clouds import PARTS, Unreadable
from isthmus.data.frames import NO_LABEL, PER_POINT, Frame, FrameReader
from isthmus.data.image_resize import resized_image
from isthmus.errors import IsthmusError

RUN = 4
"""Frames that a worker reads in a row; runs begin at multiples of it."""


class WorkerLost(IsthmusError):
    """A worker process ended before it was done, which is no fault of the data."""


@contextmanager
def read_frames(
    reader: FrameReader,
    entries: Sequence[Any],
    size: tuple[int, int] | None,
    *,
    start: int = 0,
    workers: int = 0,
    forked: Callable[[], None] | None = None,
) -> Iterator[Iterator[Frame | Unreadable]]:
    """Frames in the order of their entries, as :func:`checked` leaves them, while the context lasts.

    Workers are started when it is entered, and have ended when it is left in whatever way.

    Args:
        reader: the data set.
        entries: ``reader.entries()``.
        size: height and width of the images; None leaves them as they are.
        start: the first entry that is read.
        workers: processes that read; 0 reads in this one. There are never more than runs of frames.
        forked: called in each worker that is forked, before it reads anything.

    Raises:
        DataError: what the reader raises, in a worker as well.
        WorkerLost: a worker process was killed.
    """
    runs = [
        range(max(start, first), min(first + RUN, len(entries)))
        for first in range(start - start % RUN, len(entries), RUN)
    ]
    source = _Runs(reader, entries, size)
    if not workers or len(runs) < 2:
        yield (_raised(found) for run in runs for found in source.each(run))
        return
    # Torch is a large import, which reading in this process does without.
    import torch
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        # More workers than CPUs are of use where files come over a network.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: DataLoader[list[Frame | Unreadable | _Failure]] = DataLoader(
            source,  # type: ignore[arg-type]
            batch_size=None,
            sampler=runs,
            num_workers=min(workers, len(runs)),
            collate_fn=_unchanged,
            worker_init_fn=None if forked is None or not can_fork() else lambda _: forked(),
            multiprocessing_context="fork" if can_fork() else None,
            # Without one of its own, the loader would draw from torch's global generator.
            generator=torch.Generator(),
        )
        received: Any = iter(loader)
    try:
        yield (_raised(found) for run in received for found in run)
    except RuntimeError as error:
        # The loader's handler of signals raises this at any place, in what the caller does as well.
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise WorkerLost(
            f"a process that reads frames ended, perhaps for want of memory ({str(error).strip()}); a new call goes on "
            f"where this one was, and may use fewer workers"
        ) from error
    finally:
        # The loader would do so when its iterator is forgotten, which the traceback of an error may long prevent.
        received._shutdown_workers()


def can_fork() -> bool:
    """Whether processes are forked; elsewhere a script that uses workers needs a ``__main__`` guard."""
    # On macOS the system's own libraries may hang in a forked process.
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


def reading_workers(most: int) -> int:
    """How many processes read frames where nobody said: one for each usable CPU up to ``most``; 0 for a single CPU.

    0 as well where processes cannot be forked, or this one may have no children.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if usable < 2 or not can_fork() or multiprocessing.current_process().daemon:
        return 0
    return min(most, usable)


def checked(found: Frame | Unreadable, classes: int, size: tuple[int, int] | None) -> Frame | Unreadable:
    """A frame with its image at ``size``; one that is not what it should be as ``Unreadable``.

    A part that is none is let pass: it is an error of the whole data set.
    """
    if isinstance(found, Unreadable) or found.part not in PARTS:
        return found
    problem = frame_problem(found, classes)
    return Unreadable(found.name, problem) if problem else resized_frame(found, size)


def frame_problem(frame: Frame, classes: int) -> str:
    """Why a frame is not what :class:`isthmus.data.frames.Frame` says, or "" if it is."""
    count = len(frame.points)
    if not count:
        return "points: expected at least one (inside the image, where there is one), found none"
    for name, (dtype, trailing) in PER_POINT.items():
        array = getattr(frame, name)
        if array is None:
            continue
        if array.dtype != dtype or array.shape != (count, *trailing):
            return f"{name}: expected {dtype} {(count, *trailing)}, found {array.dtype} {array.shape}"
        if dtype == "float32" and not np.isfinite(array).all():
            return f"{name}: expected finite numbers, found {int((~np.isfinite(array)).sum())} others"
    if frame.labels is not None:
        wrong = frame.labels[(frame.labels >= classes) & (frame.labels != NO_LABEL)]
        if len(wrong):
            return f"labels: expected 0 to {classes - 1} or {NO_LABEL}, found {wrong[0]} among {len(wrong)} points"
    if (frame.image is None) != (frame.pixels is None):
        there, missing = ("image", "pixels") if frame.pixels is None else ("pixels", "image")
        return f"{missing}: expected them with {there}, found none"
    if frame.image is not None and frame.pixels is not None:
        image = frame.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            return f"image: expected uint8 (H, W, 3), found {image.dtype} {image.shape}"
        outside = ((frame.pixels < 0) | (frame.pixels >= image.shape[:2])).any(axis=1)
        if outside.any():
            return f"pixels: expected them inside {image.shape[0]} x {image.shape[1]}, found {outside.sum()} outside"
    if frame.projection is not None and frame.projection.shape != (3, 4):
        return f"projection: expected shape (3, 4), found {frame.projection.shape}"
    return ""


def resized_frame(frame: Frame, size: tuple[int, int] | None) -> Frame:
    """The frame with its image, pixels and projection at another size, height and width."""
    if frame.image is None or frame.pixels is None or size is None or frame.image.shape[:2] == tuple(size):
        return frame
    old, new = np.array(frame.image.shape[:2], dtype=np.float64), np.array(size, dtype=np.float64)
    ratio = new / old
    # Rounding must not move a point on the far border out of the image.
    pixels = np.minimum((frame.pixels * ratio).astype(np.float32), np.nextafter(new.astype(np.float32), np.float32(0)))
    projection = frame.projection
    if projection is not None:
        projection = projection * np.array([ratio[1], ratio[0], 1.0])[:, None]
    return frame._replace(image=resized_image(frame.image, size), pixels=pixels, projection=projection)


class _Failure(NamedTuple):
    """An error of the data on its way from a worker: a loader would wrap its text into a traceback."""

    kind: type[IsthmusError]
    text: str


class _Runs:
    """Runs of frames, as a map-style data set."""

    def __init__(self, reader: FrameReader, entries: Sequence[Any], size: tuple[int, int] | None) -> None:
        self._reader, self._entries, self._size = reader, entries, size
        self._classes = len(reader.classes)

    def __getitem__(self, run: range) -> list[Frame | Unreadable | _Failure]:
        return list(self.each(run))

    def each(self, run: range) -> Iterator[Frame | Unreadable | _Failure]:
        """The frames of a run up to the first failure."""
        for number in run:
            try:
                yield checked(self._reader.read(self._entries[number]), self._classes, self._size)
            except IsthmusError as error:
                yield _Failure(type(error), str(error))
                return


def _raised(found: Frame | Unreadable | _Failure) -> Frame | Unreadable:
    if isinstance(found, _Failure):
        raise found.kind(found.text)
    return found


def _unchanged(run: list[Frame | Unreadable | _Failure]) -> list[Frame | Unreadable | _Failure]:
    return run
