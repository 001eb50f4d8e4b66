"""Parts of shapes that nobody has labelled: clouds in, the same points with a part each out.

A cloud is prepared as :mod:`isthmus.evaluation.points.predict` says, and the network labels the points that the run's
number of points leaves of it, in farthest-point order. Every other point of the file has the label of the nearest of
those. What is written for a cloud, into the folder and below it where the file was found in a sub-folder:

- ``<stem>.parts.npy``: ``(n, 4)`` float32, ``x y z label`` of every point of the file in its order and its coordinates,
  the layout of PointSegDA; of a mesh, the points that were drawn from it. Labels count from 0 in the order of
  ``parts.csv``; 255 is a point that was abstained from.
- ``<stem>.parts.ply``: the same points in colours for a viewer, with ``label`` and ``probability``.

``<stem>`` is that of the file, its whole name where two files share it, with the number of the cloud behind it where a
file has several. For all of them ``parts.csv`` (``index, part, red, green, blue``) and ``predictions.csv``: a row for
every cloud with its file, its number of points, the mean probability of the parts it was given and the share of its
points that has each part, and a row for everything broken, with the reason.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from isthmus.data.clouds import NO_POINT_LABEL
from isthmus.data.files import Up
from isthmus.data.store import farthest_order, normalised
from isthmus.errors import DataError, IsthmusError, RunError
from isthmus.evaluation.load import device_of, load_method
from isthmus.evaluation.points.figures import class_colours
from isthmus.evaluation.points.predict import MESH_POINTS, Broken, Progress, clouds_of, logits_of, meant_files
from isthmus.methods.base import Method
from isthmus.training.points.build import PREPARED_POINTS
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule, write_atomically

UNSURE_COLOUR = (190, 190, 190)
"""Of points that were abstained from."""


@dataclass(frozen=True)
class LabelledShape:
    """One cloud and what was written for it.

    Attributes:
        file: where it was read; ``name`` as in :class:`isthmus.evaluation.points.predict.Item`.
        files: what was written.
        points: how many points it has.
        shares: of its points, by part; what is missing to 1 was abstained from.
        probability: mean over its points of the probability of their parts.
    """

    file: Path
    name: str
    files: tuple[Path, ...]
    points: int
    shares: tuple[float, ...]
    probability: float


@dataclass(frozen=True)
class LabelledShapes:
    """What was written, in the order of the files, and what could not be predicted."""

    parts: tuple[str, ...]
    items: tuple[LabelledShape, ...]
    broken: tuple[Broken, ...]


def predict_shapes(
    run: PointRun,
    paths: Sequence[Path],
    out: Path,
    *,
    rule: Rule = "label-free",
    up: Up = "z",
    abstain_below: float = 0.0,
    overwrite: bool = False,
    method: Method | None = None,
    on_progress: Progress | None = None,
) -> LabelledShapes:
    """Label the points of every cloud in ``paths`` and write what the module's text lists into the folder ``out``.

    Args are those of :func:`isthmus.evaluation.points.predict.predict_files`, and

    Args:
        out: a folder, made if needed. It must not lie within a folder of ``paths``: what is written there would be
            taken for clouds the next time.
        abstain_below: no part for points whose probability is below this, in [0, 1].
        overwrite: write into a folder that holds anything, and replace what has the same name.

    Raises:
        IsthmusError: an argument out of range.
        DataError: ``out`` is no folder, lies within the input, or holds files.
        RunError: the run classifies clouds, has no such weights, or gives numbers that are not finite.
    """
    if up not in ("z", "y"):
        raise IsthmusError(f"up: expected 'z' or 'y', found {up!r}")
    if not 0 <= abstain_below <= 1:
        raise IsthmusError(f"abstain_below: expected a probability from 0 to 1, found {abstain_below}")
    if run.recipe.predicts != "parts":
        raise RunError(f"{run.path}: expected a run that labels points, found one that classifies clouds")
    _check_folder(out, paths, overwrite)
    method = load_method(run, rule, method).to(device_of(run.recipe))
    parts = run.recipe.classes
    broken: list[Broken] = []
    items: list[LabelledShape] = []
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        for file in meant_files([path], broken):
            found.setdefault(file, file.parent.relative_to(path) if path.is_dir() else Path())
    stems = Counter((below, file.stem) for file, below in found.items())
    names = Counter((below, file.name) for file, below in found.items())
    for file, below in found.items():
        if names[below, file.name] > 1:
            raise DataError(
                f"{file}: expected names that differ below the given folders, as one result would replace another, "
                f"found {below / file.name} {names[below, file.name]} times; give each folder an output of its own"
            )
    colours = part_colours(len(parts))
    for done, (file, below) in enumerate(found.items(), start=1):
        stem = file.stem if stems[below, file.stem] == 1 else file.name
        try:
            for name, cloud in clouds_of(file, max(MESH_POINTS, run.recipe.points), up):
                usable = normalised(cloud)
                if isinstance(usable, str):
                    broken.append(Broken(file, name, f"{file.parent / name}: {usable}"))
                    continue
                label, probability = _labelled(run, method, usable, abstain_below)
                target = out / below / f"{stem}{_number(name)}.parts"
                written = _write(target, _as_in_file(cloud, up), label, probability, colours)
                counts = np.bincount(label, minlength=256)[: len(parts)]
                shares = tuple((counts / len(label)).tolist())
                items.append(LabelledShape(file, name, written, len(label), shares, float(probability.mean())))
        except (DataError, OSError) as error:
            broken.append(Broken(file, "", str(error)))
        if on_progress is not None:
            on_progress(done, len(found))
    result = LabelledShapes(parts, tuple(items), tuple(broken))
    out.mkdir(parents=True, exist_ok=True)
    legend = [["index", "part", "red", "green", "blue"]]
    legend += [[str(index), name, *map(str, colour)] for index, (name, colour) in enumerate(zip(parts, colours))]
    write_atomically(out / "parts.csv", _csv(legend))
    write_atomically(out / "predictions.csv", _csv(_table(result)))
    return result


def part_colours(count: int) -> list[tuple[int, int, int]]:
    """Red, green and blue of each part, those of the report's pictures."""
    colours = []
    for text in class_colours(count):
        if text.startswith("#"):
            colours.append((int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)))
        else:
            red, green, blue = (round(float(each)) for each in text.removeprefix("rgb(").removesuffix(")").split(","))
            colours.append((red, green, blue))
    return colours


