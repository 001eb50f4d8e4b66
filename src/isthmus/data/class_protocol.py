"""What a label set of LiDAR points is: which class of a data set goes into which class of the experiment, under a name.

Two data sets can be compared, adapted or put in one table only if their *label spaces* are the same, however their
classes are called: see ``isthmus.data.frame_classes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.data.frames import NO_LABEL
from isthmus.errors import DataError


@dataclass(frozen=True)
class ClassProtocol:
    """What becomes of each class of one data set.

    Args:
        name: unique among all protocols.
        dataset: whose classes are merged.
        space: the label space, see :func:`check_one_space`.
        merge: the classes in the order of their indices, each with the data set's classes that go into it.
        ignored: the data set's classes whose points carry no label.

    Raises:
        DataError: a class of the data set is named twice.
    """

    name: str
    dataset: str
    space: str
    merge: Mapping[str, Sequence[str]]
    ignored: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        named = [*self.ignored, *(fine for group in self.merge.values() for fine in group)]
        twice = sorted({fine for fine in named if named.count(fine) > 1})
        if twice:
            raise DataError(f"{self.name}: expected every class of {self.dataset} once, found {twice[0]!r} twice")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return tuple(self.merge)

    def label(self, fine: str) -> int:
        """The label of a class of the data set, :data:`~isthmus.data.frames.NO_LABEL` if it is ignored.

        Raises:
            DataError: the protocol does not know the class.
        """
        for index, group in enumerate(self.merge.values()):
            if fine in group:
                return index
        if fine in self.ignored:
            return NO_LABEL
        known = [*self.ignored, *(name for group in self.merge.values() for name in group)]
        raise DataError(
            f"{self.name}: expected a class of {self.dataset}, found {fine!r}{nearest(fine, known)}; it is neither "
            f"merged nor ignored"
        )

    def table(self, fine: Mapping[int, str], size: int = 256) -> np.ndarray:
        """Labels by the data set's own numbers. Shape: ``(size,)`` int16; -1 where the data set has no such number.

        Raises:
            DataError: the protocol does not know a class, or a number is outside ``[0, size)``.
        """
        found = np.full(size, -1, dtype=np.int16)
        for number, name in fine.items():
            if not 0 <= number < size:
                raise DataError(f"{self.name}: expected numbers of classes from 0 to {size - 1}, found {number}")
            found[number] = self.label(name)
        return found


def apply_table(table: np.ndarray, numbers: np.ndarray, where: object) -> np.ndarray:
    """Labels of points from the data set's own numbers, by :meth:`ClassProtocol.table`.

    Args:
        table: ``(size,)``.
        numbers: ``(N,)`` whole numbers.
        where: names the file in errors.

    Returns:
        ``(N,)`` uint8.

    Raises:
        DataError: a number that is no class of the data set.
    """
    wide = numbers.astype(np.int64)
    bounded = np.clip(wide, 0, len(table) - 1)
    labels = table[bounded]
    wrong = (labels < 0) | (wide != bounded)
    if wrong.any():
        raise DataError(
            f"{where}: labels: expected numbers of the data set's classes, found {int(wide[wrong][0])} (of "
            f"{int(wrong.sum())} points)"
        )
    return labels.astype(np.uint8)


def check_one_space(protocols: Iterable[ClassProtocol]) -> str:
    """The label space that all protocols share.

    Raises:
        DataError: there are none, or two of different spaces.
    """
    given = list(protocols)
    if not given:
        raise DataError("protocols: expected at least one, found none")
    for other in given[1:]:
        if other.space != given[0].space:
            raise DataError(
                f"protocols: expected one label space, found {given[0].name} ({given[0].space}) and {other.name} "
                f"({other.space}); results under them cannot be compared"
            )
    return given[0].space
