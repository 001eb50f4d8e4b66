"""Classes of points for LiDAR files without labels, with a camera's image beside them.

Which files belong to a frame is said in :mod:`isthmus.evaluation.frames.frame_files`. For every ``<stem>.bin`` these
are written, from the average of both streams where there are two:

==================== ==================================================================================================
``<stem>.label``     SemanticKITTI's format: a little-endian uint32 for every point of the file in its order; 0 for a
                     point without a prediction, otherwise 1 + the index of the class among the run's classes
``<stem>.png``       the points over the image in the colours of their classes (from above where there is no image)
``<stem>.json``      what was predicted: files, checkpoint, how many points the camera sees, points by class
==================== ==================================================================================================

and for all of them ``classes.csv`` (``label, class, red, green, blue``).

A run with a 2D stream predicts the points that the camera sees, at the size of images that it was trained at. A run on
sweeps alone needs no image and predicts every point.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.data.frame_reading import resized_frame
from isthmus.data.frames import Frame
from isthmus.errors import DataError, RunError
from isthmus.evaluation.dense.pictures import png
from isthmus.evaluation.frames.frame_files import (
    FrameFiles,
    files_of,
    is_sweep,
    read_picture,
    read_points,
    stem_of,
)
from isthmus.evaluation.frames.learnt import learnt_classes, learnt_size
from isthmus.evaluation.frames.pictures import class_colours, from_above, over_image, point_colours
from isthmus.evaluation.load import device_of, load_method
from isthmus.geometry.projection import visible
from isthmus.methods.base import Method
from isthmus.training.frames.recipe import FrameRun
from isthmus.training.recipe import Rule
from isthmus.training.run import write_atomically

OFFSET = 1
"""What is added to the index of a class, since 0 means that there is no prediction."""
WIDTH = 1200
"""The widest picture."""
NARROWEST = 600
ENDINGS = (".label", ".png", ".json")


@dataclass(frozen=True)
class PredictedFrame:
    """One LiDAR file and the files that were written for it."""

    file: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class BrokenFrame:
    """A LiDAR file, or a path, that has no prediction, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class PredictedFrames:
    """What was written, in the order of the files, and what could not be predicted."""

    frames: tuple[PredictedFrame, ...]
    broken: tuple[BrokenFrame, ...]
    shared: tuple[Path, ...]


def predict_frames(
    run: FrameRun,
    paths: Sequence[Path],
    out: Path,
    *,
    rule: Rule | None = None,
    overwrite: bool = False,
    method: Method | None = None,
) -> PredictedFrames:
    """Predict every LiDAR file and write the files that the module's text lists into the folder ``out``.

    Args:
        run: a finished run.
        paths: LiDAR files, and folders that are searched for them at any depth; what lies in a sub-folder goes to a
            sub-folder of ``out``. One that cannot be predicted is listed, the others are all the same.
        out: a folder, made if needed, not within a folder of ``paths``.
        rule: which checkpoint; by default the recipe's own way.
        overwrite: replace files that exist.
        method: the object to fill, needed where the recipe's method is of the user's own making.

    Raises:
        DataError: ``out`` is a file or lies within a folder of ``paths``, a file to be written exists (nothing is
            predicted then), or two LiDAR files would have the same name.
        RunError: the run has no such weights, or they give numbers that are not finite.
    """
    broken: list[BrokenFrame] = []
    stems = _stems(paths, broken)
    _check_output(out, paths, stems, overwrite)
    rule = rule or run.recipe.rules[0]
    method = load_method(run, rule, method).to(device_of(run.recipe))
    classes, size = learnt_classes(run), learnt_size(run)
    written = []
    for sweep, stem in stems.items():
        base = out / stem
        try:
            contents = _contents(run, method, files_of(sweep), classes, size, rule)
        except DataError as error:
            broken.append(BrokenFrame(sweep, str(error)))
            continue
        base.parent.mkdir(parents=True, exist_ok=True)
        files = tuple(base.with_name(base.name + ending) for ending in ENDINGS)
        for file, content in zip(files, contents):
            write_atomically(file, content)
        written.append(PredictedFrame(sweep, files))
    shared = (out / "classes.csv",) if written else ()
    for file in shared:
        write_atomically(file, _class_table(classes))
    return PredictedFrames(tuple(written), tuple(broken), shared)


def read_frame(files: FrameFiles, size: tuple[int, int], *, image: bool) -> tuple[Frame, np.ndarray, int]:
    """A frame as a run is to see it.

    Args:
        files: what belongs to it.
        size: height and width that images are brought to; (0, 0) keeps their own.
        image: whether an image is needed; without, all points are kept.

    Returns:
        The frame, ``(N,)`` bool which points of the file are in it, and N.

    Raises:
        DataError: a file is missing or broken, or the camera sees no point.
    """
    points = read_points(files.sweep)
    name = stem_of(files.sweep)
    if not image:
        return Frame(points, None, None, None, name, "test"), np.ones(len(points), dtype=bool), len(points)
    picture, projection = read_picture(files)
    seen, pixels = visible(points, projection, (picture.shape[0], picture.shape[1]))
    if not seen.any():
        raise DataError(f"{files.sweep}: expected points inside the image, found none of {len(points)}")
    frame = Frame(points[seen], pixels, picture, None, name, "test", projection=projection)
    return resized_frame(frame, size if any(size) else None), seen, len(points)


