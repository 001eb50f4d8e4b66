"""KITTI: single frames of the object benchmark, and the calibration that its relatives share.

Geiger, Lenz, Urtasun, "Are we ready for autonomous driving?", CVPR 2012. What is read, below ``training`` or
``testing``::

    velodyne/000008.bin     float32 x, y, z (forward, left, up; metres) and reflectance
    image_2/000008.png      the left colour camera; sizes vary a little
    calib/000008.txt        lines P2, R0_rect and Tr_velo_to_cam

The frames have boxes but no point labels, so they serve for prediction. :func:`read_frame` makes a frame of any sweep,
image and calibration of this kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frames import Frame
from isthmus.data.image_files import read_image
from isthmus.data.readers.lidar_files import read_numbers, read_sweep
from isthmus.errors import DataError
from isthmus.geometry.projection import camera_projection, visible


@dataclass(frozen=True)
class KittiFrames:
    """Frames without labels, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``.

    Args:
        root: the folder with ``training`` or ``testing`` in it.
        folder: which of the two.
    """

    root: Path
    folder: Literal["training", "testing"] = "training"

    @property
    def classes(self) -> tuple[str, ...]:
        """None: no point has a label."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files."""
        files = [path for name in self._names() for path in self._files(name) if path.is_file()]
        return {"reader": "kitti_frames", "version": 1, "folder": self.folder, "files": stamp(files, Path(self.root))}

    def entries(self) -> list[str]:
        """The names of all sweeps, sorted.

        Raises:
            DataError: there is no folder of sweeps.
        """
        return self._names()

    def read(self, entry: str) -> Frame | Unreadable:
        """The frame of a name, a test frame."""
        try:
            return read_frame(*self._files(entry), name=entry)
        except DataError as error:
            return Unreadable(entry, str(error))

    def _names(self) -> list[str]:
        folder = Path(self.root) / self.folder / "velodyne"
        names = sorted(path.stem for path in folder.glob("*.bin"))
        if not names:
            raise DataError(f"{folder}: expected sweeps *.bin, found none")
        return names

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        base = Path(self.root) / self.folder
        return base / "velodyne" / f"{name}.bin", base / "image_2" / f"{name}.png", base / "calib" / f"{name}.txt"


def read_frame(
    sweep: Path,
    image: Path | None = None,
    calibration: Path | None = None,
    *,
    columns: int = 4,
    name: str | None = None,
    part: Part = "test",
    group: str = "",
) -> Frame:
    """A frame without labels from its files.

    Args:
        sweep: ``.bin`` of float32, x, y, z and intensity first.
        image: the picture; without one all points are kept, with one those that the camera sees.
        calibration: see :func:`read_calibration`; needed with an image.
        columns: numbers of each point: 4 for KITTI, 5 for nuScenes.
        name: of the frame; the sweep's by default.
        part: the split it belongs to.
        group: its sequence.

    Raises:
        DataError: a file is missing or broken, or there is an image but no calibration.
    """
    values = read_sweep(sweep, columns)
    name = sweep.stem if name is None else name
    if image is None:
        return Frame(values[:, :3], None, None, None, name, part, group, values[:, 3])
    if calibration is None:
        raise DataError(f"{image}: expected a calibration with the image, found none")
    projection = read_calibration(calibration)
    picture = read_image(image)
    kept, pixels = visible(values[:, :3], projection, (picture.shape[0], picture.shape[1]))
    return Frame(values[kept, :3], pixels, picture, None, name, part, group, values[kept, 3], projection)


def read_calibration(path: Path) -> np.ndarray:
    """The projection into the left colour camera.

    Read are the object benchmark's files (``P2``, ``R0_rect``, ``Tr_velo_to_cam``: P2 R0 Tr) and the odometry
    benchmark's, which SemanticKITTI has as well (``P2``, ``Tr``: P2 Tr).

    Returns:
        ``(3, 4)`` float64.

    Raises:
        DataError: no such file, or a line is missing or has another count of numbers.
    """
    path = Path(path)
    intrinsics = read_numbers(path, [("P2", 12)])["P2"].reshape(3, 4)
    camera = np.eye(4)
    if any(line.startswith("Tr:") for line in path.read_text(encoding="utf-8").splitlines()):
        camera[:3] = read_numbers(path, [("Tr", 12)])["Tr"].reshape(3, 4)
        return camera_projection(intrinsics, camera)
    found = read_numbers(path, [("R0_rect", 9), ("Tr_velo_to_cam", 12)])
    turn = np.eye(4)
    turn[:3, :3] = found["R0_rect"].reshape(3, 3)
    camera[:3] = found["Tr_velo_to_cam"].reshape(3, 4)
    return camera_projection(intrinsics, turn @ camera)
