"""The named recipes that carry a main task across domains with the help of an anchor task (TADA, HeadFreeze).

Names are ``<row>/<pair of domains>``: ``headfreeze/rooms``, ``mtl-both-dann/faces``. All rows of a pair train for the
same number of steps on the same data; they differ in which labels they may read, in what is frozen, and in adversaries.
TADA's loss weight lambda ("so losses from different domains and tasks have similar magnitudes") is the anchor's entry
in ``task_weights``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from isthmus.training.dense.presets import VIEWS_FOLDS
from isthmus.training.dense.recipe import (
    AdversarialSpec,
    AdversarySpec,
    DenseMethodSpec,
    DenseRecipe,
    FacesSpec,
    ImageAugmentSpec,
    ImageDomainSpec,
    ImageFolderSpec,
    KeypointsSpec,
    LabelsSpec,
    MultiTaskSpec,
    ResNetFPNSpec,
    RoomsSpec,
    ScanNetViewsSpec,
    YaleBSpec,
)
from isthmus.training.recipe import StageSpec

BOUNDARY = "up2"
"""HeadFreeze freezes everything behind the second upsampling (TADA, Section 4.4)."""

TAPS: dict[str, tuple[str, ...]] = {
    "layer3": ("layer3",),
    "layer4": ("layer4",),
    "up1": ("up1",),
    "up3": ("up3",),
    "out": ("output/main",),
    "layer4-out": ("layer4", "output/main"),
    "layer4-up3": ("layer4", "up3"),
    "up3-out": ("up3", "output/main"),
}
"""Where TADA's supplement put its adversaries (Table 5)."""


@dataclass(frozen=True)
class Row:
    """Which tasks' labels source and target give, whether the tail is frozen, and the adversaries by tap."""

    source: Literal["main", "both"]
    target: Literal["none", "anchor", "both"]
    freeze: bool = False
    adversary: Literal["", "dann", "output", "multilevel", "advent"] = ""
    taps: tuple[str, ...] = ()


LABELS: dict[str, Row] = {
    "baseline": Row("main", "none"),
    "mtl-source": Row("both", "none"),
    "mtl-target": Row("main", "anchor"),
    "mtl-both": Row("both", "anchor"),
    "headfreeze": Row("both", "anchor", freeze=True),
}
"""TADA's Figure 2: baseline, Eq. 4, Eq. 5, Eq. 6, HeadFreeze."""


def anchor_rows() -> dict[str, Row]:
    """Rows of TADA's tables and of its supplement."""
    rows = dict(LABELS)
    for name, row in LABELS.items():
        rows[f"{name}-dann"] = Row(row.source, row.target, row.freeze, "dann", ("layer4",))
        rows[f"{name}-output"] = Row(row.source, row.target, row.freeze, "output", ("output/main",))
    rows["mtl-both-multilevel"] = Row("both", "anchor", False, "multilevel", ("output/main", "layer4/main"))
    rows["mtl-both-advent"] = Row("both", "anchor", False, "advent", ("output/anchor",))
    for name, taps in TAPS.items():
        rows[f"mtl-both-dann-{name}"] = Row("both", "anchor", False, "dann", taps)
    rows["oracle"] = Row("both", "both")
    return rows


SHIFTED = ImageAugmentSpec(scales=(1.0,), flip=0.0, colour_shift=0.1)
"""TADA shifts colours at random (by how much it does not say) and neither transforms nor flips images, "due to the
nature of surface normal estimation"."""
UNCHANGED = ImageAugmentSpec(scales=(1.0,), flip=0.0)


NARROW_POINTS = KeypointsSpec()
# On 64 x 64 pixels and in a few hundred steps, narrower Gaussians than these are not learnt at all.
WIDE_POINTS = KeypointsSpec(sigma=5.0)


@dataclass(frozen=True)
class Pair:
    """Two domains, a main task, an anchor task, and how long to train.

    ``mask`` names the task whose labels say where the object is, for adversaries; ``discriminator`` are the layers of
    the discriminator (TADA: 2 with BatchNorm for faces, 5 for rooms).
    """

    source: ImageDomainSpec
    target: ImageDomainSpec
    main: str
    anchor: str
    anchor_weight: float
    network: ResNetFPNSpec
    steps: int
    batch_size: int
    discriminator: Literal[2, 5]
    augment: ImageAugmentSpec = SHIFTED
    mask: Literal["anchor"] | None = None
    evaluate_every: int = 50
    learning_rate: float = 4e-3
    keypoints: KeypointsSpec = NARROW_POINTS
    dann_weight: float = 0.1


