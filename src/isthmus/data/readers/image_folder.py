"""Your own images, with a folder of label files for each task.

::

    root/images/*.png                    or split:   root/train/images/*.png
    root/segmentation/*.png                          root/train/segmentation/*.png
    root/depth/*.png                                 root/val/images/*.png
    root/classes.txt                                 root/classes.txt

A label file has the name of its image with a suffix of its own (``images/a.jpg``, ``depth/a.npy``). Any may be missing:
then the image has no label of that task. A label file without an image is an error, since it is most likely misnamed.
Labels have the size of their image.

============== =========================== ===========================================================================
folder         files                       what is in them
============== =========================== ===========================================================================
images         .png .jpg .bmp .tif .webp   ordinary pictures (see :func:`isthmus.data.image_files.read_image`)
segmentation   .png .tif .npy              class indices, one channel; 255 (in ``.npy`` also -1) is "no class"
parts          .png .tif .npy              the same for parts of persons
depth          .png .tif                   16 bits: millimetres; a floating-point ``.tif``: metres; 0 is "none"
               .npy                        metres
inverse_depth  .npy .tif                   floats in any unit, 0 is "none"
normals        .png .tif                   RGB of 8 or 16 bits, x = 2 v / 255 - 1; black is "none"
               .npy                        (H, W, 3) floats in [-1, 1], the zero vector is "none"
saliency       .png .tif .npy              0 and 255, or 0 and 1; where 1 occurs in any file, 255 is "no label"
edges          .png .tif .npy              the same
keypoints      .npy                        (K, 3) floats, a row for each point: u, v, z; a row of NaN is "no label"
============== =========================== ===========================================================================

Normals are in the camera frame with x to the right. Of a keypoint, u is its column as a share of the image's width (0
at the left border, 1 at the right one), v its row as a share of the height, and z its depth away from the camera as a
share of the *width*, from any origin (0 for all where only places are known). Points outside the image count as not
labelled. The points' names are the lines of ``root/keypoints.txt`` or given as an argument, one for each row; one of
the two is needed, because in mirrored images the points ``left_*`` and ``right_*`` (the person's own left and right)
change places.

Classes are the lines of ``root/classes.txt`` (for parts ``root/parts.txt``) or given as arguments; without either they
are called "0" to the largest index that occurs.

Images may lie in sub-folders (``images/kitchen/a.png`` with ``depth/kitchen/a.npy``); a sub-folder is a group, so put
what shows the same place into one.

Parts are the folders ``train``, ``val`` (or ``valid``, ``validation``) and ``test``. Without them the images, sorted by
name, are cut: the first 64 % train, the next 16 % validate, the last 20 % test, and a group goes as a whole where its
first image falls. That depends on nothing but the order of the names; neighbours, which in recordings look alike, stay
together. With ``train`` but no ``val`` the last 20 % of the training images validate, cut in the same way. Where names
follow the content (all kitchens first), make the split folders yourself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isthmus.data.class_map import nearest
from isthmus.data.clouds import Part, Unreadable
from isthmus.data.files import stamp
from isthmus.data.image_files import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    read_binary,
    read_class_map,
    read_depth,
    read_image,
    read_inverse_depth,
    read_normals,
    read_npy,
)
from isthmus.data.images import ENCODINGS, ImageSample, mirror_partners
from isthmus.data.readers.folder import SPLITS
from isthmus.errors import DataError

IMAGES = "images"


def read_keypoints(path: Path) -> np.ndarray:
    """Points as u, v, z, rows of NaN where there is no label. Shape: ``(K, 3)`` float32.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    array = read_npy(path)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind != "f":
        raise DataError(f"{path}: expected floats of shape (K, 3), found {array.dtype} {array.shape}")
    return array.astype(np.float32)


_READ: dict[str, Callable[[Path], np.ndarray]] = {
    "segmentation": read_class_map,
    "parts": read_class_map,
    "depth": read_depth,
    "inverse_depth": read_inverse_depth,
    "normals": read_normals,
    "saliency": read_binary,
    "edges": read_binary,
    "keypoints": read_keypoints,
}
_CLASS_FILES = {"segmentation": "classes.txt", "parts": "parts.txt", "keypoints": "keypoints.txt"}


