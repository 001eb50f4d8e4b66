"""CamVid: photographs from a driving car with eleven classes, by day and at dusk.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009, in SegNet's
selection of classes; 304 frames of four sequences at 160 x 120 pixels. The file lies in the ``dense`` folder of the
data directory that the environment variable ``ISTHMUS_DATA`` names; it may not be redistributed.

=========== ==================== ===========================================================
array       shape and type       what
=========== ==================== ===========================================================
rgb         (n, H, W, 3) uint8   the photograph
seg         (n, H, W) uint8      index into ``class_names``
class_names (12,) text           eleven classes and "unlabelled"
name        (n,) text            ``0001TP_006690``
sequence    (n,) text            ``0001TP``
domain      (n,) text            "day" or "dusk"
split       (n,) text            "train", "val" or "test"
=========== ==================== ===========================================================

By day the parts are those of the file. At dusk there is one sequence, all of which the file calls training frames: the
first 60 % of its frames train, the next 20 % validate, the last 20 % test. Frames are a second or two apart, so
neighbours show the same street. Groups are the sequences by day and runs of four frames at dusk; neither are many, so
only large differences mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.clouds import PARTS, Part
from isthmus.data.data_directory import data_file
from isthmus.data.files import stamp
from isthmus.data.images import ImageSample
from isthmus.data.readers.lidar_files import read_arrays
from isthmus.errors import DataError

FILE = Path("dense") / "camvid_rgb_seg_160x120.npz"

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""SegNet's eleven classes of CamVid."""

Light = Literal["day", "dusk", "all"]
LIGHTS: tuple[Light, ...] = get_args(Light)

_FIELDS = ("rgb", "seg", "class_names", "name", "sequence", "domain", "split")
_UNLABELLED = "unlabelled"
_RUN = 4


@dataclass(frozen=True)
class CamVid:
    """The photographs, as a reader of images.

    Args:
        light: which: ``"day"``, ``"dusk"`` or ``"all"``.
        path: the file; ``None`` takes the one in the data directory that ``ISTHMUS_DATA`` names.
    """

    light: Light = "all"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.light not in LIGHTS:
            raise DataError(f"CamVid.light: expected one of {', '.join(LIGHTS)}, found {self.light!r}")

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation into eleven classes."""
        return {"segmentation": CLASSES}

    def fingerprint(self) -> dict[str, Any]:
        """The file's name, size and modification time, and the light."""
        path = self._file()
        return {"reader": "camvid", "version": 1, "light": self.light, "files": stamp([path], path.parent)}

    def samples(self) -> Iterator[ImageSample]:
        """The photographs in the order of the file, named as there.

        Raises:
            DataError: the file is not what it should be.
        """
        path = self._file()
        arrays = _arrays(path)
        to_class = _to_class(path, arrays["class_names"].tolist())
        dusk = np.flatnonzero(arrays["domain"] == "dusk")
        place = {int(row): number for number, row in enumerate(dusk)}
        for row, light in enumerate(arrays["domain"].tolist()):
            if self.light not in ("all", light):
                continue
            if arrays["seg"][row].max() >= len(to_class):
                raise DataError(
                    f"{path}: seg[{row}]: expected 0 to {len(to_class) - 1}, found {arrays['seg'][row].max()}"
                )
            part: Part = arrays["split"].tolist()[row]
            group = str(arrays["sequence"][row])
            if light == "dusk":
                part = _part(place[row], len(dusk))
                group = f"{group}/{part} {place[row] // _RUN}"
            labels = {"segmentation": to_class[arrays["seg"][row]]}
            yield ImageSample(arrays["rgb"][row], labels, str(arrays["name"][row]), part, group)

    def _file(self) -> Path:
        return data_file(FILE, "the file of CamVid's photographs", file=self.path)


def _part(number: int, count: int) -> Part:
    return "train" if 10 * number < 6 * count else "val" if 10 * number < 8 * count else "test"


def _to_class(path: Path, names: list[str]) -> np.ndarray:
    """Index of :data:`CLASSES` for each of the file's indices, 255 for what is unlabelled."""
    wrong = [name for name in names if name != _UNLABELLED and name not in CLASSES]
    if wrong:
        raise DataError(f"{path}: class_names: expected {', '.join(CLASSES)} and {_UNLABELLED}, found {wrong[0]!r}")
    return np.array([255 if name == _UNLABELLED else CLASSES.index(name) for name in names], np.uint8)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, _FIELDS)
    shape = arrays["seg"].shape if arrays["seg"].ndim == 3 else (len(arrays["seg"]), 0, 0)
    for name, wanted in (("rgb", (*shape, 3)), ("seg", shape)):
        if arrays[name].dtype != np.uint8 or arrays[name].shape != wanted:
            raise DataError(f"{path}: {name}: expected uint8 {wanted}, found {arrays[name].dtype} {arrays[name].shape}")
    for name in ("name", "sequence", "domain", "split"):
        if arrays[name].shape != shape[:1] or arrays[name].dtype.kind != "U":
            raise DataError(
                f"{path}: {name}: expected {shape[0]} names, found {arrays[name].dtype} of shape {arrays[name].shape}"
            )
    allowed: tuple[tuple[str, tuple[str, ...]], ...] = (("domain", ("day", "dusk")), ("split", PARTS))
    for name, values in allowed:
        unknown = sorted(set(arrays[name].tolist()) - set(values))
        if unknown:
            raise DataError(f"{path}: {name}: expected {', '.join(values)}, found {unknown[0]!r}")
    return arrays
