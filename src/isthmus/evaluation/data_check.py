"""What a recipe's data holds: classes, labels, and what cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isthmus.data.clouds import PARTS
from isthmus.data.image_store import ImageCheckReport, check_images
from isthmus.data.images import ENCODINGS, ImageReader
from isthmus.data.partial_labels import write_partial_labels
from isthmus.data.publish import Skipped
from isthmus.data.store import check
from isthmus.errors import DataError, RecipeError
from isthmus.evaluation.tables import Table
from isthmus.training.dense.build import build_reader
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe, ImageDomainSpec, ImageFolderSpec
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.readers import cloud_readers
from isthmus.training.recipe import Recipe


def check_data(recipe: Recipe) -> tuple[dict[str, Table], Sequence[Skipped], list[str]]:
    """Tables by title, every sample that is left out, and notes, from reading all data of a recipe."""
    tables: dict[str, Table] = {}
    problems: list[Skipped] = []
    notes: list[str] = []
    if isinstance(recipe, PointRecipe):
        for name, reader in cloud_readers(recipe).items():
            found = check(reader)
            rows = [
                (title, *(str(counts[label]) for counts in found.counts.values()))
                for label, title in enumerate(found.classes)
            ]
            tables[f"{name}: {recipe.name}"] = Table(("class", *found.counts), tuple(rows))
            problems += found.problems
            if found.unlabelled:
                notes.append(f"{name}: {found.unlabelled} without a label")
        return tables, problems, notes
    if isinstance(recipe, FrameRecipe):
        from isthmus.evaluation.frames.data_check import check_frame_data

        return check_frame_data(recipe)
    assert isinstance(recipe, DenseRecipe)
    for name, images in _domain_readers(recipe).items():
        seen = check_images(images)
        rows = [("images", *(str(seen.images[part]) for part in PARTS))]
        rows += [(f"with {task}", *(str(seen.labelled[part][task]) for part in PARTS)) for task in seen.tasks]
        tables[f"{name}: {recipe.name}"] = Table(("", *PARTS), tuple(rows))
        shares = []
        for task, classes in seen.tasks.items():
            if ENCODINGS[task].points:
                tables[f"{name}: images in which a point of {task} is labelled"] = _points(seen, task, classes)
                continue
            for label, title in enumerate(classes):
                total = [max(1, int(np.sum(seen.pixels[part][task]))) for part in PARTS]
                cells = [f"{100 * seen.pixels[part][task][label] / n:.1f}" for part, n in zip(PARTS, total)]
                shares.append((task, title, *cells))
        if shares:
            tables[f"{name}: share of labelled pixels [%]"] = Table(("task", "class", *PARTS), tuple(shares))
        problems += seen.problems
        sizes = ", ".join(f"{count} of {h} x {w}" for (h, w), count in sorted(seen.sizes.items()))
        notes.append(f"{name}: sizes: {sizes}")
        notes += _missing(recipe, name, seen)
    return tables, problems, notes


def _points(seen: ImageCheckReport, task: str, names: Sequence[str]) -> Table:
    """How often each point is labelled; where that never differs, one row stands for all."""
    counts = [tuple(str(seen.pixels[part][task][index]) for part in PARTS) for index in range(len(names))]
    if len(set(counts)) == 1 and len(names) > 1:
        return Table(("point", *PARTS), ((f"each of {len(names)}", *counts[0]),))
    return Table(("point", *PARTS), tuple((name, *line) for name, line in zip(names, counts)))


def _domain_readers(recipe: DenseRecipe) -> dict[str, ImageReader]:
    """Readers by domain. Raises one DataError with everything that is not there."""
    readers: dict[str, ImageReader] = {}
    absent = []
    for name, domain in _domains(recipe).items():
        try:
            readers[name] = build_reader(domain.data)
        except DataError as error:
            absent.append(f"{name}: {error}{_wanted(recipe, name, domain)}")
    if absent:
        folders = any(isinstance(domain.data, ImageFolderSpec) for domain in _domains(recipe).values())
        hint = "; other folders: --source.data.root DIR --target.data.root DIR" if folders and recipe.target else ""
        raise DataError("; ".join(absent) + hint)
    return readers


def _domains(recipe: DenseRecipe) -> dict[str, ImageDomainSpec]:
    return {"source": recipe.source, **({"target": recipe.target} if recipe.target is not None else {})}


def _wanted(recipe: DenseRecipe, name: str, domain: ImageDomainSpec) -> str:
    """What a folder of images must hold beside them, in brackets; nothing for other kinds of data."""
    if not isinstance(domain.data, ImageFolderSpec) or recipe.main is None:
        return ""
    learnt, measured = _read_tasks(recipe, name)
    wanted = ["images", *(f"labels of {task}" for task in learnt)]
    wanted += [f"labels of {task} for its test part" for task in measured if task not in learnt]
    if "keypoints" in (*learnt, *measured):
        wanted.append("keypoints.txt with the points' names")
    return f" (wanted: {', '.join(wanted)})"


def _read_tasks(recipe: DenseRecipe, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tasks that a domain is learnt from, and those that it is measured on; empty where all there are."""
    tasks = _domains(recipe)[name].labels.tasks
    learnt = tuple(dict.fromkeys(recipe.task(task) for task in (recipe.tasks if tasks is None else tasks)))
    tested = name == list(_domains(recipe))[-1]
    return learnt, (recipe.main,) if tested and recipe.main is not None else ()


def _missing(recipe: DenseRecipe, name: str, seen: ImageCheckReport) -> list[str]:
    """Labels that a recipe with a main task reads and no image of the part has."""
    if recipe.main is None:
        return []
    learnt, measured = _read_tasks(recipe, name)
    wanted = [("train", task, "to learn from") for task in learnt]
    if name == "source":
        wanted += [("val", task, "to choose checkpoints by") for task in learnt]
    wanted += [("test", task, "to measure with") for task in measured]
    return [
        f"{name}: missing: no {part} image has a label of {task} {why}"
        for part, task, why in wanted
        if not seen.labelled[part].get(task, 0)
    ]


def write_label_file(recipe: Recipe, out: Path, *, overwrite: bool = False) -> Table:
    """Draw the partial labels of a dense recipe's training and validation parts into a file; returns their counts."""
    if not isinstance(recipe, DenseRecipe):
        raise RecipeError(f"data labels: expected a recipe for images, found kind {recipe.kind!r}")
    problem = DenseProblem(recipe)
    store, tasks = problem.source, tuple(problem.tasks)
    rows = np.flatnonzero(~np.isin(np.arange(len(store)), store.indices("test")))
    kept = np.stack([problem.present[task][rows] for task in tasks], axis=1)
    spec = recipe.source.labels
    note = {"setting": spec.setting, "ratio": list(spec.ratio), "seed": spec.seed, "data": recipe.source.data.kind}
    write_partial_labels(out, [store.names[row] for row in rows], tasks, kept, note=note, overwrite=overwrite)
    counts = [(task, str(int(kept[:, column].sum()))) for column, task in enumerate(tasks)]
    return Table(("task", "labels"), (*counts, ("images", str(len(rows)))))
