"""Dense predictions for pictures that nobody has labelled: images in, files per task out.

A picture is brought to the size that the network was trained at as the images of a data set are (bilinear, without
aliasing, in whatever proportions), and its predictions are brought back to the picture's own size: probabilities
bilinearly before the most probable class is taken, depths and probabilities bilinearly, normals bilinearly and to unit
length again. Keypoints become pixels of the picture. A photograph is first turned as its EXIF orientation says, and so
are its predictions.

For the image ``<stem>`` these files are written, each as a whole or not at all:

========================== ===========================================================================================
``<stem>.segmentation.png`` class indices, 8 bits with a palette; ``<stem>.parts.png`` likewise
``<stem>.depth.png``        16 bits, millimetres from 1 to 65535; ``<stem>.depth.npy`` float32 metres
``<stem>.inverse_depth.png`` 16 bits, to be multiplied by the scale in the JSON; ``.npy`` float32
``<stem>.normals.png``      16 bits RGB, x = 2 v / 65535 - 1 and so for y, z; ``.npy`` ``(H, W, 3)`` float32
``<stem>.edges.png``        16 bits, probability = v / 65535; ``<stem>.saliency.png`` likewise
``<stem>.keypoints.json``   named points: u, v, z in pixels of the picture
``<stem>.json``             what each file holds, with scales and how many pixels did not fit
``<stem>.preview.png``      the image beside all of its predictions in colours
========================== ===========================================================================================

and for all of them ``classes.csv`` (``task, index, class, red, green, blue``) and ``segmentation_legend.png``.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from isthmus.data.image_files import read_image
from isthmus.data.image_resize import resized_image
from isthmus.data.readers.image_folder import UnlabelledImages
from isthmus.errors import DataError, RunError
from isthmus.evaluation.dense.learnt import learnt
from isthmus.evaluation.dense.pictures import Look, has_points, palette, pixel_values, png
from isthmus.evaluation.dense.png16 import png16
from isthmus.evaluation.dense.preview import Panel, legend, preview
from isthmus.evaluation.load import device_of, load_method
from isthmus.methods.base import Method
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.recipe import DenseRun
from isthmus.training.recipe import Rule
from isthmus.training.run import write_atomically

STEPS = 65535
"""The largest number of 16 bits."""
MILLIMETRES = 1000.0
POINTS = (
    "named points: u to the right and v downwards from the upper left corner of the image, z away from the camera from "
    "the mean of the points, all in pixels of the image"
)

Progress = Callable[[int, int], None]
"""Told after every image how many are done, of how many."""


@dataclass(frozen=True)
class PredictedImage:
    """One picture and the files that were written for it."""

    file: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class BrokenImage:
    """A picture, or a path, that has no prediction, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class PredictedImages:
    """What was written, in the order of the pictures, and what could not be predicted.

    ``shared`` are the files that are not about a single picture: legends and the table of classes.
    """

    images: tuple[PredictedImage, ...]
    broken: tuple[BrokenImage, ...]
    shared: tuple[Path, ...]


def predict_images(
    run: DenseRun,
    paths: Sequence[Path],
    out: Path,
    *,
    rule: Rule | None = None,
    overwrite: bool = False,
    method: Method | None = None,
    on_progress: Progress | None = None,
) -> PredictedImages:
    """Predict every picture and write the files that the module's text lists into the folder ``out``.

    Args:
        run: a finished run.
        paths: pictures, and folders that are searched for pictures at any depth; what lies in a sub-folder goes to a
            sub-folder of ``out``. One that cannot be read is listed and the others are predicted all the same.
        out: a folder, made if needed. It must not lie within a folder of ``paths``: what is written there would be
            taken for pictures the next time.
        rule: which checkpoint; by default the recipe's own way.
        overwrite: replace files that exist.
        method: the object to fill, needed where the recipe's method is of the user's own making.
        on_progress: told of every picture.

    Raises:
        DataError: ``out`` is a file or lies within a folder of ``paths``, a file to be written exists (nothing is
            predicted then), or two pictures would have the same name.
        RunError: the run has no such weights, or they give numbers that are not finite.
    """
    broken: list[BrokenImage] = []
    stems = _stems(paths, broken)
    tasks, size = learnt(run)
    _check_output(out, paths, stems, tasks, overwrite)
    rule = rule or run.recipe.rules[0]
    method = load_method(run, rule, method).to(device_of(run.recipe))
    about = {"recipe": run.recipe.name, "checkpoint": rule, "predicted_at": list(size)}
    written = []
    for done, (file, stem) in enumerate(stems.items(), start=1):
        try:
            image = read_image(file)
        except DataError as error:
            broken.append(BrokenImage(file, str(error)))
        else:
            maps = predicted_maps(method, tasks, image, size)
            _check_finite(run, file, maps)
            base = out / stem
            base.parent.mkdir(parents=True, exist_ok=True)
            contents = _contents(image, base.name, maps, tasks, {"image": str(file), **about})
            for name, content in contents:
                write_atomically(base.with_name(name), content)
            written.append(PredictedImage(file, tuple(base.with_name(name) for name, _ in contents)))
        if on_progress is not None:
            on_progress(done, len(stems))
    shared = _shared_files(tasks) if written else []
    for name, content in shared:
        write_atomically(out / name, content)
    return PredictedImages(tuple(written), tuple(broken), tuple(out / name for name, _ in shared))


