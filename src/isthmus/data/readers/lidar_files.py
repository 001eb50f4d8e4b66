"""Files that several data sets of LiDAR sweeps share: raw numbers, point labels, arrays, tables of text.

Every way a file can be wrong ends in a ``DataError`` that names it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import DataError

_CHUNK = 1 << 20
_BLANKS = re.compile(r"\s*")


def read_sweep(path: Path, columns: int) -> np.ndarray:
    """A ``.bin`` of little-endian float32, point after point. Shape: ``(N, columns)`` float32.

    Raises:
        DataError: no file, a size that is no whole number of points, or coordinates that are not finite.
    """
    content = _bytes(path, "a sweep")
    if len(content) % (4 * columns):
        raise DataError(
            f"{path}: expected points of {columns} float32 ({4 * columns} bytes each), found {len(content)} bytes"
        )
    values = np.frombuffer(content, "<f4").reshape(-1, columns).astype(np.float32)
    check_finite(values[:, :3], f"{path}: points")
    return values


def read_point_labels(path: Path, count: int, dtype: str = "<u4") -> np.ndarray:
    """One whole number for each point, without a header (``.label``, lidarseg's ``.bin``). Shape: ``(count,)``.

    Raises:
        DataError: no file, or another number of points.
    """
    content = _bytes(path, "labels of points")
    size = np.dtype(dtype).itemsize
    if len(content) != count * size:
        raise DataError(
            f"{path}: expected labels of {count} points ({count * size} bytes), found {len(content)} bytes; sweep and "
            f"labels must be of one frame"
        )
    return np.frombuffer(content, dtype)


def check_finite(values: np.ndarray, where: str) -> None:
    """Raise a ``DataError`` that begins with ``where`` unless all values are finite."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise DataError(f"{where}: expected finite numbers, found {int(wrong.sum())} others")


def read_arrays(path: Path, fields: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``; those of ``optional`` only if they are there.

    Raises:
        DataError: no file, not an archive, or one without these arrays.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected the arrays {', '.join(fields)}, found no file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = [name for name in optional if name in archive.files]
            return {name: archive[name] for name in (*fields, *found)}
    # NumPy takes the content for what it is: an .npy has no context manager, a broken archive fails in many ways.
    except (AttributeError, TypeError, KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected the arrays {', '.join(fields)}, found {error}") from error


def read_numbers(path: Path, wanted: Sequence[tuple[str, int]]) -> dict[str, np.ndarray]:
    """Numbers by name from lines ``name: 1 2 3``, as KITTI's calibration has them.

    Args:
        path: the file.
        wanted: names, each with how many numbers belong to it; lines of other names are passed over.

    Raises:
        DataError: no file, a name that is missing, or another count of numbers.
    """
    try:
        lines = _bytes(path, "a calibration").decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text, found {error}") from error
    named = {name.strip(): rest for name, colon, rest in (line.partition(":") for line in lines) if colon}
    found = {}
    for name, count in wanted:
        if name not in named:
            raise DataError(f"{path}: expected a line {name!r}, found {', '.join(named) or 'none with a name'}")
        try:
            values = np.array([float(word) for word in named[name].split()])
        except ValueError as error:
            raise DataError(f"{path}: {name}: expected {count} numbers, found {error}") from error
        if len(values) != count:
            raise DataError(f"{path}: {name}: expected {count} numbers, found {len(values)}")
        check_finite(values, f"{path}: {name}")
        found[name] = values
    return found


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: no file, or one that is not JSON.
    """
    try:
        return json.loads(_bytes(path, "a JSON file"))
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, found {error}") from error


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file that is one list of them, one at a time.

    nuScenes' tables have millions of rows, of which few are wanted: the file is never in memory as a whole.

    Raises:
        DataError: no file, or not such a list.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a table, found no file")
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8") as file:
            text, at, due, ended = "", 0, "[", False
            while True:
                at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]
                sign = text[at : at + 1]
                if due == "row or ]" and sign == "]":
                    return
                if sign and due in ("row", "row or ]"):
                    try:
                        row, at = decoder.raw_decode(text, at)
                    except ValueError as error:
                        if ended:
                            raise DataError(f"{path}: expected a whole list of objects, found {error}") from error
                    else:
                        if not isinstance(row, dict):
                            raise DataError(f"{path}: expected a list of objects, found {row!r} in it")
                        yield row
                        due = ", or ]"
                        continue
                elif sign:
                    if sign not in due:
                        raise DataError(f"{path}: expected {due} in a list of objects, found {text[at : at + 20]!r}")
                    if sign == "]":
                        return
                    at, due = at + 1, "row or ]" if sign == "[" else "row"
                    continue
                if ended:
                    raise DataError(f"{path}: expected a whole list of objects, found it cut off")
                more = file.read(_CHUNK)
                text, at, ended = text[at:] + more, 0, not more
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table, found {error}") from error


def _bytes(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: expected {what}, found no file")
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise DataError(f"{path}: expected {what}, found {error}") from error
    # Other errors of the system are no fault of the file (a drive that drops out), and must not leave it out for good.
