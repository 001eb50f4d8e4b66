"""VirtualKITTI 1.3.1 with point clouds, as xMUDA's journal version uses it.

Gaidon et al., "Virtual Worlds as Proxy for Multi-Object Tracking Analysis", CVPR 2016; the clouds are those of
Engelmann et al.'s ``vkitti3D`` (made of depth and class images). The layout::

    vkitti3d_npy/<sequence>/<frame>.npy                     (N, 7): x, y, z (forward, left, up; metres), R, G, B, class
    vkitti_1.3.1_rgb/<sequence>/<weather>/<frame>.png       sequences 0001, 0002, 0006, 0018, 0020

The origin of the points is the camera: focal length 725, principal point (620.5, 187). Every pixel has a point, some
400,000 in a frame; published training takes 10,000 at random each time a frame is read, from an image whose weather is
random as well. Here both are drawn once for each frame by its name and a seed, so that a store holds what is trained
on; ``points=None`` keeps all. All sequences are for training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.class_protocol import apply_table
from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.image_files import read_image, read_npy
from isthmus.data.readers.lidar_files import check_finite
from isthmus.data.readers.mtan import block_parts, check_blocks
from isthmus.errors import DataError
from isthmus.geometry.projection import camera_projection, visible

SEQUENCES = ("0001", "0002", "0006", "0018", "0020")

CLASSES = (
    *("Terrain", "Tree", "Vegetation", "Building", "Road", "GuardRail", "TrafficSign", "TrafficLight", "Pole", "Misc"),
    *("Truck", "Car", "Van", "Don't care"),
)
"""The classes of the clouds by number."""

WEATHERS = ("clone", "fog", "morning", "overcast", "rain", "sunset")

_INTRINSICS = np.array([[725, 0, 620.5], [0, 725, 187], [0, 0, 1]], dtype=np.float64)
_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)

PROJECTION = camera_projection(_INTRINSICS, _CAMERA)
"""From the clouds' frame into the images, ``(3, 4)``."""


@dataclass(frozen=True)
class VirtualKITTI:
    """The frames, as a reader.

    A frame of which a file is missing or broken is yielded as ``Unreadable``.

    Args:
        root: the folder with ``vkitti3d_npy`` and ``vkitti_1.3.1_rgb``.
        protocol: a class protocol of VirtualKITTI.
        sequences: which ones.
        weather: the variants that a frame's image is drawn from.
        points: how many visible points of each frame are drawn; None keeps all.
        seed: with the frame's name this fixes points and weather.
        validation_share: share of the sequences that validates, in [0, 1), evenly spread; none is published.
    """

    root: Path
    protocol: str = "virtualkitti-6"
    sequences: tuple[str, ...] = SEQUENCES
    weather: tuple[str, ...] = ("clone",)
    points: int | None = 10_000
    seed: int = 0
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        protocol(self.protocol, "virtualkitti")
        check_blocks(self.validation_share, 1)
        for name, given, known in (("sequences", self.sequences, SEQUENCES), ("weather", self.weather, WEATHERS)):
            wrong = [value for value in given if value not in known]
            if wrong or not given:
                raise DataError(f"{name}: expected some of {', '.join(known)}, found {wrong[0] if wrong else 'none'}")
        if self.points is not None and self.points < 1:
            raise DataError(f"points: expected at least 1, found {self.points}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The protocol's classes."""
        return protocol(self.protocol).classes

    def fingerprint(self) -> dict[str, Any]:
        """The settings, and names, sizes and modification times of the files."""
        given = protocol(self.protocol)
        files = [path for frame in self._listed() for path in self._files(*frame) if path.is_file()]
        return {
            "reader": "virtualkitti",
            "version": 1,
            "protocol": given.name,
            "space": given.space,
            "weather": list(self.weather),
            "points": self.points,
            "seed": self.seed,
            "validation_share": self.validation_share,
            "files": stamp(files, Path(self.root)),
        }

    def entries(self) -> list[tuple[Part, str, str]]:
        """Part, sequence and name of each frame, sequence after sequence, frame after frame.

        Raises:
            DataError: a sequence has no clouds.
        """
        parts = dict(zip(self.sequences, block_parts("train", len(self.sequences), self.validation_share, 1)))
        return [(parts[sequence], sequence, name) for sequence, name in self._listed()]

    def read(self, entry: tuple[Part, str, str]) -> Frame | Unreadable:
        """A frame, named ``0001/00000``; the group is the sequence."""
        part, sequence, name = entry
        try:
            return self._frame(sequence, name, part)
        except DataError as error:
            return Unreadable(f"{sequence}/{name}", str(error))

    def _frame(self, sequence: str, name: str, part: Part) -> Frame:
        cloud, picture = self._files(sequence, name)
        values = read_npy(cloud)
        if values.ndim != 2 or values.shape[1] < 7:
            raise DataError(f"{cloud}: expected points of 7 numbers, found an array {values.shape}")
        check_finite(values[:, :3], f"{cloud}: points")
        points = values[:, :3].astype(np.float32)
        image = read_image(picture)
        seen, pixels = visible(points, PROJECTION, (image.shape[0], image.shape[1]))
        rows = np.flatnonzero(seen)
        if self.points is not None and len(rows) > self.points:
            drawn = np.sort(self._generator(sequence, name).permutation(len(rows))[: self.points])
            rows, pixels = rows[drawn], pixels[drawn]
        labels = apply_table(self._table, values[rows, 6], cloud)
        return Frame(points[rows], pixels, image, labels, f"{sequence}/{name}", part, sequence, None, PROJECTION)

    @cached_property
    def _table(self) -> np.ndarray:
        return protocol(self.protocol).table(dict(enumerate(CLASSES)))

    def _files(self, sequence: str, name: str) -> tuple[Path, Path]:
        root = Path(self.root)
        weather = self.weather[0]
        if len(self.weather) > 1:
            weather = self.weather[int(self._generator(name, sequence).integers(len(self.weather)))]
        return root / "vkitti3d_npy" / sequence / f"{name}.npy", root / "vkitti_1.3.1_rgb" / sequence / weather / (
            f"{name}.png"
        )

    def _generator(self, *words: str) -> np.random.Generator:
        digest = hashlib.sha256("/".join(words).encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])

    def _listed(self) -> list[tuple[str, str]]:
        listed = []
        for sequence in self.sequences:
            folder = Path(self.root) / "vkitti3d_npy" / sequence
            names = sorted(path.stem for path in folder.glob("*.npy"))
            if not names:
                raise DataError(
                    f"{folder}: expected clouds *.npy, found none; name the sequences that are there in 'sequences'"
                )
            listed += [(sequence, name) for name in names]
        return listed