@torch.no_grad()
def predicted_classes(method: Method, frame: Frame, run: FrameRun) -> np.ndarray:
    """The most probable class of each of a frame's points, by the average of the streams. Shape: ``(N,)`` int64.

    Raises:
        RunError: predictions are not finite.
    """
    device = next(method.parameters()).device
    inputs = {
        "points": torch.from_numpy(frame.points)[None],
        "present_points": torch.ones(1, len(frame.points), dtype=torch.bool),
    }
    if frame.image is not None and frame.pixels is not None:
        image = torch.from_numpy(np.array(frame.image)).permute(2, 0, 1)[None].float().div_(255)
        inputs |= {"image": image.contiguous(), "pixels": torch.from_numpy(frame.pixels)[None]}
    outputs = method.predict({name: values.to(device) for name, values in inputs.items()})
    logits = list(outputs.values())[-1].float().cpu()[0, :, 0]
    if not torch.isfinite(logits).all():
        raise RunError(f"{run.path}: {frame.name}: expected finite predictions, found numbers that are not")
    return logits.argmax(dim=0).numpy()


def _contents(
    run: FrameRun,
    method: Method,
    files: FrameFiles,
    classes: tuple[str, ...],
    size: tuple[int, int],
    rule: Rule,
) -> list[bytes]:
    """The files of one frame, in the order of :data:`ENDINGS`."""
    frame, seen, count = read_frame(files, size, image="2D" in run.recipe.streams)
    found = predicted_classes(method, frame, run)
    labels = np.zeros(count, dtype="<u4")
    labels[seen] = found + OFFSET
    about: dict[str, Any] = {
        "recipe": run.recipe.name,
        "checkpoint": rule,
        "prediction": "average" if len(run.recipe.streams) > 1 else run.recipe.streams[0],
        "sweep": str(files.sweep),
        "image": None if frame.image is None else str(files.image),
        "calibration": None if frame.image is None else str(files.calibration),
        "points": count,
        "predicted_points": int(seen.sum()),
        "predicted_at": None if frame.image is None else list(frame.image.shape[:2]),
        "labels": f"0: no prediction; otherwise {OFFSET} + the index of the class, see classes.csv",
        "points_by_class": {name: int((found == index).sum()) for index, name in enumerate(classes)},
    }
    return [labels.tobytes(), png(_picture(files, frame, found, classes)), json.dumps(about, indent=1).encode()]


def _picture(files: FrameFiles, frame: Frame, found: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    colours = point_colours(classes, found)
    if frame.image is None or frame.pixels is None:
        return from_above(frame.points, colours, NARROWEST)
    picture, _ = read_picture(files)  # at its own size: the run may have seen a smaller one
    scale = np.array(picture.shape[:2]) / np.array(frame.image.shape[:2])
    width = min(max(picture.shape[1], NARROWEST), WIDTH)
    return over_image(picture, frame.pixels * scale, colours, width)


def _class_table(classes: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "class", "red", "green", "blue"])
    for index, (name, colour) in enumerate(zip(classes, class_colours(classes).tolist())):
        writer.writerow([index + OFFSET, name, *colour])
    return text.getvalue().encode()


def _stems(paths: Sequence[Path], broken: list[BrokenFrame]) -> dict[Path, Path]:
    """Each LiDAR file with the name, below the output folder, of its files; bad paths go to ``broken``."""
    below: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and is_sweep(file))
            if not files:
                broken.append(BrokenFrame(path, f"{path}: expected LiDAR files (.bin, .npz, .npy), found none"))
            for file in files:
                below.setdefault(file, file.relative_to(path))
        elif not path.is_file():
            broken.append(BrokenFrame(path, f"{path}: expected a LiDAR file or a folder of them, found no file"))
        elif not is_sweep(path):
            broken.append(BrokenFrame(path, f"{path}: expected a LiDAR file .bin, .npz or .npy, found {path.suffix!r}"))
        else:
            below.setdefault(path, Path(path.name))
    plain = {file: name.with_name(stem_of(name)) for file, name in below.items()}
    counts = Counter(plain.values())
    # Two formats of one sweep beside each other keep their suffixes.
    stems = {file: below[file] if counts[stem] > 1 else stem for file, stem in plain.items()}
    owner: dict[Path, Path] = {}
    for file, stem in stems.items():
        if stem in owner:
            raise DataError(
                f"{file}: expected a name of its own among the LiDAR files, found {stem} for {owner[stem]} as well; "
                "name the folder above both instead"
            )
        owner[stem] = file
    return stems


def _check_output(out: Path, paths: Sequence[Path], stems: Mapping[Path, Path], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder to write to, found a file")
    for path in map(Path, paths):
        folder = path if path.is_dir() else path.parent
        inside = out.resolve() == folder.resolve() or (path.is_dir() and out.resolve().is_relative_to(folder.resolve()))
        if inside:
            # <stem>.png and <stem>.json would be taken for the image and the calibration, or replace them.
            raise DataError(f"{out}: expected a folder outside of {folder}, whose files are read, found one inside")
    if overwrite:
        return
    wanted = [out / stem.with_name(stem.name + ending) for stem in stems.values() for ending in ENDINGS]
    for file in [*wanted, *([out / "classes.csv"] if stems else [])]:
        if file.exists():
            raise DataError(
                f"{file}: expected a new file, found one that exists: choose another folder, or --overwrite"
            )
