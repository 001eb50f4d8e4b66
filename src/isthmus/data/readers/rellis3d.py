"""RELLIS-3D: off-road sequences with a LiDAR of 64 beams, a colour camera and labels of points.

Jiang et al., "RELLIS-3D Dataset: Data, Benchmarks and Analysis", ICRA 2021. The layout below the root::

    pt_train.lst, pt_val.lst, pt_test.lst       a line for each frame: its sweep and its labels, below the root
    00000/os1_cloud_node_kitti_bin/000104.bin                       float32 x, y, z (metres), intensity
    00000/os1_cloud_node_semantickitti_label_id/000104.label        uint32, the class in the lower 16 bits
    00000/pylon_camera_node/frame000104-1581624663_149.jpg          1920 x 1200
    00000/camera_info.txt       fx fy cx cy
    00000/transforms.yaml       os1_cloud_node-pylon_camera_node: q and t, the camera in the LiDAR's frame

Images are as the lens gives them, so pixels are made with its distortion (the coefficients of the authors' example of
projection) and a frame has no ``projection``: no matrix takes points to these pixels. Of points far outside the image,
which the polynomial of the distortion would fold back into it, none is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from isthmus.data.class_protocol import apply_table
from isthmus.data.clouds import PARTS, Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.image_files import read_image
from isthmus.data.readers.lidar_files import check_finite, read_point_labels, read_sweep
from isthmus.errors import DataError
from isthmus.geometry.projection import camera_projection, distort, inside, inverse_rigid, project, rigid

LABELS: dict[int, str] = {
    0: "void",
    1: "dirt",
    3: "grass",
    4: "tree",
    5: "pole",
    6: "water",
    7: "sky",
    8: "vehicle",
    9: "object",
    10: "asphalt",
    12: "building",
    15: "log",
    17: "person",
    18: "fence",
    19: "bush",
    23: "concrete",
    27: "barrier",
    31: "puddle",
    33: "mud",
    34: "rubble",
}
"""Names of the classes by their numbers, as in the data set's ontology."""

DISTORTION = (-0.134313, -0.025905, 0.002181, 0.00084, 0.0)
"""Coefficients k1, k2, p1, p2, k3 of the camera's lens."""

_MOTION = "os1_cloud_node-pylon_camera_node"
_IMAGES = "pylon_camera_node"
# Undistorted places may lie this share of the image outside of it: the lens moves none farther.
_MARGIN = 0.25


