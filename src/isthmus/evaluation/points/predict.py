"""Classes of objects that nobody has labelled: files in, a table out.

A file's cloud is prepared as ``isthmus.data.store`` prepares a data set's: the same checks, the same unit sphere, the
same farthest-point order and the same repetition of short clouds. So an object has one prediction, whether it comes
from a data set or as a file, whatever its number of points. Predictions are computed in float32 also for a run that
was trained in mixed precision.

``probability`` is the softmax of the predicted class: what a threshold on single decisions is set on. ``confidence``
is 1 - H / log K, with H the entropy of all K class probabilities: 1 where one class has everything, 0 where all
classes are equally likely. It also sees how the rest is spread, which the first does not. Neither is calibrated, least
of all across a domain gap: a network can be sure and wrong.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isthmus.data.files import SUFFIXES, Up, read_clouds, read_h5, z_up
from isthmus.data.store import CloudStore, in_farthest_order, normalised
from isthmus.data.stream import clouds
from isthmus.errors import DataError, IsthmusError, RunError
from isthmus.evaluation.load import device_of, load_method
from isthmus.evaluation.points.accuracy import check_classifies
from isthmus.methods.base import Method
from isthmus.training.points.build import PREPARED_POINTS
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule, write_arrays, write_atomically

BATCH = 64
"""Clouds in one forward pass."""

MESH_POINTS = 2048
"""At least this many points are drawn from a mesh, as ``isthmus.data.readers.folder`` does."""

Progress = Callable[[int, int], None]
"""Told after every file how many are done, of how many."""


@dataclass(frozen=True)
class Item:
    """One object and what it was taken for.

    Attributes:
        file: where it lies.
        name: the file's name; ``set.h5[3]`` for one of several clouds in a file.
        predicted: the most probable class, or ``""`` if abstained.
        probability: of the most probable class, in [1/K, 1].
        confidence: 1 - normalised entropy, in [0, 1].
        abstained: whether ``probability`` was below the threshold.
        probabilities: of all classes, ``(K,)`` float64 with sum 1.
    """

    file: Path
    name: str
    predicted: str
    probability: float
    confidence: float
    abstained: bool
    probabilities: np.ndarray


@dataclass(frozen=True)
class Broken:
    """What has no prediction, and why: one cloud called ``name``, or, where that is ``""``, the file as a whole."""

    file: Path
    name: str
    reason: str


@dataclass(frozen=True)
class Predicted:
    """Predictions in the order of the files, and what could not be predicted."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    broken: tuple[Broken, ...]


def predict_store(method: Method, store: CloudStore, rows: np.ndarray, points: int) -> np.ndarray:
    """Logits ``(len(rows), K)`` float32 for rows of a store, in order, from the first ``points`` of each cloud.

    Runs where the method's parameters lie. Opens no label.
    """
    parts = [logits_of(method, batch) for batch in clouds(store, rows, points, BATCH)]
    channels = method.tasks[next(iter(method.tasks))].channels
    return np.concatenate(parts) if parts else np.zeros((0, channels), np.float32)


def predict_files(
    run: PointRun,
    files: Sequence[Path],
    *,
    rule: Rule = "label-free",
    up: Up = "z",
    abstain_below: float = 0.0,
    method: Method | None = None,
    on_progress: Progress | None = None,
) -> Predicted:
    """Predict every object in ``files``; one that cannot be read is listed and the others are done all the same.

    Args:
        run: a finished run.
        files: files of the kinds in ``isthmus.data.files``, and folders, which are searched for such files at any
            depth, in alphabetical order, passing over names that start with a dot. Nothing is predicted twice.
        rule: which checkpoint.
        up: the upward axis of all files.
        abstain_below: no class for objects whose probability is below this, in [0, 1].
        method: as in :func:`load_method`.
        on_progress: told of every file.

    Returns:
        Items in the order of the files, and the broken ones: unreadable, not finite, fewer than 16 distinct points.

    Raises:
        IsthmusError: an argument out of range.
        RunError: the run has no such weights, or they give numbers that are not finite.
    """
    if up not in ("z", "y"):
        raise IsthmusError(f"up: expected 'z' or 'y', found {up!r}")
    if not 0 <= abstain_below <= 1:
        raise IsthmusError(f"abstain_below: expected a probability from 0 to 1, found {abstain_below}")
    check_classifies(run)
    method = load_method(run, rule, method).to(device_of(run.recipe))
    points, classes = run.recipe.points, run.recipe.classes
    size = max(PREPARED_POINTS, points)
    items: list[Item] = []
    broken: list[Broken] = []
    waiting: list[tuple[Path, str, np.ndarray]] = []

    def predict_waiting() -> None:
        if not waiting:
            return
        # At the size of the stores: from how many points a larger cloud is thinned depends on it.
        ordered = in_farthest_order([cloud for _, _, cloud in waiting], size)[:, :points]
        logits = logits_of(method, torch.from_numpy(np.ascontiguousarray(ordered)))
        if logits.shape != (len(waiting), len(classes)) or not np.isfinite(logits).all():
            raise RunError(
                f"{run.path}: expected finite logits {(len(waiting), len(classes))}, found {logits.shape}, "
                f"{int((~np.isfinite(logits)).sum())} of them not finite"
            )
        for (file, name, _), row in zip(waiting, logits, strict=True):
            items.append(_item(file, name, row, classes, abstain_below))
        waiting.clear()

    found = list(dict.fromkeys(meant_files(files, broken)))
    for done, file in enumerate(found, start=1):
        try:
            for name, cloud in clouds_of(file, max(MESH_POINTS, points), up):
                usable = normalised(cloud)
                if isinstance(usable, str):
                    broken.append(Broken(file, name, f"{file.parent / name}: {usable}"))
                    continue
                waiting.append((file, name, usable))
                if len(waiting) == BATCH:
                    predict_waiting()
        except (DataError, OSError) as error:
            broken.append(Broken(file, "", str(error)))
        if on_progress is not None:
            on_progress(done, len(found))
    predict_waiting()
    return Predicted(classes, tuple(items), tuple(broken))


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Whether predictions can be written to ``out``; worth asking before they are computed.

    Raises:
        DataError: neither .csv nor .npz, a folder, or a file that must not be overwritten.
    """
    if out.suffix.lower() not in (".csv", ".npz"):
        raise DataError(f"{out}: expected a file .csv or .npz to write, found {out.suffix or 'no suffix'}")
    if out.is_dir():
        raise DataError(f"{out}: expected a file to write, found a folder")
    if out.exists() and not overwrite:
        raise DataError(f"{out}: expected a new file, found one that exists: choose another, or --overwrite")


def write_predictions(predicted: Predicted, out: Path, *, overwrite: bool = False) -> None:
    """Write a table (``.csv``) or arrays (``.npz``), as a whole or not at all; missing folders are made.

    CSV, UTF-8, a row per item and then one per broken file: ``file, item, class, probability, confidence, abstained``
    (0 or 1), ``p_<class>`` for every class, ``error``. An item has an empty ``error``; one that was abstained from an
    empty ``class``; a broken file nothing but its name and its error. Numbers have six digits.

    NPZ, of n items, K classes and m broken files, read without pickle: ``classes`` ``(K,)``, ``files``, ``items`` and
    ``predicted`` ``(n,)`` text, ``probability`` and ``confidence`` ``(n,)`` float64, ``abstained`` ``(n,)`` bool,
    ``probabilities`` ``(n, K)`` float64, ``broken_files``, ``broken_items`` and ``errors`` ``(m,)`` text.

    Raises:
        DataError: as :func:`check_output`.
    """
    check_output(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".csv":
        # File names need not be UTF-8; their bytes go through as they are.
        write_atomically(out, _csv(predicted).encode("utf-8", "surrogateescape"))
    else:
        write_arrays(out, **_arrays(predicted))


@torch.no_grad()
def logits_of(method: Method, points: Tensor) -> np.ndarray:
    """Clouds ``(B, N, 3)`` to the logits ``(B, K)`` of the method's first task."""
    device = next(method.parameters()).device
    outputs = method.predict({"points": points.to(device)})
    return outputs[next(iter(method.tasks))].float().cpu().numpy()