class _Entry(NamedTuple):
    """An image with the files of its labels."""

    name: str
    image: Path
    labels: dict[str, Path]
    split: Part | None
    group: str


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images and labels, as a reader.

    A sample of which one file cannot be read is yielded as ``Unreadable``.

    Args:
        root: the folder.
        classes: names of the classes of ``segmentation``, in place of ``classes.txt``.
        parts: names of the classes of ``parts``, in place of ``parts.txt``.
        keypoints: names of the points, in place of ``keypoints.txt``.

    Raises:
        DataError: no folder of images, no image in it, a folder that is no task, a label without an image, two files
            for the same thing, an empty list of classes, keypoints without names, or a left point without a right one.
    """

    root: Path
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # All look for what is wrong with the data set itself; better here than after minutes of reading.
        _ = self._entries
        for task in _CLASS_FILES:
            self._named_classes(task)
        if any("keypoints" in entry.labels for entry in self._entries):
            path = Path(self.root) / _CLASS_FILES["keypoints"]
            try:
                if not mirror_partners(self._named_classes("keypoints")):
                    raise ValueError("expected the name of a point in each line, found no such file")
            except ValueError as error:
                raise DataError(f"{path}: {error}") from error

    @cached_property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Tasks that have a folder with a file, in the order of ``isthmus.data.images.ENCODINGS``.

        Without names for the classes every label file is read once to find the largest index (keypoints need names).
        """
        found = {task for entry in self._entries for task in entry.labels}
        tasks: dict[str, tuple[str, ...]] = {}
        for task in ENCODINGS:
            if task in found and task in _CLASS_FILES:
                largest = -1
                if not self._named_classes(task):
                    largest = max((int(label.max()) for label in self._valid_pixels(task)), default=0)
                tasks[task] = self._named_classes(task) or tuple(str(index) for index in range(largest + 1))
            elif task in found:
                tasks[task] = ()
        return tasks

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and modification times of all files, and all names of classes."""
        files = [path for entry in self._entries for path in (entry.image, *entry.labels.values())]
        return {
            "reader": "image_folder",
            "version": 1,
            "tasks": {task: list(classes) for task, classes in self.tasks.items()},
            "files": stamp(files, Path(self.root)),
        }

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """The images, sorted by part and name; named by their path without ``images`` and suffix (``train/a``)."""
        for entry, part in zip(self._entries, _parts(self._entries)):
            try:
                image = read_image(entry.image)
                labels = {task: self._label(task, path) for task, path in entry.labels.items()}
            except DataError as error:
                yield Unreadable(entry.name, str(error))
                continue
            yield ImageSample(image, labels, entry.name, part, entry.group)

    def _label(self, task: str, path: Path) -> np.ndarray:
        label = _READ[task](path)
        if task == "keypoints" and len(label) != len(self.tasks[task]):
            raise DataError(
                f"{path}: expected {len(self.tasks[task])} rows, one for each name in {_CLASS_FILES[task]}, found "
                f"{len(label)}"
            )
        if task in ("saliency", "edges") and not self._counted_in_ones[task]:
            return (label == 255).astype(np.uint8)
        return label

    @cached_property
    def _counted_in_ones(self) -> dict[str, bool]:
        """Whether any file of a task has a 1; a map of 0 and 255 alone could mean either."""
        return {task: any((label == 1).any() for label in self._valid_pixels(task)) for task in ("saliency", "edges")}

    def _valid_pixels(self, task: str) -> Iterator[np.ndarray]:
        """Numbers other than 255 in every file of a task; files that cannot be read are reported as samples."""
        for entry in self._entries:
            if task in entry.labels:
                try:
                    label = _READ[task](entry.labels[task])
                except DataError:
                    continue
                if (label != 255).any():
                    yield label[label != 255]

    def _named_classes(self, task: str) -> tuple[str, ...]:
        given = {"segmentation": self.classes, "parts": self.parts, "keypoints": self.keypoints}[task]
        path = Path(self.root) / _CLASS_FILES[task]
        if given or not path.is_file():
            return tuple(given)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: expected a class in each line, found {error}") from error
        names = tuple(line for line in lines if line)
        if not names or len(set(names)) != len(names):
            raise DataError(f"{path}: expected different classes, one in each line, found {', '.join(names) or 'none'}")
        return names

    @cached_property
    def _entries(self) -> list[_Entry]:
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder with {IMAGES!r} in it, found none")
        folders = [path.name for path in _visible(root) if path.is_dir()]
        splits = [name for name in folders if name in SPLITS]
        if splits and IMAGES in folders:
            raise DataError(f"{root}: expected either {IMAGES!r} or split folders, found {IMAGES!r} and {splits[0]!r}")
        if not splits:
            return _entries_below(root, root, None)
        unknown = [name for name in folders if name not in SPLITS]
        if unknown:
            raise DataError(
                f"{root / unknown[0]}: expected split folders {', '.join(SPLITS)}, found {unknown[0]!r}"
                f"{nearest(unknown[0], SPLITS)}"
            )
        entries = [entry for name in splits for entry in _entries_below(root, root / name, SPLITS[name])]
        order: dict[Part | None, int] = {"train": 0, "val": 1, "test": 2}
        return sorted(entries, key=lambda entry: order[entry.split])


@dataclass(frozen=True)
class UnlabelledImages:
    """Ordinary pictures without any labels, for prediction, as a reader.

    Names are the paths as given (for a folder: with what is below it), sorted within a folder; all are test images. A
    file that cannot be read is yielded as ``Unreadable``. Sizes may differ.

    Args:
        paths: pictures, and folders that are searched with all folders below them.

    Raises:
        DataError: a path is neither a picture nor a folder with pictures.
    """

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in map(Path, self.paths):
            if not path.is_dir() and (not path.is_file() or path.suffix.lower() not in IMAGE_SUFFIXES):
                raise DataError(
                    f"{path}: expected a folder or a picture {', '.join(IMAGE_SUFFIXES)}, found "
                    f"{'another file' if path.is_file() else 'nothing there'}"
                )
            if path.is_dir() and not _files(path, IMAGE_SUFFIXES):
                raise DataError(f"{path}: expected pictures {', '.join(IMAGE_SUFFIXES)}, found none")

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """None."""
        return {}

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every picture once, in the order of ``paths``."""
        found: dict[Path, None] = {}
        for path in map(Path, self.paths):
            found |= dict.fromkeys(_files(path, IMAGE_SUFFIXES) if path.is_dir() else [path])
        return tuple(found)

    def fingerprint(self) -> dict[str, Any]:
        """Paths, sizes and modification times of the files."""
        stamps = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return {"reader": "unlabelled_images", "version": 1, "files": [list(entry) for entry in stamps]}

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        """The pictures in the order of :attr:`files`."""
        for path in self.files:
            try:
                yield ImageSample(read_image(path), {}, path.as_posix(), "test")
            except DataError as error:
                yield Unreadable(path.as_posix(), str(error))