SMALL = ResNetFPNSpec(layers=18, width=0.25, decoder_channels=64)
"""For tables on two CPU cores; without pretrained weights."""
SMALL_STEPS, DISCRIMINATOR_RATE = 300, 0.01
PUBLISHED = ResNetFPNSpec(layers=50, decoder_channels=256)
"""TADA's network; ``network.weights`` names ImageNet weights."""


def rooms() -> Pair:
    """Simulated rooms, synthetic to camera-like: normals with segmentation as the anchor."""
    return Pair(
        source=ImageDomainSpec(data=RoomsSpec(), size=(60, 80)),
        target=ImageDomainSpec(data=RoomsSpec(style="camera", seed=1), size=(60, 80)),
        main="normals",
        anchor="segmentation",
        anchor_weight=0.1,
        network=SMALL,
        steps=SMALL_STEPS,
        batch_size=8,
        discriminator=5,
    )


def views(fold: int) -> Pair:
    """Simulated rooms to views of real rooms, whole rooms held out."""
    following = VIEWS_FOLDS[(fold + 1) % len(VIEWS_FOLDS)]
    data = ScanNetViewsSpec(test_rooms=VIEWS_FOLDS[fold], val_rooms=following[:1])
    pair = rooms()
    return Pair(**{**vars(pair), "target": ImageDomainSpec(data=data, size=(60, 80))})


def faces(domain: Literal["source", "source-frontal"]) -> Pair:
    """Simulated faces, clean to camera-like: normals with 3-D keypoints as the anchor."""
    return Pair(
        source=ImageDomainSpec(data=FacesSpec(domain=domain), size=(64, 64)),
        target=ImageDomainSpec(data=FacesSpec(domain="target", seed=1), size=(64, 64)),
        main="normals",
        anchor="keypoints",
        anchor_weight=5.0,
        keypoints=WIDE_POINTS,
        network=SMALL,
        steps=SMALL_STEPS,
        batch_size=8,
        discriminator=2,
        dann_weight=0.3,
        mask="anchor",
    )


def yale() -> Pair:
    """Simulated faces to the real Yale B faces: normals with the images' own edges as the anchor."""
    test = tuple(f"yaleB{number:02d}" for number in (2, 5, 8, 12, 17, 20, 22, 25, 28))
    return Pair(
        source=ImageDomainSpec(
            data=FacesSpec(domain="source", size=(96, 84), framing="face", grey=True), size=(64, 56)
        ),
        target=ImageDomainSpec(data=YaleBSpec(test_subjects=test), size=(64, 56)),
        main="normals",
        anchor="edges",
        anchor_weight=0.1,
        network=SMALL,
        steps=SMALL_STEPS,
        batch_size=8,
        discriminator=2,
        dann_weight=0.3,
        augment=UNCHANGED,  # Shifted by channel, grey images would be coloured.
    )


def folders(root: str, main: str, anchor: str, size: tuple[int, int], discriminator: Literal[2, 5]) -> Pair:
    """Two folders of images and labels, ``<root>/source`` and ``<root>/target``, at the paper's size of network."""
    return Pair(
        source=ImageDomainSpec(data=ImageFolderSpec(root=Path(root, "source")), size=size),
        target=ImageDomainSpec(data=ImageFolderSpec(root=Path(root, "target")), size=size),
        main=main,
        anchor=anchor,
        anchor_weight=50.0 if anchor == "keypoints" else 0.1,
        network=PUBLISHED,
        steps=40_000,
        batch_size=8,
        discriminator=discriminator,
        mask="anchor" if anchor == "keypoints" else None,
        keypoints=KeypointsSpec(sigma=6.0),
        evaluate_every=1000,
        learning_rate=1e-4,
    )


