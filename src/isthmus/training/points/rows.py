"""The rows of the point-cloud tables: hosts, each with and without SM-DSB's gate, controls and rivals.

A row says method, stages and augmentation; :mod:`isthmus.training.points.presets` puts it into a setting. ``gast`` is a
host as published, ``smdsb/gast`` the same behind the skewness gate; ``--gate`` puts another one into its place.
``dfan`` is INFERRED from the abstract of its paper (:mod:`isthmus.methods.dfan`), and tables say so.
"""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from isthmus.pretexts.masked_structure import RADIUS
from isthmus.training.points.method_specs import (
    DANNSpec,
    DFANSpec,
    GatingSpec,
    MemorySpec,
    MethodSpec,
    PlainGateSpec,
    PointDANSpec,
    SelfDistillationSpec,
    SelfSupervisedSpec,
    SkewnessGateSpec,
    StrongViewSpec,
    SupervisedSpec,
)
from isthmus.training.points.pretext_specs import DefRecSpec, GASTSpec, ImplicitSpec, MLSPSpec
from isthmus.training.points.recipe import AugmentSpec
from isthmus.training.recipe import GraphRefinementSpec, PseudoLabelSpec, StageSpec

Host = Literal["defrec", "defrec-pcm", "selfdist", "selfdist-gcn", "gast", "gast-spst", "mlsp", "implicit"]
HOSTS: tuple[Host, ...] = get_args(Host)
GATED = "smdsb/"
"""Before a host: behind the skewness gate."""

MAIN_HOST: Host = "selfdist-gcn"
VARIANTS: dict[str, dict[str, Any]] = {
    f"{MAIN_HOST}-random": {"gate": PlainGateSpec(kind="random", keep=0.7)},
    f"{MAIN_HOST}-scaled": {"gate": PlainGateSpec(kind="scaled", keep=0.7)},
    f"{GATED}{MAIN_HOST}-memory": {"gate": SkewnessGateSpec(), "memory": MemorySpec()},
    f"{GATED}{MAIN_HOST}-schedule": {"gate": SkewnessGateSpec(keep=1.0, keep_end=0.6)},
    f"{GATED}{MAIN_HOST}-target": {"gate": SkewnessGateSpec(), "gating": GatingSpec(unlabelled="prediction")},
    f"{MAIN_HOST}-target-random": {
        "gate": PlainGateSpec(kind="random", keep=0.7),
        "gating": GatingSpec(unlabelled="prediction"),
    },
}
"""The main host with controls in place of its gate, and with what we try beyond the paper."""

RIVALS = ("dann", "pointdan", "dfan")
SINGLE_STAGE = ("source-only", "oracle", *RIVALS)
"""Rows without self-training, as published (of ``dfan`` that is inferred)."""

_EVEN: dict[str, Any] = {"gate": PlainGateSpec(kind="random", keep=0.5)}
CONTROLS: dict[str, dict[str, Any]] = {
    "sm-dsb": {"gate": SkewnessGateSpec()},
    "sm-dsb-eval": {"gate": SkewnessGateSpec(), "gating": GatingSpec(saliency="eval")},
    "sm-dsb-drop-loss": {"gate": SkewnessGateSpec(), "gating": GatingSpec(drop="loss")},
    "random-gate": {"gate": PlainGateSpec(kind="random", keep=0.7)},
    "half-random": _EVEN,
    # Freezing half of the gradients (Section I) leaves the forward pass, and so BatchNorm, as it is.
    "random-freeze": _EVEN | {"gating": GatingSpec(drop="loss")},
    "scaled-weight": {"gate": PlainGateSpec(kind="scaled", keep=0.7)},
    "keep-high": {"gate": SkewnessGateSpec(keep_side="high")},
    "cosine-gate": {"gate": PlainGateSpec(kind="cosine", keep=0.7)},
    "pcgrad": {"weighting": "pcgrad"},
    "cagrad": {"weighting": "cagrad"},
    "upgrad": {"weighting": "upgrad"},
    "gradvac": {"weighting": "gradvac"},
    "uncertainty": {"weighting": "uncertainty"},
}
"""Gates and weightings on the host ``defrec-pcm``: what each changes of it."""

ROWS = (*SINGLE_STAGE, *HOSTS, *CONTROLS, *(f"{GATED}{host}" for host in HOSTS), *VARIANTS)
PART_ROWS = (
    "source-only", "oracle", "defrec", "defrec-pcm", "mlsp", "sm-dsb", "random-gate", "half-random", "scaled-weight",
    "keep-high", "cosine-gate", f"{GATED}defrec", f"{GATED}defrec-pcm", f"{GATED}mlsp",
)  # fmt: skip
"""Those of the tables in which points are labelled."""

Look = Literal["modelnet", "shapenet", "scannet"]
"""The domain of PointDA-10 that a target is like: published hyper-parameters depend on it. Scans are ``scannet``."""

