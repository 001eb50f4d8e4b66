"""NYUv2 and Cityscapes as MTAN preprocessed them: trees of ``.npy`` files.

The data of Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, which MTPSL, JTR, HiTTs,
LibMTL and Nash-MTL use as well::

    nyuv2/{train,val}/{image,label,depth,normal}/{0,1,...}.npy                795 and 654 of 288 x 384
    cityscapes2/{train,val}/{image,label_7,label_19,depth}/{0,1,...}.npy      2975 and 500 of 128 x 256

========== ============================================ ================================================================
array      in the file                                  here
========== ============================================ ================================================================
image      (H, W, 3) floats in [0, 1]                   ``round(255 v)``: uint8, off by at most 1 / 510
label      (H, W), -1 is "no class"                     uint8, 255 is "no class"
depth      (H, W, 1) or (H, W), 0 is "none"             NYUv2: ``depth`` in metres; Cityscapes: ``inverse_depth``, a
                                                        disparity of unknown scale between 0 and about 0.49
normal     (H, W, 3) in [-1, 1], zero is "none"         ``normals``; a vector whose components happen to add up to 0
                                                        counts here, though MTAN's mask drops it
========== ============================================ ================================================================

There is no validation part, and others choose on ``val`` and report it. Here MTAN's ``val`` is the test part, and a
part of ``train`` validates: neighbouring numbers show the same scene, so whole blocks of consecutive numbers are taken
out, evenly spread. Blocks are also the groups, as a stand-in for scenes, which the files do not name.

Images are called by the file: ``train/17`` is row 17 of MTPSL's lists of partial labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.image_files import class_map, normal_map, number_map, read_npy, unit_range_image
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import CITYSCAPES7, CITYSCAPES19, NYU13
from isthmus.errors import DataError

DATASETS = ("nyuv2", "cityscapes")

CITYSCAPES_LABELS: dict[str, tuple[str, ...]] = {
    "label_7": CITYSCAPES7,
    "label_19": CITYSCAPES19,
    "label_2": ("0", "1"),
    "label": CITYSCAPES7,
}
"""Folders of Cityscapes labels with their classes; LibMTL's copy calls ``label_7`` just ``label``, and what the two
classes of ``label_2`` are is not documented."""

FOLDERS = ("train", "val")


@dataclass(frozen=True)
class MTAN:
    """One of the two data sets, as a reader.

    A sample of which one file cannot be read is yielded as ``Unreadable``.

    Args:
        root: the folder that has ``train`` and ``val`` in it.
        dataset: "nyuv2" or "cityscapes".
        label: for Cityscapes the folder of labels, one of :data:`CITYSCAPES_LABELS`; NYUv2 has only ``label``.
        validation_share: share of ``train`` that validates, in [0, 1); 0 for none.
        block: consecutive files that stay together.
    """

    root: Path
    dataset: Literal["nyuv2", "cityscapes"]
    label: str = "label_7"
    validation_share: float = 0.1
    block: int = 20

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise DataError(f"dataset: expected one of {', '.join(DATASETS)}, found {self.dataset!r}")
        if self.label not in CITYSCAPES_LABELS:
            raise DataError(f"label: expected one of {', '.join(CITYSCAPES_LABELS)}, found {self.label!r}")
        check_blocks(self.validation_share, self.block)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """NYUv2: segmentation, depth, normals; Cityscapes: segmentation and inverse depth."""
        if self.dataset == "nyuv2":
            return {"segmentation": NYU13, "depth": (), "normals": ()}
        return {"segmentation": CITYSCAPES_LABELS[self.label], "inverse_depth": ()}

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, and all settings."""
        files = [
            Path(self.root) / folder / kind / f"{number}.npy"
            for folder, numbers in self._numbers().items()
            for number in numbers
            for kind in self._kinds().values()
        ]
        return {
            "reader": "mtan",
            "version": 1,
            "dataset": self.dataset,
            "label": self._kinds()["segmentation"],
            "validation_share": self.validation_share,
            "block": self.block,
            "files": stamp(files, Path(self.root)),
        }

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """MTAN's training images by number, then its validation images.

        Raises:
            DataError: a folder is missing, empty, or holds other numbers than its neighbours.
        """
        for folder, numbers in self._numbers().items():
            parts = block_parts(folder, max(numbers) + 1, self.validation_share, self.block)
            for number in numbers:
                name = f"{folder}/{number}"
                try:
                    image, labels = self._read(folder, number)
                except DataError as error:
                    yield Unreadable(name, str(error))
                    continue
                yield ImageSample(image, labels, name, parts[number], block_group(folder, number, self.block))

    def _kinds(self) -> dict[str, str]:
        """Folders by what is in them: "image" and the tasks."""
        if self.dataset == "nyuv2":
            return {"image": "image", "segmentation": "label", "depth": "depth", "normals": "normal"}
        return {"image": "image", "segmentation": self.label, "inverse_depth": "depth"}

    def _read(self, folder: str, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        arrays = {}
        for kind, own in self._kinds().items():
            path = Path(self.root) / folder / own / f"{number}.npy"
            arrays[kind] = converted(kind, read_npy(path), path)
        return arrays.pop("image"), arrays

    def _numbers(self) -> dict[str, list[int]]:
        """Numbers of the files, ascending, by folder; the same for all kinds of a folder."""
        found: dict[str, dict[str, set[int]]] = {}
        for folder in FOLDERS:
            for kind in self._kinds().values():
                path = Path(self.root) / folder / kind
                if not path.is_dir():
                    raise DataError(
                        f"{path}: expected a folder of .npy files, found none; root must name the folder that has "
                        f"{' and '.join(FOLDERS)} in it, each with {', '.join(self._kinds().values())}"
                    )
                found.setdefault(folder, {})[kind] = {
                    int(file.stem) for file in path.glob("*.npy") if file.stem.isdecimal()
                }
        for folder, kinds in found.items():
            every = set.union(*kinds.values())
            incomplete = {kind: every - numbers for kind, numbers in kinds.items() if numbers != every}
            if incomplete or not every:
                counts = ", ".join(f"{kind} {len(numbers)}" for kind, numbers in kinds.items())
                lacking = "".join(f"; {kind} lacks {min(gone)}.npy" for kind, gone in incomplete.items())
                raise DataError(
                    f"{Path(self.root) / folder}: expected the same files 0.npy, 1.npy, ... of every kind, found "
                    f"{counts}{lacking}"
                )
        return {folder: sorted(set.union(*kinds.values())) for folder, kinds in found.items()}


def converted(kind: str, array: np.ndarray, path: Path | str) -> np.ndarray:
    """An array of MTAN's as a store takes it; ``kind`` is "image" or a task.

    Raises:
        DataError: its shape, type or values are not what the module says.
    """
    if kind == "image":
        return unit_range_image(array, path)
    if kind == "segmentation":
        return class_map(array, path)
    return normal_map(array, path) if kind == "normals" else number_map(array, path)


def check_blocks(validation_share: float, block: int) -> None:
    """Raise a ``DataError`` unless the share is in [0, 1) and the block at least 1."""
    if not 0 <= validation_share < 1:
        raise DataError(f"validation_share: expected at least 0 and less than 1, found {validation_share}")
    if block < 1:
        raise DataError(f"block: expected at least 1 file, found {block}")


def block_parts(folder: str, count: int, validation_share: float, block: int) -> list[Part]:
    """Parts of the files 0 to ``count`` - 1 of ``train`` or ``val``.

    Of the blocks of ``train`` the validating ones lie evenly spread, each behind the training blocks that it stands
    for: with a share of 0.1 every tenth, beginning with the tenth. Fewer blocks than that have none.
    """
    if folder == "val":
        return ["test"] * count

    def validating(number: int) -> int:
        # The rounding keeps 3 * 0.1 from being a little more, and 0.29 * 100 a little less, than a whole number.
        return int(round((number // block) * validation_share, 9))

    return ["val" if validating(index + block) > validating(index) else "train" for index in range(count)]


def block_group(folder: str, number: int, block: int) -> str:
    """The group of a file: its folder and the number of its block."""
    return f"{folder}/block {number // block}"
