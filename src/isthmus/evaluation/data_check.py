"""What a recipe's data holds: classes, labels, and what cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isthmus.data.clouds import PARTS
from isthmus.data.image_store import check_images
from isthmus.data.partial_labels import write_partial_labels
from isthmus.data.publish import Skipped
from isthmus.data.store import check
from isthmus.errors import RecipeError
from isthmus.evaluation.tables import Table
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.readers import cloud_readers, image_readers
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
    assert isinstance(recipe, DenseRecipe)
    for name, images in image_readers(recipe).items():
        seen = check_images(images)
        rows = [("images", *(str(seen.images[part]) for part in PARTS))]
        rows += [(f"with {task}", *(str(seen.labelled[part][task]) for part in PARTS)) for task in seen.tasks]
        tables[f"{name}: {recipe.name}"] = Table(("", *PARTS), tuple(rows))
        shares = []
        for task, classes in seen.tasks.items():
            for label, title in enumerate(classes):
                total = [max(1, int(np.sum(seen.pixels[part][task]))) for part in PARTS]
                cells = [f"{100 * seen.pixels[part][task][label] / n:.1f}" for part, n in zip(PARTS, total)]
                shares.append((task, title, *cells))
        if shares:
            tables[f"{name}: share of labelled pixels [%]"] = Table(("task", "class", *PARTS), tuple(shares))
        problems += seen.problems
        sizes = ", ".join(f"{count} of {h} x {w}" for (h, w), count in sorted(seen.sizes.items()))
        notes.append(f"{name}: sizes: {sizes}")
    return tables, problems, notes


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