@dataclass(frozen=True)
class Rellis3D:
    """The frames that have labels, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``. Sweeps of labelled frames without an
    image of the same number are passed over.

    Args:
        root: the folder with the lists and sequences.
        protocol: a class protocol of RELLIS-3D.
    """

    root: Path
    protocol: str = "rellis3d-19"

    def __post_init__(self) -> None:
        protocol(self.protocol, "rellis3d")

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, the lists, and names, sizes and modification times of the files."""
        root = Path(self.root)
        given = protocol(self.protocol)
        files = [path for _, *paths in self._listed for path in paths]
        cameras = [path for name in ("camera_info.txt", "transforms.yaml") for path in sorted(root.glob(f"*/{name}"))]
        return {
            "reader": "rellis3d",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "lists": [[part, sweep.relative_to(root).as_posix()] for part, sweep, _, _ in self._listed],
            "files": stamp([*cameras, *(path for path in files if path.is_file())], root),
        }

    def entries(self) -> list[tuple[Part, Path, Path, Path]]:
        """Part, sweep, labels and image of each frame of the lists for training, validation and test.

        Raises:
            DataError: a list is missing or broken.
        """
        return self._listed

    def read(self, entry: tuple[Part, Path, Path, Path]) -> Frame | Unreadable:
        """A frame, named ``00000/000104``; the group is the sequence.

        Raises:
            DataError: the calibration of the sequence is missing or broken.
        """
        part, sweep, labels, image = entry
        sequence = sweep.relative_to(self.root).parts[0]
        camera = read_camera(Path(self.root) / sequence)
        name = f"{sequence}/{sweep.stem}"
        try:
            values = read_sweep(sweep, 4)
            numbers = read_point_labels(labels, len(values)) & 0xFFFF
            picture = read_image(image)
            kept, pixels = distorted_visible(values[:, :3], *camera, (picture.shape[0], picture.shape[1]))
            own = apply_table(protocol(self.protocol).table(LABELS), numbers[kept], labels)
            return Frame(values[kept, :3], pixels, picture, own, name, part, sequence, values[kept, 3])
        except DataError as error:
            return Unreadable(name, str(error))

    @cached_property
    def _listed(self) -> list[tuple[Part, Path, Path, Path]]:
        root = Path(self.root)
        listed = []
        images: dict[Path, dict[str, Path]] = {}
        for part in PARTS:
            path = root / f"pt_{part}.lst"
            try:
                lines = path.read_text(encoding="utf-8").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: expected a list of sweeps and labels, found {error}") from error
            for number, line in enumerate(lines, start=1):
                words = line.split()
                if not words:
                    continue
                if len(words) != 2 or not words[0].endswith(".bin") or not words[1].endswith(".label"):
                    raise DataError(f"{path}:{number}: expected a .bin and a .label, found {line!r}")
                folder = root / Path(words[0]).parts[0] / _IMAGES
                if folder not in images:
                    images[folder] = {
                        image.stem.removeprefix("frame").partition("-")[0]: image
                        for image in sorted(folder.glob("frame*.jpg"))
                    }
                image = images[folder].get(Path(words[0]).stem)
                if image is not None:
                    listed.append((part, root / words[0], root / words[1], image))
        if not listed:
            raise DataError(f"{root}: expected sweeps with images of the same number, found none")
        return listed


def read_camera(sequence: Path) -> tuple[np.ndarray, np.ndarray]:
    """The calibration of a sequence.

    Returns:
        Intrinsics ``(3, 3)`` and the motion ``(4, 4)`` from the LiDAR's frame into the camera's.

    Raises:
        DataError: ``camera_info.txt`` or ``transforms.yaml`` is missing or broken.
    """
    path = sequence / "camera_info.txt"
    try:
        values = np.array([float(word) for word in path.read_text(encoding="utf-8").split()])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the four numbers fx fy cx cy, found {error}") from error
    if len(values) != 4:
        raise DataError(f"{path}: expected the four numbers fx fy cx cy, found {len(values)}")
    check_finite(values, str(path))
    intrinsics = np.array([[values[0], 0, values[2]], [0, values[1], values[3]], [0, 0, 1]])
    path = sequence / "transforms.yaml"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))[_MOTION]
        turn, shift = [given["q"][axis] for axis in "wxyz"], [given["t"][axis] for axis in "xyz"]
        camera = rigid(turn, shift)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        wanted = f"{_MOTION} with q (w, x, y, z) and t (x, y, z)"
        raise DataError(f"{path}: expected {wanted}, found {type(error).__name__}: {error}") from error
    return intrinsics, inverse_rigid(camera)


def distorted_visible(
    points: np.ndarray, intrinsics: np.ndarray, camera: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The points that a camera with a distorting lens sees.

    Args:
        points: ``(N, 3)`` metres.
        intrinsics: ``(3, 3)``.
        camera: ``(4, 4)`` motion into the camera's frame.
        size: height and width of the image.

    Returns:
        ``(N,)`` bool, which these are, and ``(M, 2)`` float32, their rows and columns.
    """
    straight, depth = project(points, camera_projection(intrinsics, camera))
    margin = _MARGIN * np.asarray(size)
    kept = (depth > 0) & inside(straight + margin, (int(size[0] + 2 * margin[0]), int(size[1] + 2 * margin[1])))
    focal, centre = intrinsics[[1, 0], [1, 0]], intrinsics[[1, 0], 2]
    rays = ((straight[kept] - centre) / focal)[:, ::-1]
    pixels = (distort(rays, DISTORTION)[:, ::-1] * focal + centre).astype(np.float32)
    seen = inside(pixels, size)
    kept[kept] = seen
    return kept, pixels[seen]
