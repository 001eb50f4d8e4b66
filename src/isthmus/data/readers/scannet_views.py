"""Views of real rooms: coloured ScanNet scans rendered as splats, with segmentation, depth and normals.

Three hundred views of 60 x 80 pixels from eight rooms, some of which were scanned two or three times (``scene0000_00``,
``scene0000_01``): scans of one room show the same furniture, so the *room* (``scene0000``) is the group of a view and
whole rooms are dealt to the parts. Pixels onto which no splat fell have no label of any task and are black.

The file lies in the ``dense`` folder of the data directory that the environment variable ``ISTHMUS_DATA`` names; it may
not be redistributed.

========= ================== ==================================================================================
array     shape and type     what
========= ================== ==================================================================================
rgb       (n, H, W, 3) uint8 the view
depth     (n, H, W) float16  metres
normal    (n, H, W, 3) int8  127 times the unit normal, camera frame: x right, y down, z forward
seg       (n, H, W) uint8    index into ``classes13``
classes13 (14,) text         "ignore" and the thirteen NYUv2 classes
mask      (n, H, W / 8)      packed bits: pixels that a splat covers
scan      (n,) text          ``scene0000_00``: room and number of the scan
========= ================== ==================================================================================
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.data.clouds import PARTS, Part
from isthmus.data.data_directory import data_file
from isthmus.data.files import stamp
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import NYU13
from isthmus.errors import DataError

FILE = Path("dense") / "scannet_splat_views_60x80.npz"

_FIELDS = ("rgb", "depth", "normal", "seg", "classes13", "mask", "scan")
_SCAN = re.compile(r"(scene\d{4})_\d{2}")
_IGNORE = "ignore"


@dataclass(frozen=True)
class ScanNetViews:
    """The views, as a reader.

    Args:
        path: the file; ``None`` takes the one in the data directory that ``ISTHMUS_DATA`` names.
        test_rooms: rooms (``"scene0007"``) whose views are the test part.
        val_rooms: rooms whose views are the validation part; all other rooms are for training.

    Raises:
        DataError: a room is in both parts.
    """

    path: Path | None = None
    test_rooms: tuple[str, ...] = field(kw_only=True)
    val_rooms: tuple[str, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        both = sorted(set(self.test_rooms) & set(self.val_rooms))
        if both:
            raise DataError(f"test_rooms and val_rooms: expected a room in one of them, found {both[0]!r} in both")

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation into NYUv2's thirteen classes, depth and normals."""
        return {"segmentation": NYU13, "depth": (), "normals": ()}

    def fingerprint(self) -> dict[str, Any]:
        """The file's name, size and modification time, and the rooms of the parts."""
        path = views_file(self.path)
        return {
            "reader": "scannet_views",
            "version": 1,
            "test_rooms": sorted(self.test_rooms),
            "val_rooms": sorted(self.val_rooms),
            "files": stamp([path], path.parent),
        }

    def samples(self) -> Iterator[ImageSample]:
        """The views in the order of the file, named by their scan and row: ``scene0000_00/17``.

        Raises:
            DataError: the file is not what it should be, or has no view of a room that was named.
        """
        path = views_file(self.path)
        arrays = _arrays(path)
        rooms = [_room(path, scan) for scan in arrays["scan"]]
        for name, given in (("test_rooms", self.test_rooms), ("val_rooms", self.val_rooms)):
            for room in given:
                if room not in rooms:
                    raise DataError(
                        f"{path}: {name}: expected some of the rooms {', '.join(sorted(set(rooms)))}, found "
                        f"{room!r}{nearest(room, set(rooms))}"
                    )
        to_class = _to_class(path, arrays["classes13"])
        width = arrays["seg"].shape[2]
        for row, room in enumerate(rooms):
            covered = np.unpackbits(arrays["mask"][row], axis=-1, count=width).astype(bool)
            if arrays["seg"][row].max() >= len(to_class):
                raise DataError(
                    f"{path}: seg[{row}]: expected 0 to {len(to_class) - 1}, found {arrays['seg'][row].max()}"
                )
            labels = {
                "segmentation": np.where(covered, to_class[arrays["seg"][row]], np.uint8(255)),
                "depth": np.where(covered, arrays["depth"][row], 0).astype(np.float32),
                "normals": _unit(np.where(covered[..., None], arrays["normal"][row], 0)),
            }
            yield ImageSample(arrays["rgb"][row], labels, f"{arrays['scan'][row]}/{row}", self._part(room), room)

    def rooms_by_class(self) -> dict[Part, dict[str, int]]:
        """In how many rooms of each part at least one pixel of each class is seen.

        A score over few rooms is steadier if it leaves out classes that hardly any room has: "mIoU over the classes
        seen in at least four rooms of both parts".
        """
        seen: dict[Part, dict[str, set[str]]] = {part: {name: set() for name in NYU13} for part in PARTS}
        for sample in self.samples():
            for index in np.unique(sample.labels["segmentation"]):
                if index < len(NYU13):
                    seen[sample.part][NYU13[index]].add(sample.group)
        return {part: {name: len(rooms) for name, rooms in classes.items()} for part, classes in seen.items()}

    def _part(self, room: str) -> Part:
        return "test" if room in self.test_rooms else "val" if room in self.val_rooms else "train"


