"""The files of the data directory, which the environment variable ``ISTHMUS_DATA`` names."""

from __future__ import annotations

import os
from pathlib import Path

from isthmus.errors import DataError

DATA_VARIABLE = "ISTHMUS_DATA"


def data_file(relative: Path, holds: str, *, file: Path | None = None, root: Path | None = None) -> Path:
    """A file of the data directory, or another one that is given.

    Args:
        relative: where it lies in the data directory.
        holds: what it holds, for messages: ``CamVid's photographs``.
        file: this file instead.
        root: this data directory instead of the one that ``ISTHMUS_DATA`` names.

    Raises:
        DataError: there is no such file, or nothing says where the data directory is.
    """
    if file is not None:
        path, advice = Path(file), ""
    else:
        directory = root or os.environ.get(DATA_VARIABLE)
        if not directory:
            raise DataError(
                f"{relative.name}: expected the environment variable {DATA_VARIABLE} to name the data directory, found "
                f"it not set"
            )
        path = Path(directory) / relative
        advice = f"; the data directory is the folder that has {relative.parts[0]!r} in it"
    if not path.is_file():
        raise DataError(f"{path}: expected {holds}, found no file{advice}")
    return path
