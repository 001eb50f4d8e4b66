"""LiDAR sweeps with images, read once, checked, and kept where random batches are cheap.

:func:`prepare_frames` turns any reader of frames into a folder of arrays which :class:`FrameStore` opens by memory
mapping. Sweeps differ in length, so all their points lie one after the other and ``offsets`` says where each begins.
What happens to a frame:

1. one whose arrays are not what :class:`isthmus.data.frames.Frame` says (types, lengths, numbers that are not finite, a
   class beyond the classes, a pixel outside the image, no point at all) is skipped, counted and listed with the reason;
2. with a size given, the image is resampled bilinearly to it, and pixels and projection are scaled along;
3. a label without a single labelled point counts as absent.

Frames are read by as many processes as wanted (``isthmus.data.frame_reading``) and written to disk one by one
(``isthmus.data.frame_writer``), so memory holds up to eight of them for each process, and work that was interrupted is
gone on with. A data set either has an image in every frame or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data import publish
from isthmus.data.clouds import PARTS
from isthmus.data.frame_reading import checked, read_frames
from isthmus.data.frame_writer import FrameWriter
from isthmus.data.frames import NO_LABEL, PER_POINT, Frame, FrameReader, frames
from isthmus.data.publish import Skipped, open_array, read_meta
from isthmus.errors import DataError

FRAME_STORE_VERSION = 1

_META_FIELDS = {
    "classes": list,
    "names": list,
    "groups": list,
    "size": list,
    "fingerprint": dict,
    "skipped": list,
}


class FrameStore:
    """A prepared data set of frames on disk.

    Labels are opened when they are first asked for and not before, so a target domain whose labels nobody reads trains
    without the file.

    Args:
        path: the folder that :func:`prepare_frames` returned in ``FrameStore.path``.

    Attributes:
        classes: names of the classes.
        size: height and width of every image; (0, 0) where there are none.
        names, groups: ``n`` unique names, and what must be resampled together.
        offsets: ``(n + 1,)`` int64; the points of frame i are rows ``offsets[i]`` to ``offsets[i + 1]``.
        points: ``(sum N, 3)`` float32 memory map, metres.
        pixels: ``(sum N, 2)`` float32 memory map, row and column.
        intensity: ``(sum N,)`` float32 memory map, zeros where the data set has none.
        images: ``(n, H, W, 3)`` uint8 memory map.
        projections: ``(n, 3, 4)`` float64, NaN where a frame has none.
        parts: ``(n,)`` int8, index into ``isthmus.data.clouds.PARTS``.
        present: ``(n,)`` bool, which frame carries labels.
        skipped: frames left out, with reasons.
        fingerprint: what the reader said that the data depends on.

    Raises:
        DataError: a file is missing, truncated or not what ``prepare_frames`` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        meta = read_meta(self.path / "meta.json", _META_FIELDS)
        self.classes: tuple[str, ...] = tuple(meta["classes"])
        self.names: tuple[str, ...] = tuple(meta["names"])
        self.groups: tuple[str, ...] = tuple(meta["groups"])
        if len(self.groups) != len(self.names) or len(meta["size"]) != 2:
            raise DataError(
                f"{self.path / 'meta.json'}: expected a group for each name and a size of two numbers, found "
                f"{len(self.groups)} groups for {len(self.names)} names and size {meta['size']}; delete {self.path} "
                "to prepare it again"
            )
        self.size: tuple[int, int] = (meta["size"][0], meta["size"][1])
        self.skipped: tuple[Skipped, ...] = tuple(Skipped(**entry) for entry in meta["skipped"])
        self.fingerprint: dict[str, Any] = meta["fingerprint"]
        count = len(self)
        self.offsets = np.array(open_array(self.path / "offsets.npy", (count + 1,), np.int64))
        self.points = self._open("points")
        self.pixels = self._open("pixels")
        self.intensity = self._open("intensity")
        self.images = open_array(self.path / "images.npy", (count, *self.size, 3), np.uint8)
        self.projections = open_array(self.path / "projections.npy", (count, 3, 4), np.float64)
        self.parts = np.array(open_array(self.path / "parts.npy", (count,), np.int8))
        self.present = np.array(open_array(self.path / "present.npy", (count,), np.bool_))
        self._labels: np.ndarray | None = None

    def _open(self, name: str) -> np.ndarray:
        dtype, trailing = PER_POINT[name]
        return open_array(self.path / f"{name}.npy", (int(self.offsets[-1]), *trailing), dtype)

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[type[FrameStore], tuple[Path]]:
        """Travel to a worker process as a path: a pickled memory map would carry all its points along."""
        return FrameStore, (self.path,)

    @property
    def has_sweeps(self) -> bool:
        """Whether points lie in space; those of photographs alone do not."""
        return bool(self.fingerprint.get("sweeps", True))

    @property
    def labels(self) -> np.ndarray:
        """``(sum N,)`` uint8 memory map, class indices or :data:`isthmus.data.frames.NO_LABEL`."""
        if self._labels is None:
            self._labels = self._open("labels")
        return self._labels

    def indices(self, part: str) -> np.ndarray:
        """Positions of the frames of one part ("train", "val" or "test"), ascending, int64."""
        if part not in PARTS:
            raise DataError(f"part: expected one of {', '.join(PARTS)}, found {part!r}")
        return np.flatnonzero(self.parts == PARTS.index(part))

    def content(self, row: int) -> bytes:
        """A sweep's points, which tell it from others of the same name."""
        return np.asarray(self.points[self.offsets[row] : self.offsets[row + 1]]).tobytes()