def meant_files(paths: Sequence[Path], broken: list[Broken]) -> Iterator[Path]:
    """The files that are meant; a path that leads to none is added to ``broken``."""
    for path in map(Path, paths):
        if path.is_file():
            yield path
        elif not path.is_dir():
            broken.append(Broken(path, "", f"{path}: expected a file or a folder, found nothing there"))
        else:
            inside = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not inside:
                broken.append(Broken(path, "", f"{path}: expected files {', '.join(SUFFIXES)} in it, found none"))
            yield from inside


def clouds_of(file: Path, points: int, up: Up) -> list[tuple[str, np.ndarray]]:
    """The clouds of a file with their names. Those of an ``.h5`` are not checked: one of many may be broken."""
    if file.suffix.lower() != ".h5":
        return read_clouds(file, points, up=up)
    data, _ = read_h5(file, labels=False)
    names = [file.name] if len(data) == 1 else [f"{file.name}[{row}]" for row in range(len(data))]
    return list(zip(names, z_up(data, up), strict=True))


def _item(file: Path, name: str, logits: np.ndarray, classes: tuple[str, ...], abstain_below: float) -> Item:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    best = int(probabilities.argmax())
    probability = float(probabilities[best])
    positive = probabilities[probabilities > 0]
    entropy = -float((positive * np.log(positive)).sum())
    confidence = 1 - entropy / np.log(len(classes)) if len(classes) > 1 else 1.0
    abstained = probability < abstain_below
    predicted = "" if abstained else classes[best]
    return Item(file, name, predicted, probability, float(np.clip(confidence, 0, 1)), abstained, probabilities)


def _csv(predicted: Predicted) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["file", "item", "class", "probability", "confidence", "abstained"]
    writer.writerow([*columns, *(f"p_{name}" for name in predicted.classes), "error"])
    for item in predicted.items:
        numbers = [f"{value:.6g}" for value in (item.probability, item.confidence)]
        shares = [f"{share:.6g}" for share in item.probabilities]
        writer.writerow([item.file, item.name, item.predicted, *numbers, int(item.abstained), *shares, ""])
    for each in predicted.broken:
        writer.writerow([each.file, each.name, "", "", "", "", *([""] * len(predicted.classes)), each.reason])
    return text.getvalue()


def _arrays(predicted: Predicted) -> dict[str, np.ndarray]:
    items, broken = predicted.items, predicted.broken
    return {
        "classes": np.array(predicted.classes, dtype=str),
        "files": np.array([str(item.file) for item in items], dtype=str),
        "items": np.array([item.name for item in items], dtype=str),
        "predicted": np.array([item.predicted for item in items], dtype=str),
        "probability": np.array([item.probability for item in items], dtype=np.float64),
        "confidence": np.array([item.confidence for item in items], dtype=np.float64),
        "abstained": np.array([item.abstained for item in items], dtype=bool),
        "probabilities": np.array([item.probabilities for item in items]).reshape(len(items), len(predicted.classes)),
        "broken_files": np.array([str(each.file) for each in broken], dtype=str),
        "broken_items": np.array([each.name for each in broken], dtype=str),
        "errors": np.array([each.reason for each in broken], dtype=str),
    }
