"""From a dense recipe to the objects that a run works with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from isthmus.data.class_map import nearest
from isthmus.data.image_augment import ImageAugment
from isthmus.data.image_store import ImageStore
from isthmus.data.images import ImageReader
from isthmus.data.partial_labels import partial_labels, read_partial_labels
from isthmus.data.readers.image_folder import ImageFolder
from isthmus.data.readers.mtan import MTAN
from isthmus.data.readers.nyuv2_parquet import NYUv2Parquet
from isthmus.data.readers.pascal_context import PascalContext
from isthmus.data.readers.scannet_views import ScanNetViews
from isthmus.data.readers.yaleb_faces import YaleBFaces
from isthmus.data.simulators.faces import SimulatedFaces
from isthmus.data.simulators.rooms import SimulatedRooms
from isthmus.data.simulators.streets import SimulatedStreets
from isthmus.errors import RecipeError
from isthmus.losses.adversary import Adversary
from isthmus.losses.weightings.base import Weighting
from isthmus.losses.weightings.dwa import DWA
from isthmus.losses.weightings.gradnorm import GradNorm
from isthmus.losses.weightings.mgda import MGDA
from isthmus.losses.weightings.torchjd import Aggregated
from isthmus.losses.weightings.uncertainty import Uncertainty
from isthmus.methods.adversarial import Adversarial, Tap
from isthmus.methods.base import Method
from isthmus.methods.contrastive import Contrastive
from isthmus.methods.direct_map import DirectMap
from isthmus.methods.discriminator import Discriminator
from isthmus.methods.mtpsl import MTPSL, JointSpaceOptions
from isthmus.methods.multi_task import MultiTask
from isthmus.methods.perceptual_map import PerceptualMap
from isthmus.methods.semi_supervised import SemiSupervised
from isthmus.methods.single_task import SingleTask
from isthmus.methods.x_task import XTask
from isthmus.models.mapping import MappingNetwork
from isthmus.models.modes import evaluating
from isthmus.models.mtan import MTANet
from isthmus.models.pair_discriminator import PairDiscriminator
from isthmus.models.patch_discriminator import PatchDiscriminator
from isthmus.models.resnet_aspp import ResNetASPP
from isthmus.models.resnet_fpn import ResNetFPN
from isthmus.models.segnet import SegNet
from isthmus.tasks.build_dense import dense_task
from isthmus.tasks.dense import DenseTask
from isthmus.tasks.keypoints import Keypoints
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.dense.recipe import (
    AdversarialSpec,
    AdversarySpec,
    CrossTaskSpec,
    CustomDenseSpec,
    DenseNetworkSpec,
    DenseRecipe,
    DWASpec,
    FacesSpec,
    GradNormSpec,
    ImageAugmentSpec,
    ImageDataSpec,
    ImageFolderSpec,
    LabelsSpec,
    MGDASpec,
    MTANetSpec,
    MTANSpec,
    MTPSLSpec,
    MultiTaskSpec,
    NYUv2ParquetSpec,
    PascalContextSpec,
    ResNetASPPSpec,
    ResNetFPNSpec,
    RoomsSpec,
    ScanNetViewsSpec,
    SegNetSpec,
    SemiSupervisedSpec,
    SingleTaskSpec,
    StreetsSpec,
    UncertaintySpec,
    WeightingSpec,
    XTaskSpec,
    YaleBSpec,
)

Present = dict[str, np.ndarray]
"""Which image of a store carries which task's label, ``(n,)`` bool by task."""


def build_reader(spec: ImageDataSpec) -> ImageReader:
    """The reader of a data set of images."""
    match spec:
        case RoomsSpec():
            return SimulatedRooms(
                train=spec.train, val=spec.val, test=spec.test, seed=spec.seed, size=spec.size, style=spec.style
            )
        case StreetsSpec():
            return SimulatedStreets(train=spec.train, val=spec.val, test=spec.test, seed=spec.seed, size=spec.size)
        case MTANSpec():
            return MTAN(spec.root, spec.dataset, label=spec.label, validation_share=spec.validation_share)
        case NYUv2ParquetSpec():
            return NYUv2Parquet(spec.root, validation_share=spec.validation_share)
        case PascalContextSpec():
            return PascalContext(spec.root, validation_share=spec.validation_share)
        case FacesSpec():
            return SimulatedFaces(
                train=spec.train,
                val=spec.val,
                test=spec.test,
                seed=spec.seed,
                size=spec.size,
                domain=spec.domain,
                framing=spec.framing,
                grey=spec.grey,
            )
        case YaleBSpec():
            return YaleBFaces(lights=spec.lights, test_subjects=spec.test_subjects, val_subjects=spec.val_subjects)
        case ScanNetViewsSpec():
            return ScanNetViews(test_rooms=spec.test_rooms, val_rooms=spec.val_rooms)
        case ImageFolderSpec():
            return ImageFolder(spec.root, classes=spec.classes)


