"""From a recipe to the objects that a run works with: readers, networks, the method."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from isthmus.data.frame_augment import FrameAugment
from isthmus.data.frames import FrameReader
from isthmus.data.photographs import Photographs
from isthmus.data.readers.a2d2 import A2D2
from isthmus.data.readers.camvid import CamVid
from isthmus.data.readers.lidar_sweeps import LidarSweeps
from isthmus.data.readers.nuscenes import NuScenes
from isthmus.data.readers.semantickitti import SemanticKITTI
from isthmus.data.readers.virtualkitti import VirtualKITTI
from isthmus.data.readers.xmuda_pickle import XmudaPickles
from isthmus.data.simulators.lidar_streets import SimulatedLidarStreets
from isthmus.errors import RecipeError
from isthmus.losses.class_statistics import ClassShares
from isthmus.losses.point_adversary import PointAdversary
from isthmus.methods.adapt_segnet import AdaptSegNet
from isthmus.methods.clan import CLAN
from isthmus.methods.coral import Coral
from isthmus.methods.cross_modal import AVERAGE, CrossModal
from isthmus.methods.cycada import CyCADA
from isthmus.methods.dscml import ALIGNED, DsCML, game_name
from isthmus.methods.fcns_in_the_wild import FCNsInTheWild
from isthmus.methods.min_entropy import MinEntropy
from isthmus.methods.xmuda import XMUDA
from isthmus.models.deformable_patch import DeformablePatch
from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator
from isthmus.models.sparse_unet import SparseUNet
from isthmus.models.two_streams import TwoStreams
from isthmus.models.unet_resnet import UNetResNet
from isthmus.tasks.segmentation import Segmentation
from isthmus.training.frames.recipe import (
    A2D2Spec,
    BaselineSpec,
    CamVidSpec,
    CoralSpec,
    CustomFrameSpec,
    DsCMLSpec,
    FeatureAdversarySpec,
    FrameAugmentSpec,
    FrameDataSpec,
    FrameRecipe,
    LidarStreetsSpec,
    MinEntropySpec,
    NuScenesSpec,
    PointAdversarySpec,
    SemanticKITTISpec,
    SweepsSpec,
    VirtualKITTISpec,
    XMUDAPickleSpec,
    XMUDASpec,
)


def build_reader(spec: FrameDataSpec) -> FrameReader:
    """The reader of a data set."""
    match spec:
        case LidarStreetsSpec():
            return SimulatedLidarStreets(**spec.model_dump(exclude={"kind"}))
        case SweepsSpec():
            return LidarSweeps(spec.sensor, front=spec.front)
        case CamVidSpec():
            return Photographs(CamVid(spec.light), "camvid-11")
        case NuScenesSpec():
            return NuScenes(spec.root, spec.domain, spec.protocol, validation_share=spec.validation_share)
        case A2D2Spec():
            return A2D2(spec.root, validation_share=spec.validation_share)
        case SemanticKITTISpec():
            return SemanticKITTI(spec.root, spec.protocol)
        case VirtualKITTISpec():
            return VirtualKITTI(spec.root, validation_share=spec.validation_share)
        case XMUDAPickleSpec():
            return XmudaPickles(spec.preprocess, spec.images, spec.protocol, dict(spec.splits))


def build_augment(spec: FrameAugmentSpec) -> FrameAugment:
    """Training augmentation."""
    return FrameAugment(**spec.model_dump())


def prediction_tasks(recipe: FrameRecipe, classes: tuple[str, ...]) -> dict[str, Segmentation]:
    """The predictions that are measured: of each stream and, where there are two, their average."""
    streams = tuple(name for name in ("2D", "3D") if name in recipe.streams)
    names = (*streams, AVERAGE) if len(streams) > 1 else streams
    return {name: prediction_task(classes, name) for name in names}


def prediction_task(classes: tuple[str, ...], name: str) -> Segmentation:
    """One prediction as a task whose heading says which it is."""
    task = Segmentation(classes, name)
    task.heading = f"mIoU {name} [%]"
    return task


def class_weights(counts: np.ndarray) -> Tensor:
    """xMUDA's log-smoothed weights: log(5 * sum / count), as multiples of the least. Shape: ``(K,)`` float32.

    A class without a point (xMUDA: infinite) gets the largest weight of the others; without any point all get 1.
    """
    present = counts > 0
    if not present.any():
        return torch.ones(len(counts))
    weights = np.log(5 * counts.sum() / np.where(present, counts, 1))
    weights = np.where(present, weights, weights[present].max())
    return torch.from_numpy(weights / weights.min()).float()


def build_network(recipe: FrameRecipe, classes: int, *, pretrained: bool = True) -> TwoStreams:
    """The streams of a recipe, with what its method needs beside their classifiers."""
    image, points = recipe.image_network, recipe.point_network
    weights = image.weights if pretrained and "2D" in recipe.streams else None
    image_network = UNetResNet(image.layers, image.width, dropout=image.dropout, weights=weights)
    point_network = SparseUNet(
        channels=points.channels,
        levels=points.levels,
        repetitions=points.repetitions,
        voxel_size=points.voxel_size,
    )
    method = recipe.method
    patch: DeformablePatch | None = None
    extremes: Literal["shared", "own"] = "shared"
    pooled: Literal["features", "probabilities"] = "features"
    if isinstance(method, DsCMLSpec):
        extremes = "own" if method.variant == "released" else "shared"
        pooled = method.pooled
        if method.patch is not None:
            border: Literal["zeros", "replicate"] = "zeros" if method.variant == "released" else "replicate"
            patch = DeformablePatch(image_network.out_channels, method.patch.size, method.patch.offsets, border=border)
    return TwoStreams(
        classes,
        image_network if "2D" in recipe.streams else None,
        point_network if "3D" in recipe.streams else None,
        patch=patch,
        extremes=extremes,
        pooled=pooled,
        mimicry=method.kind in ("xmuda", "dscml", "clan"),
    )


def build_method(
    recipe: FrameRecipe,
    classes: tuple[str, ...],
    counts: np.ndarray,
    shares: ClassShares | None = None,
    *,
    pretrained: bool = True,
) -> CrossModal:
    """The method of a recipe.

    Args:
        recipe: the recipe.
        classes: names of the classes.
        counts: how many training points of the source each class has.
        shares: the source's class statistics, which FCNs in the Wild needs.
        pretrained: whether to load the weights that the recipe names.
    """
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, len(classes), pretrained=pretrained)
    weights = class_weights(counts) if recipe.class_weights == "log" else None
    options: dict[str, Any] = {"class_weights": weights, "pseudo_weight": recipe.pseudo_weight}
    spec = recipe.method
    match spec:
        case BaselineSpec():
            return CrossModal(network, classes, **options)
        case MinEntropySpec():
            return MinEntropy(network, classes, weight=spec.weight, **options)
        case CoralSpec():
            return Coral(network, classes, form=spec.form, weight=spec.weight, **options)
        case XMUDASpec():
            return XMUDA(
                network, classes, source_weight=spec.source_weight, target_weight=spec.target_weight, **options
            )
        case DsCMLSpec():
            pairs = ALIGNED[spec.alignment] if spec.alignment is not None else ()
            adversaries = {}
            for source, target in pairs:
                weight = spec.adversary_weights.get(target, spec.adversary.weight)  # type: ignore[call-overload]
                adversary = spec.adversary.model_copy(update={"weight": weight})
                name = game_name(source, target)
                adversaries[name] = build_adversary(adversary, name, len(classes))
            return DsCML(
                network,
                classes,
                adversaries,
                terms=spec.terms,
                halved=spec.variant == "released",
                source_weight=spec.source_weight,
                target_weight=spec.target_weight,
                alignment=spec.alignment,
                student=spec.student,
                mimicry_shown=spec.mimicry_shown,
                **options,
            )
        case FeatureAdversarySpec():
            return _feature_adversary(spec, network, classes, shares, options)
        case CustomFrameSpec():
            raise RecipeError(
                f"method: {spec.name!r} is of the user's own making: hand the object to isthmus.training.engine.train"
            )


def build_adversary(spec: PointAdversarySpec, name: str, channels: int) -> PointAdversary:
    """A discriminator of points with these channels, and its game."""
    discriminator = ChunkDiscriminator(channels) if spec.discriminator == "chunks" else PointDiscriminator(channels)
    return PointAdversary(name, discriminator, game=spec.game, weight=spec.weight, sides=spec.sides)


def _feature_adversary(
    spec: FeatureAdversarySpec,
    network: TwoStreams,
    classes: tuple[str, ...],
    shares: ClassShares | None,
    options: dict[str, Any],
) -> CrossModal:
    on_features = spec.kind in ("cycada", "fcns-in-the-wild")
    adversaries = {
        stream: build_adversary(spec.adversary, stream, network.widths[stream] if on_features else len(classes))
        for stream in network.streams
    }
    match spec.kind:
        case "adapt-segnet":
            return AdaptSegNet(network, classes, adversaries, **options)
        case "cycada":
            return CyCADA(network, classes, adversaries, **options)
        case "clan":
            return CLAN(network, classes, adversaries, local=spec.local, discrepancy=spec.discrepancy, **options)
        case "fcns-in-the-wild":
            blank = torch.full((len(classes),), torch.nan, dtype=torch.float64)
            known = shares or ClassShares(blank, blank, blank)
            return FCNsInTheWild(network, classes, adversaries, shares=known, constraint=spec.constraint, **options)
