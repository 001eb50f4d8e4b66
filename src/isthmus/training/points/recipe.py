"""Recipes that carry the classification of point clouds, or of their points, from a source to an unlabelled target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.training.points.data_specs import LABELLED_POINTS, DomainSpec, domain_name
from isthmus.training.points.method_specs import (
    GRADIENT_RULES,
    CustomSpec,
    GatedSpec,
    MethodSpec,
    SelfDistillationSpec,
    SelfSupervisedSpec,
    SupervisedSpec,
)
from isthmus.training.recipe import Recipe, Rule, Share, Spec
from isthmus.training.run import Run


class AugmentSpec(Spec):
    """Training augmentation, see :class:`isthmus.data.augment.Augment`."""

    rotate: bool = True
    jitter: float = Field(0.01, ge=0)
    jitter_clip: float = Field(0.02, ge=0)
    scale: tuple[float, float] = (1.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSpec:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale: expected 0 < low <= high, found {self.scale}")
        return self


class PointNetSpec(Spec):
    """PointNet; ``width`` scales all channels."""

    kind: Literal["pointnet"] = "pointnet"
    width: float = Field(1.0, gt=0)
    input_transform: bool = True
    feature_transform: bool = True
    dropout: Share = 0.5


class DGCNNSpec(Spec):
    """DGCNN; ``width`` scales all channels, ``k`` is the number of neighbours."""

    kind: Literal["dgcnn"] = "dgcnn"
    width: float = Field(1.0, gt=0)
    k: int = Field(20, ge=1)
    input_transform: bool = True
    edge_form: Literal["split", "plain"] = "split"
    dropout: Share = 0.5


class SegmentationDGCNNSpec(Spec):
    """PointSegDA's DGCNN; ``edge_norm: batch`` puts BatchNorm and activations into its edge blocks."""

    kind: Literal["dgcnn-segmentation"] = "dgcnn-segmentation"
    width: float = Field(1.0, gt=0)
    k: int = Field(20, ge=1)
    input_transform: bool = True
    edge_norm: Literal["none", "batch"] = "none"
    dropout: Share = 0.5


NetworkSpec = Annotated[PointNetSpec | DGCNNSpec | SegmentationDGCNNSpec, Field(discriminator="kind")]


class PointRecipe(Recipe):
    """Two domains of clouds, a network, a method; target labels are never part of it, but for an oracle."""

    rules: ClassVar[tuple[Rule, ...]] = ("label-free", "source-val", "last")

    kind: Literal["points"] = "points"
    predicts: Literal["class", "parts"] = "class"
    classes: tuple[str, ...] = Field(POINTDA_CLASSES, min_length=1)
    source: DomainSpec
    target: DomainSpec
    points: int = Field(1024, ge=16)
    augment: AugmentSpec = AugmentSpec()
    network: NetworkSpec = PointNetSpec()
    encoder_weights: Path | None = None
    method: MethodSpec
    label_free_score: Literal["im", "bnm"] = "im"

    @field_validator("network", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Data, network and method predict the same kind of thing."""
        for name, domain in (("source", self.source), ("target", self.target)):
            fits = isinstance(domain.data, LABELLED_POINTS) == (self.predicts == "parts")
            if not fits and domain.data.kind != "unlabelled":
                raise ValueError(f"{name}.data.kind: {domain.data.kind!r} does not go with predicts {self.predicts!r}")
        if self.predicts == "class" and isinstance(self.network, SegmentationDGCNNSpec):
            raise ValueError("network.kind: 'dgcnn-segmentation' is for predicts 'parts'")
        if self.predicts == "parts":
            if not isinstance(self.method, SupervisedSpec | SelfSupervisedSpec | CustomSpec):
                raise ValueError(f"method.kind: {self.method.kind!r} does not go with predicts 'parts'")
            if not isinstance(self.method, CustomSpec) and self.method.label_smoothing:
                raise ValueError("method.label_smoothing: is for predicts 'class'")
        if isinstance(self.network, DGCNNSpec | SegmentationDGCNNSpec) and self.network.k > self.points:
            raise ValueError(f"network.k: expected at most the {self.points} points, found {self.network.k}")
        if self.source.data.kind == "unlabelled":
            raise ValueError("source.data.kind: 'unlabelled' is for a target, a source needs labels")
        if self.method.kind == "oracle" and self.target.data.kind == "unlabelled":
            raise ValueError("method.kind: an 'oracle' needs target labels, found target.data.kind 'unlabelled'")
        return self

    @model_validator(mode="after")
    def _obeyed(self) -> Self:
        """The method acts on what the stages and the engine ask for."""
        pseudo_labels = [stage.pseudo_labels for stage in self.stages if stage.pseudo_labels is not None]
        if pseudo_labels and isinstance(self.method, SupervisedSpec):
            raise ValueError(f"stages: pseudo_labels are not used by method {self.method.kind!r}")
        weighted = any(each.graph is not None for each in pseudo_labels)
        if weighted and not isinstance(self.method, SelfDistillationSpec | CustomSpec):
            raise ValueError("stages: pseudo_labels.graph gives labels weights, which 'self-distillation' alone obeys")
        if not isinstance(self.method, SelfSupervisedSpec):
            return self
        if self.method.gate is not None and self.method.pretext_on == "target" and not pseudo_labels:
            raise ValueError(
                "method.gate: would never act: with pretext_on 'target' it needs a stage with pseudo_labels"
            )
        if self.method.weighting in GRADIENT_RULES and self.engine.precision == "16-mixed":
            raise ValueError(
                f"method.weighting: {self.method.weighting!r} combines gradients of single losses, which the loss "
                "scaling of engine.precision '16-mixed' does not allow: use 'bf16-mixed' or '32-true'"
            )
        return self

    @property
    def uses_target_labels(self) -> bool:
        """Whether training itself looks at target labels: an oracle, or the analysis gate."""
        if isinstance(self.method, GatedSpec):
            return self.method.gate is not None and self.method.gate.kind == "cosine"
        return self.method.kind == "oracle"

    @property
    def setting(self) -> str:
        """Source and target in short, ``sim-cad→sim-scan``."""
        return f"{domain_name(self.source)}→{domain_name(self.target)}"

    @property
    def method_name(self) -> str:
        """The row of the table: ``gast``, or ``smdsb/gast`` with the gate; one that is mostly inferred says so."""
        *before, name = self.name.split("/")
        if self.method.kind == "dfan":
            name += " (inferred)"
        return f"{before[-1]}/{name}" if before[-1:] == ["smdsb"] else name


PointRun = Run[PointRecipe]
"""A run on point clouds."""
