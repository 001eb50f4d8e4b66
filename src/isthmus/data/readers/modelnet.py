"""ModelNet10 and ModelNet40 as their authors ship them: one mesh per file.

Wu et al., "3D ShapeNets: A Deep Representation for Volumetric Shapes", CVPR 2015. The layout, below the
unpacked folder (``ModelNet10`` or ``ModelNet40``)::

    <class>/{train,test}/<class>_<number>.off

The test part is the official one; of the training files, sorted as strings, those with index % 10 < 8 train
and the others validate. Meshes are taken as they are: ModelNet10 stands upright with z up, of the original
ModelNet40 some models lie on their side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.clouds import Sample, Unreadable, eighty_twenty
from isthmus.data.files import read_cloud, stamp
from isthmus.errors import DataError


@dataclass(frozen=True)
class ModelNet:
    """A ModelNet folder, as a reader.

    A mesh that cannot be read is yielded as ``Unreadable`` and keeps its place in the 80/20 split.

    Args:
        root: the folder with one folder per class.
        points: how many points are drawn from the surface of each mesh, uniform by area.
        seed: with a file's name this fixes its points.
    """

    root: Path
    points: int = 2048
    seed: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """The folders' names, in alphabetical order.

        Raises:
            DataError: there is no such folder, or none in it that has ``train`` or ``test``.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: expected the folder of ModelNet, found none")
        found = {path.parent.name for part in ("train", "test") for path in root.glob(f"*/{part}")}
        if not found:
            raise DataError(f"{root}: expected folders <class>/train and <class>/test, found none")
        return tuple(sorted(found))

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the meshes, and how points are drawn."""
        files = [path for part in ("train", "test") for path in self._files(part)]
        return {
            "reader": "modelnet",
            "version": 1,
            "points": self.points,
            "seed": self.seed,
            "files": stamp(files, Path(self.root)),
        }

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The training meshes in order, then the test meshes.

        Raises:
            DataError: a folder is missing or has no mesh.
        """
        classes = self.classes
        for part in ("train", "test"):
            for index, path in enumerate(self._files(part)):
                name = path.relative_to(self.root).as_posix()
                try:
                    points = read_cloud(path, self.points, self.seed)
                except DataError as error:
                    yield Unreadable(name, str(error))
                    continue
                label = classes.index(path.parent.parent.name)
                yield Sample(points, label, name, "test" if part == "test" else eighty_twenty(index))

    def _files(self, part: str) -> list[Path]:
        root = Path(self.root)
        paths = sorted(root.glob(f"*/{part}/*.off"), key=lambda path: path.relative_to(root).as_posix())
        if not paths:
            raise DataError(f"{root}: expected meshes <class>/{part}/*.off, found none")
        return paths
