"""The named recipes for dense prediction: one plain function each, in one plain dict.

Names are ``<method>/<data>-<labels>``: ``mtpsl/nyuv2-onelabel``, ``multi-task/rooms-random``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from isthmus.training.dense.recipe import (
    CrossTaskSpec,
    DenseMethodSpec,
    DenseNetworkSpec,
    DenseRecipe,
    DWASpec,
    GradNormSpec,
    ImageAugmentSpec,
    ImageDomainSpec,
    LabelsSpec,
    MGDASpec,
    MTANetSpec,
    MTANSpec,
    MTPSLSpec,
    MultiTaskSpec,
    PascalContextSpec,
    PlainWeightingSpec,
    ResNetASPPSpec,
    RoomsSpec,
    ScanNetViewsSpec,
    SegNetSpec,
    SemiSupervisedSpec,
    SingleTaskSpec,
    StreetsSpec,
    UncertaintySpec,
    WeightingSpec,
    XTaskSpec,
)
from isthmus.training.recipe import StageSpec

RELEASED = MTPSLSpec(
    kind="mtpsl",
    reduction="sum",
    weight=2.0,
    regulariser=0.5,
    condition="pair",
    film_inputs=False,
    joint_space="map",
    encoding="gumbel",
    second_view=True,
)
"""MTPSL as its authors' code for NYUv2 has it; Cityscapes' recipes set ``weight`` to 1, as released."""

CROP = ImageAugmentSpec(scales=(1.2, 1.5), flip=0.0)
"""Eq. 2 asks for a random crop."""
RELEASED_VIEW = ImageAugmentSpec(flip=0.0, inverse_depth="divide", normals="interpolate")
"""The released second view: once more the scale-crop of the first, with what it does to depths and normals."""


UNIFORM = PlainWeightingSpec()


@dataclass(frozen=True)
class Row:
    """What sets a row of a table apart: a method, and a weighting, a network or second views where that is the point.

    ``released`` rows take the weights of the released code for their data set, ``modulated`` ones have FiLM layers,
    which some settings give a rate of their own.
    """

    method: DenseMethodSpec
    weighting: WeightingSpec = UNIFORM
    views: ImageAugmentSpec = CROP
    mtan: bool = False
    released: bool = False
    modulated: bool = False


def _released(**changes: Any) -> Row:
    modulated = changes.get("condition") != "none"
    return Row(RELEASED.model_copy(update=changes), views=RELEASED_VIEW, released=True, modulated=modulated)


VANILLA = MultiTaskSpec(kind="multi-task")

ROWS: dict[str, Row] = {
    "single-task": Row(SingleTaskSpec(kind="single-task")),
    "multi-task": Row(VANILLA),
    "multi-task-sum": Row(MultiTaskSpec(kind="multi-task", reduction="sum")),
    "semi-supervised": Row(SemiSupervisedSpec(kind="semi-supervised")),
    "perceptual-map": Row(CrossTaskSpec(kind="perceptual-map")),
    "direct-map": Row(CrossTaskSpec(kind="direct-map")),
    "contrastive": Row(CrossTaskSpec(kind="contrastive"), modulated=True),
    "discriminator": Row(CrossTaskSpec(kind="discriminator"), modulated=True),
    "mtpsl": Row(MTPSLSpec(kind="mtpsl"), modulated=True),
    "mtpsl-attached": Row(MTPSLSpec(kind="mtpsl", detach_feature=False), modulated=True),
    "mtpsl-released": _released(),
    "mtpsl-no-cond": Row(MTPSLSpec(kind="mtpsl", condition="none", film_inputs=False)),
    "mtpsl-no-reg": Row(MTPSLSpec(kind="mtpsl", regulariser=0.0), modulated=True),
    "mtpsl-released-no-cond": _released(condition="none"),
    "mtpsl-released-no-reg": _released(regulariser=0.0),
    "mtan": Row(VANILLA, mtan=True),
    "x-task": Row(XTaskSpec(kind="x-task")),
    "uncertainty": Row(VANILLA, UncertaintySpec(kind="uncertainty")),
    "dwa": Row(VANILLA, DWASpec(kind="dwa")),
    "gradnorm": Row(VANILLA, GradNormSpec(kind="gradnorm")),
    "mgda": Row(VANILLA, MGDASpec(kind="mgda")),
    "pcgrad": Row(VANILLA, PlainWeightingSpec(kind="pcgrad")),
    "cagrad": Row(VANILLA, PlainWeightingSpec(kind="cagrad")),
    "nash-mtl": Row(VANILLA, PlainWeightingSpec(kind="nash-mtl")),
    "upgrad": Row(VANILLA, PlainWeightingSpec(kind="upgrad")),
    "mtpsl-uncertainty": Row(MTPSLSpec(kind="mtpsl"), UncertaintySpec(kind="uncertainty"), modulated=True),
}
"""Rows of the paper's tables."""

