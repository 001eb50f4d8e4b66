"""SemanticKITTI: KITTI's odometry sequences with a label for each LiDAR point.

Behley et al., "SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR Sequences", ICCV 2019, with the
images and calibration of KITTI odometry put beside the scans::

    dataset/sequences/00/velodyne/000000.bin    float32 x, y, z (forward, left, up; metres) and remission
    dataset/sequences/00/labels/000000.label    uint32; the lower 16 bits are the class, the upper ones the instance
    dataset/sequences/00/image_2/000000.png     left colour camera
    dataset/sequences/00/calib.txt              lines P0 to P3 and Tr

Parts as xMUDA has them: 00 to 06, 09 and 10 are for training, 07 validates, 08 tests. Sequences 11 to 21 have no
labels. A point is kept if it lies before the camera and inside its image (the camera looks forward, so this is xMUDA's
"x > 0 and inside" but for points nearer than 0.3 m).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.class_protocol import ClassProtocol, apply_table
from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.image_files import read_image
from isthmus.data.readers.kitti import read_calibration
from isthmus.data.readers.lidar_files import read_point_labels, read_sweep
from isthmus.errors import DataError
from isthmus.geometry.projection import visible

LABELS: dict[int, str] = {
    0: "unlabeled",
    1: "outlier",
    10: "car",
    11: "bicycle",
    13: "bus",
    15: "motorcycle",
    16: "on-rails",
    18: "truck",
    20: "other-vehicle",
    30: "person",
    31: "bicyclist",
    32: "motorcyclist",
    40: "road",
    44: "parking",
    48: "sidewalk",
    49: "other-ground",
    50: "building",
    51: "fence",
    52: "other-structure",
    60: "lane-marking",
    70: "vegetation",
    71: "trunk",
    72: "terrain",
    80: "pole",
    81: "traffic-sign",
    99: "other-object",
    252: "moving-car",
    253: "moving-bicyclist",
    254: "moving-person",
    255: "moving-motorcyclist",
    256: "moving-on-rails",
    257: "moving-bus",
    258: "moving-truck",
    259: "moving-other-vehicle",
}
"""Names of the classes by their numbers, as in ``semantic-kitti.yaml``."""

PART_OF: dict[str, Part] = {
    **dict.fromkeys(("00", "01", "02", "03", "04", "05", "06", "09", "10"), "train"),
    "07": "val",
    "08": "test",
}
"""The part of each labelled sequence."""

_HIDDEN = tuple(str(number) for number in range(11, 22))


@dataclass(frozen=True)
class SemanticKITTI:
    """The sequences, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``. Frames of sequences without labels (11 to
    21) have ``labels=None`` and are training frames.

    Args:
        root: the folder that has ``sequences`` in it, or ``dataset/sequences``.
        protocol: a class protocol of SemanticKITTI, see ``isthmus.data.frame_classes``.
        sequences: which ones; all eleven that have labels by default.
        images: False reads the scans alone, with all their points.
    """

    root: Path
    protocol: str = "semantickitti-10"
    sequences: tuple[str, ...] = tuple(sorted(PART_OF))
    images: bool = True

    def __post_init__(self) -> None:
        protocol(self.protocol, "semantickitti")
        known = (*sorted(PART_OF), *_HIDDEN)
        for name in self.sequences:
            if name not in known:
                raise DataError(f"sequences: expected some of {known[0]} to {known[-1]}, found {name!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, and names, sizes and modification times of the files."""
        given = protocol(self.protocol)
        files = [path for frame in self._listed() for path in self._files(*frame).values() if path.is_file()]
        return {
            "reader": "semantickitti",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "sequences": list(self.sequences),
            "images": self.images,
            "files": stamp(files, Path(self.root)),
        }

    def entries(self) -> list[tuple[str, str]]:
        """Sequence and name of each scan, sequence after sequence, scan after scan.

        Raises:
            DataError: a sequence has no folder of scans.
        """
        return self._listed()

    def read(self, entry: tuple[str, str]) -> Frame | Unreadable:
        """A scan, named ``00/000000``; the group is the sequence.

        Raises:
            DataError: the calibration of the sequence is broken.
        """
        sequence, name = entry
        files = self._files(sequence, name)
        projection = read_calibration(files["calibration"]) if self.images else None
        try:
            return self._frame(sequence, name, files, projection)
        except DataError as error:
            return Unreadable(f"{sequence}/{name}", str(error))

    def _frame(self, sequence: str, name: str, files: dict[str, Path], projection: np.ndarray | None) -> Frame:
        values = read_sweep(files["sweep"], 4)
        labels = read_labels(files["labels"], len(values), self._table) if "labels" in files else None
        kept: np.ndarray | slice = slice(None)
        image = pixels = None
        if projection is not None:
            image = read_image(files["image"])
            kept, pixels = visible(values[:, :3], projection, (image.shape[0], image.shape[1]))
        return Frame(
            values[kept, :3],
            pixels,
            image,
            None if labels is None else labels[kept],
            f"{sequence}/{name}",
            PART_OF.get(sequence, "train"),
            sequence,
            values[kept, 3],
            projection,
        )

    def _files(self, sequence: str, name: str) -> dict[str, Path]:
        folder = self._folder / sequence
        files = {"sweep": folder / "velodyne" / f"{name}.bin"}
        if sequence in PART_OF:
            files["labels"] = folder / "labels" / f"{name}.label"
        if self.images:
            files |= {"image": folder / "image_2" / f"{name}.png", "calibration": folder / "calib.txt"}
        return files

    def _listed(self) -> list[tuple[str, str]]:
        listed = []
        for sequence in self.sequences:
            scans = self._folder / sequence / "velodyne"
            names = sorted(path.stem for path in scans.glob("*.bin"))
            if not names:
                raise DataError(
                    f"{scans}: expected scans *.bin, found none; name the sequences that are there in 'sequences'"
                )
            listed += [(sequence, name) for name in names]
        return listed

    @cached_property
    def _table(self) -> np.ndarray:
        return label_table(protocol(self.protocol))

    @cached_property
    def _folder(self) -> Path:
        for path in (Path(self.root) / "sequences", Path(self.root) / "dataset" / "sequences"):
            if path.is_dir():
                return path
        raise DataError(f"{self.root}: expected a folder 'sequences' or 'dataset/sequences', found none")


def label_table(given: ClassProtocol) -> np.ndarray:
    """Labels of a protocol by SemanticKITTI's numbers. Shape: ``(260,)`` int16, -1 for a number without a class."""
    return given.table(LABELS, max(LABELS) + 1)


def read_labels(path: Path, count: int, table: np.ndarray) -> np.ndarray:
    """The labels of a ``.label`` file.

    Args:
        path: the file.
        count: points of the scan.
        table: see :func:`label_table`.

    Returns:
        ``(count,)`` uint8.

    Raises:
        DataError: no file, another number of points, or a number that is no class.
    """
    return apply_table(table, read_point_labels(path, count) & 0xFFFF, path)
