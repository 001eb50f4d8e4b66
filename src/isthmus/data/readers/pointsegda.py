"""PointSegDA in its published layout: human bodies of four collections, with a part label at every point.

The layout (Achituve, Maron, Chechik, "Self-Supervised Learning for Domain Adaptation on Point Clouds", WACV 2021,
after Maron et al., "Convolutional Neural Networks on Surfaces via Seamless Toric Covers", 2017)::

    PointSegDAdataset/{adobe,faust,mit,scape}/{train,val,test}/*.npy     (2048, 4): x, y, z, label

Labels in the files are 1 to 8, here 0 to 7. No repository names them or says in which order they come, so they are
called ``part1`` to ``part8``; whoever knows hands the names in. Published sizes are in :data:`PUBLISHED`.

The published loader neither turns nor scales a cloud, and reads files in no fixed order. Here files are sorted, and
the store (:mod:`isthmus.data.store`) moves each cloud to its mean and scales it to the unit sphere, as it does for
every data set: lengths that a pretext is given in (the radius of a ball) mean the same in all of them, and domains
that differ in nothing but scale do not differ. The axes are taken to be as the file has them; ``up`` turns them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.clouds import PARTS, Part, Sample, Unreadable
from isthmus.data.files import Up, domain_folder, stamp, z_up
from isthmus.errors import DataError

Domain = Literal["adobe", "faust", "mit", "scape"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

PUBLISHED: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"adobe": (29, 4, 8), "faust": (70, 10, 20), "mit": (118, 17, 34), "scape": (50, 7, 14)}
)
"""Training, validation and test clouds of each domain."""

CLASSES = tuple(f"part{number}" for number in range(1, 9))


@dataclass(frozen=True)
class PointSegDA:
    """One domain of PointSegDA, as a reader of clouds with labelled points.

    A file that cannot be read, or whose labels are not whole numbers from 1 to 8, is yielded as ``Unreadable``. Other
    numbers of files or of points than published are read all the same; :meth:`differences` lists the former.

    Args:
        root: the folder ``PointSegDAdataset``, which has the domains' folders in it.
        domain: "adobe", "faust", "mit" or "scape".
        classes: names of the eight labels, in their order.
        up: the axis that points up in the files.
    """

    root: Path
    domain: Domain
    classes: tuple[str, ...] = CLASSES
    up: Up = "z"

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise DataError(f"domain: expected one of {', '.join(DOMAINS)}, found {self.domain!r}")
        if len(set(self.classes)) != len(CLASSES):
            raise DataError(f"classes: expected {len(CLASSES)} different names, found {', '.join(self.classes)}")
        if self.up not in get_args(Up):
            raise DataError(f"up: expected one of {', '.join(get_args(Up))}, found {self.up!r}")

    @property
    def folder(self) -> Path:
        """The domain's own folder.

        Raises:
            DataError: it is not there.
        """
        return domain_folder(self.root, self.domain, "PointSegDAdataset")

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files."""
        paths = [path for part in PARTS for path in self._files(part)]
        return {
            "reader": "pointsegda",
            "version": 1,
            "domain": self.domain,
            "classes": list(self.classes),
            "up": self.up,
            "files": stamp(paths, self.folder),
        }

    def samples(self) -> Iterator[Sample | Unreadable]:
        """The files of training, validation and test part, each in the order of their names.

        Raises:
            DataError: a folder is missing or empty.
        """
        for part in PARTS:
            for path in self._files(part):
                name = path.relative_to(self.folder).as_posix()
                try:
                    points, labels = _read(path, len(self.classes))
                except DataError as error:
                    yield Unreadable(name, str(error))
                else:
                    yield Sample(z_up(points, self.up), -1, name, part, point_labels=labels)

    def differences(self) -> list[str]:
        """A line for each part that has another number of files than published; an incomplete download, mostly."""
        found = {part: len(self._files(part)) for part in PARTS}
        return [
            f"{self.folder / part}: expected the {published} files of the published data set, found {found[part]}"
            for part, published in zip(PARTS, PUBLISHED[self.domain])
            if found[part] != published
        ]

    def _files(self, part: Part) -> list[Path]:
        paths = sorted((self.folder / part).glob("*.npy"), key=lambda path: path.name)
        if not paths:
            raise DataError(f"{self.folder / part}: expected files *.npy, found none")
        return paths


def _read(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) float32 and labels (n,) uint8 from 0."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: expected an array of numbers, found {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{path}: expected numbers of shape (n, 4), found {found}")
    labels = array[:, 3]
    if not np.isin(labels, np.arange(1, classes + 1)).all():
        wrong = labels[~np.isin(labels, np.arange(1, classes + 1))][0]
        raise DataError(f"{path}: column 3: expected labels 1 to {classes}, found {wrong}")
    return np.ascontiguousarray(array[:, :3], dtype=np.float32), (labels - 1).astype(np.uint8)
