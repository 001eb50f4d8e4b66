"""What every store of a prepared data set shares: where it lies, how it gets there, and how its files are checked.

A store is a folder named by a hash of everything it depends on. It is written into a private folder beside its final
place and renamed at the end, so a process that is killed leaves no half store, and of two processes preparing the same
data the slower one throws its copy away.

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
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from isthmus.data.clouds import PARTS, Part, Unreadable
from isthmus.errors import DataError

STALE_SECONDS = 3600.0

_TEMPORARY = ".preparing-"


class Skipped(NamedTuple):
    """A sample that is not in the store, and why."""

    name: str
    reason: str


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
    temporary = cache / f"{_TEMPORARY}{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def readable(samples: Iterable[SampleT | Unreadable], skipped: list[Skipped]) -> Iterator[SampleT]:
    """The samples that could be read; the others are added to ``skipped``.

    Raises:
        DataError: a name that comes twice, or a part that is none.
    """
    names: set[str] = set()
    for sample in samples:
        if sample.name in names:
            raise DataError(f"{sample.name}: expected every name once in a data set, found it twice")
        names.add(sample.name)
        if isinstance(sample, Unreadable):
            skipped.append(Skipped(sample.name, sample.reason))
            continue
        if sample.part not in PARTS:
            raise DataError(f"{sample.name}: part: expected one of {', '.join(PARTS)}, found {sample.part!r}")
        yield sample


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
def progress_line(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error, "preparing 12 clouds, 1 skipped", updated by calls with the two numbers."""
    display = Progress(
        SpinnerColumn(),
        TextColumn(f"preparing {{task.completed}} {what}, {{task.fields[skipped]}} skipped"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
    with display:
        task = display.add_task("preparing", total=None, skipped=0)
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


def _publish(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError:
        # Another process was faster: a folder that is not empty is never replaced by a rename.
        if not final.is_dir():
            raise


def _remove_stale(cache: Path, seconds: float) -> None:
    """Remove what killed processes left; a folder still being written into holds a younger file."""
    for folder in cache.glob(f"{_TEMPORARY}*"):
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except FileNotFoundError:
            continue
        if time.time() - newest > seconds:
            shutil.rmtree(folder, ignore_errors=True)
