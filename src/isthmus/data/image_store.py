"""Labelled images, read once, checked, brought to one size, and kept where random batches are cheap.

:func:`prepare_images` turns any image reader into a folder of arrays which :class:`ImageStore` opens by memory mapping.
What happens to a sample:

1. an image that is not ``(H, W, 3)`` uint8, or a label whose shape, dtype or values are not what
   ``isthmus.data.images.ENCODINGS`` says (a class index beyond the classes and not 255, a negative depth, a normal
   longer than ``MAX_NORMAL``, a keypoint farther out than ``FARTHEST_POINT``), takes the whole sample out: it is
   skipped, counted and listed with the reason;
2. pixels of a depth or normal map that are not finite become pixels without a label, as do normals shorter than
   ``MIN_NORMAL``; all other normals are made unit vectors, since resampled data sets hold shorter ones. Keypoints that
   are not finite or outside the image become points without a label, and if the mean depth of the others is not 0
   (beyond 1e-5), it is taken out;
3. with a size given, the image is resampled bilinearly (Pillow: with a wider kernel when it shrinks, so without
   aliasing) and every label map, normals among them, takes the nearest pixel: no label is a mixture of two, and none
   appears where there was none. Edges, a pixel wide, would fall apart: a pixel is an edge if one lies anywhere in what
   it covers. Depths keep their values, and keypoints too, as they are shares of the image's size;
4. a label without a single valid pixel or point counts as absent.

A store's folder depends on the reader's fingerprint and tasks, the size and ``IMAGE_STORE_VERSION``. Samples are
written to disk one by one, so memory holds one of them at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from isthmus.data import publish
from isthmus.data.class_map import nearest
from isthmus.data.clouds import PARTS
from isthmus.data.image_resize import resized_edges, resized_image, resized_label
from isthmus.data.images import ENCODINGS, ImageReader, ImageSample, mirror_partners, valid_pixels
from isthmus.data.publish import Skipped, open_array, read_meta
from isthmus.errors import DataError

IMAGE_STORE_VERSION = 1
MIN_NORMAL = 0.1
MAX_NORMAL = 1.5
FARTHEST_POINT = 10.0
"""Shares of an image's size beyond which a coordinate must be something else (pixels, millimetres)."""

WITH_CLASSES = {"segmentation": 255, "parts": 255, "keypoints": 1000}
"""Tasks that need names of classes (or points), and how many they may have."""

_META_FIELDS = {
    "tasks": dict,
    "names": list,
    "groups": list,
    "size": list,
    "fingerprint": dict,
    "skipped": list,
}


