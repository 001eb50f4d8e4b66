"""A table of which image keeps which task's label, and the JSON file it is kept in.

The file goes by the images' names, so it survives any re-ordering; it is meant to be read and edited by people::

    {
      "format": "isthmus partial labels",
      "version": 1,
      "note": {"setting": "one", "seed": 0},
      "tasks": ["segmentation", "depth"],
      "images": {
        "train/0": ["depth"],
        "train/1": ["segmentation"]
      }
    }
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.errors import DataError

_FORMAT = "isthmus partial labels"
_VERSION = 1


@dataclass(frozen=True)
class LabelTable:
    """Which image keeps which task's label, by the image's name.

    Args:
        tasks: the tasks that labels may be of.
        images: names of images, each with the tasks whose label it keeps.
        source: where this comes from, for messages: a file.
    """

    tasks: tuple[str, ...]
    images: dict[str, tuple[str, ...]]
    source: str = "partial labels"

    def matrix(self, tasks: Sequence[str], names: Sequence[str], known: Collection[str] = ()) -> np.ndarray:
        """The rows of these images in this order. Shape: ``(len(names), len(tasks))`` bool.

        A label that is kept here need not exist in the data; combine with the data set's ``present``.

        Args:
            tasks: the columns; the same tasks as in the file, in any order.
            names: the rows; all must be in the file.
            known: other images of the data set, which may be in the file (the validation part, say).

        Raises:
            DataError: tasks or names do not fit.
        """
        found, expected = set(self.tasks), set(tasks)
        if found != expected:
            surplus, missing = sorted(found - expected), sorted(expected - found)
            raise DataError(
                f"{self.source}: tasks: expected {', '.join(tasks)}, found {', '.join(self.tasks)}"
                + (f"; not a task here: {', '.join(surplus)}{nearest(surplus[0], expected)}" if surplus else "")
                + (f"; missing: {', '.join(missing)}" if missing else "")
            )
        missing = [name for name in names if name not in self.images]
        everything = {*names, *known}
        surplus = [name for name in self.images if name not in everything]
        if missing or surplus:
            raise DataError(
                f"{self.source}: images: expected the {len(names)} images of the data set, found"
                + (f" {len(missing)} of them missing ({_first(missing)})" if missing else "")
                + (" and" if missing and surplus else "")
                + (f" {len(surplus)} that it does not have ({_first(surplus)})" if surplus else "")
            )
        return np.array([[task in self.images[name] for task in tasks] for name in names], dtype=np.bool_).reshape(
            len(names), len(tasks)
        )

    @classmethod
    def of(cls, tasks: Sequence[str], names: Sequence[str], kept: np.ndarray) -> LabelTable:
        """From a matrix ``(len(names), len(tasks))`` bool, as ``partial_labels`` draws it."""
        if kept.shape != (len(names), len(tasks)) or kept.dtype != np.bool_:
            raise DataError(
                f"kept: expected bool of shape ({len(names)}, {len(tasks)}), found {kept.dtype} {kept.shape}"
            )
        images = {
            name: tuple(task for task, keeps in zip(tasks, row) if keeps) for name, row in zip(names, kept.tolist())
        }
        if len(images) != len(names):
            raise DataError(f"names: expected every name once, found {len(names) - len(images)} repeated")
        return cls(tuple(tasks), images)


def write_table(path: Path, table: LabelTable, *, note: dict[str, Any] | None = None, overwrite: bool = False) -> None:
    """Write a JSON file with one line per image. It is whole or not there at all.

    Args:
        path: the file; its folder is made if needed.
        table: what to write.
        note: how it was made (setting, seed), as JSON values, for the reader; it means nothing here.
        overwrite: replace a file that is there.

    Raises:
        DataError: there is a file and it was not to be replaced.
    """
    path = Path(path)
    lines = ",\n".join(
        f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(tasks)}" for name, tasks in table.images.items()
    )
    head = {"format": _FORMAT, "version": _VERSION, "note": note or {}, "tasks": table.tasks}
    fields = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(f'{{\n{fields},\n  "images": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")
        if overwrite:
            os.replace(temporary, path)
        else:
            _move_to_free_place(temporary, path)
    except FileExistsError as error:
        raise DataError(f"{path}: expected no file to be there, found one; ask for it to be overwritten") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path) -> LabelTable:
    """Read what :func:`write_table` writes, or what a person wrote in that form.

    Raises:
        DataError: the file cannot be read or is not of that form; it repeats a name, a task or a field.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition)
    except OSError as error:
        raise DataError(f"{path}: expected a file of partial labels, found {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON without repeated names, found {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f'{path}: expected a JSON object with "format": "{_FORMAT}", found another one')
    if content.get("version") != _VERSION:
        raise DataError(f"{path}: version: expected {_VERSION}, found {content.get('version')!r}")
    unknown = sorted(content.keys() - {"format", "version", "note", "tasks", "images"})
    if unknown:
        raise DataError(f"{path}: expected the fields tasks and images, found {unknown[0]!r} as well")
    tasks, images = content.get("tasks"), content.get("images")
    if not are_names(tasks):
        raise DataError(f"{path}: tasks: expected a list of different names, found {shortened(tasks)}")
    if not isinstance(images, dict):
        raise DataError(f"{path}: images: expected an object of names and lists of tasks, found {shortened(images)}")
    for name, kept in images.items():
        if not are_names(kept) or not set(kept) <= set(tasks):
            raise DataError(f"{path}: images: {name}: expected some of {', '.join(tasks)}, found {shortened(kept)}")
    return LabelTable(tuple(tasks), {name: tuple(kept) for name, kept in images.items()}, str(path))


def _move_to_free_place(file: Path, path: Path) -> None:
    try:
        # Unlike a rename, a link never takes the place of a file that came in between.
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(file, path)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} twice")
    return content


def are_names(value: Any) -> TypeGuard[list[str]]:
    """Whether this is a list of different texts."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def shortened(value: Any) -> str:
    """A value as text of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