def pairs() -> dict[str, Callable[[], Pair]]:
    """All pairs of domains by name."""
    found: dict[str, Callable[[], Pair]] = {
        "rooms": rooms,
        "faces": partial(faces, "source"),
        "faces-frontal": partial(faces, "source-frontal"),
        "yale": yale,
        "sfs-facewarehouse": partial(folders, "sfs-facewarehouse", "normals", "keypoints", (256, 256), 2),
        "suncg-nyud": partial(folders, "suncg-nyud", "normals", "segmentation", (240, 320), 5),
        "folder": partial(folders, "domains", "normals", "segmentation", (240, 320), 5),
    }
    for fold in range(len(VIEWS_FOLDS)):
        found[f"rooms-views{fold + 1}"] = partial(views, fold)
    return found


def anchor_recipe(row_name: str, pair_name: str, make: Callable[[], Pair]) -> DenseRecipe:
    """A row of TADA's tables on a pair of domains."""
    row, pair = anchor_rows()[row_name], make()
    everything = ("main", "anchor")
    uses_anchor = row.source == "both" or row.target != "none"
    source_tasks = everything if row.source == "both" else ("main",)
    target_tasks: tuple[str, ...] = {"none": (), "anchor": ("anchor",), "both": everything}[row.target]
    whole = StageSpec(
        name="train",
        steps=pair.steps,
        learning_rate=pair.learning_rate,
        weight_decay=0.0,
        optimizers={"adversaries": "sgd"} if row.adversary else {},
        learning_rate_scale={"adversaries": DISCRIMINATOR_RATE / pair.learning_rate} if row.adversary else {},
    )
    stages: tuple[StageSpec, ...] = (whole,)
    if row.freeze:
        half = pair.steps // 2
        first = whole.model_copy(update={"name": "source", "steps": half, "domains": ("source",)})
        second = {"name": "frozen", "steps": pair.steps - half, "frozen_after": BOUNDARY}
        stages = (first, whole.model_copy(update={**second, "start_from": "before-overfit"}))
    return DenseRecipe(
        name=f"{row_name}/{pair_name}",
        source=pair.source.model_copy(update={"labels": LabelsSpec(tasks=source_tasks)}),
        target=pair.target.model_copy(update={"labels": LabelsSpec(tasks=target_tasks)}),
        tasks=everything if uses_anchor else ("main",),
        main=pair.main,
        anchor=pair.anchor,
        augment=pair.augment,
        network=pair.network,
        method=_method(row, pair),
        task_weights={"anchor": pair.anchor_weight} if uses_anchor else {},
        keypoints=pair.keypoints,
        batch_size=pair.batch_size,
        stages=stages,
        log_every=20,
        evaluate_every=pair.evaluate_every,
        checkpoint_every=pair.evaluate_every,
        measure_test="chosen",
    )


def _method(row: Row, pair: Pair) -> DenseMethodSpec:
    if not row.adversary:
        return MultiTaskSpec(kind="multi-task", reduction="sum", joint_batches=True)
    # Masked in one domain only, maps would be told apart by their zeros.
    mask = pair.mask if row.source == "both" and row.target != "none" else None
    adversaries = tuple(_adversary(row, tap, pair, mask) for tap in row.taps)
    return AdversarialSpec(kind="adversarial", adversaries=adversaries)


def _adversary(row: Row, tap: str, pair: Pair, mask: str | None) -> AdversarySpec:
    """DANN by reversal on features and, as TADA's supplement has it, on outputs; AdaptSegNet and ADVENT on outputs."""
    network: dict[str, Any] = {"layers": pair.discriminator, "batch_norm": pair.discriminator == 2}
    stabilisers: dict[str, Any] = {"input_noise": 0.1, "activation_noise": 0.1, "label_noise": 0.1, "mask": mask}
    if row.adversary == "dann":
        return AdversarySpec(tap=tap, game="reversal", weight=pair.dann_weight, ramp=True, **network, **stabilisers)
    weight = 0.01 if tap.startswith("output/") else 0.002
    information = row.adversary == "advent"
    return AdversarySpec(
        tap=tap, game="non-saturating", weight=weight, self_information=information, **network, **stabilisers
    )


def anchor_recipes() -> dict[str, Callable[[], DenseRecipe]]:
    """All of them by name. Entropy maps need an anchor with classes."""
    return {
        f"{row}/{name}": partial(anchor_recipe, row, name, make)
        for name, make in pairs().items()
        for row in anchor_rows()
        if row != "mtl-both-advent" or make().anchor == "segmentation"
    }
