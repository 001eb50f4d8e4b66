"""PointDA-10 in its published layout: ten classes in ModelNet, ShapeNet and ScanNet.

The layout (Qin et al., "PointDAN: A Multi-Scale 3D Domain Adaption Network for Point Cloud Representation",
NeurIPS 2019), below the folder ``PointDA_data``::

    modelnet/<class>/{train,test}/*.npy     (2048, >= 3)   z up
    shapenet/<class>/{train,test}/*.npy     (1024, >= 3)   y up, but the class plant is z up
    scannet/{train_0,train_1,train_2,test_0}.h5            y up; "data" (n, 2048, 6), "label" (n,)
    scannet/{train_files,test_files}.txt    the order of those files

Axes and split are those of DefRec (Achituve, Maron, Chechik, WACV 2021), which later methods share: y-up
clouds go through (x, y, z) -> (x, -z, y); of the training files, sorted as strings (for ScanNet the rows of
the files in the order of the list), those with index % 10 < 8 train and the others validate. PointDAN itself
does not turn anything upright and chooses on the target's test part; its numbers cannot be compared with
those of others.

Any number of points per cloud is accepted. PointDAN's ``validation`` folders are not read, as in DefRec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isthmus.data.class_map import nearest
from isthmus.data.clouds import POINTDA_CLASSES, Part, Sample, Unreadable, eighty_twenty
from isthmus.data.files import Up, domain_folder, listed_files, read_cloud, read_h5, stamp, z_up
from isthmus.errors import DataError

DOMAINS = ("modelnet", "shapenet", "scannet")


@dataclass(frozen=True)
class PointDA:
    """One domain of PointDA-10, as a reader.

    An ``.npy`` file that cannot be read is yielded as ``Unreadable`` and keeps its place in the 80/20 split.
    A broken ``.h5`` file is an error: it would take thousands of objects away.

    Args:
        root: the folder ``PointDA_data``, which has the domains' folders in it.
        domain: "modelnet", "shapenet" or "scannet".
    """

    root: Path
    domain: Literal["modelnet", "shapenet", "scannet"]

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise DataError(f"domain: expected one of {', '.join(DOMAINS)}, found {self.domain!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The ten classes, in alphabetical order."""
        return POINTDA_CLASSES

    @property
    def folder(self) -> Path:
        """The domain's own folder.

        Raises:
            DataError: it is not there.
        """
        return domain_folder(self.root, self.domain, "PointDA_data")

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files."""
        find = _h5_files if self.domain == "scannet" else _npy_files
        files = [path for part in ("train", "test") for path in find(self.folder, part)]
        return {"reader": "pointda", "version": 1, "domain": self.domain, "files": stamp(files, self.folder)}

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The training files in order, then the test files.

        Raises:
            DataError: a folder or list is missing, a folder is no class of PointDA-10, or an ``.h5`` is
                broken.
        """
        return self._rows() if self.domain == "scannet" else self._files()

    def _files(self) -> Iterator[Sample | Unreadable]:
        for part in ("train", "test"):
            for index, path in enumerate(_npy_files(self.folder, part)):
                name = path.relative_to(self.folder).as_posix()
                label = path.parent.parent.name
                up: Up = "y" if self.domain == "shapenet" and label != "plant" else "z"
                try:
                    points = read_cloud(path, up=up)
                except DataError as error:
                    yield Unreadable(name, str(error))
                    continue
                yield Sample(points, POINTDA_CLASSES.index(label), name, _part(part, index))

    def _rows(self) -> Iterator[Sample]:
        for part in ("train", "test"):
            index = 0
            for path in _h5_files(self.folder, part):
                points, labels = read_h5(path, labels=True)
                for row, (cloud, label) in enumerate(zip(points, labels)):
                    yield Sample(z_up(cloud, "y"), int(label), f"{path.name}/{row}", _part(part, index))
                    index += 1


def _part(folder: str, index: int) -> Part:
    return "test" if folder == "test" else eighty_twenty(index)


def _npy_files(folder: Path, part: str) -> list[Path]:
    for found in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        if found not in POINTDA_CLASSES and not found.startswith("."):
            raise DataError(
                f"{folder / found}: expected a folder of one of PointDA-10's classes "
                f"{', '.join(POINTDA_CLASSES)}, found {found!r}{nearest(found, POINTDA_CLASSES)}"
            )
    paths = sorted(folder.glob(f"*/{part}/*.npy"), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise DataError(f"{folder}: expected files <class>/{part}/*.npy, found none")
    return paths


def _h5_files(folder: Path, part: str) -> list[Path]:
    return listed_files(folder / f"{part}_files.txt")
