"""Small sets of real LiDAR sweeps with point labels, of three sensors, for adaptation across sensors; no images.

=============== ======================================== ====== ====================================================
name            what it is                               beams  field of view
=============== ======================================== ====== ====================================================
nuscenes        32 sweeps of nuScenes-lidarseg           32     all around
ika             32 sweeps of another vehicle             32     to the front
semantickitti   21 scans of sequence 00                  64     all around
=============== ======================================== ====== ====================================================

The files lie in the ``lidar_camera`` folder of the data directory that the environment variable ``ISTHMUS_DATA`` names;
they may not be redistributed. Their classes differ and are merged to the seven of the label space ``lidar-sweeps-7``
(``isthmus.data.frame_classes``). Axes are x forward, y left, z up (nuScenes: x right, y forward), metres from the
sensor, which stands at another height in each.

Sweeps follow each other in time, so neighbours show the same scene: parts are stretches of time (the first 60 % of the
sweeps train, the next 20 % validate, the last 20 % test), the group is a run of four sweeps, and even groups are not
independent. Differences measured here are those between sensors and places at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.class_protocol import apply_table
from isthmus.data.clouds import Part
from isthmus.data.data_directory import data_file
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame, settings_alone
from isthmus.data.readers.lidar_files import check_finite, read_arrays
from isthmus.errors import DataError

Sensor = Literal["nuscenes", "ika", "semantickitti"]
SENSORS: tuple[Sensor, ...] = get_args(Sensor)

_FILES = {
    "nuscenes": "nuscenes_lidarseg_36sweeps.npz",
    "ika": "ika_vlp32_35frames.npz",
    "semantickitti": "semantickitti_seq00_08_26frames.npz",
}
_FIELDS = ("points", "intensity", "label", "offset", "frame", "class_names")
_RUN = 4


@dataclass(frozen=True)
class LidarSweeps:
    """The sweeps of one sensor, as a reader. Frames have points, labels and intensity only.

    Args:
        sensor: which set.
        path: the file; None takes the one in the data directory that ``ISTHMUS_DATA`` names.
        front: keep only points within 45 degrees of the direction of travel, which is about what ``ika`` sees.
    """

    sensor: Sensor
    path: Path | None = None
    front: bool = False

    def __post_init__(self) -> None:
        if self.sensor not in SENSORS:
            raise DataError(f"LidarSweeps.sensor: expected one of {', '.join(SENSORS)}, found {self.sensor!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The seven classes."""
        return protocol(f"sweeps-{self.sensor}").classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, and the file's name, size and modification time."""
        path = self._file()
        given = protocol(f"sweeps-{self.sensor}")
        return {
            "reader": "lidar_sweeps",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "front": self.front,
            "files": stamp([path], path.parent),
        }

    def entries(self) -> range:
        """The numbers of the sweeps, in the order of time.

        Raises:
            DataError: the file is not what it should be.
        """
        return range(len(self._content[0]["frame"]))

    def read(self, entry: int) -> Frame:
        """A sweep, named by the sensor and the file's name of the sweep.

        Raises:
            DataError: the file is not what it should be.
        """
        path, (arrays, table) = self._file(), self._content
        rows = slice(arrays["offset"][entry], arrays["offset"][entry + 1])
        points = arrays["points"][rows].astype(np.float32)
        check_finite(points, f"{path}: points of sweep {entry}")
        labels = apply_table(table, arrays["label"][rows], path)
        intensity = arrays["intensity"][rows].astype(np.float32)
        if self.front:
            ahead, aside = (1, 0) if self.sensor == "nuscenes" else (0, 1)
            kept = points[:, ahead] > np.abs(points[:, aside])
            points, labels, intensity = points[kept], labels[kept], intensity[kept]
        name = f"{self.sensor}/{arrays['frame'][entry]}"
        part = _part(entry, len(arrays["frame"]))
        return Frame(points, None, None, labels, name, part, f"{part}/run {entry // _RUN}", intensity)

    def __getstate__(self) -> dict[str, Any]:
        return settings_alone(self)

    @cached_property
    def _content(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The arrays of the file, and the protocol's labels by its numbers."""
        arrays = _arrays(self._file())
        return arrays, protocol(f"sweeps-{self.sensor}").table(dict(enumerate(arrays["class_names"].tolist())))

    def _file(self) -> Path:
        relative = Path("lidar_camera") / _FILES[self.sensor]
        return data_file(relative, f"the sweeps of {self.sensor!r}", file=self.path)


def _part(row: int, count: int) -> Part:
    return "train" if 10 * row < 6 * count else "val" if 10 * row < 8 * count else "test"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, _FIELDS)
    count = len(arrays["points"])
    for name, kinds, shape in (
        ("points", "f", (count, 3)),
        ("intensity", "f", (count,)),
        ("label", "iu", (count,)),
        ("frame", "U", (len(arrays["frame"]),)),
        ("class_names", "U", (len(arrays["class_names"]),)),
        ("offset", "iu", (len(arrays["frame"]) + 1,)),
    ):
        if arrays[name].dtype.kind not in kinds or arrays[name].shape != shape:
            raise DataError(
                f"{path}: {name}: expected an array of kind {' or '.join(kinds)} and shape {shape}, found "
                f"{arrays[name].dtype} {arrays[name].shape}"
            )
    offset = arrays["offset"].astype(np.int64)
    if offset[0] != 0 or offset[-1] != count or (np.diff(offset) < 0).any():
        raise DataError(f"{path}: offset: expected rising numbers from 0 to {count}, found {offset[0]} to {offset[-1]}")
    return arrays | {"offset": offset}
