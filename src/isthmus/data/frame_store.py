"""LiDAR sweeps with images, read once, checked, and kept where random batches are cheap.

:func:`prepare_frames` turns any reader of frames into a folder of arrays which :class:`FrameStore` opens by memory
mapping. Sweeps differ in length, so all their points lie one after the other and ``offsets`` says where each begins.
What happens to a frame:

1. one whose arrays are not what :class:`isthmus.data.frames.Frame` says (types, lengths, numbers that are not finite, a
   class beyond the classes, a pixel outside the image, no point at all) is skipped, counted and listed with the reason;
2. with a size given, the image is resampled bilinearly to it, and pixels and projection are scaled along;
3. a label without a single labelled point counts as absent.

Frames are written to disk one by one, so memory holds one of them at a time. A data set either has an image in every
frame or in none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from isthmus.data import publish
from isthmus.data.clouds import PARTS
from isthmus.data.frames import NO_LABEL, Frame, FrameReader
from isthmus.data.image_store import resized_image
from isthmus.data.publish import Skipped, open_array, read_meta
from isthmus.errors import DataError

FRAME_STORE_VERSION = 1

_META_FIELDS = {
    "classes": list,
    "names": list,
    "groups": list,
    "size": list,
    "fingerprint": dict,
    "skipped": list,
}
_PER_POINT: dict[str, tuple[str, tuple[int, ...]]] = {
    "points": ("float32", (3,)),
    "pixels": ("float32", (2,)),
    "labels": ("uint8", ()),
    "intensity": ("float32", ()),
}


class FrameStore:
    """A prepared data set of frames on disk.

    Labels are opened when they are first asked for and not before, so a target domain whose labels nobody reads trains
    without the file.

    Args:
        path: the folder that :func:`prepare_frames` returned in ``FrameStore.path``.

    Attributes:
        classes: names of the classes.
        size: height and width of every image; (0, 0) where there are none.
        names, groups: ``n`` unique names, and what must be resampled together.
        offsets: ``(n + 1,)`` int64; the points of frame i are rows ``offsets[i]`` to ``offsets[i + 1]``.
        points: ``(sum N, 3)`` float32 memory map, metres.
        pixels: ``(sum N, 2)`` float32 memory map, row and column.
        intensity: ``(sum N,)`` float32 memory map, zeros where the data set has none.
        images: ``(n, H, W, 3)`` uint8 memory map.
        projections: ``(n, 3, 4)`` float64, NaN where a frame has none.
        parts: ``(n,)`` int8, index into ``isthmus.data.clouds.PARTS``.
        present: ``(n,)`` bool, which frame carries labels.
        skipped: frames left out, with reasons.
        fingerprint: what the reader said that the data depends on.

    Raises:
        DataError: a file is missing, truncated or not what ``prepare_frames`` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        meta = read_meta(self.path / "meta.json", _META_FIELDS)
        self.classes: tuple[str, ...] = tuple(meta["classes"])
        self.names: tuple[str, ...] = tuple(meta["names"])
        self.groups: tuple[str, ...] = tuple(meta["groups"])
        if len(self.groups) != len(self.names) or len(meta["size"]) != 2:
            raise DataError(
                f"{self.path / 'meta.json'}: expected a group for each name and a size of two numbers, found "
                f"{len(self.groups)} groups for {len(self.names)} names and size {meta['size']}; delete {self.path} "
                "to prepare it again"
            )
        self.size: tuple[int, int] = (meta["size"][0], meta["size"][1])
        self.skipped: tuple[Skipped, ...] = tuple(Skipped(**entry) for entry in meta["skipped"])
        self.fingerprint: dict[str, Any] = meta["fingerprint"]
        count = len(self)
        self.offsets = np.array(open_array(self.path / "offsets.npy", (count + 1,), np.int64))
        self.points = self._open("points")
        self.pixels = self._open("pixels")
        self.intensity = self._open("intensity")
        self.images = open_array(self.path / "images.npy", (count, *self.size, 3), np.uint8)
        self.projections = open_array(self.path / "projections.npy", (count, 3, 4), np.float64)
        self.parts = np.array(open_array(self.path / "parts.npy", (count,), np.int8))
        self.present = np.array(open_array(self.path / "present.npy", (count,), np.bool_))
        self._labels: np.ndarray | None = None

    def _open(self, name: str) -> np.ndarray:
        dtype, trailing = _PER_POINT[name]
        return open_array(self.path / f"{name}.npy", (int(self.offsets[-1]), *trailing), dtype)

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[type[FrameStore], tuple[Path]]:
        """Travel to a worker process as a path: a pickled memory map would carry all its points along."""
        return FrameStore, (self.path,)

    @property
    def has_sweeps(self) -> bool:
        """Whether points lie in space; those of photographs alone do not."""
        return bool(self.fingerprint.get("sweeps", True))

    @property
    def labels(self) -> np.ndarray:
        """``(sum N,)`` uint8 memory map, class indices or :data:`isthmus.data.frames.NO_LABEL`."""
        if self._labels is None:
            self._labels = self._open("labels")
        return self._labels

    def indices(self, part: str) -> np.ndarray:
        """Positions of the frames of one part ("train", "val" or "test"), ascending, int64."""
        if part not in PARTS:
            raise DataError(f"part: expected one of {', '.join(PARTS)}, found {part!r}")
        return np.flatnonzero(self.parts == PARTS.index(part))

    def content(self, row: int) -> bytes:
        """A sweep's points, which tell it from others of the same name."""
        return np.asarray(self.points[self.offsets[row] : self.offsets[row + 1]]).tobytes()