PUBLISHED_GRAPH = GraphRefinementSpec()

ROUNDS = 10
"""Rounds of GAST's self-paced self-training; each makes new pseudo-labels."""


def method(row: str, look: Look) -> MethodSpec:
    """The method of a row; controls share the host DefRec+PCM."""
    match row:
        case "source-only" | "oracle":
            return SupervisedSpec(kind=cast(Any, row))
        case "dann":
            return DANNSpec()
        case "pointdan":
            return PointDANSpec()
        case "dfan":
            return DFANSpec()
    if row in CONTROLS:
        return host("defrec-pcm", look).model_copy(update=CONTROLS[row])
    gated: dict[str, Any] = {"gate": SkewnessGateSpec()} if row.startswith(GATED) else {}
    return host(host_of(row), look).model_copy(update=VARIANTS.get(row, gated))


def host_of(row: str) -> Host:
    """The host of a row that has one and is no control of DefRec+PCM: ``gast`` of ``smdsb/gast``."""
    return MAIN_HOST if row in VARIANTS else cast(Host, row.removeprefix(GATED))


def host(name: Host, look: Look) -> SelfSupervisedSpec | SelfDistillationSpec:
    """A host without a gate.

    GAST's tasks carry their published weights, and classification 0.5. MLSP's terms do as well; how much classification
    weighs beside them is not known, and read as the 0.5 of DefRec's trainer, from which it descends, with its mixup.
    The adaptation of ImplicitPCDA was never released: half and half, as DefRec's trainer. Self-distillation cuts its
    source off like scans where the target holds some.
    """
    match name:
        case "defrec" | "defrec-pcm":
            return SelfSupervisedSpec(pretext=DefRecSpec(), weight=0.2, mixup=name == "defrec-pcm")
        case "gast" | "gast-spst":
            return SelfSupervisedSpec(pretext=GASTSpec(), weight=1.0, class_weight=0.5)
        case "mlsp":
            return SelfSupervisedSpec(pretext=MLSPSpec(radius=RADIUS[look]), weight=1.0, class_weight=0.5, mixup=True)
        case "implicit":
            return SelfSupervisedSpec(pretext=ImplicitSpec(), weight=0.5)
        case "selfdist" | "selfdist-gcn":
            return SelfDistillationSpec(strong=StrongViewSpec(occlusion=0.3 if look == "scannet" else 0.0))


def augmentation(row: str) -> AugmentSpec:
    """Of the loader: nothing where the method makes its own views."""
    own = host_of(row) in ("selfdist", "selfdist-gcn")
    return AugmentSpec(rotate=False, jitter=0.0) if own else AugmentSpec()


def stages(
    row: str,
    first: int,
    second: int,
    *,
    learning_rate: float = 1e-3,
    refinements: int = 20,
    graph: GraphRefinementSpec = PUBLISHED_GRAPH,
) -> tuple[StageSpec, ...]:
    """Joint training, then pseudo-labels; rows without self-training get one stage of the same total length.

    ``gast-spst`` trains the second part in ten rounds with new pseudo-labels each, of at least 0.8 confidence in the
    first and 0.005 more in every next one, at the rate of the first stage, which falls along a cosine in each round.
    The released code also jumps to 0.95 once the accuracy on the target's TEST labels passes 0.9, which is left out,
    and lets the weights of all losses fall together, which Adam does not notice. All losses stay on (not known).

    ``selfdist-gcn`` has its pseudo-labels refined by a graph network within the second stage, 20 times as published.
    """
    if row in SINGLE_STAGE:
        return (StageSpec(name="stage1", steps=first + second, learning_rate=learning_rate),)
    match host_of(row):
        case "gast-spst":
            return (
                StageSpec(name="stage1", steps=first, learning_rate=learning_rate),
                *(
                    StageSpec(
                        name=f"round{number + 1}",
                        steps=second * (number + 1) // ROUNDS - second * number // ROUNDS,
                        learning_rate=learning_rate,
                        pseudo_labels=PseudoLabelSpec(min_confidence=round(0.8 + 0.005 * number, 3)),
                    )
                    for number in range(ROUNDS)
                ),
            )
        case "selfdist" | "selfdist-gcn" as name:
            shared: dict[str, Any] = {
                "optimizer": "adamw", "weight_decay": 1e-4, "schedule": "onecycle", "learning_rate": learning_rate,
            }  # fmt: skip
            refined = PseudoLabelSpec(refresh_every=max(1, second // refinements), graph=graph)
            labels = PseudoLabelSpec() if name == "selfdist" else refined
            return (
                StageSpec(name="stage1", steps=first, **shared),
                StageSpec(name="stage2", steps=second, pseudo_labels=labels, **shared),
            )
    return (
        StageSpec(name="stage1", steps=first, learning_rate=learning_rate),
        StageSpec(name="stage2", steps=second, learning_rate=learning_rate * 0.3, pseudo_labels=PseudoLabelSpec()),
    )