class ImageStore:
    """A prepared data set of labelled images on disk.

    Opening checks that images, parts and presence have the sizes their headers promise; a task's labels are opened and
    checked when :meth:`labels` first asks for them.

    Args:
        path: the folder that :func:`prepare_images` returned in ``ImageStore.path``.

    Attributes:
        tasks: the tasks that images may carry, each with its class names (empty for a task without classes).
        size: height and width of every image and label.
        names: ``n`` unique names.
        groups: ``n`` groups, ``""`` where there is none.
        images: ``(n, H, W, 3)`` uint8 memory map, RGB.
        parts: ``(n,)`` int8, index into ``isthmus.data.clouds.PARTS``.
        present: ``(n, K)`` bool, which image carries which task's label, columns in the order of ``tasks``.
        skipped: images left out, with reasons.
        fingerprint: what the reader said that the data depends on.

    Raises:
        DataError: a file is missing, truncated or not what ``prepare_images`` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        meta = read_meta(self.path / "meta.json", _META_FIELDS)
        self.tasks: dict[str, tuple[str, ...]] = {task: tuple(classes) for task, classes in meta["tasks"].items()}
        self.names: tuple[str, ...] = tuple(meta["names"])
        self.groups: tuple[str, ...] = tuple(meta["groups"])
        if len(self.groups) != len(self.names) or len(meta["size"]) != 2 or not self.tasks.keys() <= ENCODINGS.keys():
            raise DataError(
                f"{self.path / 'meta.json'}: expected known tasks, a group for each name and a size of two numbers, "
                f"found tasks {', '.join(self.tasks)}, {len(self.groups)} groups for {len(self.names)} names and size "
                f"{meta['size']}; delete {self.path} to prepare it again"
            )
        self.size: tuple[int, int] = (meta["size"][0], meta["size"][1])
        self.skipped: tuple[Skipped, ...] = tuple(Skipped(**entry) for entry in meta["skipped"])
        self.fingerprint: dict[str, Any] = meta["fingerprint"]
        self.images = open_array(self.path / "images.npy", (len(self), *self.size, 3), np.uint8)
        self.parts = np.array(open_array(self.path / "parts.npy", (len(self),), np.int8))
        self.present = np.array(open_array(self.path / "present.npy", (len(self), len(self.tasks)), np.bool_))
        self._labels: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path]]:
        """Travel to a worker process as a path: a pickled memory map would carry all its images along."""
        return ImageStore, (self.path,)

    def labels(self, task: str) -> np.ndarray:
        """All labels of a task as ``ENCODINGS`` says, a memory map ``(n, H, W)``, ``(n, H, W, 3)`` or ``(n, K, 3)``.

        Rows of images without the label hold nothing but "no label". The file is opened at the first call and not
        before: a target domain whose labels nobody asks for trains without them, even if the file is taken away.

        Raises:
            DataError: no such task, or its file is missing or not what ``prepare_images`` writes.
        """
        if task not in self.tasks:
            raise DataError(
                f"{self.path}: expected one of the tasks {', '.join(self.tasks) or '(none)'}, found "
                f"{task!r}{nearest(task, self.tasks)}"
            )
        if task not in self._labels:
            shape = (len(self), *_label_shape(task, self.size, len(self.tasks[task])))
            self._labels[task] = open_array(_label_path(self.path, task), shape, ENCODINGS[task].dtype)
        return self._labels[task]

    def indices(self, part: str) -> np.ndarray:
        """Positions of the images of one part ("train", "val" or "test"), ascending, int64."""
        if part not in PARTS:
            raise DataError(f"part: expected one of {', '.join(PARTS)}, found {part!r}")
        return np.flatnonzero(self.parts == PARTS.index(part))

    def content(self, row: int) -> bytes:
        """An image's pixels, which tell it from others of the same name."""
        return np.asarray(self.images[row]).tobytes()


@dataclass
class ImageCheckReport:
    """What :func:`check_images` found.

    Everything is counted by part and task. ``images`` counts usable images, ``labelled`` those with a task's label,
    ``pixels`` the valid pixels of every class in the order of ``tasks[task]`` (a single number for a task without
    classes; for keypoints how often each point is labelled); ``sizes`` counts images by ``(H, W)``; ``problems`` lists
    images that cannot be used, with reasons.
    """

    tasks: dict[str, tuple[str, ...]]
    images: dict[str, int]
    labelled: dict[str, dict[str, int]]
    pixels: dict[str, dict[str, list[int]]]
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    problems: list[Skipped] = field(default_factory=list)


