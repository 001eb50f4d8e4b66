"""Any folder of objects sorted by class: ``<class>/<file>`` or ``<class>/<split>/<file>``.

Files are of the kinds ``isthmus.data.files`` reads; others (materials, pictures, notes) and names that start
with a dot are passed over. Either every class has split folders or none has:

- split folders are called ``train``, ``val`` (or ``valid``, ``validation``) and ``test``. If there is no
  ``val`` anywhere, the training clouds, sorted as strings, are divided 80/20 (index % 10 < 8 trains);
- without them a hash of each cloud's name puts 64 % into train, 16 % into val and 20 % into test. The split
  of a cloud depends on its own name alone, so adding files moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.class_map import nearest
from isthmus.data.clouds import Part, Sample, Unreadable, eighty_twenty
from isthmus.data.files import SUFFIXES, Up, read_clouds, stamp
from isthmus.errors import DataError

SPLITS: dict[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Folder:
    """A folder of objects, as a reader.

    A file that cannot be read is yielded as ``Unreadable``; an ``.h5`` file in a class's folder gives all its
    clouds to that class, or none if one of them is broken.

    Args:
        root: the folder with one folder per class.
        classes: the classes, in the order of the labels; by default the folders' names in alphabetical order.
            With classes given, a folder of another name is an error, and a class may have no folder.
        points: how many points are drawn from each mesh that has faces.
        seed: with a file's name this fixes those points.
        up: upward axis of all files; "y" is turned to z up.
    """

    root: Path
    classes: tuple[str, ...] = ()
    points: int = 2048
    seed: int = 0
    up: Up = "z"

    def __post_init__(self) -> None:
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder with one folder per class, found none")
        found = [path.name for path in _entries(root) if path.is_dir()]
        if not found:
            raise DataError(f"{root}: expected one folder per class, found no folder")
        splits = [name for name in found if name in SPLITS and name not in self.classes]
        if splits:
            raise DataError(
                f"{root}: expected <class>/<split>/<file>, found the split {splits[0]!r} where classes belong"
            )
        unknown = [name for name in found if self.classes and name not in self.classes]
        if unknown:
            raise DataError(
                f"{root / unknown[0]}: expected a folder of one of the classes {', '.join(self.classes)}, "
                f"found {unknown[0]!r}{nearest(unknown[0], self.classes)}"
            )
        if not self.classes:
            object.__setattr__(self, "classes", tuple(found))

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, and all settings."""
        return {
            "reader": "folder",
            "version": 1,
            "classes": list(self.classes),
            "points": self.points,
            "seed": self.seed,
            "up": self.up,
            "files": stamp([path for path, _ in self._files()], Path(self.root)),
        }

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The clouds, sorted by the names of their files as strings.

        Raises:
            DataError: no file at all, an unknown split folder, or split folders in some classes only.
        """
        files = self._files()
        divide = not any(part == "val" for _, part in files)
        training = 0
        for path, split in files:
            relative = path.relative_to(self.root)
            try:
                clouds = read_clouds(path, self.points, self.seed, self.up)
            except DataError as error:
                training += split == "train"
                yield Unreadable(relative.as_posix(), str(error))
                continue
            label = self.classes.index(relative.parts[0])
            for own_name, cloud in clouds:
                name = (relative.parent / own_name).as_posix()
                if split is None:
                    part = _hashed_part(name)
                elif split == "train":
                    part = eighty_twenty(training) if divide else "train"
                    training += 1
                else:
                    part = split
                yield Sample(cloud, label, name, part)

    def _files(self) -> list[tuple[Path, Part | None]]:
        """Every readable file with the split of its folder, sorted; the split is None where there is none."""
        root = Path(self.root)
        files: list[tuple[Path, Part | None]] = []
        for folder in (path for path in _entries(root) if path.is_dir()):
            for entry in _entries(folder):
                if not entry.is_dir():
                    files.append((entry, None))
                elif entry.name in SPLITS:
                    files += [(path, SPLITS[entry.name]) for path in _entries(entry) if path.is_file()]
                else:
                    raise DataError(
                        f"{entry}: expected files or the split folders {', '.join(SPLITS)}, found "
                        f"{entry.name!r}{nearest(entry.name, SPLITS)}"
                    )
        files = [(path, split) for path, split in files if path.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"{root}: expected files {', '.join(SUFFIXES)} in the classes' folders, found none")
        without = [path for path, split in files if split is None]
        if 0 < len(without) < len(files):
            raise DataError(
                f"{without[0]}: expected a split folder around it, as other files have one, found it outside"
            )
        return sorted(files, key=lambda file: file[0].relative_to(root).as_posix())


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _hashed_part(name: str) -> Part:
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "train" if fraction < 0.64 else "val" if fraction < 0.8 else "test"