@torch.no_grad()
def predicted_maps(
    method: Method, tasks: Mapping[str, DenseTask], image: np.ndarray, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Predictions by task at the image's own size, as :func:`isthmus.evaluation.dense.pictures.pixel_values` has them.

    Args:
        method: in evaluation mode, on any device.
        tasks: by name.
        image: ``(H, W, 3)`` uint8.
        size: height and width that the network was trained at.
    """
    device = next(method.parameters()).device
    small = torch.from_numpy(np.array(resized_image(image, size))).permute(2, 0, 1)[None].float().div_(255)
    outputs = method.predict({"image": small.contiguous().to(device)})
    height, width = image.shape[:2]
    return {name: _at_size(task, outputs[name].float().cpu(), (height, width)) for name, task in tasks.items()}


def _at_size(task: DenseTask, output: Tensor, size: tuple[int, int]) -> np.ndarray:
    activated = task.activate(output)
    if has_points(task):
        return pixel_values(task, activated)[0]
    if task.classes:
        return _most_probable(activated, size)
    resized = _resized(activated, size)
    if task.name == "normals":
        resized = F.normalize(resized, dim=1)
    return pixel_values(task, resized)[0]


def _most_probable(probabilities: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The class that is most probable after resizing, class by class: all at once a photograph needs gigabytes."""
    best = _resized(probabilities[:, :1], size)
    index = torch.zeros(best.shape, dtype=torch.uint8)
    for position in range(1, probabilities.shape[1]):
        other = _resized(probabilities[:, position : position + 1], size)
        index[other > best] = position
        best = torch.maximum(best, other)
    return index[0, 0].numpy()


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)


def _check_finite(run: DenseRun, file: Path, maps: Mapping[str, np.ndarray]) -> None:
    for task, values in maps.items():
        if not np.isfinite(values).all():
            raise RunError(
                f"{run.path}: {file}: {task}: expected finite predictions, found "
                f"{int((~np.isfinite(values)).sum())} numbers that are not"
            )


def _stems(paths: Sequence[Path], broken: list[BrokenImage]) -> dict[Path, Path]:
    """Each picture with the name, below the output folder, that its files begin with; bad paths go to ``broken``."""
    below: dict[Path, Path] = {}
    for path in map(Path, paths):
        try:
            files = UnlabelledImages((path,)).files
        except DataError as error:
            broken.append(BrokenImage(path, str(error)))
            continue
        for file in files:
            below.setdefault(file, file.relative_to(path) if path.is_dir() else Path(file.name))
    counts = Counter(name.with_suffix("") for name in below.values())
    # Two formats of one picture beside each other keep their suffixes.
    stems = {file: name if counts[name.with_suffix("")] > 1 else name.with_suffix("") for file, name in below.items()}
    owner: dict[Path, Path] = {}
    for file, stem in stems.items():
        if stem in owner:
            raise DataError(
                f"{file}: expected a name of its own among the pictures, found {stem} for {owner[stem]} as well; name "
                "the folder above both instead"
            )
        owner[stem] = file
    return stems


def _check_output(
    out: Path, paths: Sequence[Path], stems: Mapping[Path, Path], tasks: Mapping[str, DenseTask], overwrite: bool
) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder to write to, found a file")
    for path in map(Path, paths):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{out}: expected a folder outside of {path}, whose pictures are read, found one inside")
    if overwrite:
        return
    wanted = [base.with_name(name) for base in (out / stem for stem in stems.values()) for name in _names(base, tasks)]
    for file in [*wanted, *(out / name for name, _ in _shared_files(tasks) if stems)]:
        if file.exists():
            raise DataError(
                f"{file}: expected a new file, found one that exists: choose another folder, or --overwrite"
            )


