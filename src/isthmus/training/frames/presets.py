"""The named recipes for LiDAR and camera: ``<row>/<pair of domains>``, as in DsCML's Table 2 and its ablations.

All rows of a pair train for the same number of steps on the same data. Rows with ``-pl`` train a second time for as
many steps, from the weights that they began with (as xMUDA does; ``stages.1.start_from: last`` goes on instead), with
pseudo-labels of the target that the first model makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from isthmus.training.frames.recipe import (
    A2D2Spec,
    BaselineSpec,
    CamVidSpec,
    CoralSpec,
    DsCMLSpec,
    FeatureAdversarySpec,
    FrameAugmentSpec,
    FrameDomainSpec,
    FrameMethodSpec,
    FrameRecipe,
    ImageUNetSpec,
    LidarStreetsSpec,
    MinEntropySpec,
    NuScenesSpec,
    PatchSpec,
    PointAdversarySpec,
    SemanticKITTISpec,
    SparseUNetSpec,
    SweepsSpec,
    VirtualKITTISpec,
    XMUDASpec,
)
from isthmus.training.recipe import PseudoLabelSpec, StageSpec

SQUARE = PatchSpec(offsets="zero")
CMAL_GAME = PointAdversarySpec(weight=0.05, discriminator="chunks")


@dataclass(frozen=True)
class Released:
    """Weights in DsCML's released code: of imitation, of the games by the target's stream, of a game's two sides."""

    source_weight: float = 0.8
    target_weight: float = 0.1
    game_2d: float = 0.07
    game_3d: float = 0.05
    sides: tuple[float, float] = (0.1, 0.2)


@dataclass(frozen=True)
class Pair:
    """Two domains, and how long to train on what network.

    ``source_weight`` and ``target_weight`` are those of imitation in xMUDA, which DsCML's paper leaves open.
    """

    source: FrameDomainSpec
    target: FrameDomainSpec
    image_network: ImageUNetSpec
    point_network: SparseUNetSpec
    steps: int
    batch_size: int
    evaluate_every: int
    learning_rate: float = 1e-3
    source_weight: float = 1.0
    target_weight: float = 0.1
    released: Released = Released()
    streams: tuple[Literal["2D", "3D"], ...] = ("2D", "3D")


def methods(pair: Pair) -> dict[str, FrameMethodSpec]:
    """Rows by name; those that need two streams only where the pair has them.

    ``target-statistics`` is a control that no paper has: labels of the source alone, but the target's frames pass
    through the networks in training, as in every method of adaptation, so that BatchNorm's statistics are of both
    domains. What a method gains beyond it is gained by its losses. ``cml`` imitates through mimicry heads and is then
    xMUDA to the last bit; ``cml-classifier`` is the letter of Eq. 1.
    """
    rows: dict[str, FrameMethodSpec] = {
        "source-only": BaselineSpec(kind="source-only"),
        "target-statistics": MinEntropySpec(kind="min-entropy", weight=0.0),
        "min-entropy": MinEntropySpec(kind="min-entropy"),
        "fcns-in-the-wild": FeatureAdversarySpec(kind="fcns-in-the-wild"),
        "cycada-features": FeatureAdversarySpec(kind="cycada"),
        "adapt-segnet": FeatureAdversarySpec(kind="adapt-segnet"),
        "clan": FeatureAdversarySpec(kind="clan"),
        "deep-coral": CoralSpec(kind="coral", form="deep"),
        "log-coral": CoralSpec(kind="coral"),
        "oracle": BaselineSpec(kind="oracle"),
    }
    if len(pair.streams) < 2:
        return rows
    weights = {"source_weight": pair.source_weight, "target_weight": pair.target_weight}

    def dscml(**options: object) -> DsCMLSpec:
        return DsCMLSpec.model_validate({"kind": "dscml", **weights, **options})

    given = pair.released
    released = {
        "patch": SQUARE,
        "variant": "released",
        "source_weight": given.source_weight,
        "target_weight": given.target_weight,
    }

    return rows | {
        "xmuda": XMUDASpec(kind="xmuda", **weights),
        "cml": dscml(patch=None),
        "cml-classifier": dscml(patch=None, student="classifier"),
        "scml": dscml(patch=SQUARE),
        "scml-released": dscml(**released),
        "dscml": dscml(),
        "dscml-3x3": dscml(patch=PatchSpec(size=3)),
        "dscml-mean": dscml(terms="mean"),
        "dscml-none": dscml(terms="none"),
        "dscml-probabilities": dscml(pooled="probabilities"),
        "cmal": dscml(alignment="crossed", adversary=CMAL_GAME),
        "cmal-3x3": dscml(patch=PatchSpec(size=3), alignment="crossed", adversary=CMAL_GAME),
        "cmal-same": dscml(alignment="same", adversary=CMAL_GAME),
        "cmal-both": dscml(alignment="both", adversary=CMAL_GAME),
        "cmal-released": dscml(
            **released,
            alignment="crossed",
            adversary=CMAL_GAME.model_copy(update={"sides": given.sides}),
            adversary_weights={"2D": given.game_2d, "3D": given.game_3d},
            mimicry_shown=True,
        ),
        "cmal-literal": dscml(alignment="crossed", adversary=CMAL_GAME.model_copy(update={"game": "literal"})),
    }