def prepare_frames(
    reader: FrameReader, cache: Path, size: tuple[int, int] | None, *, progress: bool = False
) -> FrameStore:
    """Read a data set once, or open what an earlier call with the same data left behind.

    A process that is killed leaves no half store, and two processes may prepare the same data at once.

    Args:
        reader: the data set.
        cache: folder that holds stores, made if needed.
        size: height and width to which images are brought; ``None`` keeps their own size, which must then be the same
            for all.
        progress: show a progress line on standard error.

    Raises:
        DataError: no usable frame at all; images of several sizes and no ``size``; images in some frames only; a part
            out of range; a name that comes twice; no classes, or more than 255; or an existing store that is damaged.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"size: expected a height and a width of at least 1, found {size}")
    if not 0 < len(reader.classes) <= NO_LABEL:
        raise DataError(f"classes: expected 1 to {NO_LABEL}, found {len(reader.classes)}")
    fingerprint = reader.fingerprint()
    everything = {
        "store": "frames",
        "fingerprint": fingerprint,
        "classes": list(reader.classes),
        "size": size and list(size),
        "version": FRAME_STORE_VERSION,
    }
    final = Path(cache) / publish.key(everything)
    publish.build(final, lambda folder: _write(reader, folder, size, fingerprint, progress))
    return FrameStore(final)


def usable(reader: FrameReader, size: tuple[int, int] | None, skipped: list[Skipped]) -> Iterator[Frame]:
    """Every usable frame, checked and with its image at ``size``; the others are added to ``skipped``."""
    for frame in publish.readable(reader.frames(), skipped):
        problem = frame_problem(frame, len(reader.classes))
        if problem:
            skipped.append(Skipped(frame.name, problem))
        else:
            yield resized_frame(frame, size)


def frame_problem(frame: Frame, classes: int) -> str:
    """Why a frame is not what :class:`isthmus.data.frames.Frame` says, or "" if it is."""
    count = len(frame.points)
    if not count:
        return "points: expected at least one (inside the image, where there is one), found none"
    for name, (dtype, trailing) in _PER_POINT.items():
        array = getattr(frame, name)
        if array is None:
            continue
        if array.dtype != dtype or array.shape != (count, *trailing):
            return f"{name}: expected {dtype} {(count, *trailing)}, found {array.dtype} {array.shape}"
        if dtype == "float32" and not np.isfinite(array).all():
            return f"{name}: expected finite numbers, found {int((~np.isfinite(array)).sum())} others"
    if frame.labels is not None:
        wrong = frame.labels[(frame.labels >= classes) & (frame.labels != NO_LABEL)]
        if len(wrong):
            return f"labels: expected 0 to {classes - 1} or {NO_LABEL}, found {wrong[0]} among {len(wrong)} points"
    if (frame.image is None) != (frame.pixels is None):
        there, missing = ("image", "pixels") if frame.pixels is None else ("pixels", "image")
        return f"{missing}: expected them with {there}, found none"
    if frame.image is not None and frame.pixels is not None:
        image = frame.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            return f"image: expected uint8 (H, W, 3), found {image.dtype} {image.shape}"
        outside = ((frame.pixels < 0) | (frame.pixels >= image.shape[:2])).any(axis=1)
        if outside.any():
            return f"pixels: expected them inside {image.shape[0]} x {image.shape[1]}, found {outside.sum()} outside"
    if frame.projection is not None and frame.projection.shape != (3, 4):
        return f"projection: expected shape (3, 4), found {frame.projection.shape}"
    return ""


def resized_frame(frame: Frame, size: tuple[int, int] | None) -> Frame:
    """The frame with its image, pixels and projection at another size, height and width."""
    if frame.image is None or frame.pixels is None or size is None or frame.image.shape[:2] == tuple(size):
        return frame
    old, new = np.array(frame.image.shape[:2], dtype=np.float64), np.array(size, dtype=np.float64)
    ratio = new / old
    # Rounding must not move a point on the far border out of the image.
    pixels = np.minimum((frame.pixels * ratio).astype(np.float32), np.nextafter(new.astype(np.float32), np.float32(0)))
    projection = frame.projection
    if projection is not None:
        projection = projection * np.array([ratio[1], ratio[0], 1.0])[:, None]
    return frame._replace(image=resized_image(frame.image, size), pixels=pixels, projection=projection)


class _Kept(NamedTuple):
    name: str
    group: str
    part: int
    present: bool
    points: int
    projection: np.ndarray


def _write(
    reader: FrameReader, folder: Path, size: tuple[int, int] | None, fingerprint: dict[str, Any], progress: bool
) -> None:
    skipped: list[Skipped] = []
    kept: list[_Kept] = []
    own: tuple[int, int] = (0, 0)
    with ExitStack() as stack:
        show = stack.enter_context(publish.progress_line("frames", shown=progress))
        files: dict[str, BinaryIO] = {
            name: stack.enter_context(open(folder / f"{name}.npy", "w+b")) for name in ("images", *_PER_POINT)
        }
        for frame in usable(reader, size, skipped):
            found = (0, 0) if frame.image is None else (frame.image.shape[0], frame.image.shape[1])
            if not kept:
                own = found
                _write_headers(files, 0, 0, own)
            if found != own:
                raise DataError(
                    f"{frame.name}: image: expected {_described(own)} as in {kept[0].name}, found {_described(found)}; "
                    "give a size to which all images are brought, or leave out frames without one"
                )
            _write_frame(files, frame)
            present = frame.labels is not None and bool((frame.labels != NO_LABEL).any())
            projection = np.full((3, 4), np.nan) if frame.projection is None else frame.projection
            part = PARTS.index(frame.part)
            kept.append(_Kept(frame.name, frame.group, part, present, len(frame.points), projection))
            show(len(kept), len(skipped))
        show(len(kept), len(skipped))
        if not kept:
            raise DataError(publish.nothing_usable(skipped))
        offsets = np.concatenate([[0], np.cumsum([entry.points for entry in kept])]).astype(np.int64)
        _write_headers(files, len(kept), int(offsets[-1]), own)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "parts.npy", np.array([entry.part for entry in kept], dtype=np.int8))
    np.save(folder / "present.npy", np.array([entry.present for entry in kept], dtype=np.bool_))
    np.save(folder / "projections.npy", np.stack([entry.projection for entry in kept]).astype(np.float64))
    meta = {
        "version": FRAME_STORE_VERSION,
        "classes": list(reader.classes),
        "names": [entry.name for entry in kept],
        "groups": [entry.group for entry in kept],
        "size": list(own),
        "fingerprint": fingerprint,
        "skipped": [entry._asdict() for entry in skipped],
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_frame(files: dict[str, BinaryIO], frame: Frame) -> None:
    if frame.image is not None:
        files["images"].write(frame.image.tobytes())
    for name, (dtype, trailing) in _PER_POINT.items():
        array = getattr(frame, name)
        if array is None:
            array = np.full((len(frame.points), *trailing), NO_LABEL if name == "labels" else 0, dtype)
        files[name].write(np.ascontiguousarray(array).tobytes())


def _write_headers(files: dict[str, BinaryIO], frames: int, points: int, size: tuple[int, int]) -> None:
    publish.write_header(files["images"], (frames, *size, 3), np.uint8)
    for name, (dtype, trailing) in _PER_POINT.items():
        publish.write_header(files[name], (points, *trailing), dtype)


def _described(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels (height x width)" if any(size) else "none"
