"""nuScenes and nuScenes-lidarseg from the raw data: key frames of the LiDAR and the front camera.

The layout below the root::

    v1.0-trainval/*.json            the tables, see isthmus.data.readers.nuscenes_tables
    samples/LIDAR_TOP/*.pcd.bin     float32 x, y, z (right, forward, up; metres), intensity, ring
    samples/CAM_FRONT/*.jpg
    lidarseg/v1.0-trainval/*.bin    with lidarseg: uint8, the category of each point
    splits.json                     see below

Labels follow the class protocol. ``nuscenes-box5``: every point inside an annotated box has the box's class, where
boxes overlap that of the later row, all others are background; so are points in boxes of other categories (animals,
debris, police cars). ``nuscenes-seg5`` and ``nuscenes-seg6``: lidarseg's own labels. xMUDA looks at those boxes only of
which a corner is seen in the image; here at all, which differs for a box that fills the image.

Domains and parts are those of xMUDA:

=========== ======================================= ================================ ================================
domain      scenes                                  validation                       test
=========== ======================================= ================================ ================================
usa         the log's location contains "boston"    none was published               scenes of the official ``val``
singapore   ... "singapore"                         ``val_singapore``, 69 scenes     the same
day         no "night" in the description           none was published               the same
night       "night" in the description              scene-1044 to scene-1058         the same
all         every scene                             none                             the same
=========== ======================================= ================================ ================================

The official lists are not in the tables: ``splits.json`` is an object ``{"val": [...], "val_singapore": [...]}`` of
scene names, the first as in ``nuscenes.utils.splits`` of the official development kit, the second as in xMUDA's list of
that name (it is needed for ``singapore`` alone). Scenes in neither are for training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from isthmus.data.class_protocol import ClassProtocol, apply_table
from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import PROTOCOLS, protocol
from isthmus.data.frames import Frame, settings_alone
from isthmus.data.image_files import read_image
from isthmus.data.readers.lidar_files import read_json, read_point_labels, read_sweep
from isthmus.data.readers.mtan import block_parts, check_blocks
from isthmus.data.readers.nuscenes_tables import KeyFrame, Scene, Tables
from isthmus.errors import DataError
from isthmus.geometry.projection import in_box, move, visible

Domain = Literal["usa", "singapore", "day", "night", "all"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

BOX_CLASSES: dict[str, str] = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "movable_object.trafficcone": "traffic_cone",
    "movable_object.barrier": "barrier",
}
"""The ten classes of the detection benchmark by category."""

SEG5_CLASSES: dict[str, str] = {
    **BOX_CLASSES,
    **dict.fromkeys(
        ("human.pedestrian.personal_mobility", "human.pedestrian.stroller", "human.pedestrian.wheelchair"), "pedestrian"
    ),
    "vehicle.emergency.ambulance": "bus",
    "vehicle.emergency.police": "car",
    "vehicle.ego": "car",
    **dict.fromkeys(
        (
            *("noise", "animal", "movable_object.debris", "movable_object.pushable_pullable"),
            *("static_object.bicycle_rack", "flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain"),
            *("static.manmade", "static.other", "static.vegetation"),
        ),
        "background",
    ),
}
"""The classes of the boxes by lidarseg's category."""

SEG6_CLASSES: dict[str, str] = {
    **BOX_CLASSES,
    "flat.driveable_surface": "driveable_surface",
    "flat.other": "other_flat",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "static.manmade": "manmade",
    "static.vegetation": "vegetation",
    **{name: "ignore" for name in SEG5_CLASSES if name not in BOX_CLASSES and not name.startswith(("flat", "static."))},
    "static.other": "ignore",
}
"""The sixteen classes of the lidarseg challenge, and "ignore", by category."""

_LIDARSEG = {"nuscenes-seg5": SEG5_CLASSES, "nuscenes-seg6": SEG6_CLASSES}
_OWN = tuple(name for name, given in PROTOCOLS.items() if given.dataset in ("nuscenes", "nuscenes-lidarseg"))
_NIGHT = tuple(f"scene-{number}" for number in range(1044, 1059))
_SCENE = re.compile(r"scene-\d{4}")


