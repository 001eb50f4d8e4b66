"""From a recipe to the objects that a run works with: readers, stores, the streams, and the method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from isthmus.data.augment import Augment
from isthmus.data.class_map import ClassMap
from isthmus.data.clouds import NO_POINT_LABEL, Reader
from isthmus.data.mapped import Mapped
from isthmus.data.readers.folder import Folder
from isthmus.data.readers.hdf5 import HDF5
from isthmus.data.readers.human_seg import HumanSeg
from isthmus.data.readers.modelnet import ModelNet
from isthmus.data.readers.pointda import PointDA
from isthmus.data.readers.pointsegda import PointSegDA
from isthmus.data.readers.real_objects import RealObjects
from isthmus.data.readers.unlabelled import UnlabelledFolder
from isthmus.data.simulators.bodies import SimulatedBodies
from isthmus.data.simulators.objects import SimulatedObjects
from isthmus.data.simulators.virtual_sensor import VirtualSensor
from isthmus.data.store import CloudStore, prepare
from isthmus.data.stream import KnownLabels, KnownPointLabels, Stream
from isthmus.errors import DataError
from isthmus.methods.base import Method
from isthmus.training.cache import cache_folder
from isthmus.training.points.build_method import build_method
from isthmus.training.points.data_specs import (
    BodiesSpec,
    DataSpec,
    DomainSpec,
    FolderSpec,
    HDF5Spec,
    HumanSegSpec,
    ModelNetSpec,
    ObjectsSpec,
    PointDASpec,
    PointSegDASpec,
    SimulatedSpec,
    UnlabelledSpec,
)
from isthmus.training.points.recipe import PointRecipe

__all__ = [
    "PREPARED_POINTS", "Domains", "build_method", "build_reader", "build_streams", "cache_folder", "class_prior",
    "domain_reader", "open_domains", "part_rows", "true_labels",
]  # fmt: skip

PREPARED_POINTS = 1024
"""Clouds are stored with at least this many points, so that one store serves all smaller sizes."""


def build_reader(spec: DataSpec) -> Reader:
    """The reader of a data set."""
    match spec:
        case SimulatedSpec():
            return SimulatedObjects(spec.domain, train=spec.train, val=spec.val, test=spec.test, seed=spec.seed)
        case PointDASpec():
            return PointDA(spec.root, spec.domain)
        case ModelNetSpec():
            return ModelNet(spec.root)
        case FolderSpec():
            return Folder(spec.root, up=spec.up, classes=spec.classes)
        case UnlabelledSpec():
            return UnlabelledFolder(spec.root, up=spec.up)
        case HDF5Spec():
            return HDF5(spec.root, train=spec.train, test=spec.test, classes=spec.classes, up=spec.up)
        case ObjectsSpec():
            return RealObjects(spec.name)
        case BodiesSpec():
            return SimulatedBodies(spec.domain, train=spec.train, val=spec.val, test=spec.test, seed=spec.seed)
        case PointSegDASpec():
            return PointSegDA(spec.root, spec.domain, classes=spec.parts, up=spec.up)
        case HumanSegSpec():
            return HumanSeg(spec.name)


def domain_reader(spec: DomainSpec, classes: tuple[str, ...], *, source: bool) -> Reader:
    """The reader of a domain, with the recipe's classes and behind the virtual sensor where asked."""
    reader = build_reader(spec.data)
    drop = "*" if "*" in spec.drop else tuple(spec.drop)
    mapped: Reader = Mapped(reader, ClassMap(classes, spec.merge, drop), source)  # type: ignore[arg-type]
    if spec.virtual_sensor is not None:
        sensor = spec.virtual_sensor
        mapped = VirtualSensor(mapped, seed=sensor.seed, test_share=sensor.test_share)
    return mapped


@dataclass(frozen=True)
class Domains:
    """The prepared data of a run."""

    source: CloudStore
    target: CloudStore


def open_domains(recipe: PointRecipe, *, progress: bool = False) -> Domains:
    """Prepare (once) and open both domains."""
    size = max(PREPARED_POINTS, recipe.points)
    stores = {}
    for name, spec in (("source", recipe.source), ("target", recipe.target)):
        reader = domain_reader(spec, recipe.classes, source=name == "source")
        stores[name] = prepare(reader, cache_folder(), size, progress=progress)
    return Domains(**stores)


def part_rows(store: CloudStore, parts: tuple[str, ...]) -> np.ndarray:
    """Positions of the clouds of several parts, ascending."""
    return np.sort(np.concatenate([store.indices(part) for part in parts]))


def build_streams(recipe: PointRecipe, domains: Domains, method: Method) -> dict[str, Stream]:
    """Training batches by domain. Target labels are opened for an oracle and the analysis gate only."""
    task = next(iter(method.tasks))
    augment = Augment(**recipe.augment.model_dump())

    def stream(domain: str, known: dict[str, KnownLabels | KnownPointLabels]) -> Stream:
        store = domains.source if domain == "source" else domains.target
        spec = recipe.source if domain == "source" else recipe.target
        rows = part_rows(store, spec.train_on)
        return Stream(domain, store, rows, recipe.batch_size, recipe.points, augment, known)

    if recipe.method.kind == "oracle":
        return {"target": stream("target", {task: true_labels(domains.target, recipe)})}
    streams = {"source": stream("source", {task: true_labels(domains.source, recipe)})}
    if method.uses_target:
        oracle = {f"{task} (oracle)": true_labels(domains.target, recipe)} if recipe.uses_target_labels else {}
        streams["target"] = stream("target", oracle)
    return streams


def true_labels(store: CloudStore, recipe: PointRecipe) -> KnownLabels | KnownPointLabels:
    """All labels of a store, as data."""
    if recipe.predicts == "parts":
        return KnownPointLabels(store.point_labels)
    return KnownLabels(store.labels, store.labels >= 0)


def class_prior(recipe: PointRecipe, domains: Domains) -> torch.Tensor:
    """Share of each class among the source's training clouds, or their points. Shape: ``(K,)``."""
    rows = part_rows(domains.source, recipe.source.train_on)
    if recipe.predicts == "parts":
        labels = domains.source.point_labels[rows, : recipe.points].ravel().astype(np.int64)
        labels = labels[labels != NO_POINT_LABEL]
    else:
        labels = domains.source.labels[rows]
    counts = torch.bincount(torch.from_numpy(labels), minlength=len(recipe.classes)).double()
    if not counts.sum():
        raise DataError(f"{domains.source.path}: the source has no labelled training cloud")
    return counts / counts.sum()
