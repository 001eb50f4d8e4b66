"""Point segmentation from LiDAR and camera, carried from a labelled source to a target without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from isthmus.data.frame_reading import reading_workers
from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frame_stream import LABEL, FrameStream, frame_batches
from isthmus.data.frames import NO_LABEL
from isthmus.data.publish import known_as, left_out
from isthmus.errors import DataError
from isthmus.losses.class_statistics import ClassShares, class_shares, sample_shares
from isthmus.methods.base import Method
from isthmus.methods.cross_modal import pseudo_label
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.cache import cache_folder
from isthmus.training.frames.build import build_augment, build_method, build_reader, prediction_tasks
from isthmus.training.frames.monitor import FrameMonitor
from isthmus.training.frames.pseudo_labels import predicted, refined
from isthmus.training.frames.recipe import FrameDomainSpec, FrameRecipe
from isthmus.training.problem import BatchStream, Predict, Problem
from isthmus.training.recipe import PseudoLabelSpec
from isthmus.training.run import Run, read_arrays, write_arrays


class FrameProblem(Problem):
    """A source and a target of frames with the same classes."""

    def __init__(self, recipe: FrameRecipe, *, progress: bool = False) -> None:
        self.recipe: FrameRecipe = recipe
        self.source = open_frames(recipe.source, progress=progress)
        self.target = open_frames(recipe.target, progress=progress)
        if self.source.classes != self.target.classes:
            raise DataError(
                f"{self.target.path}: expected the classes of the source, {', '.join(self.source.classes)}, found "
                f"{', '.join(self.target.classes)}"
            )
        spaces = [store.fingerprint.get("space") for store in (self.source, self.target)]
        if spaces[0] != spaces[1]:
            raise DataError(
                f"{self.target.path}: expected classes that mean what the source's do ({spaces[0]}), found {spaces[1]}"
            )
        for store in (self.source, self.target):
            if "2D" in recipe.streams and not any(store.size):
                raise DataError(
                    f"{store.path}: expected images for the 2D stream, found sweeps alone; set streams: [3D]"
                )
            if "3D" in recipe.streams and not store.has_sweeps:
                raise DataError(
                    f"{store.path}: expected sweeps for the 3D stream, found photographs alone; set streams: [2D]"
                )

    @property
    def tasks(self) -> dict[str, Segmentation]:
        """The predictions that are measured."""
        return prediction_tasks(self.recipe, self.source.classes)

    @property
    def tested(self) -> FrameStore:
        """The frames whose test part counts: the target's."""
        return self.target

    @property
    def tested_tasks(self) -> dict[str, Segmentation]:
        """All predictions."""
        return self.tasks

    counted_tasks = tested_tasks

    @property
    def stores(self) -> dict[str, tuple[str, ...]]:
        """``source`` and ``target``."""
        return {"source": known_as(self.source.path), "target": known_as(self.target.path)}

    def accounts(self) -> list[str]:
        """Frames and points of both domains."""
        return [
            f"{name}: {len(store)} frames, {len(store.points)} points, {len(store.skipped)} left out, {store.path}"
            for name, store in (("source", self.source), ("target", self.target))
        ]

    def left_out(self) -> list[str]:
        """How many frames of each domain were left out, and why the first."""
        return left_out("source", self.source.skipped) + left_out("target", self.target.skipped)

    def description(self) -> dict[str, Any]:
        """``classes``, and the ``size`` of the target's images."""
        return {"classes": list(self.source.classes), "size": [int(side) for side in self.target.size]}

    def check(self) -> None:
        """The domain that is learnt from needs labels, and crops have to fit into the images."""
        for name, domain, images in (
            ("source", self.recipe.source, self.source.size),
            ("target", self.recipe.target, self.target.size),
        ):
            crop = domain.augment.crop
            if crop is not None and any(images) and (crop[0] > images[0] or crop[1] > images[1]):
                raise DataError(
                    f"{name}.augment.crop: expected at most the images' {images[0]} x {images[1]}, found "
                    f"{crop[0]} x {crop[1]}"
                )
        oracle = self.recipe.uses_target_labels
        store = self.target if oracle else self.source
        if not store.present[store.indices("train")].any():
            raise DataError(f"{store.path}: expected labelled frames to train on (part 'train'), found none")

    @property
    def counts(self) -> np.ndarray:
        """How many training points each class of the source has. Shape: ``(K,)`` int64."""
        return class_counts(self.source)

    def build_method(self) -> Method:
        """The recipe's method, its classes weighted by the source's training labels."""
        shares = source_shares(self.source) if self.recipe.method.kind == "fcns-in-the-wild" else None
        return build_method(self.recipe, self.source.classes, self.counts, shares)

    def streams(self, method: Method) -> dict[str, BatchStream]:
        """The source with its labels and the target without; of an oracle the other way round."""
        spec, oracle = self.recipe, self.recipe.uses_target_labels
        later = any(stage.pseudo_labels is not None for stage in spec.stages)
        found: dict[str, BatchStream] = {}
        for name, store, domain in (("source", self.source, spec.source), ("target", self.target, spec.target)):
            labelled = (name == "target") == oracle
            if labelled or (name == "target" and (method.uses_target or later)):
                labels = {LABEL: store.labels} if labelled else {}
                rows, augment = store.indices("train"), build_augment(domain.augment)
                found[name] = FrameStream(name, store, rows, spec.batch_size, augment, labels)
        return found

    def monitor(self, run: Run) -> FrameMonitor:
        """Source validation, a label-free score, and the target's test part."""
        frequencies = torch.from_numpy(self.counts / max(1, self.counts.sum()))
        return FrameMonitor(run, self.source, self.target, self.tasks, frequencies)

    def write_pseudo_labels(self, predict: Predict, spec: PseudoLabelSpec, file: Path) -> str:
        """Each stream's predictions on the target's training frames that are sure enough."""
        rows = self.target.indices("train")
        found = predicted(predict, self.target, rows, self.recipe.streams)
        kept = {
            name: refined(
                labels,
                confidence,
                min_confidence=spec.min_confidence,
                class_share=spec.class_share,
                sure=spec.sure,
            )
            for name, (labels, confidence) in found.items()
        }
        write_arrays(file, **kept)
        total = sum(int(self.target.offsets[row + 1] - self.target.offsets[row]) for row in rows)
        numbers = ", ".join(f"{(labels != NO_LABEL).sum()} {name}" for name, labels in kept.items())
        return f"pseudo-labels of {total} points: {numbers}"

    def use_pseudo_labels(self, file: Path, streams: Mapping[str, BatchStream]) -> None:
        """They become labels of the target's batches, by stream."""
        stream = cast(FrameStream, streams["target"])
        stream.labels = {**stream.labels, **{pseudo_label(name): v for name, v in read_arrays(file).items()}}


def open_frames(domain: FrameDomainSpec, *, workers: int | None = None, progress: bool = False) -> FrameStore:
    """Prepare (once) and open the frames of a domain; up to four processes read them unless ``workers`` is given."""
    wanted = reading_workers(4) if workers is None else workers
    return prepare_frames(build_reader(domain.data), cache_folder(), domain.size, workers=wanted, progress=progress)


def class_counts(store: FrameStore) -> np.ndarray:
    """How many points of the training part each class has. Shape: ``(K,)`` int64."""
    counts = np.zeros(256, dtype=np.int64)
    for row in store.indices("train"):
        counts += np.bincount(store.labels[store.offsets[row] : store.offsets[row + 1]], minlength=256)
    return counts[: len(store.classes)]


def source_shares(store: FrameStore) -> ClassShares:
    """Shares of the classes in the frames of the training part."""
    rows = store.indices("train")
    found = [
        sample_shares(batch.labels[LABEL], batch.valid[LABEL], len(store.classes))
        for batch in frame_batches(store, rows, {LABEL: store.labels})
    ]
    return class_shares(torch.cat(found))