def _check_folder(out: Path, paths: Sequence[Path], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder to write, found a file: a run that labels points writes a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise DataError(f"{out}: expected a new or empty folder, found files: choose another, or --overwrite")
    for path in map(Path, paths):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{out}: expected a folder outside of {path}, found one within it")


def _labelled(run: PointRun, method: Method, cloud: np.ndarray, abstain_below: float) -> tuple[np.ndarray, np.ndarray]:
    """Part ``(n,)`` uint8 and its probability ``(n,)`` float32 of each point of a cloud on the unit sphere."""
    points = run.recipe.points
    seen = farthest_order([cloud], max(PREPARED_POINTS, points))[0, :points]
    logits = logits_of(method, torch.from_numpy(np.ascontiguousarray(cloud[seen], dtype=np.float32))[None])
    expected = (1, len(run.recipe.classes), 1, points)
    if logits.shape != expected or not np.isfinite(logits).all():
        raise RunError(f"{run.path}: expected finite logits {expected}, found {logits.shape}, or not finite ones")
    probabilities = torch.from_numpy(logits[0, :, 0]).double().softmax(dim=0)
    probability, label = probabilities.max(dim=0)
    label = torch.where(probability < abstain_below, NO_POINT_LABEL, label)
    nearest = cKDTree(cloud[seen]).query(cloud)[1]
    return label.numpy().astype(np.uint8)[nearest], probability.float().numpy()[nearest]


def _as_in_file(points: np.ndarray, up: Up) -> np.ndarray:
    """Points with z up as their file has them."""
    return points if up == "z" else np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)


def _number(name: str) -> str:
    """``-3`` for the cloud ``set.h5[3]``, nothing for the only one of a file."""
    return f"-{name[name.rindex('[') + 1 : -1]}" if name.endswith("]") and "[" in name else ""


def _write(
    target: Path,
    points: np.ndarray,
    label: np.ndarray,
    probability: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
) -> tuple[Path, ...]:
    target.parent.mkdir(parents=True, exist_ok=True)
    numbers = io.BytesIO()
    np.save(numbers, np.column_stack([points, label]).astype(np.float32), allow_pickle=False)
    palette = np.full((256, 3), UNSURE_COLOUR, dtype=np.uint8)
    palette[: len(colours)] = colours
    rows = np.empty(len(points), dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"),
                                        ("blue", "u1"), ("label", "u1"), ("probability", "<f4")])  # fmt: skip
    for column, values in zip("xyz", points.T):
        rows[column] = values
    for column, values in zip(("red", "green", "blue"), palette[label].T):
        rows[column] = values
    rows["label"], rows["probability"] = label, probability
    kinds = {"f": "float", "u": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {kinds[rows.dtype[name].kind]} {name}" for name in rows.dtype.names or ()]
    text = "\n".join([*header, "end_header", ""]).encode()
    files = target.with_name(target.name + ".npy"), target.with_name(target.name + ".ply")
    for file, content in zip(files, (numbers.getvalue(), text + rows.tobytes())):
        write_atomically(file, content)
    return files


def _table(result: LabelledShapes) -> list[list[str]]:
    rows = [["file", "item", "points", "probability", *(f"share_{name}" for name in result.parts), "error"]]
    for item in result.items:
        numbers = [f"{value:.6g}" for value in (item.probability, *item.shares)]
        rows.append([str(item.file), item.name, str(item.points), *numbers, ""])
    empty = [""] * (2 + len(result.parts))
    rows += [[str(each.file), each.name, *empty, each.reason] for each in result.broken]
    return rows


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # File names need not be UTF-8; their bytes go through as they are.
    return text.getvalue().encode("utf-8", "surrogateescape")
