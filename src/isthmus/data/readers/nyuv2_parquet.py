"""NYUv2 as the Hugging Face mirror ``tanganke/nyuv2`` stores it: Parquet files with nested lists.

The files are called ``train-00000-of-00005.parquet`` and so on (also with a hash behind), and ``val-...``; each row is
an image of MTAN's preprocessing, channels first:

============ ========================= ===================
column       shape and type            as in MTAN's files
============ ========================= ===================
image        (3, 288, 384) float32     image
segmentation (288, 384) int64          label
depth        (1, 288, 384) float32     depth
normal       (3, 288, 384) float32     normal
============ ========================= ===================

Other columns (``noise``) are passed over. Values, parts, groups and names are those of
:class:`isthmus.data.readers.mtan.MTAN`: row 17 of the training files, put one after the other in the order of their
names, is ``train/17``. That the rows have the numbers of MTAN's files is not documented by the mirror; compare before
you use a list of partial labels that goes by those numbers.

Rows are read a few at a time. Needs ``pip install 'isthmus[parquet]'``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from isthmus.data.clouds import Unreadable
from isthmus.data.files import stamp
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import NYU13
from isthmus.data.readers.mtan import FOLDERS, block_group, block_parts, check_blocks, converted
from isthmus.errors import DataError

COLUMNS = {"image": "image", "segmentation": "segmentation", "depth": "depth", "normals": "normal"}
"""Columns by what is in them: "image" and the tasks."""

_ROWS = 8
_BUFFER = 1 << 20


@dataclass(frozen=True)
class NYUv2Parquet:
    """The data set, as a reader.

    A row with unusable values is yielded as ``Unreadable``. A broken file is an error: it would take hundreds of images
    away.

    Args:
        root: a folder with the files somewhere below it.
        validation_share: share of ``train`` that validates, in [0, 1); 0 for none.
        block: consecutive rows that stay together.
    """

    root: Path
    validation_share: float = 0.1
    block: int = 20

    def __post_init__(self) -> None:
        check_blocks(self.validation_share, self.block)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation into thirteen classes, depth and normals."""
        return {"segmentation": NYU13, "depth": (), "normals": ()}

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, and the settings."""
        files = [path for folder in FOLDERS for path in self._files(folder)]
        return {
            "reader": "nyuv2_parquet",
            "version": 1,
            "validation_share": self.validation_share,
            "block": self.block,
            "files": stamp(files, Path(self.root)),
        }

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """The rows of the training files in order, then those of the others.

        Raises:
            DataError: no files, a file that cannot be read or lacks a column, or PyArrow is not installed.
        """
        parquet = _pyarrow_parquet()
        for folder in FOLDERS:
            files = [(path, _opened(parquet, path)) for path in self._files(folder)]
            count = sum(file.metadata.num_rows for _, file in files)
            parts = block_parts(folder, count, self.validation_share, self.block)
            number = 0
            for path, file in files:
                for row in _rows(path, file):
                    name = f"{folder}/{number}"
                    group = block_group(folder, number, self.block)
                    part = parts[number]
                    number += 1
                    try:
                        arrays = {kind: _array(kind, row[column], path) for kind, column in COLUMNS.items()}
                    except DataError as error:
                        yield Unreadable(name, str(error))
                        continue
                    yield ImageSample(arrays.pop("image"), arrays, name, part, group)

    def _files(self, folder: str) -> list[Path]:
        root = Path(self.root)
        found = sorted(root.rglob(f"{folder}-*.parquet"), key=lambda path: path.relative_to(root).as_posix())
        if not found:
            raise DataError(f"{root}: expected files {folder}-*.parquet in it or below, found none")
        return found


def _pyarrow_parquet() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "NYUv2's Parquet files need pyarrow, found not installed: pip install 'isthmus[parquet]'"
        ) from None
    return pyarrow.parquet


def _opened(parquet: ModuleType, path: Path) -> Any:
    """The file, of which only the columns' names and the number of rows are read yet."""
    try:
        file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except Exception as error:
        # PyArrow's errors have several bases, OSError and ValueError among them.
        raise DataError(f"{path}: expected a whole Parquet file, found one that cannot be read ({error})") from error
    missing = [column for column in COLUMNS.values() if column not in file.schema_arrow.names]
    if missing:
        raise DataError(
            f"{path}: expected the columns {', '.join(COLUMNS.values())}, found {', '.join(file.schema_arrow.names)}"
        )
    return file


def _rows(path: Path, file: Any) -> Iterator[dict[str, Any]]:
    """Every row as Arrow arrays of one element, by column."""
    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(COLUMNS.values())):
            for row in range(batch.num_rows):
                yield {column: batch.column(column).slice(row, 1) for column in COLUMNS.values()}
    except Exception as error:
        raise DataError(f"{path}: expected a whole Parquet file, found one that cannot be read ({error})") from error


def _array(kind: str, element: Any, path: Path) -> np.ndarray:
    """One cell as a store takes it."""
    array = _dense(element, f"{path}: {COLUMNS[kind]}")
    if kind != "segmentation":
        if array.ndim != 3:
            raise DataError(f"{path}: {COLUMNS[kind]}: expected shape (C, H, W), found {array.shape}")
        array = np.moveaxis(array, 0, -1)
    return converted(kind, array, f"{path}: {COLUMNS[kind]}")


def _dense(element: Any, where: str) -> np.ndarray:
    """Nested lists of equal lengths as an array. An Arrow array of one element goes in."""
    # An extension type such as that of Hugging Face's arrays wraps the nested lists.
    values = getattr(element, "storage", element)
    shape: list[int] = []
    while hasattr(values, "flatten") and hasattr(values, "value_lengths"):
        if values.null_count:
            raise DataError(f"{where}: expected numbers, found nothing")
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) != 1 or lengths[0] < 1:
            raise DataError(f"{where}: expected lists of one length, found {lengths.tolist()}")
        shape.append(int(lengths[0]))
        values = values.flatten()
    if values.null_count:
        raise DataError(f"{where}: expected numbers, found {values.null_count} missing ones")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: expected numbers, found {values.type}")
    return array.reshape(shape)
