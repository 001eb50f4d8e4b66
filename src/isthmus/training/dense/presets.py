"""The named recipes for dense prediction: one plain function each, in one plain dict.

Names are ``<method>/<data>-<labels>``: ``mtpsl/nyuv2-onelabel``, ``multi-task/rooms-random``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.training.dense.recipe import (
    CrossTaskSpec,
    DenseMethodSpec,
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
    detach_feature=True,
    encoding="gumbel",
    second_view=True,
)
"""MTPSL as its authors' code for NYUv2 has it (Cityscapes: ``weight`` 1)."""

METHODS: dict[str, DenseMethodSpec] = {
    "single-task": SingleTaskSpec(kind="single-task"),
    "multi-task": MultiTaskSpec(kind="multi-task"),
    "multi-task-sum": MultiTaskSpec(kind="multi-task", reduction="sum"),
    "semi-supervised": SemiSupervisedSpec(kind="semi-supervised"),
    "perceptual-map": CrossTaskSpec(kind="perceptual-map"),
    "direct-map": CrossTaskSpec(kind="direct-map"),
    "contrastive": CrossTaskSpec(kind="contrastive"),
    "discriminator": CrossTaskSpec(kind="discriminator"),
    "mtpsl": MTPSLSpec(kind="mtpsl"),
    "mtpsl-released": RELEASED,
    "mtpsl-no-cond": MTPSLSpec(kind="mtpsl", condition="none"),
    "mtpsl-no-reg": MTPSLSpec(kind="mtpsl", regulariser=0.0),
    "mtpsl-released-no-cond": RELEASED.model_copy(update={"condition": "none"}),
    "mtpsl-released-no-reg": RELEASED.model_copy(update={"regulariser": 0.0}),
    "mtan": MultiTaskSpec(kind="multi-task"),
    "x-task": XTaskSpec(kind="x-task"),
}
"""Rows of the paper's tables; ``mtan`` is vanilla multi-task learning of another network."""

WEIGHTINGS: dict[str, WeightingSpec] = {
    "uncertainty": UncertaintySpec(kind="uncertainty"),
    "dwa": DWASpec(kind="dwa"),
    "gradnorm": GradNormSpec(kind="gradnorm"),
    "mgda": MGDASpec(kind="mgda"),
    "pcgrad": PlainWeightingSpec(kind="pcgrad"),
    "cagrad": PlainWeightingSpec(kind="cagrad"),
    "nash-mtl": PlainWeightingSpec(kind="nash-mtl"),
    "upgrad": PlainWeightingSpec(kind="upgrad"),
}
"""Rows that are vanilla multi-task learning with another weighting."""

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

VIEWS_CLASSES = ("chair", "floor", "furniture", "objects", "sofa", "table", "tv", "wall", "window")
"""Classes that are seen in at least four of the eight rooms: those that their mean IoU counts."""


def rows() -> dict[str, dict[str, Any]]:
    """What sets each row of a table apart: its method, and a weighting or a network where that is the point."""
    table: dict[str, dict[str, Any]] = {name: {"method": method} for name, method in METHODS.items()}
    for name, weighting in WEIGHTINGS.items():
        table[name] = {"method": METHODS["multi-task"], "weighting": weighting}
    table["mtpsl-uncertainty"] = {"method": METHODS["mtpsl"], "weighting": WEIGHTINGS["uncertainty"]}
    return table