PSEUDO_LABELLED = {"pl": "source-only", "xmuda-pl": "xmuda", "dscml-pl": "dscml", "cmal-pl": "cmal"}
"""Rows with a second stage on pseudo-labels, by the row that makes them."""

ADVERSARY_RATE = 0.1
"""Of the streams' learning rate: discriminators learn at 1e-4 beside 1e-3 in DsCML's released code."""

SMALL_IMAGE = ImageUNetSpec(layers=18, width=0.25)
SMALL_POINTS = SparseUNetSpec(channels=8, levels=5, voxel_size=0.2)
PUBLISHED_STEPS = 100_000


def streets(source: str, target: str) -> Pair:
    """Simulated streets in two domains: light, country or sensor."""

    def domain(name: str, seed: int) -> FrameDomainSpec:
        data = LidarStreetsSpec.model_validate({"domain": name, "seed": seed})
        return FrameDomainSpec(data=data, augment=FrameAugmentSpec(mirror="y"))

    return Pair(
        source=domain(source, 0),
        target=domain(target, 1),
        image_network=SMALL_IMAGE,
        point_network=SMALL_POINTS,
        steps=300,
        batch_size=2,
        evaluate_every=150,
        learning_rate=3e-3,
    )


def nuscenes(
    source: Literal["usa", "day"],
    target: Literal["singapore", "night"],
    protocol: Literal["nuscenes-box5", "nuscenes-seg5", "nuscenes-seg6"],
) -> Pair:
    """nuScenes at xMUDA's sizes."""
    augment = FrameAugmentSpec(mirror="x")
    size = (225, 400)
    return Pair(
        source=FrameDomainSpec(
            data=NuScenesSpec(root=Path("nuscenes"), domain=source, protocol=protocol, validation_share=0.05),
            size=size,
            augment=augment,
        ),
        target=FrameDomainSpec(
            data=NuScenesSpec(root=Path("nuscenes"), domain=target, protocol=protocol), size=size, augment=augment
        ),
        image_network=ImageUNetSpec(),
        point_network=SparseUNetSpec(),
        steps=PUBLISHED_STEPS,
        batch_size=8,
        evaluate_every=5000,
        released=Released() if source == "usa" else Released(source_weight=0.6),
    )


def to_semantickitti(source: A2D2Spec | VirtualKITTISpec, protocol: str) -> Pair:
    """A2D2 or Virtual KITTI to SemanticKITTI: crops of 302 x 480 in training, aligned with the bottom."""
    crop = FrameAugmentSpec(mirror="y", crop=(302, 480))
    data = SemanticKITTISpec.model_validate({"root": "semantickitti", "protocol": protocol})
    return Pair(
        source=FrameDomainSpec(
            data=source,
            size=(302, 480) if isinstance(source, A2D2Spec) else None,
            augment=FrameAugmentSpec(mirror="y") if isinstance(source, A2D2Spec) else crop,
        ),
        # Sequences have images of slightly different sizes.
        target=FrameDomainSpec(data=data, size=(370, 1226), augment=crop),
        image_network=ImageUNetSpec(),
        point_network=SparseUNetSpec(),
        steps=PUBLISHED_STEPS,
        batch_size=8,
        evaluate_every=5000,
        source_weight=0.1,
        target_weight=0.01,
        released=Released(0.05, 0.001, game_2d=0.07, game_3d=0.07, sides=(0.1, 0.15)),
    )