def build_tasks(recipe: DenseRecipe, available: Mapping[str, tuple[str, ...]]) -> dict[str, DenseTask]:
    """The recipe's tasks with the class names of the data set, in the recipe's order."""
    wanted = tuple(recipe.task(name) for name in recipe.tasks)
    unknown = [name for name in wanted if name not in available]
    if unknown:
        hint = nearest(unknown[0], available)
        raise RecipeError(f"tasks: expected some of {', '.join(available)}, found {', '.join(unknown)}{hint}")
    unweighted = [name for name in recipe.task_weights if recipe.task(name) not in (wanted or available)]
    if unweighted:
        raise RecipeError(f"task_weights: expected some of {', '.join(wanted or available)}, found {unweighted[0]!r}")
    tasks: dict[str, DenseTask] = {}
    for name in wanted or tuple(available):
        counted = recipe.counted_classes if name == "segmentation" else ()
        missing = [each for each in counted if each not in available[name]]
        if missing:
            raise RecipeError(f"counted_classes: expected some of {', '.join(available[name])}, found {missing[0]!r}")
        if counted:
            indices = tuple(available[name].index(each) for each in counted)
            tasks[name] = Segmentation(available[name], counted=indices)
        elif name == "keypoints":
            points = recipe.keypoints
            tasks[name] = Keypoints(available[name], sigma=points.sigma, depth_weight=points.depth_weight)
        else:
            tasks[name] = dense_task(name, available[name])
    return tasks


def carried_labels(recipe: DenseRecipe, spec: LabelsSpec, store: ImageStore, tasks: tuple[str, ...]) -> Present:
    """Which labels training and validation may read: what the store has, thinned out by the label setting.

    Tasks that the store does not know have no entry. The test part keeps all of its labels for measuring; it is no part
    of what this returns as readable for training.
    """
    readable = tasks if spec.tasks is None else tuple(recipe.task(name) for name in spec.tasks)
    unknown = [name for name in readable if name not in tasks]
    if unknown:
        raise RecipeError(f"labels.tasks: expected some of the recipe's {', '.join(tasks)}, found {unknown[0]!r}")
    tasks = tuple(task for task in tasks if task in store.tasks)
    columns = [list(store.tasks).index(task) for task in tasks]
    present = np.array(store.present[:, columns])
    learnt = np.flatnonzero(~np.isin(np.arange(len(store)), store.indices("test")))
    if spec.setting == "file":
        assert spec.file is not None
        names = [store.names[row] for row in learnt]
        known = [*store.names, *(skipped.name for skipped in store.skipped)]
        present[learnt] &= read_partial_labels(spec.file, names, tasks, known=known)
    else:
        for part in ("train", "val"):
            rows = store.indices(part)
            ratio = spec.ratio or None
            present[rows] = partial_labels(spec.setting, tasks, present[rows], ratio=ratio, seed=spec.seed)
    present[store.indices("test")] = False
    present &= np.array([task in readable for task in tasks], dtype=bool)
    return {task: present[:, column] for column, task in enumerate(tasks)}