LABELS: dict[str, LabelsSpec] = {
    "onelabel": LabelsSpec(setting="one"),
    "random": LabelsSpec(setting="random"),
    "full": LabelsSpec(setting="full"),
    "1to9": LabelsSpec(setting="ratio", ratio=(1, 9)),
    "9to1": LabelsSpec(setting="ratio", ratio=(9, 1)),
}

VIEWS_FOLDS: tuple[tuple[str, str], ...] = (
    ("scene0000", "scene0001"),
    ("scene0002", "scene0003"),
    ("scene0004", "scene0005"),
    ("scene0007", "scene0008"),
)
"""Test rooms of the four folds; the first room of the next fold is held out for validation."""

VIEWS_CLASSES = ("floor", "objects", "table", "wall")
"""Classes that their mean IoU counts: seen in at least four training rooms (of five) in every fold, and in at least
four test rooms of all folds together. Of 13 classes no more are: there are eight rooms."""


@dataclass(frozen=True)
class Setting:
    """A data set with some labels, and how everything is trained on it.

    ``film_scale`` multiplies the rate of FiLM layers, ``released_weight`` is that of the released consistency term.
    """

    source: ImageDomainSpec
    tasks: tuple[str, ...]
    network: DenseNetworkSpec
    augment: ImageAugmentSpec
    batch_size: int
    stage: StageSpec
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    measure_test: Literal["always", "chosen"] = "always"
    task_weights: dict[str, float] = field(default_factory=dict)
    counted_classes: tuple[str, ...] = ()
    film_scale: float = 1.0
    released_weight: float = 2.0