def prepare_images(
    reader: ImageReader, cache: Path, size: tuple[int, int] | None, *, progress: bool = False
) -> ImageStore:
    """Read a data set once, or open what an earlier call with the same data left behind.

    As for clouds, a process that is killed leaves no half store, and two processes may prepare the same data at once.

    Args:
        reader: the data set.
        cache: folder that holds stores, made if needed.
        size: height and width to which everything is brought; ``None`` keeps the images' own size, which must then be
            the same for all.
        progress: show a progress line on standard error.

    Raises:
        DataError: no usable sample at all; images of several sizes and no ``size``; a task that is not one; a part out
            of range; a name that comes twice; or an existing store that is damaged.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"size: expected a height and a width of at least 1, found {size}")
    tasks = _checked_tasks(reader)
    fingerprint = reader.fingerprint()
    everything = {
        "store": "images",
        "fingerprint": fingerprint,
        "tasks": [[task, list(classes)] for task, classes in tasks.items()],
        "size": size and list(size),
        "version": IMAGE_STORE_VERSION,
    }
    final = Path(cache) / publish.key(everything)
    publish.build(final, lambda folder: _write(reader, folder, size, fingerprint, progress))
    return ImageStore(final)


def check_images(reader: ImageReader) -> ImageCheckReport:
    """Read everything that :func:`prepare_images` would read and write nothing; sizes may differ.

    Raises:
        DataError: as :func:`prepare_images`, except that a data set without any usable sample is a report of zeros.
    """
    tasks = _checked_tasks(reader)
    report = ImageCheckReport(
        tasks,
        images={part: 0 for part in PARTS},
        labelled={part: dict.fromkeys(tasks, 0) for part in PARTS},
        pixels={part: {task: [0] * max(len(classes), 1) for task, classes in tasks.items()} for part in PARTS},
    )
    for sample in _usable(reader, None, report.problems):
        height, width = sample.image.shape[:2]
        report.sizes[height, width] = report.sizes.get((height, width), 0) + 1
        report.images[sample.part] += 1
        for task, label in sample.labels.items():
            report.labelled[sample.part][task] += 1
            valid = valid_pixels(task, label)
            totals = report.pixels[sample.part][task]
            if ENCODINGS[task].points:
                found = valid
            else:
                found = np.bincount(label[valid], minlength=len(totals)) if tasks[task] else np.array([valid.sum()])
            report.pixels[sample.part][task] = [before + int(more) for before, more in zip(totals, found)]
    return report


def _checked_tasks(reader: ImageReader) -> dict[str, tuple[str, ...]]:
    tasks = dict(reader.tasks)
    for task, classes in tasks.items():
        if task not in ENCODINGS:
            raise DataError(f"tasks: expected some of {', '.join(ENCODINGS)}, found {task!r}{nearest(task, ENCODINGS)}")
        most = WITH_CLASSES.get(task, 0)
        least = 1 if task in WITH_CLASSES else 0
        if not least <= len(classes) <= most:
            raise DataError(f"tasks: {task}: expected {least} to {most} classes, found {len(classes)}")
        if ENCODINGS[task].points:
            try:
                mirror_partners(classes)
            except ValueError as error:
                raise DataError(f"tasks: {task}: {error}") from error
    return tasks


def _usable(reader: ImageReader, size: tuple[int, int] | None, skipped: list[Skipped]) -> Iterator[ImageSample]:
    """Every usable sample, checked and resized, with only the labels that have a valid pixel."""
    tasks = dict(reader.tasks)
    for sample in publish.readable(reader.samples(), skipped):
        unknown = [task for task in sample.labels if task not in tasks]
        if unknown:
            raise DataError(
                f"{sample.name}: expected labels of the tasks {', '.join(tasks) or '(none)'}, found {unknown[0]!r}"
            )
        problem = _image_problem(sample.image)
        labels: dict[str, np.ndarray] = {}
        for task, raw in sample.labels.items():
            label = problem or checked_label(task, raw, sample.image.shape[:2], len(tasks[task]))
            if isinstance(label, str):
                problem = label
                break
            if not ENCODINGS[task].points:
                label = resized_edges(label, size) if task == "edges" else resized_label(label, size)
            if valid_pixels(task, label).any():
                labels[task] = label
        if problem:
            skipped.append(Skipped(sample.name, problem))
        else:
            yield sample._replace(image=resized_image(sample.image, size), labels=labels)


def _image_problem(image: np.ndarray) -> str:
    if image.dtype != np.uint8:
        return f"image: expected uint8, found {image.dtype}"
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        return f"image: expected shape (H, W, 3), found {image.shape}"
    return ""


def checked_label(task: str, label: np.ndarray, size: tuple[int, ...], classes: int) -> np.ndarray | str:
    """The label as a store keeps it; or why it is not what :data:`isthmus.data.images.ENCODINGS` says.

    Args:
        task: the task.
        label: its label.
        size: height and width of the image.
        classes: how many classes (or points) the task has, 0 for a task without.
    """
    encoding = ENCODINGS[task]
    if label.dtype != encoding.dtype:
        return f"{task}: expected {encoding.dtype}, found {label.dtype}"
    shape = _label_shape(task, size, classes)
    if label.shape != shape:
        why = "a row for each point" if encoding.points else "as the image has it"
        return f"{task}: expected shape {shape} {why}, found {label.shape}"
    if encoding.points:
        return _points_inside(task, label)
    if task == "normals":
        return _unit_normals(label)
    if encoding.dtype == "float32":
        finite = np.where(np.isfinite(label), label, np.float32(0))
        negative = int((finite < 0).sum())
        return (
            f"{task}: expected at least 0, found {finite.min():.3g}, {negative} negative pixels" if negative else finite
        )
    largest = (classes or 2) - 1
    wrong = label[(label > largest) & (label != encoding.invalid)]
    if len(wrong):
        return f"{task}: expected 0 to {largest} or {encoding.invalid:g}, found {wrong[0]} among {len(wrong)} pixels"
    return label


def _unit_normals(label: np.ndarray) -> np.ndarray | str:
    vectors = label.astype(np.float32)
    lengths = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
    # The length is not finite where a component is not.
    finite = np.isfinite(lengths)
    longest = lengths.max(where=finite, initial=0)
    if longest > MAX_NORMAL:
        return f"normals: expected unit vectors, found one of length {longest:.3g}"
    usable = finite & (lengths >= MIN_NORMAL)
    return np.divide(vectors, lengths[..., None], out=np.zeros_like(vectors), where=usable[..., None]).astype(
        label.dtype
    )


def _points_inside(task: str, label: np.ndarray) -> np.ndarray | str:
    finite = np.isfinite(label)
    farthest = np.abs(label).max(where=finite, initial=0)
    if farthest > FARTHEST_POINT:
        return f"{task}: expected shares of the image's width and height, found {farthest:.4g}"
    place = label[:, :2]
    # Comparisons with NaN are false, as they should be.
    inside = finite.all(axis=1) & (place >= 0).all(axis=1) & (place <= 1).all(axis=1)
    kept = np.where(inside[:, None], label, np.float32(ENCODINGS[task].invalid))
    if inside.any():
        mean = kept[inside, 2].mean(dtype=np.float64)
        if abs(mean) > 1e-5:
            kept[:, 2] -= np.float32(mean)
    return kept


class _Kept(NamedTuple):
    name: str
    group: str
    part: int
    present: list[bool]


def _write(
    reader: ImageReader,
    folder: Path,
    size: tuple[int, int] | None,
    fingerprint: dict[str, Any],
    progress: bool,
) -> None:
    tasks = dict(reader.tasks)
    skipped: list[Skipped] = []
    kept: list[_Kept] = []
    with ExitStack() as stack:
        show = stack.enter_context(publish.progress_line("images", shown=progress))
        files: dict[str, BinaryIO] = {"": stack.enter_context(open(folder / "images.npy", "w+b"))}
        for task in tasks:
            files[task] = stack.enter_context(open(_label_path(folder, task), "w+b"))
        own: tuple[int, int] = size or (0, 0)
        for sample in _usable(reader, size, skipped):
            height, width = sample.image.shape[:2]
            if not kept:
                own = (height, width)
                _write_headers(files, 0, own, tasks)
            if (height, width) != own:
                raise DataError(
                    f"{sample.name}: expected {own[0]} x {own[1]} pixels (height x width) as in {kept[0].name}, found "
                    f"{height} x {width}; give a size to which all images are brought"
                )
            files[""].write(sample.image.tobytes())
            for task in tasks:
                label = sample.labels.get(task)
                files[task].write((_blank(task, own, len(tasks[task])) if label is None else label).tobytes())
            present = [task in sample.labels for task in tasks]
            kept.append(_Kept(sample.name, sample.group, PARTS.index(sample.part), present))
            show(len(kept), len(skipped))
        show(len(kept), len(skipped))
        if not kept:
            raise DataError(publish.nothing_usable(skipped))
        _write_headers(files, len(kept), own, tasks)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    np.save(folder / "parts.npy", np.array([entry.part for entry in kept], dtype=np.int8))
    np.save(folder / "present.npy", np.array([entry.present for entry in kept], dtype=np.bool_))
    meta = {
        "version": IMAGE_STORE_VERSION,
        "tasks": tasks,
        "names": [entry.name for entry in kept],
        "groups": [entry.group for entry in kept],
        "size": list(own),
        "fingerprint": fingerprint,
        "skipped": [entry._asdict() for entry in skipped],
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_headers(
    files: dict[str, BinaryIO], count: int, size: tuple[int, int], tasks: dict[str, tuple[str, ...]]
) -> None:
    for task, file in files.items():
        if task:
            shape = (count, *_label_shape(task, size, len(tasks[task])))
            publish.write_header(file, shape, ENCODINGS[task].dtype)
        else:
            publish.write_header(file, (count, *size, 3), np.uint8)


def _blank(task: str, size: tuple[int, int], classes: int) -> np.ndarray:
    encoding = ENCODINGS[task]
    return np.full(_label_shape(task, size, classes), encoding.invalid, encoding.dtype)


def _label_shape(task: str, size: tuple[int, ...], classes: int) -> tuple[int, ...]:
    encoding = ENCODINGS[task]
    if encoding.points:
        return classes, encoding.channels
    return (*size, encoding.channels) if encoding.channels else tuple(size)


def _label_path(folder: Path, task: str) -> Path:
    return folder / f"label_{task}.npy"