def build_network(
    spec: DenseNetworkSpec,
    channels: dict[str, int],
    *,
    in_channels: int = 3,
    vectors: dict[str, int] | None = None,
    pretrained: bool = True,
) -> nn.Module:
    """A network with an output for each task; without ``pretrained`` ready for weights that a checkpoint holds.

    ``vectors`` says how many numbers without a place a task needs.
    """
    if vectors and not isinstance(spec, ResNetFPNSpec):
        raise RecipeError(f"network: {', '.join(vectors)} needs a non-spatial branch: use 'resnet-fpn'")
    match spec:
        case SegNetSpec():
            return SegNet(channels, in_channels=in_channels, width=spec.width, stages=spec.stages)
        case MTANetSpec():
            return MTANet(channels, width=spec.width, stages=spec.stages)
        case ResNetFPNSpec():
            assert in_channels == 3
            return ResNetFPN(
                channels,
                vectors,
                layers=spec.layers,
                width=spec.width,
                decoder_channels=spec.decoder_channels,
                weights=spec.weights if pretrained else None,
                normalise=spec.weights is not None,
            )
        case ResNetASPPSpec():
            return ResNetASPP(
                channels,
                layers=spec.layers,
                width=spec.width,
                aspp_channels=spec.aspp_channels,
                dropout=spec.dropout,
                weights=spec.weights if pretrained else None,
                normalise=spec.weights is not None,
            )


def build_augment(spec: ImageAugmentSpec) -> ImageAugment:
    """Training augmentation, or what makes second views."""
    return ImageAugment(**spec.model_dump())


