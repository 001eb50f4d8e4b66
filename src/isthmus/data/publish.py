"""What every store of a prepared data set shares: where it lies, how it gets there, and how its files are checked.

A store is a folder named by a hash of everything it depends on. It is written into a private folder beside its final
place and renamed at the end, so a process that is killed leaves no half store, and of two processes preparing the same
data the slower one throws its copy away. A store that takes hours to write can be gone on with
(:func:`build_resumable`): its folder in the making is named by the store and locked by whoever writes.

The name follows from names, sizes and times of files; ``contents.sha256`` from what was read out of them, so a copy of
a data set is known to be the same data once it is prepared too (:func:`known_as`).

Only ``np.load(allow_pickle=False)`` reads the arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isthmus.data import folder_lock
from isthmus.data.clouds import PARTS, Part, Unreadable
from isthmus.errors import DataError

STALE_SECONDS = 3600.0
RESUMABLE_SECONDS = 7 * 24 * 3600.0
PATIENCE_SECONDS = 3.0
"""In which a worker that has just been forked by a process that was killed then lets go of the lock."""

_TEMPORARY = ".preparing-"
_JOURNAL, _STORE = "journal.jsonl", "store"
_META, _CONTENTS, _HASH_LENGTH = "meta.json", "contents.sha256", 64
_NOT_SAMPLES = ("fingerprint", "skipped")
"""Fields of a description that tell where samples came from, not what they are."""


class Skipped(NamedTuple):
    """A sample that is not in the store, and why."""

    name: str
    reason: str


class Unfit(DataError):
    """A data set of which no store can be made as it is: another try would end the same way, so no work is kept."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def part(self) -> Part: ...


SampleT = TypeVar("SampleT", bound=_Named)


def key(everything: dict[str, Any]) -> str:
    """Name of the folder of a store that depends on these JSON values and nothing else."""
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def build(final: Path, write: Callable[[Path], None], *, stale_seconds: float = STALE_SECONDS) -> None:
    """Have ``write`` fill a private folder, and make it ``final`` unless that exists by then.

    Folders that killed processes left beside ``final`` are removed once nothing has been written into them for
    ``stale_seconds``.
    """
    if final.exists():
        return
    cache = final.parent
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache, stale_seconds)
    temporary = _private(cache)
    temporary.mkdir()
    try:
        write(temporary)
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_resumable(final: Path, write: Callable[[Path, Path | None, Callable[[], None] | None], None]) -> None:
    """As :func:`build`, but what a process had written when it was killed is there for the next.

    The work lies in a folder beside ``final`` whose name follows from it. Another process that prepares the same data
    at once works in a private folder, as with :func:`build`. Work is kept for :data:`RESUMABLE_SECONDS` after it was
    last written to, and not at all after :class:`Unfit`.

    Args:
        final: the folder of the store.
        write: is given the folder to fill, which may hold what an earlier call left; the file for its journal, or None
            where nothing can be gone on with; and what a forked process has to call, or None, lest one that outlives
            this process holds the lock.
    """
    if final.exists():
        return
    cache = final.parent
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / f"{_TEMPORARY}{final.name}"
    _remove_stale(cache, STALE_SECONDS, spared=work)
    end = time.monotonic() + PATIENCE_SECONDS
    while (lock := folder_lock.hold(work)) is None and time.monotonic() < end:
        time.sleep(0.1)
    if lock is None:
        build(final, lambda folder: write(folder, None, None))
        return
    with lock:
        try:
            # Whoever held the lock before may have finished.
            if not final.exists():
                (work / _STORE).mkdir(exist_ok=True)
                write(work / _STORE, work / _JOURNAL, lock.close)
                _publish(work / _STORE, final)
        except Unfit:
            folder_lock.discard(work, _private(cache))
            raise
        folder_lock.discard(work, _private(cache))


def known_as(folder: Path) -> tuple[str, ...]:
    """What the data of a store is known by: a hash of its samples, which an older store lacks, and the folder name."""
    file = folder / _CONTENTS
    contents = file.read_text().strip() if file.is_file() else ""
    return (contents, folder.name) if len(contents) == _HASH_LENGTH else (folder.name,)


def readable(samples: Iterable[SampleT | Unreadable], skipped: list[Skipped]) -> Iterator[SampleT]:
    """The samples that could be read; the others are added to ``skipped``.

    Raises:
        DataError: a name that comes twice, or a part that is none.
    """
    names: set[str] = set()
    for sample in samples:
        check_sample(sample, names)
        if isinstance(sample, Unreadable):
            skipped.append(Skipped(sample.name, sample.reason))
        else:
            yield sample


def check_sample(sample: _Named | Unreadable, names: set[str]) -> None:
    """Check a sample's name, which is added to those seen, and the part of one that could be read.

    Raises:
        DataError: a name that comes twice, or a part that is none.
    """
    if sample.name in names:
        raise DataError(f"{sample.name}: expected every name once in a data set, found it twice")
    names.add(sample.name)
    if not isinstance(sample, Unreadable) and sample.part not in PARTS:
        raise DataError(f"{sample.name}: part: expected one of {', '.join(PARTS)}, found {sample.part!r}")


