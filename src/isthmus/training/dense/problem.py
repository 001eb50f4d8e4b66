"""Dense predictions of several tasks from images that are labelled for some of them only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from isthmus.data.image_store import ImageStore, prepare_images
from isthmus.data.image_stream import ImageStream
from isthmus.data.publish import known_as, left_out
from isthmus.errors import DataError
from isthmus.methods.base import Method
from isthmus.tasks.dense import DenseTask
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
from isthmus.training.dense.recipe import DenseRecipe, ImageDomainSpec
from isthmus.training.problem import BatchStream, Problem
from isthmus.training.run import Run


class DenseProblem(Problem):
    """One or two domains of images and the labels that their training and validation parts are allowed.

    Checkpoints are chosen on the source's validation part, with the labels that the source is allowed. The test part
    that counts is the target's where there is one.

    Attributes:
        source: images of the source.
        target: images of the target, or None.
        tasks: all that are learnt, by name.
        present: which labels of the source may be read.
        target_present: which labels of the target may be read.
    """

    def __init__(self, recipe: DenseRecipe, *, progress: bool = False) -> None:
        self.recipe: DenseRecipe = recipe
        self.source = open_images(recipe.source, progress=progress)
        self.target = None if recipe.target is None else open_images(recipe.target, progress=progress)
        self.tasks = build_tasks(recipe, self.source.tasks)
        self.present: Present = carried_labels(recipe, recipe.source.labels, self.source, tuple(self.tasks))
        self.target_present: Present = {}
        if self.target is not None and recipe.target is not None:
            _check_classes(self.source, self.target, self.tasks)
            self.target_present = carried_labels(recipe, recipe.target.labels, self.target, tuple(self.tasks))

    @property
    def tested(self) -> ImageStore:
        """The images whose test part counts."""
        return self.target or self.source

    @property
    def tested_tasks(self) -> dict[str, DenseTask]:
        """Those that are measured on the test part: the main one where the recipe names it, else all with labels."""
        return {name: task for name, task in self.counted_tasks.items() if name in self.tested.tasks}

    @property
    def counted_tasks(self) -> dict[str, DenseTask]:
        """The tasks that checkpoints and gains go by: the main one where the recipe names it."""
        return {name: task for name, task in self.tasks.items() if self.recipe.main in (None, name)}

    @property
    def stores(self) -> dict[str, tuple[str, ...]]:
        """``source``, ``target``, and which of their labels were let through."""
        keys = {"source": known_as(self.source.path), "labels": (_key(self.present),)}
        if self.target is not None:
            keys |= {"target": known_as(self.target.path), "target_labels": (_key(self.target_present),)}
        return keys

    def accounts(self) -> list[str]:
        """Images, and how many labels of each task may be learnt from."""
        domains = [("source", self.source, self.present)]
        if self.target is not None:
            domains.append(("target", self.target, self.target_present))
        lines = []
        for domain, store, present in domains:
            kept = ", ".join(f"{int(mask.sum())} {task}" for task, mask in present.items())
            lines.append(
                f"{domain}: {len(store)} images, {len(store.skipped)} left out, labels to learn from: {kept}, "
                f"{store.path}"
            )
        return lines

    def check(self) -> None:
        """Every task needs a label to be learnt from, in one of the domains."""
        for name in self.tasks:
            found = [(self.source, self.present.get(name)), (self.target, self.target_present.get(name))]
            if not any(s is not None and mask is not None and mask[s.indices("train")].any() for s, mask in found):
                reasons = "".join(f"; {line}" for line in self.left_out())
                raise DataError(f"{self.source.path}: expected labels of {name} to train on, found none{reasons}")

    def left_out(self) -> list[str]:
        """How many images of each domain were left out, and why the first."""
        return left_out("source", self.source.skipped) + left_out("target", self.target.skipped if self.target else ())

    def description(self) -> dict[str, Any]:
        """``outputs``: the data set's ``tasks`` with their class names, and the ``size`` of the images."""
        height, width = self.tested.size
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
        """The training parts; the target's only where the method or a label of it asks for it."""
        augment, size = build_augment(self.recipe.augment), self.recipe.batch_size
        found = [("source", self.source, self.present)]
        labelled = any(mask.any() for mask in self.target_present.values())
        if self.target is not None and (labelled or method.uses_target):
            found.append(("target", self.target, self.target_present))
        return {
            domain: ImageStream(domain, store, store.indices("train"), size, augment, present)
            for domain, store, present in found
        }

    def monitor(self, run: Run) -> DenseMonitor:
        """Scores on the validation part; the test part is measured and never asked."""
        each_task = any(stage.start_from == "before-overfit" for stage in self.recipe.stages)
        validation = self.source.indices("val")
        if each_task and not any(mask[validation].any() for mask in self.present.values()):
            raise DataError(
                f"{self.source.path}: source: expected labelled validation images (part 'val') for start_from "
                "'before-overfit', found none"
            )
        return DenseMonitor(
            run,
            self.source,
            self.tasks,
            self.present,
            tested=(self.tested, self.tested_tasks),
            counted=tuple(self.counted_tasks),
            always_test=self.recipe.measure_test == "always",
            each_task=each_task,
        )


def open_images(domain: ImageDomainSpec, *, progress: bool = False) -> ImageStore:
    """Prepare (once) and open the images of a domain."""
    return prepare_images(build_reader(domain.data), cache_folder(), domain.size, progress=progress)


def _check_classes(source: ImageStore, target: ImageStore, tasks: Mapping[str, DenseTask]) -> None:
    for name in tasks:
        if name in target.tasks and target.tasks[name] != source.tasks[name]:
            raise DataError(
                f"{name}: expected the classes of the source, {', '.join(source.tasks[name])}, in the target, found "
                f"{', '.join(target.tasks[name])}"
            )


def _key(present: Present) -> str:
    mask = np.packbits(np.stack(list(present.values()))) if present else np.zeros(0, np.uint8)
    return hashlib.sha256(mask.tobytes()).hexdigest()[:32]