def _entries_below(root: Path, folder: Path, split: Part | None) -> list[_Entry]:
    """The images of ``folder/images`` sorted by name, with the labels beside them."""
    images = folder / IMAGES
    if not images.is_dir():
        raise DataError(f"{images}: expected a folder of images, found none")
    for path in _visible(folder):
        if path.is_dir() and path.name != IMAGES and path.name not in ENCODINGS:
            raise DataError(
                f"{path}: expected {IMAGES!r} or a task {', '.join(ENCODINGS)}, found {path.name!r}"
                f"{nearest(path.name, [IMAGES, *ENCODINGS])}"
            )
    pictures = _by_stem(images, IMAGE_SUFFIXES)
    if not pictures:
        raise DataError(f"{images}: expected images {', '.join(IMAGE_SUFFIXES)}, found none")
    labels = {task: _by_stem(folder / task, LABEL_SUFFIXES) for task in ENCODINGS if (folder / task).is_dir()}
    for task, files in labels.items():
        stray = [path for stem, path in files.items() if stem not in pictures]
        if stray:
            raise DataError(
                f"{stray[0]}: expected an image of the same name in {images}, found none"
                + (f" (so it is for {len(stray)} files in {folder / task})" if len(stray) > 1 else "")
            )
    prefix = "" if folder == root else f"{folder.name}/"
    return [
        _Entry(
            f"{prefix}{stem}",
            path,
            {task: files[stem] for task, files in labels.items() if stem in files},
            split,
            f"{prefix}{stem.rpartition('/')[0]}" if "/" in stem else "",
        )
        for stem, path in sorted(pictures.items())
    ]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files by their path in the folder without the suffix."""
    found: dict[str, Path] = {}
    for path in _files(folder, suffixes):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: expected one file of this name, found {found[stem].name} as well")
        found[stem] = path
    return found


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _parts(entries: Sequence[_Entry]) -> list[Part]:
    splits = {entry.split for entry in entries}
    if None in splits:
        return _cut(entries, (64, "train"), (80, "val"), (100, "test"))
    if "val" in splits:
        return [entry.split or "train" for entry in entries]
    training = [entry for entry in entries if entry.split == "train"]
    cut = _cut(training, (80, "train"), (100, "val"))
    return cut + [entry.split or "train" for entry in entries[len(training) :]]


def _cut(entries: Sequence[_Entry], *limits: tuple[int, Part]) -> list[Part]:
    """Parts by position in percent; a group goes where its first image falls."""
    of_group: dict[str, Part] = {}
    parts: list[Part] = []
    for position, entry in enumerate(entries):
        part = next(part for limit, part in limits if 100 * position < limit * len(entries))
        parts.append(of_group.setdefault(entry.group, part) if entry.group else part)
    return parts
