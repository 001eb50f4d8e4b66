"""Frames written one after the other into the files of a store, so that a killed process's work can be gone on with.

The large arrays only ever grow. A journal of JSON lines beside them says from time to time how long each was, and what
had been kept and skipped since the line before; the first line holds the number of frames in all. Arrays are on disk
before a line about them is, so whatever lies behind the last whole line is cut off, and writing goes on from there::

    {"version": 1, "entries": 200}
    {"bytes": {"images": 98432, ...}, "size": [64, 112], "kept": [[name, group, part, present, points, projection],
    ...], "skipped": [[name, reason], ...]}

``projection`` is a list of twelve numbers, or null.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from isthmus.data import publish
from isthmus.data.clouds import PARTS, Unreadable
from isthmus.data.frames import NO_LABEL, PER_POINT, Frame
from isthmus.data.publish import Skipped
from isthmus.errors import DataError

JOURNAL_VERSION = 1
JOURNAL_FRAMES = 64
JOURNAL_SECONDS = 10.0
"""A line is written after so many frames, or after the first frame past so many seconds."""


class Kept(NamedTuple):
    """What is known of a frame beside its large arrays."""

    name: str
    group: str
    part: int
    present: bool
    points: int
    projection: list[float] | None


class FrameWriter:
    """Writes the arrays of a store; a context manager.

    Args:
        folder: an existing folder, empty or with what an earlier writer left.
        entries: frames in all; work of a data set with another number is begun afresh.
        journal: the journal; None keeps none, and writes everything anew.

    Attributes:
        size: height and width of the images, (0, 0) where there are none or no frame yet.
        kept: the frames written.
        skipped: those that are not.
    """

    def __init__(self, folder: Path, entries: int, journal: Path | None = None) -> None:
        self._folder, self._entries, self._journal = folder, entries, journal
        self.size: tuple[int, int] = (0, 0)
        self.kept: list[Kept] = []
        self.skipped: list[Skipped] = []
        self._noted = (0, 0)
        self._noted_at = time.monotonic()
        self._stack = ExitStack()
        lengths = self._resumed()
        self._names = {entry.name for entry in self.kept} | {entry.name for entry in self.skipped}
        with ExitStack() as stack:
            self._files: dict[str, BinaryIO] = {
                name: stack.enter_context(open(self._path(name), "r+b" if length else "w+b"))
                for name, length in lengths.items()
            }
            for name, length in lengths.items():
                self._files[name].truncate(length)
                self._files[name].seek(length)
            self._stack = stack.pop_all()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def done(self) -> int:
        """How many frames are behind us, kept or skipped."""
        return len(self.kept) + len(self.skipped)

    def add(self, found: Frame | Unreadable) -> None:
        """Write the next frame, or take down why there is none.

        Raises:
            Unfit: a name that comes twice, a part that is none, or an image of another size than those before.
        """
        try:
            publish.check_sample(found, self._names)
        except DataError as error:
            raise publish.Unfit(str(error)) from None
        if isinstance(found, Unreadable):
            self.skipped.append(Skipped(found.name, found.reason))
        else:
            self._write(found)
        late = time.monotonic() - self._noted_at > JOURNAL_SECONDS
        if late or self.done - sum(self._noted) >= JOURNAL_FRAMES:
            self._note()

    def finish(self, classes: tuple[str, ...], fingerprint: dict[str, Any], version: int) -> None:
        """Write what is known at the end only: headers, the small arrays and the description.

        Raises:
            Unfit: no frame could be used.
        """
        if not self.kept:
            raise publish.Unfit(publish.nothing_usable(self.skipped))
        self._note()
        offsets = np.concatenate([[0], np.cumsum([entry.points for entry in self.kept])]).astype(np.int64)
        self._write_headers(len(self.kept), int(offsets[-1]))
        self._sync()
        projections = np.array([entry.projection or [np.nan] * 12 for entry in self.kept], dtype=np.float64)
        np.save(self._path("offsets"), offsets)
        np.save(self._path("parts"), np.array([entry.part for entry in self.kept], dtype=np.int8))
        np.save(self._path("present"), np.array([entry.present for entry in self.kept], dtype=np.bool_))
        np.save(self._path("projections"), projections.reshape(-1, 3, 4))
        meta = {
            "version": version,
            "classes": list(classes),
            "names": [entry.name for entry in self.kept],
            "groups": [entry.group for entry in self.kept],
            "size": list(self.size),
            "fingerprint": fingerprint,
            "skipped": [entry._asdict() for entry in self.skipped],
        }
        (self._folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        # The journal goes once the store is published, so all of it has to be on disk by then.
        for path in (*map(self._path, ("offsets", "parts", "present", "projections")), self._folder / "meta.json"):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _write(self, frame: Frame) -> None:
        found = (0, 0) if frame.image is None else (frame.image.shape[0], frame.image.shape[1])
        if not self.kept:
            self.size = found
            self._write_headers(0, 0)
        if found != self.size:
            raise publish.Unfit(
                f"{frame.name}: image: expected {_described(self.size)} as in {self.kept[0].name}, found "
                f"{_described(found)}; give a size to which all images are brought, or leave out frames without one"
            )
        if frame.image is not None:
            self._files["images"].write(frame.image.tobytes())
        for name, (dtype, trailing) in PER_POINT.items():
            array = getattr(frame, name)
            if array is None:
                array = np.full((len(frame.points), *trailing), NO_LABEL if name == "labels" else 0, dtype)
            self._files[name].write(np.ascontiguousarray(array).tobytes())
        present = frame.labels is not None and bool((frame.labels != NO_LABEL).any())
        projection = None
        if frame.projection is not None:
            projection = frame.projection.astype(np.float64).ravel().tolist()
        part = PARTS.index(frame.part)
        self.kept.append(Kept(frame.name, frame.group, part, present, len(frame.points), projection))

    def _write_headers(self, frames: int, points: int) -> None:
        publish.write_header(self._files["images"], (frames, *self.size, 3), np.uint8)
        for name, (dtype, trailing) in PER_POINT.items():
            publish.write_header(self._files[name], (points, *trailing), dtype)

    def _sync(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def _note(self) -> None:
        """Bring the arrays to disk, and then a line about them."""
        if self._journal is None or self.done == sum(self._noted):
            return
        self._sync()
        kept, skipped = self._noted
        line = {
            "bytes": {name: file.tell() for name, file in self._files.items()},
            "size": self.size,
            "kept": self.kept[kept:],
            "skipped": self.skipped[skipped:],
        }
        _append(self._journal, line)
        self._noted = (len(self.kept), len(self.skipped))
        self._noted_at = time.monotonic()

    def _resumed(self) -> dict[str, int]:
        """Take over what the journal says was done; the length of each file by then, 0 for one to be begun."""
        lengths = dict.fromkeys(("images", *PER_POINT), 0)
        if self._journal is None:
            return lengths
        whole = 0
        for number, (line, end) in enumerate(_lines(self._journal)):
            try:
                if number == 0:
                    if line != self._first:
                        break
                else:
                    said = {name: int(line["bytes"][name]) for name in lengths}
                    if any(length > _length(self._path(name)) for name, length in said.items()):
                        break
                    kept = [Kept(*entry) for entry in line["kept"]]
                    skipped = [Skipped(*entry) for entry in line["skipped"]]
                    height, width = line["size"]
            except (KeyError, TypeError, ValueError):
                break
            whole = end
            if number:
                lengths, self.size = said, (height, width)
                self.kept += kept
                self.skipped += skipped
        if whole:
            os.truncate(self._journal, whole)
        else:
            self._journal.unlink(missing_ok=True)
            _append(self._journal, self._first)
        self._noted = (len(self.kept), len(self.skipped))
        return lengths

    @property
    def _first(self) -> dict[str, int]:
        return {"version": JOURNAL_VERSION, "entries": self._entries}


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> list[tuple[Any, int]]:
    """The whole lines of a journal, each with the place of its end; whatever follows a broken one is not looked at."""
    found: list[tuple[Any, int]] = []
    end = 0
    content = path.read_bytes() if path.is_file() else b""
    for line in content.splitlines(keepends=True):
        end += len(line)
        try:
            found.append((json.loads(line), end))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            found.pop()
    return found


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _described(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels (height x width)" if any(size) else "none"
