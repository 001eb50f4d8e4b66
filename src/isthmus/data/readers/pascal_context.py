"""PASCAL-Context with five tasks, in the layout of ASTMT.

Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of Multiple Tasks", CVPR 2019; the protocol of Vandenhende et
al., which MTPSL follows on PASCAL. What lies in the archive ``PASCAL_MT``::

    JPEGImages/2008_000008.jpg
    ImageSets/Context/{train,val}.txt         4998 and 5105 ids, one on each line
    semseg/VOC12/2008_000008.png              or, where there is none, semseg/pascal-context/2008_000008.png
    human_parts/2008_000008.mat               PASCAL-Part: anno.objects(i).{class_ind, parts(j).{part_name, mask}}
    normals_distill/2008_000008.png
    sal_distill/2008_000008.png
    pascal-context/trainval/2008_000008.mat   LabelMap: indices of 459 classes

============ =========================================================================================================
task         how a label is made
============ =========================================================================================================
segmentation VOC's 21 classes as they are, 255 is "no class"
parts        the parts of all persons (class 15) in six, later ones over earlier ones, all else is background; an image
             without a part of a person has no label
normals      2 v / 255 - 1 of the image that a network was distilled into, and only where ``LabelMap`` has a class
             that NYUv2 has as well (or ``tvmonitor``), as that network knew only those; without ``LabelMap``
             everywhere. Black is "no label"
saliency     1 above half of the range
edges        where the five-point Laplacian of ``LabelMap`` is not 0 (mirrored at the border), thinned
============ =========================================================================================================

Every task has a folder, which must be there; a single file that is missing is a missing label. A label of another size
than its image is brought to it, every pixel taking the nearest one (as in the released code, but for normals, which are
interpolated there). Sizes vary from image to image, so a store needs a size.

The archive's ``val`` is the test part. Every n-th image of ``train`` validates, evenly spread by ``validation_share``.
Images are called by their ids, as in MTPSL's lists of partial labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.io import loadmat

from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.image_files import read_class_map, read_image, read_normals
from isthmus.data.image_resize import resized_label
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import HUMAN_PARTS7, VOC21
from isthmus.data.readers.mtan import block_parts, check_blocks
from isthmus.errors import DataError
from isthmus.geometry.thinning import thin

PERSON = 15

PART_OF: dict[str, str] = {
    **dict.fromkeys(
        ("head", "hair", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "nose", "mouth"),
        "head",
    ),
    **dict.fromkeys(("torso", "neck"), "torso"),
    **dict.fromkeys(("luarm", "ruarm"), "upper_arm"),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), "lower_arm"),
    **dict.fromkeys(("luleg", "ruleg"), "upper_leg"),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), "lower_leg"),
}
"""The six parts that PASCAL-Part's 24 parts of a person are merged into."""

# fmt: off
NORMALS_KNOWN = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56, 59,
    61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135,
    141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215,
    216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272,
    273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329,
    330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405,
    407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457,
)
# fmt: on
"""Numbers of PASCAL-Context's classes whose names are also among NYUv2's 894, and of ``tvmonitor`` (427)."""

_IMAGES = "JPEGImages"
_CONTEXT = "pascal-context/trainval"
_FOLDERS: dict[str, tuple[tuple[str, str], ...]] = {
    "segmentation": (("semseg/VOC12", ".png"), ("semseg/pascal-context", ".png")),
    "parts": (("human_parts", ".mat"),),
    "normals": (("normals_distill", ".png"),),
    "saliency": (("sal_distill", ".png"),),
    "edges": ((_CONTEXT, ".mat"),),
}
"""Folders of each task, the first with a file counts."""