def sweeps(target: Literal["ika", "semantickitti"]) -> Pair:
    """Real sweeps of one sensor to those of another, without images: what lies ahead, which is all that ika sees."""
    return Pair(
        source=FrameDomainSpec(data=SweepsSpec(sensor="nuscenes", front=True)),
        target=FrameDomainSpec(data=SweepsSpec(sensor=target, front=target != "ika")),
        image_network=SMALL_IMAGE,
        point_network=SMALL_POINTS,
        steps=300,
        batch_size=2,
        evaluate_every=100,
        streams=("3D",),
    )


def camvid() -> Pair:
    """Real photographs by day to those at dusk, without sweeps."""
    return Pair(
        source=FrameDomainSpec(data=CamVidSpec(light="day")),
        target=FrameDomainSpec(data=CamVidSpec(light="dusk")),
        image_network=SMALL_IMAGE,
        point_network=SMALL_POINTS,
        steps=300,
        batch_size=2,
        evaluate_every=100,
        streams=("2D",),
    )


def pairs() -> dict[str, Callable[[], Pair]]:
    """All pairs of domains by name."""
    return {
        "streets-light": partial(streets, "day", "night"),
        "streets-country": partial(streets, "country-a", "country-b"),
        "streets-sensor": partial(streets, "lidar64", "lidar16"),
        "usa-singapore": partial(nuscenes, "usa", "singapore", "nuscenes-box5"),
        "day-night": partial(nuscenes, "day", "night", "nuscenes-box5"),
        "usa-singapore-seg5": partial(nuscenes, "usa", "singapore", "nuscenes-seg5"),
        "day-night-seg5": partial(nuscenes, "day", "night", "nuscenes-seg5"),
        "usa-singapore-seg6": partial(nuscenes, "usa", "singapore", "nuscenes-seg6"),
        "day-night-seg6": partial(nuscenes, "day", "night", "nuscenes-seg6"),
        "a2d2-semantickitti": partial(to_semantickitti, A2D2Spec(root=Path("a2d2")), "semantickitti-10"),
        "virtualkitti-semantickitti": partial(
            to_semantickitti, VirtualKITTISpec(root=Path("virtualkitti")), "semantickitti-vkitti6"
        ),
        "sweeps-ika": partial(sweeps, "ika"),
        "sweeps-semantickitti": partial(sweeps, "semantickitti"),
        "camvid": camvid,
    }


def frame_recipe(row: str, pair_name: str, make: Callable[[], Pair]) -> FrameRecipe:
    """A row of the tables on a pair of domains."""
    pair = make()
    method = methods(pair)[PSEUDO_LABELLED.get(row, row)]
    against = isinstance(method, FeatureAdversarySpec) or (isinstance(method, DsCMLSpec) and method.alignment)
    first = StageSpec(
        name="train",
        steps=pair.steps,
        learning_rate=pair.learning_rate,
        learning_rate_scale={"adversaries": ADVERSARY_RATE} if against else {},
        weight_decay=0.0,
        schedule="poly",
    )
    stages: tuple[StageSpec, ...] = (first,)
    if row in PSEUDO_LABELLED:
        labels = PseudoLabelSpec(class_share=0.5, sure=0.9)
        again = {"name": "pseudo-labels", "pseudo_labels": labels, "start_from": "scratch"}
        stages = (first, first.model_copy(update=again))
    return FrameRecipe(
        name=f"{row}/{pair_name}",
        source=pair.source,
        target=pair.target,
        streams=pair.streams,
        image_network=pair.image_network,
        point_network=pair.point_network,
        method=method,
        batch_size=pair.batch_size,
        stages=stages,
        log_every=20,
        evaluate_every=pair.evaluate_every,
        checkpoint_every=pair.evaluate_every,
    )


def frame_recipes() -> dict[str, Callable[[], FrameRecipe]]:
    """All of them by name."""
    found: dict[str, Callable[[], FrameRecipe]] = {}
    for name, make in pairs().items():
        known = methods(make())
        rows = (*known, *(row for row, first in PSEUDO_LABELLED.items() if first in known))
        found |= {f"{row}/{name}": partial(frame_recipe, row, name, make) for row in rows}
    return found
