"""A folder of clouds and meshes without any labels: a target domain as it comes off a scanner."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.clouds import Part, Sample, Unreadable
from isthmus.data.files import SUFFIXES, Up, read_clouds, stamp
from isthmus.errors import DataError


@dataclass(frozen=True)
class UnlabelledFolder:
    """Every readable file below ``root``, as a reader without classes; all labels are -1.

    80 % of the clouds, by a hash of their names, are for training and the rest for the scores that choose a model.
    There is no test part: nothing can be measured without labels.

    Args:
        root: the folder; searched with all folders below it.
        points: how many points are drawn from each mesh that has faces.
        seed: with a file's name this fixes those points.
        up: upward axis of all files; "y" is turned to z up.
    """

    root: Path
    points: int = 2048
    seed: int = 0
    up: Up = "z"

    def __post_init__(self) -> None:
        if not Path(self.root).is_dir():
            raise DataError(f"{self.root}: expected a folder of clouds or meshes, found none")
        if not self._files():
            raise DataError(f"{self.root}: expected files {', '.join(SUFFIXES)}, found none")

    @property
    def classes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, and all settings."""
        settings = {"points": self.points, "seed": self.seed, "up": self.up}
        return {"reader": "unlabelled", "version": 1, **settings, "files": stamp(self._files(), Path(self.root))}

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The clouds, sorted by the names of their files."""
        for path in self._files():
            relative = path.relative_to(self.root)
            try:
                clouds = read_clouds(path, self.points, self.seed, self.up)
            except DataError as error:
                yield Unreadable(relative.as_posix(), str(error))
                continue
            for own_name, cloud in clouds:
                name = (relative.parent / own_name).as_posix()
                yield Sample(cloud, -1, name, _part(name))

    def _files(self) -> list[Path]:
        root = Path(self.root)
        return sorted(
            path
            for path in root.rglob("*")
            if path.is_file()
            and path.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        )


def _part(name: str) -> Part:
    return "train" if hashlib.sha256(name.encode()).digest()[0] < 205 else "val"
