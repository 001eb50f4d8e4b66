"""The methods of a recipe, and the gates on their self-supervised losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from isthmus.training.points.pretext_specs import DefRecSpec, PretextSpec
from isthmus.training.recipe import Share, Spec

Smoothing = Annotated[float, Field(ge=0, lt=1)]
WeightingRule = Literal["uniform", "pcgrad", "cagrad", "upgrad", "gradvac", "uncertainty"]
GRADIENT_RULES: tuple[WeightingRule, ...] = ("pcgrad", "cagrad", "upgrad", "gradvac")
"""Weightings that combine the gradients of single losses."""


class SkewnessGateSpec(Spec):
    """SM-DSB's gate, see :class:`isthmus.gates.skewness.SkewnessGate`."""

    kind: Literal["skewness"] = "skewness"
    keep: Share = 0.7
    keep_end: Share | None = None
    keep_side: Literal["low", "high"] = "low"
    alpha: float = Field(1.0, gt=0)
    centre: Literal["median", "lower_median", "mean"] = "median"
    scope: Literal["global", "local"] = "global"


class PlainGateSpec(Spec):
    """Controls: ``random`` samples, all samples with ``scaled`` weight, or the true ``cosine`` (analysis only)."""

    kind: Literal["random", "scaled", "cosine"]
    keep: Share = 0.7
    keep_end: Share | None = None
    scope: Literal["global", "local"] = "global"


GateSpec = Annotated[SkewnessGateSpec | PlainGateSpec, Field(discriminator="kind")]


class GatingSpec(Spec):
    """How a gate is asked and obeyed, see :mod:`isthmus.methods.self_supervised`."""

    saliency: Literal["coupled", "eval"] = "coupled"
    saliency_view: Literal["clean", "mixed"] = "clean"
    drop: Literal["forward", "loss"] = "forward"
    normaliser: Literal["batch", "kept"] = "batch"
    pooled_threshold: bool = False
    perturbation_mean: float = 0.1
    perturbation_std: float = Field(0.0, ge=0)
    unlabelled: Literal["pass", "prediction"] = "pass"


class SupervisedSpec(Spec):
    """Labels alone: of the source, or (``oracle``, marked as such everywhere) of the target."""

    kind: Literal["source-only", "oracle"]
    label_smoothing: Smoothing = 0.0


class MemorySpec(Spec):
    """A moving average of each sample's skewness, see :class:`isthmus.gates.memory.SkewnessMemory`."""

    momentum: float = Field(0.9, ge=0, lt=1)