def scannet_rooms(path: Path | None = None) -> tuple[str, ...]:
    """All rooms of the file, sorted: ``("scene0000", ...)``.

    Raises:
        DataError: there is no such file, or it is not what it should be.
    """
    file = views_file(path)
    return tuple(sorted({_room(file, scan) for scan in _arrays(file)["scan"]}))


def views_file(path: Path | None) -> Path:
    """The file of the views: the one given, or that of the data directory which ``ISTHMUS_DATA`` names.

    Raises:
        DataError: there is none.
    """
    return data_file(FILE, "the file of ScanNet views", file=path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _FIELDS}
    # NumPy takes the content for what it is: an .npy has no context manager, a broken archive fails in many ways.
    except (AttributeError, TypeError, KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected the arrays {', '.join(_FIELDS)}, found {error}") from error
    count, height, width = arrays["seg"].shape if arrays["seg"].ndim == 3 else (len(arrays["seg"]), 0, 0)
    expected = {
        "rgb": (np.uint8, (count, height, width, 3)),
        "depth": (np.float16, (count, height, width)),
        "normal": (np.int8, (count, height, width, 3)),
        "seg": (np.uint8, (count, height, width)),
        "mask": (np.uint8, (count, height, -(-width // 8))),
    }
    for name, (dtype, shape) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise DataError(
                f"{path}: {name}: expected {np.dtype(dtype)} {shape}, found {arrays[name].dtype} {arrays[name].shape}"
            )
    if arrays["scan"].shape != (count,) or arrays["scan"].dtype.kind != "U":
        raise DataError(
            f"{path}: scan: expected {count} names, found {arrays['scan'].dtype} of shape {arrays['scan'].shape}"
        )
    return arrays


def _room(path: Path, scan: str) -> str:
    match = _SCAN.fullmatch(scan)
    if not match:
        raise DataError(f"{path}: scan: expected the name of a ScanNet scan such as scene0000_00, found {str(scan)!r}")
    return match[1]


def _to_class(path: Path, names: np.ndarray) -> np.ndarray:
    """Index of ``NYU13`` for each of the file's indices, 255 for the one that is ignored."""
    for name in names.tolist():
        if name != _IGNORE and name not in NYU13:
            raise DataError(
                f"{path}: classes13: expected {_IGNORE} and NYUv2's thirteen classes, found {name!r}"
                f"{nearest(str(name), NYU13)}"
            )
    return np.array([255 if name == _IGNORE else NYU13.index(name) for name in names.tolist()], np.uint8)


def _unit(normals: np.ndarray) -> np.ndarray:
    vectors = normals.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0).astype(np.float16)