@dataclass(frozen=True)
class PascalContext:
    """The data set, as a reader.

    An image that cannot be read, or of which a label is broken, is yielded as ``Unreadable``.

    Args:
        root: the folder ``PASCAL_MT``.
        validation_share: share of ``train`` that validates, in [0, 1); 0 for none.
    """

    root: Path
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        check_blocks(self.validation_share, 1)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Segmentation, human parts, normals, saliency and edges."""
        return {"segmentation": VOC21, "parts": HUMAN_PARTS7, "normals": (), "saliency": (), "edges": ()}

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of the files, and the share."""
        files = []
        for _, name in self._listed():
            image = Path(self.root) / _IMAGES / f"{name}.jpg"
            found = {*self._files(name).values(), image}
            files += [path for path in sorted(found) if path.is_file()]
        return {
            "reader": "pascal_context",
            "version": 1,
            "validation_share": self.validation_share,
            "lists": [[part, name] for part, name in self._listed()],
            "files": stamp(files, Path(self.root)),
        }

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """The images of ``train.txt`` in its order, then those of ``val.txt``.

        Raises:
            DataError: a list or the folder of a task is missing.
        """
        for part, name in self._listed():
            try:
                image = read_image(Path(self.root) / _IMAGES / f"{name}.jpg")
                labels = self._labels(name, image.shape[:2])
            except DataError as error:
                yield Unreadable(name, str(error))
                continue
            yield ImageSample(image, labels, name, part)

    def _labels(self, name: str, size: tuple[int, ...]) -> dict[str, np.ndarray]:
        files = self._files(name)
        # Two tasks are made of it.
        context = read_label_map(files["edges"]) if "edges" in files else None
        read: dict[str, Callable[[Path], np.ndarray | None]] = {
            "segmentation": read_class_map,
            "parts": read_human_parts,
            "normals": lambda path: _known_normals(read_normals(path), context),
            "saliency": lambda path: (read_class_map(path) > 127).astype(np.uint8),
            "edges": lambda path: None if context is None else boundaries(context),
        }
        made = {task: read[task](path) for task, path in files.items()}
        return {task: resized_label(label, (size[0], size[1])) for task, label in made.items() if label is not None}

    def _files(self, name: str) -> dict[str, Path]:
        """The label files of an image by task, those that are there."""
        found = {}
        for task, folders in _FOLDERS.items():
            paths = [Path(self.root) / folder / f"{name}{suffix}" for folder, suffix in folders]
            existing = [path for path in paths if path.is_file()]
            if existing:
                found[task] = existing[0]
        return found

    def _listed(self) -> list[tuple[Part, str]]:
        root = Path(self.root)
        for task, folders in _FOLDERS.items():
            if not any((root / folder).is_dir() for folder, _ in folders):
                raise DataError(
                    f"{root / folders[0][0]}: expected the folder of {task}, found none; root must name the folder "
                    f"PASCAL_MT"
                )
        listed: list[tuple[Part, str]] = []
        for own in ("train", "val"):
            path = root / "ImageSets" / "Context" / f"{own}.txt"
            try:
                names = path.read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: expected a list of image ids, found {error}") from error
            listed += zip(block_parts(own, len(names), self.validation_share, 1), names)
        return listed


def read_label_map(path: Path) -> np.ndarray:
    """``LabelMap`` of a file of PASCAL-Context. Shape: ``(H, W)`` int64.

    Raises:
        DataError: the file cannot be read or has no such map.
    """
    found = _loaded(path).get("LabelMap")
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "iuf":
        raise DataError(f"{path}: LabelMap: expected numbers of shape (H, W), found {_what(found)}")
    return found.astype(np.int64)


def read_human_parts(path: Path) -> np.ndarray | None:
    """The parts of all persons of a file of PASCAL-Part. Shape: ``(H, W)`` uint8; ``None`` without any.

    Raises:
        DataError: the file cannot be read, has another form, or names a part that is not one of a person.
    """
    annotation = _loaded(path).get("anno")
    if not isinstance(annotation, Mapping) or "objects" not in annotation:
        raise DataError(f"{path}: anno: expected a struct with objects, found {_what(annotation)}")
    label: np.ndarray | None = None
    for entry in _structs(annotation["objects"]):
        if entry.get("class_ind") != PERSON:
            continue
        for part in _structs(entry.get("parts")):
            name, mask = part.get("part_name"), part.get("mask")
            if name not in PART_OF:
                raise DataError(f"{path}: part_name: expected one of {', '.join(PART_OF)}, found {name!r}")
            if not isinstance(mask, np.ndarray) or mask.ndim != 2 or (label is not None and mask.shape != label.shape):
                raise DataError(f"{path}: {name}: expected a mask of the image's shape (H, W), found {_what(mask)}")
            if mask.any():
                label = np.zeros(mask.shape, np.uint8) if label is None else label
                label[mask != 0] = HUMAN_PARTS7.index(PART_OF[name])
    return label


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Thin lines where classes meet. Shape: ``(H, W)`` whole numbers to ``(H, W)`` uint8 of 0 and 1."""
    across = ndimage.laplace(labels.astype(np.float64), mode="mirror") != 0
    return thin(across).astype(np.uint8)


def _known_normals(normals: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    if context is None:
        return normals
    known = np.isin(resized_label(context, (normals.shape[0], normals.shape[1])), NORMALS_KNOWN)
    return np.where(known[..., None], normals, np.float16(0))


def _loaded(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = loadmat(path, simplify_cells=True)
    except Exception as error:
        # A broken file fails in any way at all: ValueError, TypeError, zlib.error, MatReadError.
        raise DataError(
            f"{path}: expected a whole .mat file, found one that cannot be read ({type(error).__name__}: {error})"
        ) from error
    return content


def _structs(value: Any) -> list[Mapping[str, Any]]:
    """The elements of a struct array, which SciPy hands out as one dictionary, a list, or an array of them."""
    if isinstance(value, Mapping):
        return [value]
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | np.ndarray) else []


def _what(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