def prepare_frames(
    reader: FrameReader, cache: Path, size: tuple[int, int] | None, *, workers: int = 0, progress: bool = False
) -> FrameStore:
    """Read a data set once, or open what an earlier call with the same data left behind.

    A process that is killed leaves no half store, and the next call goes on where it was. Two processes may prepare the
    same data at once; the second begins from the first frame, and the slower one throws its copy away.

    Args:
        reader: the data set.
        cache: folder that holds stores, made if needed.
        size: height and width to which images are brought; ``None`` keeps their own size, which must then be the same
            for all.
        workers: processes that read frames, 0 or more; with 0 this one reads. The store is the same.
        progress: show a progress line on standard error.

    Raises:
        DataError: no usable frame at all; images of several sizes and no ``size``; images in some frames only; a part
            out of range; a name that comes twice; no classes, or more than 255; a negative number of workers; or an
            existing store that is damaged.
        WorkerLost: a worker process was killed.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"size: expected a height and a width of at least 1, found {size}")
    if not 0 < len(reader.classes) <= NO_LABEL:
        raise DataError(f"classes: expected 1 to {NO_LABEL}, found {len(reader.classes)}")
    if workers < 0:
        raise DataError(f"workers: expected 0 or more, found {workers}")
    fingerprint = reader.fingerprint()
    everything = {
        "store": "frames",
        "fingerprint": fingerprint,
        "classes": list(reader.classes),
        "size": size and list(size),
        "version": FRAME_STORE_VERSION,
    }
    final = Path(cache) / publish.key(everything)

    def write(folder: Path, journal: Path | None, forked: Callable[[], None] | None) -> None:
        entries = reader.entries()
        with FrameWriter(folder, len(entries), journal) as writer:
            start = writer.done
            with (
                read_frames(reader, entries, size, start=start, workers=workers, forked=forked) as found,
                publish.progress_line("frames", shown=progress, total=len(entries), start=start) as show,
            ):
                show(start, len(writer.skipped))
                for each in found:
                    writer.add(each)
                    show(writer.done, len(writer.skipped))
            writer.finish(reader.classes, fingerprint, FRAME_STORE_VERSION)

    publish.build_resumable(final, write)
    return FrameStore(final)


def usable(reader: FrameReader, skipped: list[Skipped]) -> Iterator[Frame]:
    """Every usable frame as it was read; the others are added to ``skipped``."""
    classes = len(reader.classes)
    return publish.readable((checked(found, classes, None) for found in frames(reader)), skipped)