def _names(base: Path, tasks: Mapping[str, DenseTask]) -> Iterator[str]:
    """The names of the files of one picture."""
    for name, task in tasks.items():
        if has_points(task):
            yield f"{base.name}.{name}.json"
            continue
        yield f"{base.name}.{name}.png"
        if not task.classes and task.name not in ("saliency", "edges"):
            yield f"{base.name}.{name}.npy"
    yield f"{base.name}.json"
    yield f"{base.name}.preview.png"


def _contents(
    image: np.ndarray,
    stem: str,
    maps: Mapping[str, np.ndarray],
    tasks: Mapping[str, DenseTask],
    about: Mapping[str, Any],
) -> list[tuple[str, bytes]]:
    """The files of one picture: names and contents."""
    files: list[tuple[str, bytes]] = []
    height, width = image.shape[:2]
    said: dict[str, Any] = {**about, "height": height, "width": width, "tasks": {}}
    for name, task in tasks.items():
        if has_points(task):
            points = {
                "image": about["image"],
                "height": height,
                "width": width,
                "points": _named(task, maps[name], image),
            }
            files.append((f"{stem}.{name}.json", json.dumps(points, indent=1).encode()))
            said["tasks"][name] = {"json": POINTS}
            continue
        content, said["tasks"][name] = _encoded(task, maps[name])
        files.append((f"{stem}.{name}.png", content))
        if "npy" in said["tasks"][name]:
            files.append((f"{stem}.{name}.npy", _npy(maps[name])))
    panels = [Panel(Look.of(task, maps[name]), maps[name]) for name, task in tasks.items()]
    files.append((f"{stem}.json", json.dumps(said, indent=1).encode()))
    files.append((f"{stem}.preview.png", png(preview(image, panels))))
    return files


def _named(task: DenseTask, points: np.ndarray, image: np.ndarray) -> list[dict[str, Any]]:
    """Points by name in pixels of the image."""
    height, width = image.shape[:2]
    pixels = points.astype(np.float64) * np.array([width, height, width])
    return [
        {"name": name, **{axis: round(float(value), 3) for axis, value in zip("uvz", point)}}
        for name, point in zip(task.classes, pixels)
    ]


def _encoded(task: DenseTask, values: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    """A map as a PNG file, and what its numbers mean."""
    if task.classes:
        return _indexed(values, palette(task.classes)), {"png": "index of the class, see classes.csv"}
    if task.name == "depth":
        steps = np.rint(values * MILLIMETRES)
        return png16(steps.clip(1, STEPS).astype(np.uint16)), {
            "png": "millimetres, clipped to 1 and 65535 (65.535 m)",
            "metres_per_step": 1 / MILLIMETRES,
            "clipped_pixels": int(((steps < 1) | (steps > STEPS)).sum()),
            "npy": "metres",
        }
    if task.name == "inverse_depth":
        scale = float(values.max()) / STEPS or 1.0
        return png16(np.rint(values / scale).clip(0, STEPS).astype(np.uint16)), {
            "png": "inverse depth in the unit of the training data, divided by scale",
            "scale": scale,
            "npy": "inverse depth in the unit of the training data",
        }
    if task.name == "normals":
        steps = np.rint((values.clip(-1, 1) + 1) * (STEPS / 2))
        return png16(steps.astype(np.uint16)), {
            "png": "red, green, blue: x, y, z = 2 * value / 65535 - 1, in the camera frame of the training data",
            "npy": "x, y, z of unit length",
        }
    return png16(np.rint(values * STEPS).astype(np.uint16)), {"png": "probability = value / 65535"}


def _indexed(values: np.ndarray, colours: np.ndarray) -> bytes:
    image = Image.fromarray(values)
    image.putpalette(colours.tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=False)
    return out.getvalue()


def _shared_files(tasks: Mapping[str, DenseTask]) -> list[tuple[str, bytes]]:
    """A legend for each task with classes, and one table of all classes."""
    files: list[tuple[str, bytes]] = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "index", "class", "red", "green", "blue"])
    for name, task in tasks.items():
        if task.classes and not has_points(task):
            files.append((f"{name}_legend.png", png(legend(Look(task)))))
            for index, (each, colour) in enumerate(zip(task.classes, palette(task.classes).tolist())):
                writer.writerow([name, index, each, *colour])
    return [*files, ("classes.csv", text.getvalue().encode())] if files else []
