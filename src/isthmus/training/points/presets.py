"""The named recipes for point clouds: one plain function each, in one plain dict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, get_args

from isthmus.training.points.recipe import (
    DefRecSpec,
    DGCNNSpec,
    DomainSpec,
    GatingSpec,
    ObjectsSpec,
    PlainGateSpec,
    PointDASpec,
    PointNetSpec,
    PointRecipe,
    SelfSupervisedSpec,
    SimulatedSpec,
    SkewnessGateSpec,
    SupervisedSpec,
    VirtualSensorSpec,
)
from isthmus.training.recipe import PseudoLabelSpec, StageSpec

Host = Literal[
    "source-only", "oracle", "defrec", "defrec-pcm", "sm-dsb", "sm-dsb-eval", "sm-dsb-drop-loss",
    "random-gate", "half-random", "scaled-weight", "keep-high", "cosine-gate",
]  # fmt: skip
HOSTS: tuple[Host, ...] = get_args(Host)

SMALL_POINTNET = PointNetSpec(width=0.5, input_transform=False, feature_transform=False, dropout=0.3)
"""For tables on two CPU cores: half the channels, no T-nets (a third of the cost of a step with them)."""

SHARED_CLASSES = ("bed", "cabinet", "chair", "monitor", "sofa", "table")
"""The classes that all three real object sets have."""


def method(host: Host) -> SupervisedSpec | SelfSupervisedSpec:
    """The method of a row of the tables; all gated rows share the DefRec+PCM host."""
    if host in ("source-only", "oracle"):
        return SupervisedSpec(kind=host)
    gates: dict[str, Any] = {
        "random-gate": PlainGateSpec(kind="random", keep=0.7),
        "half-random": PlainGateSpec(kind="random", keep=0.5),
        "scaled-weight": PlainGateSpec(kind="scaled", keep=0.7),
        "sm-dsb": SkewnessGateSpec(),
        "sm-dsb-eval": SkewnessGateSpec(),
        "sm-dsb-drop-loss": SkewnessGateSpec(),
        "keep-high": SkewnessGateSpec(keep_side="high"),
        "cosine-gate": PlainGateSpec(kind="cosine", keep=0.7),
    }
    gating = GatingSpec(
        saliency="eval" if host == "sm-dsb-eval" else "coupled",
        drop="loss" if host == "sm-dsb-drop-loss" else "forward",
    )
    return SelfSupervisedSpec(
        pretext=DefRecSpec(), weight=0.2, mixup=host != "defrec", gate=gates.get(host), gating=gating
    )


def two_stages(host: Host, first: int, second: int, *, learning_rate: float = 1e-3) -> tuple[StageSpec, ...]:
    """Joint training, then pseudo-labels; supervised rows get one stage of the same total length."""
    if host in ("source-only", "oracle"):
        return (StageSpec(name="stage1", steps=first + second, learning_rate=learning_rate),)
    return (
        StageSpec(name="stage1", steps=first, learning_rate=learning_rate),
        StageSpec(name="stage2", steps=second, learning_rate=learning_rate * 0.3, pseudo_labels=PseudoLabelSpec()),
    )


def simulated(host: Host) -> PointRecipe:
    """Simulated CAD to simulated scans with a narrow PointNet: minutes on a laptop."""
    return PointRecipe(
        name=f"sim/{host}",
        source=DomainSpec(data=SimulatedSpec(domain="cad", train=1000, val=200, test=200)),
        target=DomainSpec(data=SimulatedSpec(domain="scan", train=1000, val=200, test=600)),
        points=256,
        batch_size=16,
        network=SMALL_POINTNET,
        method=method(host),
        stages=two_stages(host, 400, 200),
    )


def real(host: Host, source: str, target: str) -> PointRecipe:
    """Between the real object sets, six shared classes.

    R and W are small: methods adapt to all of their objects, without labels, and are measured on all. The oracle learns
    their labels, so it is trained on the training part and measured on the rest.
    """
    names = {"m": "modelnet10", "w": "webcad", "r": "realscan"}
    parts: dict[str, Any] = {}
    if target in ("r", "w"):
        everything = ("train", "val", "test")
        parts = {"train_on": everything, "evaluate_on": everything}
        if host == "oracle":
            parts = {"evaluate_on": ("val", "test")}
    return PointRecipe(
        name=f"real/{source}2{target}/{host}",
        classes=SHARED_CLASSES,
        source=DomainSpec(data=ObjectsSpec(name=names[source]), drop="*"),
        target=DomainSpec(data=ObjectsSpec(name=names[target]), drop="*", **parts),
        points=256,
        batch_size=16,
        network=SMALL_POINTNET,
        method=method(host),
        stages=two_stages(host, 400, 200),
    )


def virtual(host: Host, source: str, target: str) -> PointRecipe:
    """Real CAD shapes to real CAD shapes seen by a virtual depth sensor; M has a large test part."""
    recipe = real(host, source, target)
    sensor = VirtualSensorSpec(test_share=0.7 if target == "m" else None)
    changed = recipe.target.model_copy(update={"virtual_sensor": sensor})
    return recipe.model_copy(update={"name": f"virtual/{source}2{target}/{host}", "target": changed})


def pointda(host: Host, source: str, target: str) -> PointRecipe:
    """PointDA-10 as the paper trains it, with DGCNN; ``source.data.root`` and ``target.data.root`` say where it is."""
    root = Path("PointDA_data")
    return PointRecipe(
        name=f"pointda/{source}2{target}/{host}",
        source=DomainSpec(data=PointDASpec(root=root, domain=source)),
        target=DomainSpec(data=PointDASpec(root=root, domain=target)),
        network=DGCNNSpec(),
        method=method(host),
        stages=two_stages(host, 40_000, 40_000),
        log_every=50,
        evaluate_every=1000,
        checkpoint_every=500,
    )


def point_recipes() -> dict[str, Callable[[], PointRecipe]]:
    """All of them by name."""
    table: dict[str, Callable[[], PointRecipe]] = {}
    pointda_domains = ("modelnet", "shapenet", "scannet")
    for host in HOSTS:
        table[f"sim/{host}"] = partial(simulated, host)
        for source, target in (("m", "r"), ("w", "r"), ("m", "w")):
            table[f"real/{source}2{target}/{host}"] = partial(real, host, source, target)
        for source, target in (("w", "m"), ("m", "w")):
            table[f"virtual/{source}2{target}/{host}"] = partial(virtual, host, source, target)
        for source, target in permutations(pointda_domains, 2):
            table[f"pointda/{source}2{target}/{host}"] = partial(pointda, host, source, target)
    return table