def build_method(recipe: DenseRecipe, tasks: Mapping[str, DenseTask], *, pretrained: bool = True) -> Method:
    """The method with freshly initialised networks, the same for the same seed.

    Without ``pretrained`` the recipe's file of ImageNet weights is not asked for: a checkpoint's will follow.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = _method(recipe, tasks, pretrained)
    method.weighting = build_weighting(recipe.weighting, tuple(tasks))
    return method


def _method(recipe: DenseRecipe, tasks: Mapping[str, DenseTask], pretrained: bool) -> Method:
    spec = recipe.method
    channels = {name: task.channels for name, task in tasks.items()}
    if isinstance(spec, SingleTaskSpec):
        return SingleTask(
            lambda wanted: build_network(
                recipe.network, wanted, vectors=_vectors(tasks, wanted), pretrained=pretrained
            ),
            tasks,
        )
    network = build_network(recipe.network, channels, vectors=_vectors(tasks, tasks), pretrained=pretrained)
    views = build_augment(recipe.views)
    if isinstance(spec, CustomDenseSpec):
        raise RecipeError(f"method: {spec.name!r} is of your own making: pass the object to train(method=...)")
    weights = {recipe.task(name): weight for name, weight in recipe.task_weights.items()}
    common: dict[str, Any] = {"reduction": spec.reduction, "task_weights": weights}
    match spec:
        case MultiTaskSpec():
            return MultiTask(network, tasks, joint_batches=spec.joint_batches, **common)
        case AdversarialSpec():
            parts = tap_channels(network)
            games = [build_adversary(each, recipe, tasks, parts) for each in spec.adversaries]
            return Adversarial(network, tasks, games, parts, joint_batches=spec.joint_batches, **common)
        case SemiSupervisedSpec():
            return SemiSupervised(network, tasks, views, weight=spec.weight, **common)
        case MTPSLSpec():
            codes = None if spec.condition == "none" else len(tasks) * (len(tasks) - 1)
            modulated = spec.film_inputs and codes is not None
            options = JointSpaceOptions(**spec.model_dump(exclude={"kind", "reduction", "film_inputs"}))
            mapping = build_mapping(recipe.network, channels, codes, film_inputs=modulated)
            return MTPSL(network, tasks, mapping, views, options, **common)
        case CrossTaskSpec(kind="contrastive" | "discriminator"):
            mapping = build_mapping(recipe.network, channels, len(tasks) * (len(tasks) - 1), film_inputs=True)
            if spec.kind == "contrastive":
                return Contrastive(network, tasks, mapping, weight=spec.weight, margin=spec.margin, **common)
            judge = PairDiscriminator(network.bottleneck_channels)  # type: ignore[arg-type]
            return Discriminator(network, tasks, mapping, judge, weight=spec.weight, **common)
        case CrossTaskSpec() | XTaskSpec():

            def build_map(in_channels: int, wanted: dict[str, int]) -> nn.Module:
                return build_network(_map_network(recipe.network, spec.map_width), wanted, in_channels=in_channels)

            kinds: dict[str, type[DirectMap] | type[PerceptualMap] | type[XTask]] = {
                "direct-map": DirectMap,
                "perceptual-map": PerceptualMap,
                "x-task": XTask,
            }
            return kinds[spec.kind](network, tasks, build_map, weight=spec.weight, **common)


def _vectors(tasks: Mapping[str, DenseTask], wanted: Iterable[str]) -> dict[str, int]:
    return {name: tasks[name].vector_channels for name in wanted if tasks[name].vector_channels}


@torch.no_grad()
def tap_channels(network: nn.Module) -> dict[str, int]:
    """Channels of every feature map of a network that an adversary can be shown."""
    with evaluating(network):
        features = network(torch.zeros(1, 3, 64, 64))
    return {"bottleneck": features.bottleneck.shape[1], **{name: tap.shape[1] for name, tap in features.taps.items()}}


def build_adversary(
    spec: AdversarySpec, recipe: DenseRecipe, tasks: Mapping[str, DenseTask], channels: Mapping[str, int]
) -> tuple[Tap, Adversary]:
    """What is shown, and to whom. Raises RecipeError for a tap that is not there."""
    part, _, task = spec.tap.partition("/")
    name = f"{part}/{recipe.task(task)}" if task else part
    tap = Tap(name, spec.self_information, recipe.task(spec.mask) if spec.mask else None)
    known = [*channels, *(f"{part}/{task}" for part in ("output", *channels) for task in tasks)]
    if tap.name not in known:
        raise RecipeError(f"method.adversaries.tap: expected one of {', '.join(known)}, found {tap.name!r}")
    if tap.self_information and tap.task not in ("segmentation", "parts"):
        raise RecipeError(
            f"method.adversaries.self_information: expected the prediction of a task with classes, found {tap.name!r}"
        )
    if tap.mask is not None and tap.mask not in tasks:
        raise RecipeError(f"method.adversaries.mask: expected one of {', '.join(tasks)}, found {tap.mask!r}")
    discriminator = PatchDiscriminator(
        tasks[tap.task].channels if tap.task else channels[tap.part],
        layers=spec.layers,
        hidden=spec.hidden,
        stride=spec.stride,
        batch_norm=spec.batch_norm,
        activation_noise=spec.activation_noise,
    )
    game = {"weight": spec.weight, "start": spec.start, "input_noise": spec.input_noise}
    adversary = Adversary(tap.name, discriminator, game=spec.game, ramp=spec.ramp, label_noise=spec.label_noise, **game)
    return tap, adversary


def build_mapping(
    spec: DenseNetworkSpec, channels: dict[str, int], codes: int | None, *, film_inputs: bool
) -> MappingNetwork:
    """The mapping into joint spaces whose output has the shape of the network's bottleneck."""
    if isinstance(spec, ResNetFPNSpec):
        raise RecipeError(
            "network: no joint space has the shape of a 'resnet-fpn' bottleneck: use 'segnet' or 'resnet-aspp'"
        )
    if isinstance(spec, ResNetASPPSpec):
        return MappingNetwork(channels, codes=codes, width=spec.width, film_inputs=film_inputs, backbone="resnet")
    return MappingNetwork(channels, codes=codes, width=spec.width, stages=spec.stages, film_inputs=film_inputs)


def _map_network(spec: DenseNetworkSpec, width: float | None) -> SegNetSpec:
    """Maps between tasks are SegNets, whatever the main network is."""
    stages = 5 if isinstance(spec, ResNetASPPSpec | ResNetFPNSpec) else spec.stages
    return SegNetSpec(width=spec.width if width is None else width, stages=stages)


def build_weighting(spec: WeightingSpec, tasks: tuple[str, ...]) -> Weighting | None:
    """How the losses of the tasks are balanced; None for uniform."""
    match spec:
        case UncertaintySpec():
            return Uncertainty(tasks, form=spec.form, initial=spec.initial)
        case DWASpec():
            return DWA(tasks, temperature=spec.temperature, interval=spec.interval)
        case GradNormSpec():
            return GradNorm(tasks, alpha=spec.alpha, learning_rate=spec.learning_rate)
        case MGDASpec():
            return MGDA(tasks, normalisation=spec.normalisation)
        case _:
            return None if spec.kind == "uniform" else Aggregated(tasks, spec.kind)