@dataclass(frozen=True)
class NuScenes:
    """One domain of nuScenes, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``.

    Args:
        root: the folder with the folder of tables, ``samples`` and ``splits.json`` in it.
        domain: which scenes, see the module.
        protocol: "nuscenes-box5", "nuscenes-seg5" or "nuscenes-seg6"; the latter two need lidarseg.
        version: the folder of tables.
        splits: the file of the official lists; ``splits.json`` in the root by default.
        validation_share: None takes the published validation scenes; a share in [0, 1) takes that of the training
            scenes instead, evenly spread, so that a source domain can have some as well.
        camera: which camera.
    """

    root: Path
    domain: Domain
    protocol: str = "nuscenes-box5"
    version: str = "v1.0-trainval"
    splits: Path | None = None
    validation_share: float | None = None
    camera: str = "CAM_FRONT"

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise DataError(f"NuScenes.domain: expected one of {', '.join(DOMAINS)}, found {self.domain!r}")
        if self.protocol not in _OWN:
            raise DataError(f"NuScenes.protocol: expected one of {', '.join(_OWN)}, found {self.protocol!r}")
        check_blocks(self.validation_share or 0.0, 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, the domain, the parts, and names, sizes and modification times of all files."""
        root = Path(self.root)
        given = protocol(self.protocol)
        files = [root / path for frame in self._key_frames for path in (frame.sweep, frame.image, frame.labels) if path]
        tables = sorted((root / self.version).glob("*.json"))
        return {
            "reader": "nuscenes",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "domain": self.domain,
            "camera": self.camera,
            "parts": sorted([scene, part] for scene, part in self._parts.items()),
            "files": stamp([*tables, *(path for path in files if path.is_file())], root),
        }

    def entries(self) -> list[tuple[KeyFrame, Part]]:
        """The key frames with their parts, scene after scene as the tables have them.

        Raises:
            DataError: tables or lists are missing or broken, or no scene belongs to the domain.
        """
        # Looked at here so that numbers without a class are found before the first frame.
        _ = self._table
        return [(frame, self._parts[frame.scene.name]) for frame in self._key_frames]

    def read(self, entry: tuple[KeyFrame, Part]) -> Frame | Unreadable:
        """A key frame, named by its sample; the group is the scene."""
        frame, part = entry
        try:
            return self._frame(frame, part)
        except DataError as error:
            return Unreadable(frame.token, str(error))

    def __getstate__(self) -> dict[str, Any]:
        return settings_alone(self)

    def _frame(self, frame: KeyFrame, part: Part) -> Frame:
        root, table = Path(self.root), self._table
        values = read_sweep(root / frame.sweep, 5)
        points = values[:, :3]
        image = read_image(root / frame.image)
        kept, pixels = visible(points, frame.projection, (image.shape[0], image.shape[1]))
        if table is None:
            labels = box_labels(points[kept], frame, protocol(self.protocol))
        else:
            path = root / frame.labels
            labels = apply_table(table, read_point_labels(path, len(points), "<u1")[kept], path)
        return Frame(
            points[kept],
            pixels,
            image,
            labels,
            frame.token,
            part,
            frame.scene.name,
            values[kept, 3],
            frame.projection,
        )

    @cached_property
    def _table(self) -> np.ndarray | None:
        """Labels by lidarseg's numbers; None where labels come from boxes."""
        if self.protocol not in _LIDARSEG:
            return None
        tables = Tables(Path(self.root) / self.version)
        classes, numbers = _LIDARSEG[self.protocol], tables.categories()
        unknown = [name for name in numbers.values() if name not in classes]
        if unknown:
            raise DataError(f"{tables.path('category')}: name: expected lidarseg's categories, found {unknown[0]!r}")
        given = protocol(self.protocol)
        return given.table({number: classes[name] for number, name in numbers.items()})

    @cached_property
    def _key_frames(self) -> list[KeyFrame]:
        lidarseg = self.protocol in _LIDARSEG
        tables = Tables(Path(self.root) / self.version)
        frames = tables.key_frames(self.camera, self._chosen, () if lidarseg else tuple(BOX_CLASSES), lidarseg)
        if not frames:
            raise DataError(f"{tables.path('scene')}: expected scenes of the domain {self.domain!r}, found none")
        return frames

    def _chosen(self, scene: Scene) -> bool:
        if self.domain in ("day", "night"):
            return ("night" in scene.description.lower()) == (self.domain == "night")
        return self.domain == "all" or {"usa": "boston", "singapore": "singapore"}[self.domain] in scene.location

    @cached_property
    def _parts(self) -> dict[str, Part]:
        """The part of each scene of the domain."""
        lists = self._lists()
        scenes = list(dict.fromkeys(frame.scene.name for frame in self._key_frames))
        parts: dict[str, Part] = {scene: "test" if scene in lists["val"] else "train" for scene in scenes}
        training = [scene for scene in scenes if parts[scene] == "train"]
        if self.validation_share is not None:
            return parts | dict(zip(training, block_parts("train", len(training), self.validation_share, 1)))
        published = {"singapore": lists.get("val_singapore", frozenset()), "night": frozenset(_NIGHT)}
        return parts | {scene: "val" for scene in training if scene in published.get(self.domain, ())}

    def _lists(self) -> dict[str, frozenset[str]]:
        path = Path(self.splits) if self.splits is not None else Path(self.root) / "splits.json"
        needed = ["val"]
        if self.domain == "singapore" and self.validation_share is None:
            needed.append("val_singapore")
        wanted = f'expected {{"val": [...], "val_singapore": [...]}} with names of scenes (needed: {", ".join(needed)})'
        if not path.is_file():
            raise DataError(
                f"{path}: {wanted}, found no file; the lists are 'val' of nuscenes.utils.splits in nuScenes' "
                f"development kit and xMUDA's 'val_singapore'"
            )
        given = read_json(path)
        if not isinstance(given, dict) or any(name not in given for name in needed):
            raise DataError(f"{path}: {wanted}, found {sorted(given) if isinstance(given, dict) else type(given)}")
        lists = {}
        for name, scenes in given.items():
            wrong = [scene for scene in scenes if not isinstance(scene, str) or not _SCENE.fullmatch(scene)]
            if wrong:
                raise DataError(f"{path}: {name}: expected names such as scene-0003, found {wrong[0]!r}")
            lists[name] = frozenset(scenes)
        both = sorted(lists["val"] & lists.get("val_singapore", frozenset()))
        if both:
            raise DataError(f"{path}: expected a scene in one list, found {both[0]} in val and val_singapore")
        return lists


def box_labels(points: np.ndarray, frame: KeyFrame, given: ClassProtocol) -> np.ndarray:
    """Labels of points by the annotated boxes they lie in.

    Args:
        points: ``(N, 3)`` in the LiDAR's frame.
        frame: the key frame with its boxes; all of their categories must be in :data:`BOX_CLASSES`.
        given: a protocol of the boxes' classes and "background".

    Returns:
        ``(N,)`` uint8.
    """
    labels = np.full(len(points), given.label("background"), dtype=np.uint8)
    world = move(points, frame.world)
    for box in frame.boxes:
        labels[in_box(world, box.motion, box.extent)] = given.label(BOX_CLASSES[box.category])
    return labels
