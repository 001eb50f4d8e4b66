"""xMUDA's preprocessed pickles: lists of frames, read without running anything in them.

Jaritz et al., "xMUDA: Cross-Modal Unsupervised Domain Adaptation for 3D Semantic Segmentation", CVPR 2020; DsCML and
others use the same files. ``<preprocess>/train_usa.pkl`` is a list of dicts, one for each frame, with points that the
camera sees:

============= ===================== ==================================================================================
key           shape and type        what
============= ===================== ==================================================================================
points        (N, 3) float          LiDAR's frame, metres
seg_labels    (N,) whole numbers    of the classes below
points_img    (N, 2) float          row and column in the image as it lies on disk
camera_path   text                  the image, below ``images``
lidar_path    text                  names the frame where there is no ``sample_token``
============= ===================== ==================================================================================

Numbers in ``seg_labels``: nuScenes and "seg5" pickles count the eleven classes of the boxes, the journal's lidarseg
pickles the seventeen of the challenge, A2D2's the rows of ``class_list.json`` (55 is "unknown"), SemanticKITTI's are
those of its ``.label`` files. nuScenes' pickles hold objects of two classes for the boxes; they stay inert and are not
looked at. A reader keeps its pickles in memory (a few gigabytes for nuScenes' training parts); processes that are
forked from one that has listed the frames share them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.class_protocol import apply_table
from isthmus.data.clouds import PARTS, Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame, settings_alone
from isthmus.data.image_files import read_image
from isthmus.data.readers.a2d2 import class_list
from isthmus.data.readers.lidar_files import check_finite
from isthmus.data.readers.semantickitti import LABELS as KITTI_LABELS
from isthmus.data.safe_pickle import load_pickle
from isthmus.errors import DataError
from isthmus.geometry.projection import inside

BOX_NUMBERS = (
    *("car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle"),
    *("traffic_cone", "barrier", "background"),
)
"""Classes of nuScenes' pickles with labels from boxes, and of those of the "seg5" protocol, by number."""

