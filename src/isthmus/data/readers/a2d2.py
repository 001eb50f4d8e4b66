"""A2D2, the semantic segmentation set: front camera, LiDAR points in its view, labels from the image.

Geyer et al., "A2D2: Audi Autonomous Driving Dataset", 2020. The layout::

    cams_lidars.json, class_list.json
    <scene>/camera/cam_front_center/<date>_camera_frontcenter_<frame>.png
    <scene>/lidar/cam_front_center/<date>_lidar_frontcenter_<frame>.npz       points, row, col, reflectance
    <scene>/label/cam_front_center/<date>_label_frontcenter_<frame>.png       colours of class_list.json

Images are undistorted as the set's tutorial does it (OpenCV's model, bilinear), and ``row`` and ``col`` are places in
the *undistorted* image. The points have no labels of their own: a point's label is the colour at its pixel of the label
image undistorted without interpolation, so that points seen past an edge take the label of what is in front. Both as in
xMUDA. A frame whose ``.npz`` has no ``row`` (there are some) is ``Unreadable``.

Points are in the frame the files give; the projection is not known from the files and is not given. Parts as in xMUDA:
20180807_145028 tests, all other scenes train.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from isthmus.data.class_protocol import apply_table
from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame, settings_alone
from isthmus.data.image_files import read_image
from isthmus.data.readers.lidar_files import check_finite, read_arrays, read_json
from isthmus.data.readers.mtan import block_parts, check_blocks
from isthmus.errors import DataError
from isthmus.geometry.projection import inside, undistortion_map

TEST_SCENE = "20180807_145028"
CAMERA = "cam_front_center"

_NAME = re.compile(r"(\d{14})_camera_frontcenter_(\d{9})")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_FOLDERS = {"camera": ".png", "lidar": ".npz", "label": ".png"}


@dataclass(frozen=True)
class A2D2:
    """The labelled frames, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``.

    Args:
        root: the folder with ``cams_lidars.json`` and the scenes.
        protocol: a class protocol of A2D2.
        validation_share: share of the training scenes that validates, in [0, 1), evenly spread; none is published.
    """

    root: Path
    protocol: str = "a2d2-10"
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        protocol(self.protocol, "a2d2")
        check_blocks(self.validation_share, 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The protocol, the share, and names, sizes and modification times of the files."""
        root = Path(self.root)
        given = protocol(self.protocol)
        # What all frames depend on is looked at first: without it there is nothing to stamp.
        _ = self._lens, self._colours
        files = [path for scene, *name in self._listed() for path in self._files(scene, *name).values()]
        return {
            "reader": "a2d2",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "validation_share": self.validation_share,
            "files": stamp(
                [root / "cams_lidars.json", root / "class_list.json", *(path for path in files if path.is_file())], root
            ),
        }

    def entries(self) -> list[tuple[Part, str, str, str]]:
        """Part, scene, date and number of each frame, scene after scene, frame after frame.

        Raises:
            DataError: there is no scene, or the calibration or the list of classes is broken.
        """
        _ = self._colours, self._lens
        parts = self._parts()
        return [(parts[scene], scene, date, number) for scene, date, number in self._listed()]

    def read(self, entry: tuple[Part, str, str, str]) -> Frame | Unreadable:
        """A frame, named ``20180807_145028/000000091``; the group is the scene."""
        part, scene, date, number = entry
        name = f"{scene}/{number}"
        try:
            return self._frame(self._files(scene, date, number), name, part, scene)
        except DataError as error:
            return Unreadable(name, str(error))

    def __getstate__(self) -> dict[str, Any]:
        return settings_alone(self)

    def _frame(self, files: dict[str, Path], name: str, part: Part, scene: str) -> Frame:
        colours, table = self._colours
        arrays = read_arrays(files["lidar"], ("points", "row", "col"), ("reflectance",))
        points = arrays["points"]
        if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind != "f":
            raise DataError(f"{files['lidar']}: points: expected (N, 3) floats, found {points.dtype} {points.shape}")
        for field in ("row", "col", "reflectance"):
            if field in arrays and arrays[field].shape != points.shape[:1]:
                raise DataError(
                    f"{files['lidar']}: {field}: expected {len(points)} numbers, found shape {arrays[field].shape}"
                )
        points = points.astype(np.float32)
        check_finite(points, f"{files['lidar']}: points")
        distorted, painted = read_image(files["camera"]), read_image(files["label"])
        size = (distorted.shape[0], distorted.shape[1])
        if painted.shape != distorted.shape:
            raise DataError(f"{files['label']}: expected the image's size {size}, found {painted.shape[:2]}")
        pixels = np.stack([arrays["row"], arrays["col"]], axis=1).astype(np.float32)
        outside = ~inside(pixels, size)
        if outside.any():
            raise DataError(
                f"{files['lidar']}: row, col: expected places in the image of {size}, found "
                f"{pixels[outside][0].tolist()}"
            )
        places = self._map(size)
        rows, columns = pixels.astype(np.int64).T
        labels = apply_table(table, _numbers(_nearest(painted, places[:, rows, columns]), colours), files["label"])
        image = undistorted(distorted, places)
        intensity = arrays["reflectance"].astype(np.float32) if "reflectance" in arrays else None
        return Frame(points, pixels, image, labels, name, part, scene, intensity)

    @cached_property
    def _colours(self) -> tuple[list[int], np.ndarray]:
        """The colours of the classes, and the labels of the protocol by their rows."""
        classes = class_list(Path(self.root) / "class_list.json")
        return list(classes), protocol(self.protocol).table(dict(enumerate((*classes.values(), "unknown"))))

    def _map(self, size: tuple[int, int]) -> np.ndarray:
        if size not in self._maps:
            self._maps[size] = undistortion_map(size, *self._lens)
        return self._maps[size]

    @cached_property
    def _maps(self) -> dict[tuple[int, int], np.ndarray]:
        """Undistortion maps by size of image: there is one size, but a map takes a second to work out."""
        return {}

    @cached_property
    def _lens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = Path(self.root) / "cams_lidars.json"
        try:
            camera = read_json(path)["cameras"]["front_center"]
            lens = str(camera["Lens"])
            original, wanted = np.array(camera["CamMatrixOriginal"], float), np.array(camera["CamMatrix"], float)
            coefficients = np.array(camera["Distortion"], float).ravel()
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected cameras.front_center with CamMatrix, CamMatrixOriginal, Distortion and Lens, found "
                f"no {error}"
            ) from error
        if lens != "Telecam":
            raise DataError(f"{path}: cameras.front_center.Lens: expected 'Telecam', found {lens!r}")
        if original.shape != (3, 3) or wanted.shape != (3, 3) or len(coefficients) not in (4, 5):
            raise DataError(
                f"{path}: cameras.front_center: expected matrices (3, 3) and 4 or 5 coefficients of distortion, found "
                f"{original.shape}, {wanted.shape} and {len(coefficients)}"
            )
        return original, coefficients, wanted

    def _parts(self) -> dict[str, Part]:
        training = [scene for scene in self._scenes() if scene != TEST_SCENE]
        shared = dict(zip(training, block_parts("train", len(training), self.validation_share, 1)))
        return {scene: shared.get(scene, "test") for scene in self._scenes()}

    def _scenes(self) -> list[str]:
        root = Path(self.root)
        found = sorted(path.parent.parent.name for path in root.glob(f"*/camera/{CAMERA}"))
        if not found:
            raise DataError(f"{root}: expected scenes with camera/{CAMERA}, found none")
        return found

    def _listed(self) -> list[tuple[str, str, str]]:
        listed = []
        for scene in self._scenes():
            for path in sorted((Path(self.root) / scene / "camera" / CAMERA).glob("*.png")):
                match = _NAME.fullmatch(path.stem)
                if not match:
                    raise DataError(
                        f"{path}: expected a name <14 digits>_camera_frontcenter_<9 digits>.png, found {path.name!r}"
                    )
                listed.append((scene, match[1], match[2]))
        return listed

    def _files(self, scene: str, date: str, number: str) -> dict[str, Path]:
        return {
            kind: Path(self.root) / scene / kind / CAMERA / f"{date}_{kind}_frontcenter_{number}{suffix}"
            for kind, suffix in _FOLDERS.items()
        }


