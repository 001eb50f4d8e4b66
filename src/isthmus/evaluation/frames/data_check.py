"""What data sets of LiDAR and camera hold: frames, points of each class, and what cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from isthmus.data.clouds import PARTS
from isthmus.data.frame_store import FrameStore, prepare_frames, usable
from isthmus.data.frames import NO_LABEL, FrameReader
from isthmus.data.publish import Skipped
from isthmus.errors import DataError, RecipeError
from isthmus.evaluation.tables import Table
from isthmus.training.frames.build import build_reader
from isthmus.training.frames.recipe import FrameDomainSpec, FrameRecipe
from isthmus.training.recipe import explain

RAW: dict[str, dict[str, Any]] = {
    "nuscenes": {"kind": "nuscenes", "domain": "all", "protocol": "nuscenes-box5"},
    "nuscenes-lidarseg": {"kind": "nuscenes", "domain": "all", "protocol": "nuscenes-seg5"},
    "a2d2": {"kind": "a2d2"},
    "semantickitti": {"kind": "semantickitti"},
    "virtualkitti": {"kind": "virtualkitti"},
}
"""Raw data sets that can be prepared by name, with the fields that stand unless they are set."""


@dataclass
class FrameCheckReport:
    """What :func:`check_frames` found.

    By part: ``frames`` counts usable frames, ``labelled`` those with a labelled point, ``points`` the points of each
    class and last those without a label. ``sizes`` counts images by ``(H, W)``, (0, 0) for none.
    """

    classes: tuple[str, ...]
    frames: dict[str, int]
    labelled: dict[str, int]
    points: dict[str, np.ndarray]
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    problems: list[Skipped] = field(default_factory=list)


def check_frames(reader: FrameReader) -> FrameCheckReport:
    """Read everything that preparing would read and write nothing; sizes of images may differ.

    Raises:
        DataError: as :func:`isthmus.data.frame_store.prepare_frames`, except that a data set without any usable frame
            is a report of zeros.
    """
    classes = reader.classes
    if not 0 < len(classes) <= NO_LABEL:
        raise DataError(f"classes: expected 1 to {NO_LABEL}, found {len(classes)}")
    report = FrameCheckReport(
        classes,
        frames=dict.fromkeys(PARTS, 0),
        labelled=dict.fromkeys(PARTS, 0),
        points={part: np.zeros(len(classes) + 1, dtype=np.int64) for part in PARTS},
    )
    for frame in usable(reader, report.problems):
        size = (0, 0) if frame.image is None else (frame.image.shape[0], frame.image.shape[1])
        report.sizes[size] = report.sizes.get(size, 0) + 1
        report.frames[frame.part] += 1
        labels = np.full(len(frame.points), NO_LABEL, np.uint8) if frame.labels is None else frame.labels
        counts = np.bincount(labels, minlength=256)
        report.labelled[frame.part] += bool(counts[: len(classes)].any())
        report.points[frame.part] += np.append(counts[: len(classes)], counts[NO_LABEL])
    return report


def check_frame_data(recipe: FrameRecipe) -> tuple[dict[str, Table], list[Skipped], list[str]]:
    """Tables by title, every frame that is left out, and notes, from reading both domains of a recipe."""
    tables: dict[str, Table] = {}
    problems: list[Skipped] = []
    notes: list[str] = []
    readers = {}
    absent = []
    for name, domain in (("source", recipe.source), ("target", recipe.target)):
        try:
            readers[name] = build_reader(domain.data)
            readers[name].fingerprint()
        except DataError as error:
            absent.append(f"{name}: {error}")
    if absent:
        raise DataError("; ".join(absent))
    spaces = {}
    for name, reader in readers.items():
        seen = check_frames(reader)
        spaces[name] = seen.classes
        total = {part: int(seen.points[part].sum()) for part in PARTS}
        rows = [
            ("frames", *(str(seen.frames[part]) for part in PARTS)),
            ("with labels", *(str(seen.labelled[part]) for part in PARTS)),
            ("points", *(str(total[part]) for part in PARTS)),
        ]
        tables[f"{name}: {recipe.name}"] = Table(("", *PARTS), tuple(rows))
        shares = [
            (title, *(f"{100 * seen.points[part][index] / max(1, total[part]):.1f}" for part in PARTS))
            for index, title in enumerate((*seen.classes, "no label"))
        ]
        tables[f"{name}: share of points [%]"] = Table(("class", *PARTS), tuple(shares))
        problems += seen.problems
        sizes = [f"{count} of {h} x {w}" if h else f"{count} without" for (h, w), count in sorted(seen.sizes.items())]
        notes.append(f"{name}: images: {', '.join(sizes) or 'none'}")
        notes += _missing(recipe, name, seen)
    if spaces["source"] != spaces["target"]:
        notes.append(
            f"target: expected the classes of the source, {', '.join(spaces['source'])}, found "
            f"{', '.join(spaces['target'])}"
        )
    return tables, problems, notes


def _missing(recipe: FrameRecipe, name: str, seen: FrameCheckReport) -> list[str]:
    """Frames, labels and images that a recipe reads and the data set has not."""
    learnt = name == ("target" if recipe.uses_target_labels else "source")
    wanted = [("train", seen.labelled, "labelled frame to learn from")] if learnt else []
    if name == "source":
        wanted.append(("val", seen.labelled, "labelled frame to choose checkpoints by"))
    else:
        wanted += [
            ("train", seen.frames, "frame to adapt to"),
            ("val", seen.frames, "frame for the label-free score"),
            ("test", seen.labelled, "labelled frame to measure with"),
        ]
    found = [f"{name}: missing: no {what} in part {part!r}" for part, counts, what in wanted if not counts[part]]
    if "2D" in recipe.streams and (0, 0) in seen.sizes:
        found.append(f"{name}: missing: images for the 2D stream of {seen.sizes[0, 0]} frames")
    own = recipe.source.size if name == "source" else recipe.target.size
    if own is None and len(seen.sizes) > 1:
        found.append(f"{name}: images of several sizes need a size: --{name}.size '[H, W]'")
    return found


def raw_domain(name: str, root: Path, changes: Sequence[tuple[str, str]]) -> FrameDomainSpec:
    """A raw data set by its name among :data:`RAW`, with fields set.

    Args:
        name: of the data set.
        root: its folder.
        changes: fields of the data set (``domain``, ``protocol``...), and ``size``, as pairs of name and YAML.

    Raises:
        RecipeError: a field that the data set does not have, or a value that it cannot have.
    """
    data: dict[str, Any] = {**RAW[name], "root": str(root)}
    size = None
    for field_name, text in changes:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--{field_name}: expected YAML, found {text!r}: {error}") from None
        if field_name == "size":
            size = value
        else:
            data[field_name.replace("-", "_")] = value
    try:
        return TypeAdapter(FrameDomainSpec).validate_python({"data": data, "size": size})
    except ValidationError as error:
        raise RecipeError(f"data prepare {name}: " + "; ".join(explain(each) for each in error.errors())) from None


def prepare_raw(
    name: str, root: Path, out: Path, changes: Sequence[tuple[str, str]], *, workers: int = 0
) -> FrameStore:
    """Read a raw data set into a store below ``out``, with a progress line; a finished one is opened.

    A run whose recipe names the same data set and size finds the store with ``ISTHMUS_CACHE=out``. See
    :func:`isthmus.data.frame_store.prepare_frames` for what becomes of interrupted work, and for ``workers``.

    Raises:
        RecipeError: see :func:`raw_domain`.
        DataError: the data is not there, or no frame of it can be used.
    """
    domain = raw_domain(name, root, changes)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder to write to, found a file")
    return prepare_frames(build_reader(domain.data), out, domain.size, workers=workers, progress=True)