def recipe(row_name: str, setting_name: str, make: Callable[[], Setting]) -> DenseRecipe:
    """A row of a table in a setting. X-task learns its maps for a third of the steps first."""
    row, setting = ROWS[row_name], make()
    method, network = row.method, setting.network
    stages: tuple[StageSpec, ...] = (setting.stage,)
    if row.released:
        method = method.model_copy(update={"weight": setting.released_weight})
    if row.mtan and isinstance(network, SegNetSpec):
        network = MTANetSpec(width=network.width, stages=network.stages)
    if row.modulated and setting.film_scale != 1.0:
        stages = (setting.stage.model_copy(update={"learning_rate_scale": {"mapping.film": setting.film_scale}}),)
    if isinstance(method, XTaskSpec):
        maps = {"name": "maps", "steps": max(1, setting.stage.steps // 3), "frozen": ("network",)}
        stages = (setting.stage.model_copy(update=maps), setting.stage.model_copy(update={"frozen": ("maps",)}))
    return DenseRecipe(
        name=f"{row_name}/{setting_name}",
        source=setting.source,
        tasks=setting.tasks,
        augment=setting.augment,
        views=row.views,
        network=network,
        method=method,
        task_weights={} if isinstance(method, SingleTaskSpec) else setting.task_weights,
        weighting=row.weighting,
        counted_classes=setting.counted_classes,
        measure_test=setting.measure_test,
        batch_size=setting.batch_size,
        stages=stages,
        log_every=setting.log_every,
        evaluate_every=setting.evaluate_every,
        checkpoint_every=setting.checkpoint_every,
    )


SMALL = partial(
    Setting,
    tasks=("segmentation", "depth", "normals"),
    network=SegNetSpec(width=0.25, stages=3),
    augment=ImageAugmentSpec(scales=(1.0,)),
    batch_size=8,
    stage=StageSpec(steps=800, learning_rate=4e-3, weight_decay=0.0, schedule="onecycle"),
    log_every=20,
    evaluate_every=200,
    checkpoint_every=200,
)
"""For tables on two CPU cores: a quarter of the channels, flips only. Rate, schedule and augmentation were chosen by
the validation scores of vanilla multi-task learning on simulated rooms with one label, once, for all methods."""


def rooms(labels: str) -> Setting:
    """Simulated rooms, three tasks, a narrow SegNet: minutes on a laptop."""
    return SMALL(source=ImageDomainSpec(data=RoomsSpec(), labels=LABELS[labels], size=(30, 40)))


def streets(labels: str) -> Setting:
    """Simulated streets with PASCAL's five tasks; large enough for boundaries to be matched."""
    return SMALL(
        source=ImageDomainSpec(data=StreetsSpec(), labels=LABELS[labels], size=(60, 80)),
        tasks=("segmentation", "parts", "normals", "saliency", "edges"),
        measure_test="chosen",
    )


def imbalanced_streets(labels: str) -> Setting:
    """Simulated streets with Cityscapes' two tasks, of which one is rarely labelled."""
    return SMALL(
        source=ImageDomainSpec(data=StreetsSpec(), labels=LABELS[labels], size=(30, 40)),
        tasks=("segmentation", "inverse_depth"),
        released_weight=1.0,
    )


def views(fold: int, labels: str) -> Setting:
    """Real rooms: two are for testing, one for validation, five for training."""
    following = VIEWS_FOLDS[(fold + 1) % len(VIEWS_FOLDS)]
    data = ScanNetViewsSpec(test_rooms=VIEWS_FOLDS[fold], val_rooms=following[:1])
    return SMALL(
        source=ImageDomainSpec(data=data, labels=LABELS[labels]),
        counted_classes=VIEWS_CLASSES,
        network=SegNetSpec(width=0.125, stages=3),
        batch_size=4,
        stage=StageSpec(steps=400, learning_rate=4e-3, weight_decay=0.0, schedule="onecycle"),
        evaluate_every=100,
    )


def nyuv2(labels: str) -> Setting:
    """NYUv2 as MTAN and MTPSL train it: batches of 2 for 200 epochs, scale-crop without flip.

    The epochs are of the images that are left when a tenth is held out to choose checkpoints by, 716 of 795.
    """
    return Setting(
        source=ImageDomainSpec(data=MTANSpec(root=Path("nyuv2"), dataset="nyuv2"), labels=LABELS[labels]),
        tasks=("segmentation", "depth", "normals"),
        augment=ImageAugmentSpec(flip=0.0),
        network=SegNetSpec(),
        batch_size=2,
        film_scale=10.0,
        stage=StageSpec(steps=71_600, learning_rate=1e-4, weight_decay=0.0, schedule="step", decay_every=35_800),
        log_every=50,
        evaluate_every=2000,
        checkpoint_every=1000,
    )


def cityscapes(labels: str) -> Setting:
    """Cityscapes as MTPSL trains it: seven classes and inverse depth, batches of 8 for 200 epochs (of 2,678 images)."""
    return Setting(
        source=ImageDomainSpec(data=MTANSpec(root=Path("cityscapes2"), dataset="cityscapes"), labels=LABELS[labels]),
        tasks=("segmentation", "inverse_depth"),
        augment=ImageAugmentSpec(flip=0.5),
        network=SegNetSpec(),
        batch_size=8,
        film_scale=0.1,
        released_weight=1.0,
        stage=StageSpec(steps=66_800, learning_rate=1e-4, weight_decay=0.0, schedule="step", decay_every=33_400),
        log_every=50,
        evaluate_every=2000,
        checkpoint_every=1000,
    )


def pascal(labels: str) -> Setting:
    """PASCAL-Context with five tasks on a dilated ResNet-18; ``network.weights`` names ImageNet weights.

    100 epochs of the 4,498 images that are left when a tenth is held out. The published protocol also rotates by up to
    20 degrees and zooms out; neither is offered.
    """
    return Setting(
        source=ImageDomainSpec(data=PascalContextSpec(root=Path("PASCAL_MT")), labels=LABELS[labels], size=(512, 512)),
        tasks=("segmentation", "parts", "normals", "saliency", "edges"),
        augment=ImageAugmentSpec(scales=(1.0, 1.25)),
        network=ResNetASPPSpec(),
        task_weights={"segmentation": 1, "parts": 2, "saliency": 5, "edges": 50, "normals": 10},
        batch_size=6,
        measure_test="chosen",
        stage=StageSpec(steps=75_000, learning_rate=1e-4, weight_decay=1e-4, schedule="poly"),
        log_every=50,
        evaluate_every=4000,
        checkpoint_every=1000,
    )


def dense_recipes() -> dict[str, Callable[[], DenseRecipe]]:
    """All of them by name.

    PASCAL has no MTAN (a SegNet), and none of the rows with a network per pair of tasks: the paper leaves them out for
    their cost as well.
    """
    settings: dict[str, Callable[[], Setting]] = {}
    for labels in ("onelabel", "random", "full"):
        settings[f"rooms-{labels}"] = partial(rooms, labels)
        settings[f"streets-{labels}"] = partial(streets, labels)
        settings[f"nyuv2-{labels}"] = partial(nyuv2, labels)
        settings[f"pascal-{labels}"] = partial(pascal, labels)
        for fold in range(len(VIEWS_FOLDS)):
            settings[f"views{fold + 1}-{labels}"] = partial(views, fold, labels)
    for labels in ("1to9", "9to1"):
        settings[f"streets-{labels}"] = partial(imbalanced_streets, labels)
    for labels in ("onelabel", "full", "1to9", "9to1"):
        settings[f"cityscapes-{labels}"] = partial(cityscapes, labels)
    without = {"pascal": ("mtan", "direct-map", "perceptual-map", "x-task")}
    return {
        f"{row}/{name}": partial(recipe, row, name, make)
        for name, make in settings.items()
        for row in ROWS
        if row not in without.get(name.split("-")[0], ())
    }
