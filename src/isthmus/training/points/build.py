"""From a recipe to the objects that a run works with: readers, stores, networks, the method, the streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from isthmus.data.augment import Augment
from isthmus.data.class_map import ClassMap
from isthmus.data.clouds import Reader
from isthmus.data.mapped import Mapped
from isthmus.data.readers.folder import Folder
from isthmus.data.readers.hdf5 import HDF5
from isthmus.data.readers.modelnet import ModelNet
from isthmus.data.readers.pointda import PointDA
from isthmus.data.readers.real_objects import RealObjects
from isthmus.data.readers.unlabelled import UnlabelledFolder
from isthmus.data.simulators.objects import SimulatedObjects
from isthmus.data.simulators.virtual_sensor import VirtualSensor
from isthmus.data.store import CloudStore, prepare
from isthmus.data.stream import KnownLabels, Stream
from isthmus.errors import DataError, RecipeError
from isthmus.gates.base import Gate
from isthmus.gates.cosine import CosineGate
from isthmus.gates.random import RandomGate
from isthmus.gates.scaled import ScaledWeight
from isthmus.gates.skewness import SkewnessGate
from isthmus.methods.base import Method
from isthmus.methods.self_supervised import GatingOptions, SelfSupervised
from isthmus.methods.supervised import Supervised
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn import DGCNN
from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.defrec import DefRec
from isthmus.tasks.classification import Classification
from isthmus.training.cache import cache_folder
from isthmus.training.points.recipe import (
    DataSpec,
    DGCNNSpec,
    DomainSpec,
    FolderSpec,
    GateSpec,
    HDF5Spec,
    ModelNetSpec,
    NetworkSpec,
    ObjectsSpec,
    PointDASpec,
    PointRecipe,
    SelfSupervisedSpec,
    SimulatedSpec,
    SkewnessGateSpec,
    SupervisedSpec,
    UnlabelledSpec,
)

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


def build_gate(spec: GateSpec) -> Gate:
    """The gate of a recipe."""
    if isinstance(spec, SkewnessGateSpec):
        return SkewnessGate(
            spec.keep,
            keep_end=spec.keep_end,
            keep_side=spec.keep_side,
            alpha=spec.alpha,
            centre=spec.centre,
            scope=spec.scope,
        )
    match spec.kind:
        case "random":
            return RandomGate(spec.keep, keep_end=spec.keep_end, scope=spec.scope)
        case "scaled":
            return ScaledWeight(spec.keep, keep_end=spec.keep_end, scope=spec.scope)
        case "cosine":
            return CosineGate(spec.keep, keep_end=spec.keep_end, scope=spec.scope)


def build_network(spec: NetworkSpec, classes: int) -> PointClassifier:
    """Encoder and classification head."""
    encoder: PointNet | DGCNN
    if isinstance(spec, DGCNNSpec):
        encoder = DGCNN(k=spec.k, width=spec.width, input_transform=spec.input_transform, edge_form=spec.edge_form)
    else:
        encoder = PointNet(
            width=spec.width, input_transform=spec.input_transform, feature_transform=spec.feature_transform
        )
    head = ClassificationHead(
        encoder.pooled_channels, classes, width=spec.width, dropout=spec.dropout, slope=encoder.slope
    )
    return PointClassifier(encoder, head)


def build_method(recipe: PointRecipe) -> Method:
    """The method with freshly initialised networks, the same for the same seed."""
    spec = recipe.method
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build_network(recipe.network, len(recipe.classes))
        if isinstance(spec, SupervisedSpec):
            return Supervised(network, Classification(recipe.classes, label_smoothing=spec.label_smoothing))
        if not isinstance(spec, SelfSupervisedSpec):
            raise RecipeError(f"method: {spec.name!r} is of your own making: pass the object to train(method=...)")
        encoder = network.encoder
        head = PointReconstructionHead(
            encoder.local_channels,  # type: ignore[arg-type]
            encoder.pooled_channels,  # type: ignore[arg-type]
            width=recipe.network.width,
        )
        pretext = DefRec(
            head,
            region=spec.pretext.region,
            variance=spec.pretext.variance,
            min_points=spec.pretext.min_points,
            voxel_order=spec.pretext.voxel_order,
        )
    return SelfSupervised(
        network,
        Classification(recipe.classes, label_smoothing=spec.label_smoothing),
        pretext,
        weight=spec.weight,
        mixup=spec.mixup,
        pretext_on=spec.pretext_on,
        gate=None if spec.gate is None else build_gate(spec.gate),
        gating=GatingOptions(**spec.gating.model_dump()),
    )


def build_streams(recipe: PointRecipe, domains: Domains, method: Method) -> dict[str, Stream]:
    """Training batches by domain. Target labels are opened for an oracle and the analysis gate only."""
    task = next(iter(method.tasks))
    augment = Augment(**recipe.augment.model_dump())

    def stream(domain: str, known: dict[str, KnownLabels]) -> Stream:
        store = domains.source if domain == "source" else domains.target
        spec = recipe.source if domain == "source" else recipe.target
        rows = part_rows(store, spec.train_on)
        return Stream(domain, store, rows, recipe.batch_size, recipe.points, augment, known)

    if isinstance(recipe.method, SupervisedSpec) and recipe.method.kind == "oracle":
        return {"target": stream("target", {task: true_labels(domains.target)})}
    streams = {"source": stream("source", {task: true_labels(domains.source)})}
    if method.uses_target:
        known = {f"{task} (oracle)": true_labels(domains.target)} if recipe.uses_target_labels else {}
        streams["target"] = stream("target", known)
    return streams


def true_labels(store: CloudStore) -> KnownLabels:
    """All labels of a store, as data."""
    return KnownLabels(store.labels, store.labels >= 0)


def class_prior(recipe: PointRecipe, domains: Domains) -> torch.Tensor:
    """Share of each class among the source's training clouds. Shape: ``(K,)``."""
    labels = domains.source.labels[part_rows(domains.source, recipe.source.train_on)]
    counts = torch.bincount(torch.from_numpy(labels), minlength=len(recipe.classes)).double()
    if not counts.sum():
        raise DataError(f"{domains.source.path}: the source has no labelled training cloud")
    return counts / counts.sum()