LIDARSEG_NUMBERS = (
    *("ignore", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian"),
    *("traffic_cone", "trailer", "truck", "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade"),
    "vegetation",
)
"""Classes of the journal version's lidarseg pickles by number."""

INERT = ("nuscenes.utils.data_classes.Box", "pyquaternion.quaternion.Quaternion")
"""Classes whose objects may lie in a pickle and are not looked at."""

_KEYS = ("points", "seg_labels", "points_img", "camera_path", "lidar_path")


@dataclass(frozen=True)
class XmudaPickles:
    """Pickles of one domain, as a reader.

    A frame with unusable values or without its image is yielded as ``Unreadable``; a pickle that cannot be read is an
    error.

    Args:
        preprocess: the folder with the pickles.
        images: the folder that ``camera_path`` starts from: the data set's root, for A2D2 the folder above
            ``preprocess``, where the undistorted images (and ``class_list.json``) are.
        protocol: the class protocol; it must be the one the pickles were made for.
        splits: pickles by part, without suffix: ``{"train": ("train_usa",), "test": ("test_usa",)}``.
    """

    preprocess: Path
    images: Path
    protocol: str
    splits: dict[Part, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        protocol(self.protocol)
        if not any(self.splits.values()) or set(self.splits) - set(PARTS):
            raise DataError(f"splits: expected pickles for some of {', '.join(PARTS)}, found {self.splits!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, and names, sizes and modification times of the pickles."""
        given = protocol(self.protocol)
        return {
            "reader": "xmuda_pickles",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "splits": {part: list(names) for part, names in sorted(self.splits.items())},
            "files": stamp([path for _, path in self._listed()], Path(self.preprocess)),
        }

    def entries(self) -> list[tuple[Part, Path, int]]:
        """Part, pickle and number in it of each frame, in the order of the pickles.

        Raises:
            DataError: a pickle is missing, cannot be read, or is no list of dicts.
        """
        _ = self._table
        return [(part, path, number) for part, path in self._listed() for number in range(len(self._rows(path)))]

    def read(self, entry: tuple[Part, Path, int]) -> Frame | Unreadable:
        """A frame, named by its sample or its sweep.

        Raises:
            DataError: it lacks a key.
        """
        part, path, number = entry
        row = self._rows(path)[number]
        where = f"{path}[{number}]"
        if any(key not in row for key in _KEYS):
            raise DataError(f"{where}: expected the keys {', '.join(_KEYS)}, found {', '.join(map(str, row))}")
        name = str(row.get("sample_token", Path(str(row["lidar_path"])).with_suffix("")))
        try:
            return self._frame(row, where, name, part)
        except DataError as error:
            return Unreadable(name, str(error))

    def __getstate__(self) -> dict[str, Any]:
        return settings_alone(self)

    @cached_property
    def _loaded(self) -> dict[Path, list[dict[str, Any]]]:
        return {}

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        if path not in self._loaded:
            rows = load_pickle(path, INERT)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise DataError(f"{path}: expected a list of dicts, found {type(rows).__name__}")
            self._loaded[path] = rows
        return self._loaded[path]

    def _frame(self, entry: dict[str, Any], where: str, name: str, part: Part) -> Frame:
        count = len(entry["points"]) if isinstance(entry["points"], np.ndarray) else 0
        for key, shape, kinds in (
            ("points", (count, 3), "f"),
            ("seg_labels", (count,), "iu"),
            ("points_img", (count, 2), "fiu"),
        ):
            value = entry[key]
            if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in kinds:
                found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
                raise DataError(f"{where}: {key}: expected numbers of shape {shape}, found {found}")
        points = entry["points"].astype(np.float32)
        check_finite(points, f"{where}: points")
        image = read_image(Path(self.images) / str(entry["camera_path"]))
        pixels = entry["points_img"].astype(np.float32)
        outside = ~inside(pixels, (image.shape[0], image.shape[1]))
        if outside.any():
            raise DataError(
                f"{where}: points_img: expected rows and columns inside the image of {image.shape[:2]}, found "
                f"{pixels[outside][0].tolist()}"
            )
        labels = apply_table(self._table, entry["seg_labels"], where)
        projection = entry.get("proj_matrix")
        if not isinstance(projection, np.ndarray) or projection.shape != (3, 4):
            projection = None
        else:
            projection = projection.astype(np.float64)
        return Frame(points, pixels, image, labels, name, part, _group(entry), None, projection)

    @cached_property
    def _table(self) -> np.ndarray:
        given = protocol(self.protocol)
        if given.dataset == "semantickitti":
            return given.table(KITTI_LABELS, max(KITTI_LABELS) + 1)
        if given.dataset == "a2d2":
            names: tuple[str, ...] = (*class_list(Path(self.images) / "class_list.json").values(), "unknown")
        elif given.name == "nuscenes-seg6":
            names = LIDARSEG_NUMBERS
        elif given.dataset in ("nuscenes", "nuscenes-lidarseg"):
            names = BOX_NUMBERS
        else:
            raise DataError(
                f"XmudaPickles.protocol: expected one of nuScenes, A2D2 or SemanticKITTI, found {given.name!r}"
            )
        return given.table(dict(enumerate(names)))

    def _listed(self) -> list[tuple[Part, Path]]:
        listed = []
        for part in PARTS:
            for name in self.splits.get(part, ()):
                path = Path(self.preprocess) / f"{name}.pkl"
                if not path.is_file():
                    raise DataError(f"{path}: expected a pickle of xMUDA's preprocessing, found no file")
                listed.append((part, path))
        return listed


def _group(entry: dict[str, Any]) -> str:
    """The scene or sequence: stored for nuScenes, else the folder above the sensors in the sweep's path."""
    if "scene_name" in entry:
        return str(entry["scene_name"])
    folders = Path(str(entry["lidar_path"])).parts
    sensors = [number for number, folder in enumerate(folders) if folder in ("velodyne", "lidar")]
    return folders[sensors[0] - 1] if sensors and sensors[0] > 0 else ""
