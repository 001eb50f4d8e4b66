"""What all simulators share: random numbers by place, and checks of how many samples are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from isthmus.errors import DataError


def stream(seed: int, *place: int) -> np.random.Generator:
    """Return random numbers that depend on the arguments only."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


def check_whole(reader: Any, field: str, least: int) -> None:
    """Refuse a field that is no whole number from ``least``.

    Raises:
        DataError: so it is.
    """
    value = getattr(reader, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"{type(reader).__name__}.{field}: expected a whole number from {least}, found {value!r}")


def check_counts(reader: Any) -> None:
    """Check ``train``, ``val``, ``test`` and ``seed``.

    Raises:
        DataError: a count or the seed is out of range, or all counts are 0.
    """
    for field in ("train", "val", "test", "seed"):
        check_whole(reader, field, 0)
    if reader.train + reader.val + reader.test == 0:
        name = type(reader).__name__
        raise DataError(f"{name}: expected at least one sample in train, val and test, found none")


def check_images(reader: Any) -> None:
    """Check the fields that the simulators of images share.

    Raises:
        DataError: a count, the seed, the size or the number of views is out of range, or all counts are 0.
    """
    check_counts(reader)
    check_whole(reader, "views", 1)
    size = reader.size
    if len(size) != 2 or not all(isinstance(n, int) and n >= 16 for n in size):
        raise DataError(f"{type(reader).__name__}.size: expected height and width from 16, found {size!r}")
