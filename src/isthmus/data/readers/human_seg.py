"""Two small sets of real bodies with the same eight labelled parts: scans of people, and models of other collections.

========== ==================================================================================================
name       what it is
========== ==================================================================================================
faust      100 registered scans of FAUST (Bogo et al., CVPR 2014): ten people in the same ten poses; labels from
           a part map of the template
shrec07    10 watertight models of humans of SHREC 2007 with the hand-made labels of the Labelled Princeton
           Segmentation Benchmark: women, men and cartoon figures, no two from the same source
========== ==================================================================================================

The arrays lie in the ``human_seg`` folder of the data directory that the environment variable ``ISTHMUS_DATA`` names;
they may not be redistributed. Each shape has 2,048 points drawn from its surface, stored as float16 about the centre of
its bounding box.

Axes: both files are y up, and go through (x, y, z) -> (x, -z, y). Then the people of FAUST face -y, in all poses but
the ninth, which turns at the waist. The models of SHREC do not agree: by shoulders, hips and toes they look
into five directions. :data:`SHREC_FACING` has the direction of each, read off the shapes, and each is turned to -y.
The part labels have no share in that. A method that is trained with turns about z does not notice; one that is
trained without would.

Splits: FAUST by person, so that nobody is in two parts: seven to train, one to validate, two to test. The ten shapes
of ``shrec07`` are meant as a target, all of which may be adapted to without labels, and measured on. For an oracle
they are dealt out six, two and two in the order of the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from isthmus.data.clouds import HUMAN_PARTS, Part, Sample
from isthmus.data.data_directory import data_file
from isthmus.data.files import stamp, z_up
from isthmus.errors import DataError
from isthmus.geometry.meshes import rotation

SHREC_FACING: Mapping[str, float] = MappingProxyType(
    {"1": 90, "3": -90, "5": 127, "7": 0, "9": 105, "11": -90, "13": 127, "15": -90, "17": 127, "19": 127}
)
"""Where each model looks once z is up: degrees counter-clockwise from +x, to about ten degrees."""

FACING = -90.0
"""Where all of them look in the end."""

_FILES = {"faust": "faust100_8parts.npz", "shrec07": "shrec07_lpsb_human10_8parts.npz"}


@dataclass(frozen=True)
class HumanSeg:
    """One of the two sets, as a reader of clouds with labelled points.

    Args:
        name: which set.
        root: the data directory that has ``human_seg/`` in it; ``None`` takes the one ``ISTHMUS_DATA`` names.
    """

    name: Literal["faust", "shrec07"]
    root: Path | None = None

    def __post_init__(self) -> None:
        if self.name not in _FILES:
            raise DataError(f"name: expected one of {', '.join(_FILES)}, found {self.name!r}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The eight parts."""
        return HUMAN_PARTS

    @property
    def path(self) -> Path:
        """The file of the set.

        Raises:
            DataError: there is no such file, or neither ``root`` nor ``ISTHMUS_DATA`` is given.
        """
        return data_file(Path("human_seg") / _FILES[self.name], f"the set {self.name!r}", root=self.root)

    def fingerprint(self) -> dict[str, Any]:
        """The file's name, size and modification time."""
        path = self.path
        return {"reader": "human_seg", "version": 1, "name": self.name, "files": stamp([path], path.parent)}

    def samples(self) -> Iterator[Sample]:
        """The shapes in the order of the file; a person of FAUST is a ``group``.

        Raises:
            DataError: the file cannot be read, lacks an array, or names the parts otherwise.
        """
        arrays = self._arrays()
        for index, name in enumerate(arrays["names"].tolist()):
            points = z_up(arrays["points"][index].astype(np.float32), "y")
            labels = arrays["point_labels"][index].astype(np.uint8)
            if self.name == "faust":
                subject = int(arrays["subject"][index])
                yield Sample(points, -1, name, _part_of_person(subject), f"person{subject}", labels)
            else:
                turn = rotation(2, FACING - SHREC_FACING.get(name, FACING))
                points = (points.astype(np.float64) @ turn.T).astype(np.float32)
                yield Sample(points, -1, name, _part_of_model(index), "", labels)

    def _arrays(self) -> dict[str, np.ndarray]:
        fields = ["points", "point_labels", "names", "parts", *(["subject"] if self.name == "faust" else [])]
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                arrays = {field: archive[field] for field in fields}
        except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: expected the arrays {', '.join(fields)}, found {error}") from error
        parts = tuple(arrays["parts"].tolist())
        if parts != HUMAN_PARTS:
            raise DataError(
                f"{self.path}: parts: expected {', '.join(HUMAN_PARTS)}, found {', '.join(map(str, parts))}"
            )
        shape = (len(arrays["names"]), arrays["points"].shape[1])
        if arrays["points"].shape != (*shape, 3) or arrays["point_labels"].shape != shape:
            raise DataError(
                f"{self.path}: point_labels: expected shape {shape} beside points {(*shape, 3)}, found "
                f"{arrays['point_labels'].shape} beside {arrays['points'].shape}"
            )
        return arrays


def _part_of_person(subject: int) -> Part:
    return "train" if subject < 7 else "val" if subject == 7 else "test"


def _part_of_model(index: int) -> Part:
    return "train" if index % 10 < 6 else "val" if index % 10 < 8 else "test"