def left_out(domain: str, skipped: Sequence[Skipped]) -> list[str]:
    """A line that says how many samples of a domain could not be used, and why the first; none where all can."""
    if not skipped:
        return []
    first = skipped[0]
    return [f"{domain}: {len(skipped)} left out, the first: {first.name}: {first.reason} (all: isthmus data check)"]


def nothing_usable(skipped: list[Skipped]) -> str:
    """The message for a data set without a single usable sample."""
    if not skipped:
        return "expected a data set with at least one sample, found none"
    reasons = Counter(entry.reason for entry in skipped).most_common(3)
    listed = "; ".join(f"{reason} ({count}x)" for reason, count in reasons)
    return (
        f"expected at least one usable sample, found {len(skipped)} unusable ones, the first "
        f"{skipped[0].name!r}: {listed}"
    )


@contextmanager
def progress_line(
    what: str, *, shown: bool, total: int | None = None, start: int = 0
) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error, "preparing 12 clouds, 1 skipped", updated by calls with the two numbers.

    With a total it says "preparing 12 of 200 frames, 1 skipped", the time that is left, and from where on if ``start``
    samples were there already.
    """
    known = "" if total is None else f" of {total}"
    resumed = f", going on from {start}" if start else ""
    display = Progress(
        SpinnerColumn(),
        TextColumn(f"preparing {{task.completed}}{known} {what}, {{task.fields[skipped]}} skipped{resumed}"),
        TimeElapsedColumn(),
        *(() if total is None else (TextColumn("left"), TimeRemainingColumn())),
        console=Console(stderr=True),
        disable=not shown,
    )
    with display:
        task = display.add_task("preparing", total=total, completed=start, skipped=0)
        yield lambda done, skipped: display.update(task, completed=done, skipped=skipped)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: str | type[np.generic]) -> None:
    """Put an npy header at the start of the file; a later, longer shape needs no more room than the first.

    The number of rows is known only at the end. NumPy leaves room in the header for the first axis to grow.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    description = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    if end:
        file.seek(end)


def read_meta(path: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    """A store's description, with values of these types.

    Raises:
        DataError: it is missing, damaged, or lacks a field.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: expected the description of a store, found {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, found {error}; delete {path.parent} to prepare it again") from error
    for name, kind in fields.items():
        found = meta.get(name) if isinstance(meta, dict) else None
        if not isinstance(found, kind):
            raise DataError(
                f"{path}: {name}: expected a {kind.__name__}, found {type(found).__name__}; "
                f"delete {path.parent} to prepare it again"
            )
    return meta


def open_array(path: Path, shape: tuple[int, ...], dtype: str | type[np.generic]) -> np.ndarray:
    """Memory-map an array that must have exactly this shape and type, in a file of exactly the right size.

    Raises:
        DataError: it is missing, truncated, or another array.
    """
    wanted = f"{np.dtype(dtype)} {shape}"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected an array {wanted}, found no file") from error
    except (OSError, ValueError, EOFError) as error:
        bytes_wanted = math.prod(shape) * np.dtype(dtype).itemsize
        raise DataError(
            f"{path}: expected an array {wanted} of {bytes_wanted} bytes after its header, found a file of "
            f"{path.stat().st_size} bytes in all ({error}); delete {path.parent} to prepare it again"
        ) from error
    if array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"{path}: expected an array {wanted}, found {array.dtype} {array.shape}; "
            f"delete {path.parent} to prepare it again"
        )
    return array


def _private(cache: Path) -> Path:
    return cache / f"{_TEMPORARY}{uuid.uuid4().hex}"


def _publish(temporary: Path, final: Path) -> None:
    if final.is_dir():
        return
    with (temporary / _CONTENTS).open("w") as file:
        file.write(_contents(temporary) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.rename(temporary, final)
    except OSError:
        # Another process was faster: a folder that is not empty is never replaced by a rename.
        if not final.is_dir():
            raise


def _contents(folder: Path) -> str:
    """A hash of the arrays of a store and of what its description says of the samples."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.npy")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    samples = {field: value for field, value in meta.items() if field not in _NOT_SAMPLES}
    digest.update(json.dumps(samples, sort_keys=True).encode())
    return digest.hexdigest()


def _remove_stale(cache: Path, seconds: float, spared: Path | None = None) -> None:
    """Remove what killed processes left; a folder still being written into holds a younger file, or is locked."""
    for folder in cache.glob(f"{_TEMPORARY}*"):
        if folder == spared:
            continue
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        except FileNotFoundError:
            continue
        age = time.time() - newest
        if not folder_lock.lockable(folder):
            if age > seconds:
                shutil.rmtree(folder, ignore_errors=True)
        elif age > RESUMABLE_SECONDS:
            lock = folder_lock.hold(folder)
            if lock is not None:
                with lock:
                    folder_lock.discard(folder, _private(cache))