class GatedSpec(Spec):
    """What all hosts of a gate have, see :class:`isthmus.methods.gated.GatedMethod`.

    The cheap mode of a gate is ``--method.memory {} --method.refresh_every 10``: new scores in every tenth step, and
    what is remembered ranks the samples in between, in steps that cost what they do without a gate.
    """

    label_smoothing: Smoothing = 0.0
    gate: GateSpec | None = None
    gating: GatingSpec = GatingSpec()
    memory: MemorySpec | None = None
    refresh_every: int = Field(1, ge=1)

    @field_validator("gate", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        if isinstance(value, str):
            return None if value in ("none", "null", "") else {"kind": value}
        return value

    @model_validator(mode="after")
    def _gate_consistent(self) -> Self:
        if self.gate is not None and self.gate.kind == "scaled" and self.gating.normaliser == "kept":
            raise ValueError("gating.normaliser 'kept' undoes the gate 'scaled': use normaliser 'batch'")
        if self.memory is not None and not isinstance(self.gate, SkewnessGateSpec):
            raise ValueError("memory: needs the gate 'skewness', whose scores it remembers")
        if self.refresh_every > 1 and self.memory is None:
            raise ValueError("refresh_every: needs a memory to rank by in the steps between")
        return self


class SelfSupervisedSpec(GatedSpec):
    """A pretext on a shared encoder, with or without mixup and gate; ``class_weight`` None is ``1 - weight``.

    ``weighting`` balances classification and the pretext: by their gradients on the encoder, each over both domains and
    times its constant weight (``upgrad`` has a GPL solver), or by learned ``uncertainty``.
    """

    kind: Literal["self-supervised"] = "self-supervised"
    pretext: PretextSpec = DefRecSpec()
    weight: Share = 0.5
    class_weight: Annotated[float, Field(ge=0)] | None = None
    mixup: bool = False
    pretext_on: Literal["both", "target"] = "both"
    weighting: WeightingRule = "uniform"

    @field_validator("pretext", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gating.saliency_view == "mixed" and not self.mixup:
            raise ValueError("gating.saliency_view 'mixed' needs mixup: true, found mixup: false")
        if self.gating.unlabelled != "pass":
            raise ValueError(
                "gating.unlabelled: expected 'pass' (self-distillation alone has more), found 'prediction'"
            )
        return self


class StrongViewSpec(Spec):
    """The student's view, see :class:`isthmus.data.views.StrongView`; ``rotate`` turns these domains about z.

    ``occlusion`` is the share of each *source* cloud that is cut off: 0.3 as published where the target holds scans.
    """

    rotate: tuple[Literal["source", "target"], ...] = ("source",)
    occlusion: float = Field(0.0, ge=0, lt=1)
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    elastic_probability: Share = 0.95
    scale: tuple[float, float] = (0.7, 1.5)
    jitter: float = Field(0.01, ge=0)
    jitter_clip: float = Field(0.05, ge=0)


class WeakViewSpec(Spec):
    """The teacher's view, see :class:`isthmus.data.views.WeakView`."""

    jitter: float = Field(0.01, ge=0)
    jitter_clip: float = Field(0.05, ge=0)


class SelfDistillationSpec(GatedSpec):
    """A student and its teacher, see :class:`isthmus.methods.self_distillation.SelfDistillation`.

    It makes its own views of unchanged clouds: ``augment`` of the recipe comes before them, for both.
    """

    kind: Literal["self-distillation"] = "self-distillation"
    weight: float = Field(1.0, ge=0)
    weak: WeakViewSpec = WeakViewSpec()
    strong: StrongViewSpec = StrongViewSpec()
    student_temperature: float = Field(0.5, gt=0)
    teacher_temperature: float = Field(0.1, gt=0)
    momentum: float = Field(0.999, ge=0, lt=1)
    reduction: Literal["together", "domains"] = "together"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gating.saliency_view == "mixed":
            raise ValueError("gating.saliency_view: expected 'clean', as no clouds are mixed, found 'mixed'")
        return self


class DANNSpec(Spec):
    """A game over pooled features, see :mod:`isthmus.methods.dann`; ``hidden`` is scaled by the network's width."""

    kind: Literal["dann"] = "dann"
    weight: float = Field(1.0, gt=0)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (512, 256)
    joint_batches: bool = True
    label_smoothing: Smoothing = 0.0


class PointDANSpec(Spec):
    """Nodes and two classifiers, see :mod:`isthmus.methods.pointdan`."""

    kind: Literal["pointdan"] = "pointdan"
    nodes: int = Field(64, ge=1)
    radius: float = Field(0.3, gt=0)
    neighbours: int = Field(64, ge=1)
    mmd_weight: float = Field(1.0, ge=0)
    discrepancy_weight: float = Field(1.0, ge=0)
    label_smoothing: Smoothing = 0.0


class DFANSpec(Spec):
    """INFERRED from an abstract: two branches, see :mod:`isthmus.methods.dfan`; ``levels`` are of the local one.

    ``hidden`` is of the discriminators, scaled by the network's width.
    """

    kind: Literal["dfan"] = "dfan"
    nodes: int = Field(64, ge=1)
    radius: float = Field(0.3, gt=0)
    neighbours: int = Field(64, ge=1)
    levels: tuple[Literal["points", "nodes", "cloud"], ...] = ("points", "nodes", "cloud")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 128)
    global_weight: float = Field(1.0, ge=0)
    local_weight: float = Field(1.0, ge=0)
    label_smoothing: Smoothing = 0.0


class CustomSpec(Spec):
    """A method of the user's own, handed to :func:`isthmus.training.engine.train` as an object."""

    kind: Literal["custom"]
    name: str


MethodSpec = Annotated[
    SupervisedSpec | SelfSupervisedSpec | SelfDistillationSpec | DANNSpec | PointDANSpec | DFANSpec | CustomSpec,
    Field(discriminator="kind"),
]