def dense(row: str, name: str, fields: dict[str, Any]) -> DenseRecipe:
    """A row of a table in a setting. X-task learns its maps for a third of the steps first."""
    values = {**fields, **rows()[row], "name": f"{row}/{name}"}
    network, stage = values["network"], values["stages"][0]
    if row == "mtan":
        values["network"] = MTANetSpec(width=getattr(network, "width", 1.0), stages=getattr(network, "stages", 5))
    if row == "x-task":
        maps = stage.model_copy(
            update={
                "name": "maps",
                "steps": max(1, stage.steps // 3),
                "learning_rate_scale": {},
                "frozen": ("network",),
            }
        )
        values["stages"] = (maps, stage.model_copy(update={"frozen": ("maps",)}))
    if row.startswith("mtpsl") and values.pop("film_rate", None) is not None and "no-cond" not in row:
        scaled = stage.model_copy(update={"learning_rate_scale": {"mapping.film": fields["film_rate"]}})
        values["stages"] = (scaled,)
    values.pop("film_rate", None)
    return DenseRecipe(**values)


def rooms(labels: str) -> dict[str, Any]:
    """Simulated rooms, three tasks, a narrow SegNet: minutes on a laptop."""
    return {
        "source": ImageDomainSpec(data=RoomsSpec(), labels=LABELS[labels], size=(30, 40)),
        "tasks": ("segmentation", "depth", "normals"),
        **SMALL,
    }


def streets(labels: str) -> dict[str, Any]:
    """Simulated streets: PASCAL's five tasks, or Cityscapes' two where the labels are imbalanced."""
    five = ("segmentation", "parts", "normals", "saliency", "edges")
    return {
        "source": ImageDomainSpec(data=StreetsSpec(), labels=LABELS[labels], size=(30, 40)),
        "tasks": ("segmentation", "inverse_depth") if "to" in labels else five,
        "measure_test": "always" if "to" in labels else "chosen",
        **SMALL,
    }


SMALL: dict[str, Any] = {
    "augment": ImageAugmentSpec(scales=(1.0,)),
    "network": SegNetSpec(width=0.25, stages=3),
    "batch_size": 8,
    "stages": (StageSpec(steps=800, learning_rate=4e-3, weight_decay=0.0, schedule="onecycle"),),
    "log_every": 20,
    "evaluate_every": 200,
    "checkpoint_every": 200,
}
"""For tables on two CPU cores: a quarter of the channels, flips only. Rate, schedule and augmentation were chosen by
the validation scores of vanilla multi-task learning on simulated rooms with one label, once, for all methods."""


def views(fold: int, labels: str) -> dict[str, Any]:
    """Real rooms: two are for testing, one for validation, five for training."""
    following = VIEWS_FOLDS[(fold + 1) % len(VIEWS_FOLDS)]
    data = ScanNetViewsSpec(test_rooms=VIEWS_FOLDS[fold], val_rooms=following[:1])
    return {
        **SMALL,
        "source": ImageDomainSpec(data=data, labels=LABELS[labels]),
        "tasks": ("segmentation", "depth", "normals"),
        "counted_classes": VIEWS_CLASSES,
        "network": SegNetSpec(width=0.125, stages=3),
        "batch_size": 4,
        "stages": (StageSpec(steps=400, learning_rate=4e-3, weight_decay=0.0, schedule="onecycle"),),
        "evaluate_every": 100,
    }


def nyuv2(labels: str) -> dict[str, Any]:
    """NYUv2 as MTAN and MTPSL train it: batches of 2 for 200 epochs, scale-crop without flip."""
    return {
        "source": ImageDomainSpec(data=MTANSpec(root=Path("nyuv2"), dataset="nyuv2"), labels=LABELS[labels]),
        "tasks": ("segmentation", "depth", "normals"),
        "augment": ImageAugmentSpec(flip=0.0),
        "network": SegNetSpec(),
        "batch_size": 2,
        "film_rate": 10.0,
        "stages": (StageSpec(steps=79_400, learning_rate=1e-4, weight_decay=0.0, schedule="step", decay_every=39_700),),
        "log_every": 50,
        "evaluate_every": 2000,
        "checkpoint_every": 1000,
    }


def cityscapes(labels: str) -> dict[str, Any]:
    """Cityscapes as MTPSL trains it: seven classes and inverse depth, batches of 8 for 200 epochs."""
    return {
        "source": ImageDomainSpec(data=MTANSpec(root=Path("cityscapes2"), dataset="cityscapes"), labels=LABELS[labels]),
        "tasks": ("segmentation", "inverse_depth"),
        "augment": ImageAugmentSpec(flip=0.5),
        "network": SegNetSpec(),
        "batch_size": 8,
        "film_rate": 0.1,
        "stages": (StageSpec(steps=74_400, learning_rate=1e-4, weight_decay=0.0, schedule="step", decay_every=37_200),),
        "log_every": 50,
        "evaluate_every": 2000,
        "checkpoint_every": 1000,
    }


def pascal(labels: str) -> dict[str, Any]:
    """PASCAL-Context with five tasks on a dilated ResNet-18; ``network.weights`` names ImageNet weights."""
    return {
        "source": ImageDomainSpec(
            data=PascalContextSpec(root=Path("PASCAL_MT")), labels=LABELS[labels], size=(512, 512)
        ),
        "tasks": ("segmentation", "parts", "normals", "saliency", "edges"),
        "augment": ImageAugmentSpec(scales=(1.0, 1.25)),
        "network": ResNetASPPSpec(),
        "task_weights": {"segmentation": 1, "parts": 2, "saliency": 5, "edges": 50, "normals": 10},
        "batch_size": 6,
        "measure_test": "chosen",
        "stages": (StageSpec(steps=83_300, learning_rate=1e-4, weight_decay=1e-4, schedule="poly"),),
        "log_every": 50,
        "evaluate_every": 4000,
        "checkpoint_every": 1000,
    }


def dense_recipes() -> dict[str, Callable[[], DenseRecipe]]:
    """All of them by name."""
    settings: dict[str, Callable[[], dict[str, Any]]] = {}
    for labels in ("onelabel", "random", "full"):
        settings[f"rooms-{labels}"] = partial(rooms, labels)
        settings[f"streets-{labels}"] = partial(streets, labels)
        settings[f"nyuv2-{labels}"] = partial(nyuv2, labels)
        settings[f"pascal-{labels}"] = partial(pascal, labels)
        for fold in range(len(VIEWS_FOLDS)):
            settings[f"views{fold + 1}-{labels}"] = partial(views, fold, labels)
    for labels in ("1to9", "9to1"):
        settings[f"streets-{labels}"] = partial(streets, labels)
    for labels in ("onelabel", "full", "1to9", "9to1"):
        settings[f"cityscapes-{labels}"] = partial(cityscapes, labels)
    return {
        f"{row}/{name}": partial(_build, row, name, fields)
        for name, fields in settings.items()
        for row in rows()
        if not (row == "mtan" and name.startswith("pascal"))
    }


def _build(row: str, name: str, fields: Callable[[], dict[str, Any]]) -> DenseRecipe:
    return dense(row, name, fields())