def class_list(path: Path) -> dict[int, str]:
    """A2D2's classes by colour (red * 65536 + green * 256 + blue), in the order of their numbers.

    Raises:
        DataError: the file is missing or not what it should be.
    """
    given = read_json(path)
    if not isinstance(given, dict) or not given or not all(_COLOUR.fullmatch(colour) for colour in given):
        raise DataError(f"{path}: expected classes by colours such as '#ff0000', found others")
    return {int(colour[1:], 16): str(name) for colour, name in given.items()}


def undistorted(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """An image resampled bilinearly, black where nothing was seen.

    Args:
        image: ``(H, W, 3)`` uint8.
        places: ``(2, H, W)``, see ``isthmus.geometry.projection.undistortion_map``.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    channels = [
        ndimage.map_coordinates(image[..., channel].astype(np.float32), places, order=1, mode="constant")
        for channel in range(3)
    ]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _nearest(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pixels at places ``(2, N)``, black outside. Shape: ``(N, 3)`` uint8."""
    rows, columns = np.rint(places).astype(np.int64)
    here = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    found = np.zeros((len(rows), 3), np.uint8)
    found[here] = image[rows[here], columns[here]]
    return found


def _numbers(pixels: np.ndarray, colours: list[int]) -> np.ndarray:
    """Rows of the class list for colours, its length where a colour is not in it. Shape: ``(N, 3)`` to ``(N,)``."""
    codes = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(colours)
    places = np.searchsorted(np.array(colours)[order], codes).clip(max=len(colours) - 1)
    rows = order[places]
    return np.where(np.array(colours)[rows] == codes, rows, len(colours))
