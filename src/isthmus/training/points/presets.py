"""The named recipes for point clouds, ``<setting>/<row>``: one plain function for each setting, in one plain dict.

``sim/smdsb/gast`` is the host GAST behind the skewness gate on simulated objects, ``pointda/modelnet2scannet/gast``
without it on PointDA-10; :mod:`isthmus.training.points.rows` has the rows. What the gate and rivals are asked for most
stands for simulated objects without a setting, too: ``smdsb/gast``, ``dann``, ``pointdan``, ``dfan`` (inferred).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

from isthmus.data.clouds import HUMAN_PARTS
from isthmus.pretexts.masked_structure import PART_RADIUS
from isthmus.training.points.data_specs import (
    DomainSpec,
    ObjectsSpec,
    PointDASpec,
    PointSegDASpec,
    SimulatedSpec,
    VirtualSensorSpec,
)
from isthmus.training.points.method_specs import MethodSpec, SelfDistillationSpec, SelfSupervisedSpec
from isthmus.training.points.pretext_specs import DefRecSpec, MLSPSpec
from isthmus.training.points.recipe import DGCNNSpec, PointNetSpec, PointRecipe, SegmentationDGCNNSpec
from isthmus.training.points.rows import GATED, PART_ROWS, RIVALS, ROWS, Look, augmentation, host_of, method, stages
from isthmus.training.recipe import GraphRefinementSpec, StageSpec

SMALL_POINTNET = PointNetSpec(width=0.5, input_transform=False, feature_transform=False, dropout=0.3)
"""For tables on two CPU cores: half the channels, no T-nets (a third of the cost of a step with them)."""

SHARED_CLASSES = ("bed", "cabinet", "chair", "monitor", "sofa", "table")
"""The classes that all three real object sets have."""

SMALL_GRAPH = GraphRefinementSpec(steps=300)

LOOKS: dict[str, Look] = {"m": "modelnet", "w": "shapenet", "r": "scannet"}


def simulated(row: str, *, setting: str = "sim/") -> PointRecipe:
    """Simulated CAD to simulated scans with a narrow PointNet: minutes on a laptop."""
    return PointRecipe(
        name=f"{setting}{row}",
        source=DomainSpec(data=SimulatedSpec(domain="cad", train=1000, val=200, test=200)),
        target=DomainSpec(data=SimulatedSpec(domain="scan", train=1000, val=200, test=600)),
        points=256,
        batch_size=16,
        augment=augmentation(row),
        network=SMALL_POINTNET,
        method=pointnet_method(row, "scannet"),
        stages=small_stages(row),
    )


def real(row: str, source: str, target: str) -> PointRecipe:
    """Between the real object sets, six shared classes.

    R and W are small: methods adapt to all of their objects, without labels, and are measured on all. The oracle learns
    their labels, so it is trained on the training part and measured on the rest.
    """
    names = {"m": "modelnet10", "w": "webcad", "r": "realscan"}
    parts: dict[str, Any] = {}
    if target in ("r", "w"):
        everything = ("train", "val", "test")
        parts = {"train_on": everything, "evaluate_on": everything}
        if row == "oracle":
            parts = {"evaluate_on": ("val", "test")}
    return PointRecipe(
        name=f"real/{source}2{target}/{row}",
        classes=SHARED_CLASSES,
        source=DomainSpec(data=ObjectsSpec(name=names[source]), drop="*"),
        target=DomainSpec(data=ObjectsSpec(name=names[target]), drop="*", **parts),
        points=256,
        batch_size=16,
        augment=augmentation(row),
        network=SMALL_POINTNET,
        method=pointnet_method(row, LOOKS[target]),
        stages=small_stages(row),
    )


def virtual(row: str, source: str, target: str) -> PointRecipe:
    """Real CAD shapes to real CAD shapes seen by a virtual depth sensor; M has a large test part."""
    recipe = real(row, source, target)
    sensor = VirtualSensorSpec(test_share=0.7 if target == "m" else None)
    changed = recipe.target.model_copy(update={"virtual_sensor": sensor})
    name = f"virtual/{source}2{target}/{row}"
    return recipe.model_copy(update={"name": name, "target": changed, "method": pointnet_method(row, "scannet")})


def pointda(row: str, source: str, target: Look) -> PointRecipe:
    """PointDA-10 as the paper trains it, with DGCNN; ``source.data.root`` and ``target.data.root`` say where it is."""
    root = Path("PointDA_data")
    return PointRecipe(
        name=f"pointda/{source}2{target}/{row}",
        source=DomainSpec(data=PointDASpec(root=root, domain=source)),
        target=DomainSpec(data=PointDASpec(root=root, domain=target)),
        augment=augmentation(row),
        network=DGCNNSpec(),
        method=method(row, target),
        stages=stages(row, 40_000, 40_000),
        log_every=50,
        evaluate_every=1000,
        checkpoint_every=500,
    )


def pointda_pointnet(row: str, source: str, target: Look) -> PointRecipe:
    """The same with PointNet: 10,000 steps in each stage, 64 clouds of each domain in a batch."""
    return pointda(row, source, target).model_copy(
        update={
            "name": f"pointda-pointnet/{source}2{target}/{row}",
            "batch_size": 64,
            "network": PointNetSpec(),
            "method": pointnet_method(row, target),
            "stages": stages(row, 10_000, 10_000),
        }
    )


def pointnet_method(row: str, look: Look) -> MethodSpec:
    """The row's method with PointNet: behind self-distillation a gate keeps 0.8 there, as in the paper's Table III."""
    spec = method(row, look)
    if isinstance(spec, SelfDistillationSpec) and spec.gate is not None and spec.gate.keep_end is None:
        spec = spec.model_copy(update={"gate": spec.gate.model_copy(update={"keep": 0.8})})
    return spec


def small_stages(row: str) -> tuple[StageSpec, ...]:
    """400 and 200 steps; the graph network learns 300 steps, refining five times, not 20 as published.

    Self-distillation peaks at 3e-3, chosen by the source's validation part (0.71 against 0.62 at the published 1e-3,
    seed 10, simulated objects): its hard views of few steps learn slowly.
    """
    rate = 3e-3 if host_of(row) in ("selfdist", "selfdist-gcn") else 1e-3
    return stages(row, 400, 200, learning_rate=rate, refinements=5, graph=SMALL_GRAPH)


def bodies(row: str) -> PointRecipe:
    """Parts of bodies; ``--source`` and ``--target`` take faust, shrec07, standing, posed, stocky or scan."""
    return PointRecipe(
        name=f"segda/{row}",
        predicts="parts",
        classes=HUMAN_PARTS,
        source=DomainSpec.model_validate("faust"),
        target=DomainSpec.model_validate("shrec07"),
        points=512,
        batch_size=8,
        network=SegmentationDGCNNSpec(width=0.5, k=12),
        method=part_method(row),
        stages=stages(row, 400, 200),
    )


def pointsegda(row: str, source: str, target: str) -> PointRecipe:
    """PointSegDA as DefRec trains it; ``source.data.root`` and ``target.data.root`` say where it is."""
    root = Path("PointSegDAdataset")
    return PointRecipe(
        name=f"pointsegda/{source}2{target}/{row}",
        predicts="parts",
        classes=tuple(f"part{number}" for number in range(1, 9)),
        source=DomainSpec(data=PointSegDASpec(root=root, domain=source)),
        target=DomainSpec(data=PointSegDASpec(root=root, domain=target)),
        points=2048,
        batch_size=16,
        network=SegmentationDGCNNSpec(),
        method=part_method(row, target),
        stages=stages(row, 1000, 500),
    )


def part_method(row: str, target: str = "") -> MethodSpec:
    """The row's method where points are labelled: DefRec deforms a ball and weighs 0.05, MLSP as :func:`_part_mlsp`.

    ``target`` is a domain of PointSegDA, on which MLSP's radius depends; 0.081 is for others.
    """
    spec = method(row, "modelnet")
    if not isinstance(spec, SelfSupervisedSpec):
        return spec
    if isinstance(spec.pretext, DefRecSpec):
        return spec.model_copy(update={"pretext": DefRecSpec(region="ball"), "weight": 0.05})
    if isinstance(spec.pretext, MLSPSpec):
        # Classification weighs 1 - 0.02 there, and clouds are not mixed.
        return spec.model_copy(update={"pretext": _part_mlsp(target), "class_weight": 0.98, "mixup": False})
    return spec


def _part_mlsp(target: str) -> MLSPSpec:
    """MLSP's task where points are labelled, as released: see :mod:`isthmus.pretexts.masked_structure`.

    The released code asks for 40 points of a voxel of 2,048 in a cloud, which is 20 of 1,024. Inferred: that 0.081, its
    radius where no target is set, does for bodies other than PointSegDA's.
    """
    return MLSPSpec(
        radius=PART_RADIUS.get(target, 0.081),
        radius_points=2048,
        position_weight=0.02,
        normal_weight=0.02,
        cardinality_weight=0.02,
        mask_weight=2.0,
        neighbours=10,
        bin_width=5.0,
        shift=10,
        min_points=20,
    )


def point_recipes() -> dict[str, Callable[[], PointRecipe]]:
    """All of them by name."""
    table: dict[str, Callable[[], PointRecipe]] = {}
    pointda_domains: tuple[Look, ...] = ("modelnet", "shapenet", "scannet")
    for row in ROWS:
        table[f"sim/{row}"] = partial(simulated, row)
        for source, target in permutations("mwr", 2):
            table[f"real/{source}2{target}/{row}"] = partial(real, row, source, target)
        for source, target in (("w", "m"), ("m", "w")):
            table[f"virtual/{source}2{target}/{row}"] = partial(virtual, row, source, target)
        for origin, destination in permutations(pointda_domains, 2):
            table[f"pointda/{origin}2{destination}/{row}"] = partial(pointda, row, origin, destination)
            named = f"pointda-pointnet/{origin}2{destination}/{row}"
            table[named] = partial(pointda_pointnet, row, origin, destination)
        if row.startswith(GATED) or row in RIVALS:
            table[row] = partial(simulated, row, setting="")
    for row in PART_ROWS:
        table[f"segda/{row}"] = partial(bodies, row)
        for source, target in permutations(("adobe", "faust", "mit", "scape"), 2):
            table[f"pointsegda/{source}2{target}/{row}"] = partial(pointsegda, row, source, target)
    return table
