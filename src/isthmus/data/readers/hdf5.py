"""HDF5 sets in the layout of ModelNet40 (as PointNet ships it) and ScanObjectNN.

Every file has "data" ``(n, N, >= 3)`` and "label" ``(n,)`` or ``(n, 1)``; more columns and other datasets
(normals, masks) are left aside. Which files train and which test comes from a list (``train_files.txt``) or
from the names of the files themselves::

    HDF5(root / "modelnet40_ply_hdf5_2048", up="y")
    HDF5(root / "main_split", train=("training_objectdataset.h5",), test=("test_objectdataset.h5",),
         classes=("bag", "bin", ...), up="y")

Neither set has validation data: of the training rows, in the order of the files, those with index % 10 < 8
train and the others validate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.clouds import Sample, eighty_twenty
from isthmus.data.files import Up, listed_files, read_h5, stamp, z_up
from isthmus.errors import DataError

CLASS_NAMES = "shape_names.txt"


@dataclass(frozen=True)
class HDF5:
    """A set of HDF5 files, as a reader.

    A file that cannot be read is an error: it would take thousands of objects away. A cloud with NaN is left
    to the store, which skips and lists it.

    Args:
        root: the folder of the files.
        train: files of the training part: names in ``root``, or one name ending in ``.txt`` of a list of
            them.
        test: files of the test part, likewise.
        classes: names in the order of the labels; by default the lines of ``shape_names.txt`` in ``root``.
        up: upward axis; "y" is turned to z up.
    """

    root: Path
    train: tuple[str, ...] = ("train_files.txt",)
    test: tuple[str, ...] = ("test_files.txt",)
    classes: tuple[str, ...] = ()
    up: Up = "z"

    def __post_init__(self) -> None:
        if not self.classes:
            listing = Path(self.root) / CLASS_NAMES
            if not listing.is_file():
                raise DataError(
                    f"{listing}: expected the classes' names, one per line (or classes given), found no file"
                )
            names = tuple(listing.read_text(encoding="utf-8").split())
            if not names:
                raise DataError(f"{listing}: expected the names of the classes, one per line, found an empty file")
            object.__setattr__(self, "classes", names)

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, which part they are, and the settings."""
        return {
            "reader": "hdf5",
            "version": 1,
            "classes": list(self.classes),
            "up": self.up,
            "train": stamp(self._files(self.train), Path(self.root)),
            "test": stamp(self._files(self.test), Path(self.root)),
        }

    def samples(self) -> Iterator[Sample]:
        """The training rows in the order of the files, then the test rows.

        Raises:
            DataError: a list or file is missing or broken.
        """
        training = 0
        for path in self._files(self.train):
            points, labels = read_h5(path, labels=True)
            for row, (cloud, label) in enumerate(zip(points, labels)):
                yield Sample(z_up(cloud, self.up), int(label), f"{path.name}/{row}", eighty_twenty(training))
                training += 1
        for path in self._files(self.test):
            points, labels = read_h5(path, labels=True)
            for row, (cloud, label) in enumerate(zip(points, labels)):
                yield Sample(z_up(cloud, self.up), int(label), f"{path.name}/{row}", "test")

    def _files(self, names: tuple[str, ...]) -> list[Path]:
        root = Path(self.root)
        if len(names) == 1 and names[0].endswith(".txt"):
            return listed_files(root / names[0])
        for name in names:
            if not (root / name).is_file():
                raise DataError(f"{root / name}: expected an HDF5 file, found no file")
        return [root / name for name in names]
