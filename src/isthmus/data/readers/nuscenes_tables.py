"""nuScenes' tables: the key frames with files, calibration and annotated boxes.

Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020. The tables are lists of objects in
``<root>/v1.0-trainval/*.json`` that point to each other by tokens. Those of all sensor readings and poses hold millions
of rows, of which a key frame's LiDAR and one camera take a few per cent; they are read row by row.

The way of a point into the image: LiDAR -> vehicle at the LiDAR's time -> world -> vehicle at the camera's time ->
camera. Camera and LiDAR fire up to 50 ms apart, in which a car goes half a metre.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.readers.lidar_files import json_rows
from isthmus.errors import DataError
from isthmus.geometry.projection import camera_projection, inverse_rigid, rigid

LIDAR = "LIDAR_TOP"


@dataclass(frozen=True)
class Scene:
    """A drive of twenty seconds: its name (``scene-0061``), what its description says, and the place of its log."""

    name: str
    description: str
    location: str


@dataclass(frozen=True)
class Box:
    """An annotated box: category, motion ``(4, 4)`` from its frame into the world, length along its x, y and z."""

    category: str
    motion: np.ndarray
    extent: np.ndarray


@dataclass(frozen=True)
class KeyFrame:
    """A key frame.

    ``sweep``, ``image`` and ``labels`` are paths below the root (``labels`` is empty without lidarseg); ``projection``
    is ``(3, 4)`` from the LiDAR's frame into the image, ``world`` ``(4, 4)`` from the LiDAR's frame into the world.
    """

    token: str
    scene: Scene
    timestamp: int
    sweep: str
    image: str
    labels: str
    projection: np.ndarray
    world: np.ndarray
    boxes: list[Box] = field(default_factory=list)


class Tables:
    """The tables of one version.

    Args:
        folder: ``<root>/v1.0-trainval``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        """The file of a table."""
        return self.folder / f"{name}.json"

    def key_frames(
        self, camera: str, chosen: Callable[[Scene], bool], boxes: Collection[str] = (), lidarseg: bool = False
    ) -> list[KeyFrame]:
        """The key frames of some scenes, scene after scene as the tables have them, in the order of time.

        Args:
            camera: its channel, such as ``CAM_FRONT``.
            chosen: which scenes.
            boxes: categories whose boxes are wanted.
            lidarseg: whether the files of point labels are wanted.

        Raises:
            DataError: a table or a row that another one points to is missing, or a field is.
        """
        scenes = {token: scene for token, scene in self._scenes().items() if chosen(scene)}
        samples = {}
        for row in self._rows("sample"):
            scene = self._field("sample", row, "scene_token")
            if scene in scenes:
                samples[self._field("sample", row, "token")] = (scene, self._field("sample", row, "timestamp"))
        readings = self._readings(samples, (LIDAR, camera))
        poses = self._poses({row["ego_pose_token"] for pair in readings.values() for row in pair.values()})
        labels = self._files_of_labels() if lidarseg else {}
        annotated = self._boxes(samples, boxes) if boxes else {}
        order = {scene: number for number, scene in enumerate(scenes)}
        frames = []
        for token, (scene, timestamp) in sorted(samples.items(), key=lambda item: (order[item[1][0]], item[1][1])):
            pair = readings.get(token, {})
            for channel in (LIDAR, camera):
                if channel not in pair:
                    raise DataError(
                        f"{self.path('sample_data')}: expected a key frame of {channel} for sample {token}, found none"
                    )
            lidar, picture = pair[LIDAR], pair[camera]
            world = self._of(poses, lidar, "ego_pose_token", "ego_pose") @ lidar["motion"]
            seen = self._of(poses, picture, "ego_pose_token", "ego_pose") @ picture["motion"]
            if lidarseg and lidar["token"] not in labels:
                raise DataError(f"{self.path('lidarseg')}: expected labels of {lidar['filename']}, found none")
            frames.append(
                KeyFrame(
                    token,
                    scenes[scene],
                    timestamp,
                    lidar["filename"],
                    picture["filename"],
                    labels.get(lidar["token"], ""),
                    camera_projection(picture["intrinsics"], inverse_rigid(seen) @ world),
                    world,
                    annotated.get(token, []),
                )
            )
        return frames

    def categories(self) -> dict[int, str]:
        """Names of lidarseg's categories by number.

        Raises:
            DataError: the table has no numbers, as that of a root without lidarseg.
        """
        found = {}
        for row in self._rows("category"):
            if "index" not in row:
                raise DataError(
                    f"{self.path('category')}: index: expected a number for each category (lidarseg's tables replace "
                    f"this one), found none"
                )
            found[int(row["index"])] = str(self._field("category", row, "name"))
        return found

    def _scenes(self) -> dict[str, Scene]:
        places = {row.get("token"): str(self._field("log", row, "location")) for row in self._rows("log")}
        found = {}
        for row in self._rows("scene"):
            log = self._field("scene", row, "log_token")
            if log not in places:
                raise DataError(f"{self.path('scene')}: log_token: expected a token of log.json, found {log!r}")
            found[str(self._field("scene", row, "token"))] = Scene(
                str(self._field("scene", row, "name")), str(self._field("scene", row, "description")), places[log]
            )
        return found

    def _readings(self, samples: Collection[Any], channels: Collection[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """For each sample the key frame of each channel, with the sensor's motion and intrinsics."""
        names = {row.get("token"): self._field("sensor", row, "channel") for row in self._rows("sensor")}
        for channel in channels:
            if channel not in names.values():
                raise DataError(
                    f"{self.path('sensor')}: expected the channel {channel}, found {', '.join(sorted(names.values()))}"
                )
        sensors: dict[Any, dict[str, Any]] = {}
        for row in self._rows("calibrated_sensor"):
            its = names.get(self._field("calibrated_sensor", row, "sensor_token"))
            if its in channels:
                intrinsics = np.array(row.get("camera_intrinsic") or np.eye(3), dtype=np.float64)
                if intrinsics.shape != (3, 3):
                    raise DataError(
                        f"{self.path('calibrated_sensor')}: camera_intrinsic: expected 3 x 3 numbers, found "
                        f"{intrinsics.shape}"
                    )
                sensors[row.get("token")] = {
                    "channel": its,
                    "motion": self._motion("calibrated_sensor", row),
                    "intrinsics": intrinsics,
                }
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for row in self._rows("sample_data"):
            sensor = sensors.get(self._field("sample_data", row, "calibrated_sensor_token"))
            sample = self._field("sample_data", row, "sample_token")
            if sensor is None or not self._field("sample_data", row, "is_key_frame") or sample not in samples:
                continue
            kept = {name: self._field("sample_data", row, name) for name in ("token", "filename", "ego_pose_token")}
            found[sample][sensor["channel"]] = kept | sensor
        return found

    def _poses(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        return {
            row["token"]: self._motion("ego_pose", row) for row in self._rows("ego_pose") if row.get("token") in wanted
        }

    def _files_of_labels(self) -> dict[str, str]:
        return {
            self._field("lidarseg", row, "sample_data_token"): self._field("lidarseg", row, "filename")
            for row in self._rows("lidarseg")
        }

    def _boxes(self, samples: Collection[str], wanted: Collection[str]) -> dict[str, list[Box]]:
        names = {row.get("token"): str(self._field("category", row, "name")) for row in self._rows("category")}
        category = {
            row.get("token"): names.get(self._field("instance", row, "category_token"), "")
            for row in self._rows("instance")
        }
        found: dict[str, list[Box]] = defaultdict(list)
        for row in self._rows("sample_annotation"):
            name = category.get(self._field("sample_annotation", row, "instance_token"), "")
            sample = self._field("sample_annotation", row, "sample_token")
            if sample in samples and name in wanted:
                width, length, height = self._field("sample_annotation", row, "size")
                found[sample].append(
                    Box(name, self._motion("sample_annotation", row), np.array([length, width, height], np.float64))
                )
        return found

    def _rows(self, table: str) -> Any:
        return json_rows(self.path(table))

    def _field(self, table: str, row: dict[str, Any], name: str) -> Any:
        if name not in row:
            raise DataError(f"{self.path(table)}: expected the field {name!r} in every row, found {', '.join(row)}")
        return row[name]

    def _of(self, rows: dict[str, np.ndarray], row: dict[str, Any], name: str, table: str) -> np.ndarray:
        if row[name] not in rows:
            raise DataError(f"{self.path(table)}: expected a row {row[name]!r} (of {row['filename']}), found none")
        return rows[row[name]]

    def _motion(self, table: str, row: dict[str, Any]) -> np.ndarray:
        try:
            return rigid(self._field(table, row, "rotation"), self._field(table, row, "translation"))
        except DataError:
            raise
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.path(table)}: row {row.get('token')}: {error}") from error
