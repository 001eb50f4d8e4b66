"""Which class of a data set is which class of the recipe.

Two data sets rarely name their classes alike: one says ``couch`` where the other says ``sofa``, one splits
``cabinet`` into ``dresser`` and ``night_stand``, and each has classes the other lacks. A :class:`ClassMap`
states for *one* data set what becomes of each of its classes, and refuses to guess: a class that is neither
mapped nor dropped is an error, so a misspelling can never quietly take a class out of an experiment.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from isthmus.errors import RecipeError

ALL_OTHERS: Literal["*"] = "*"


@dataclass(frozen=True)
class ClassMap:
    """The mapping from the classes of one data set to the classes of the recipe.

    Args:
        classes: the recipe's classes, in the order of the network's outputs.
        merge: class of the data set -> class of the recipe. A data-set class whose name is a recipe class
            maps to it by itself and need not be listed.
        drop: classes of the data set that are left out; ``"*"`` (alone or among the names) leaves out every
            class that is not mapped.

    Raises:
        RecipeError: no or repeated recipe classes; a ``merge`` that leads to no recipe class; a class both
            merged and dropped.
    """

    classes: tuple[str, ...]
    merge: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] | Literal["*"] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            raise RecipeError("classes: expected at least one class, found none")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise RecipeError(f"classes: expected every class once, found repeated {_quoted(repeated)}")
        for native, target in self.merge.items():
            if target not in self.classes:
                raise RecipeError(
                    f"merge: {native!r} leads to {target!r}, which is not one of the recipe's classes "
                    f"{_quoted(self.classes)}{nearest(target, self.classes)}"
                )
        if isinstance(self.drop, str) and self.drop != ALL_OTHERS:
            raise RecipeError(f"drop: expected a list of classes or {ALL_OTHERS!r}, found {self.drop!r}")
        both = sorted(set(self.merge) & set(self.drop))
        if both:
            raise RecipeError(f"merge and drop: expected each class in one of them, found {_quoted(both)} in both")

    def apply(self, native_classes: Sequence[str], *, source: bool = False) -> np.ndarray:
        """Recipe label of every class of a data set.

        Args:
            native_classes: the data set's classes in the order of its labels.
            source: whether this is the labelled source, which must have every class of the recipe; a target
                may lack some.

        Returns:
            ``(len(native_classes),)`` int64, the index into ``classes`` or -1 for a class left out.

        Raises:
            RecipeError: ``merge`` or ``drop`` names a class that the data set lacks; a data-set class is
                neither mapped nor dropped; or, for a source, a recipe class receives nothing.
        """
        for where, names in (("merge", self.merge), ("drop", self.drop)):
            for name in names:
                if name != ALL_OTHERS and name not in native_classes:
                    raise RecipeError(
                        f"{where}: {name!r} is not a class of the data set, which has "
                        f"{_quoted(native_classes)}{nearest(name, native_classes)}"
                    )
        mapped = np.array([self._target(name) for name in native_classes], dtype=np.int64)
        missing = [name for index, name in enumerate(self.classes) if index not in mapped]
        if source and missing:
            raise RecipeError(
                f"classes: the source has nothing for {_quoted(missing)}; its classes are "
                f"{_quoted(native_classes)}{nearest(missing[0], native_classes)}"
            )
        return mapped

    def _target(self, native: str) -> int:
        if native in self.merge:
            return self.classes.index(self.merge[native])
        if native in self.drop:
            return -1
        if native in self.classes:
            return self.classes.index(native)
        if ALL_OTHERS in self.drop:
            return -1
        raise RecipeError(
            f"class {native!r} of the data set is neither mapped nor dropped; add it to merge or drop. The "
            f"recipe's classes are {_quoted(self.classes)}{nearest(native, self.classes)}"
        )


def nearest(name: str, known: Collection[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name spelt most alike, or nothing if none is close."""
    folded = {other.casefold(): other for other in known}
    match = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[match[0]]!r}?" if match else ""


def _quoted(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names)
