"""Dense predictions of several tasks from images that are labelled for some of them only."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from isthmus.data.image_store import ImageStore, prepare_images
from isthmus.data.image_stream import ImageStream
from isthmus.data.publish import left_out
from isthmus.errors import DataError
from isthmus.methods.base import Method
from isthmus.training.cache import cache_folder
from isthmus.training.dense.build import (
    Present,
    build_augment,
    build_method,
    build_reader,
    build_tasks,
    build_weighting,
    carried_labels,
)
from isthmus.training.dense.monitor import DenseMonitor
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.problem import BatchStream, Problem
from isthmus.training.run import Run


class DenseProblem(Problem):
    """A domain of images and the labels that its training and validation parts are allowed."""

    def __init__(self, recipe: DenseRecipe, *, progress: bool = False) -> None:
        self.recipe: DenseRecipe = recipe
        self.source = open_images(recipe, progress=progress)
        self.tasks = build_tasks(recipe, self.source.tasks)
        self.present: Present = carried_labels(recipe.source.labels, self.source, tuple(self.tasks))

    @property
    def stores(self) -> dict[str, str]:
        """``source``, and which of its labels were let through."""
        mask = np.packbits(np.stack(list(self.present.values())))
        return {"source": self.source.path.name, "labels": hashlib.sha256(mask.tobytes()).hexdigest()[:32]}

    def accounts(self) -> list[str]:
        """Images, and how many labels of each task may be learnt from."""
        store = self.source
        kept = ", ".join(f"{int(mask.sum())} {task}" for task, mask in self.present.items())
        return [
            f"source: {len(store)} images, {len(store.skipped)} left out, labels to learn from: {kept}, {store.path}"
        ]

    def check(self) -> None:
        """Every task needs a label to be learnt from."""
        train = self.source.indices("train")
        missing = [name for name, mask in self.present.items() if not mask[train].any()]
        if missing:
            reasons = "".join(f"; {line}" for line in self.left_out())
            raise DataError(f"{self.source.path}: expected labels of {missing[0]} to train on, found none{reasons}")

    def left_out(self) -> list[str]:
        """How many images were left out, and why the first."""
        return left_out("source", self.source.skipped)

    def description(self) -> dict[str, Any]:
        """``outputs``: the data set's ``tasks`` with their class names, and the ``size`` of the images."""
        height, width = self.source.size
        # Pairs, since the order of the tasks counts and that of a JSON object's keys does not.
        tasks = [[name, list(classes)] for name, classes in self.source.tasks.items()]
        return {"outputs": {"tasks": tasks, "size": [int(height), int(width)]}}

    def build_method(self) -> Method:
        """The recipe's method."""
        return build_method(self.recipe, self.tasks)

    def adopt(self, method: Method) -> None:
        """Balance its tasks as the recipe says, unless it brings a weighting of its own."""
        if method.weighting is None:
            method.weighting = build_weighting(self.recipe.weighting, tuple(self.tasks))

    def streams(self, method: Method) -> dict[str, BatchStream]:
        """The training part."""
        rows, augment = self.source.indices("train"), build_augment(self.recipe.augment)
        return {"source": ImageStream("source", self.source, rows, self.recipe.batch_size, augment, self.present)}

    def monitor(self, run: Run) -> DenseMonitor:
        """Scores on the validation part; the test part is measured and never asked."""
        always = self.recipe.measure_test == "always"
        return DenseMonitor(run, self.source, self.tasks, self.present, always_test=always)


def open_images(recipe: DenseRecipe, *, progress: bool = False) -> ImageStore:
    """Prepare (once) and open the images of a recipe."""
    return prepare_images(build_reader(recipe.source.data), cache_folder(), recipe.source.size, progress=progress)
