"""Recipes that carry the classification of point clouds from a source to an unlabelled target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.training.recipe import Part, Recipe, Rule, Share, Spec
from isthmus.training.run import Run


class SimulatedSpec(Spec):
    """Simulated objects: ``cad``, the more heterogeneous ``web``, or virtual depth ``scan``."""

    kind: Literal["simulated"] = "simulated"
    domain: Literal["cad", "web", "scan"]
    train: int = Field(800, ge=0)
    val: int = Field(200, ge=0)
    test: int = Field(400, ge=0)
    seed: int = 0


class PointDASpec(Spec):
    """PointDA-10 in its published layout under ``root``."""

    kind: Literal["pointda"] = "pointda"
    root: Path
    domain: Literal["modelnet", "shapenet", "scannet"]


class ModelNetSpec(Spec):
    """A ModelNet10/40 tree of meshes ``root/class/{train,test}/*.off``."""

    kind: Literal["modelnet"] = "modelnet"
    root: Path


class FolderSpec(Spec):
    """Any tree ``root/class/[split/]file``."""

    kind: Literal["folder"] = "folder"
    root: Path
    up: Literal["z", "y"] = "z"
    classes: tuple[str, ...] = ()


class UnlabelledSpec(Spec):
    """Any folder of clouds and meshes without labels: for a target."""

    kind: Literal["unlabelled"] = "unlabelled"
    root: Path
    up: Literal["z", "y"] = "z"


class HDF5Spec(Spec):
    """HDF5 files with ``data`` and ``label``, as ModelNet40 and ScanObjectNN are shipped."""

    kind: Literal["hdf5"] = "hdf5"
    root: Path
    train: tuple[str, ...] = ("train_files.txt",)
    test: tuple[str, ...] = ("test_files.txt",)
    classes: tuple[str, ...] = ()
    up: Literal["z", "y"] = "z"


class ObjectsSpec(Spec):
    """The real object sets in ``$ISTHMUS_DATA/objects``."""

    kind: Literal["objects"] = "objects"
    name: Literal["modelnet10", "webcad", "realscan"]


DataSpec = Annotated[
    SimulatedSpec | PointDASpec | ModelNetSpec | FolderSpec | UnlabelledSpec | HDF5Spec | ObjectsSpec,
    Field(discriminator="kind"),
]


class VirtualSensorSpec(Spec):
    """See real CAD clouds through a virtual depth sensor; ``test_share`` re-deals the parts."""

    seed: int = 0
    test_share: Share | None = None


class DomainSpec(Spec):
    """A domain: its data, its class map, and the parts on which results are measured."""

    data: DataSpec
    merge: dict[str, str] = Field(default_factory=dict)
    drop: tuple[str, ...] | Literal["*"] = ()
    virtual_sensor: VirtualSensorSpec | None = None
    train_on: tuple[Part, ...] = Field(("train",), min_length=1)
    evaluate_on: tuple[Part, ...] = Field(("test",), min_length=1)


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


NetworkSpec = Annotated[PointNetSpec | DGCNNSpec, Field(discriminator="kind")]


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


class SupervisedSpec(Spec):
    """Labels alone: of the source, or (``oracle``, marked as such everywhere) of the target."""

    kind: Literal["source-only", "oracle"]
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class DefRecSpec(Spec):
    """Deformation and reconstruction, see :class:`isthmus.pretexts.defrec.DefRec`."""

    kind: Literal["defrec"] = "defrec"
    region: Literal["voxel", "ball", "feature", "split", "gradient", "lambertian"] = "voxel"
    variance: float = Field(0.001, gt=0)
    min_points: int | None = Field(None, ge=1, le=1024)
    voxel_order: Literal["sample", "batch"] = "sample"


class SelfSupervisedSpec(Spec):
    """A pretext on a shared encoder, with or without mixup and gate."""

    kind: Literal["self-supervised"] = "self-supervised"
    pretext: DefRecSpec = DefRecSpec()
    weight: Share = 0.5
    mixup: bool = False
    pretext_on: Literal["both", "target"] = "both"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gate: GateSpec | None = None
    gating: GatingSpec = GatingSpec()

    @field_validator("gate", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        if isinstance(value, str):
            return None if value in ("none", "null", "") else {"kind": value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SelfSupervisedSpec:
        if self.gate is not None and self.gate.kind == "scaled" and self.gating.normaliser == "kept":
            raise ValueError("gating.normaliser 'kept' undoes the gate 'scaled': use normaliser 'batch'")
        if self.gating.saliency_view == "mixed" and not self.mixup:
            raise ValueError("gating.saliency_view 'mixed' needs mixup: true, found mixup: false")
        return self


class CustomSpec(Spec):
    """A method of the user's own, handed to :func:`isthmus.training.engine.train` as an object."""

    kind: Literal["custom"]
    name: str


MethodSpec = Annotated[SupervisedSpec | SelfSupervisedSpec | CustomSpec, Field(discriminator="kind")]


class PointRecipe(Recipe):
    """Two domains of clouds, a network, a method; target labels are never part of it, but for an oracle."""

    rules: ClassVar[tuple[Rule, ...]] = ("label-free", "source-val", "last")

    kind: Literal["points"] = "points"
    classes: tuple[str, ...] = Field(POINTDA_CLASSES, min_length=1)
    source: DomainSpec
    target: DomainSpec
    points: int = Field(1024, ge=16)
    augment: AugmentSpec = AugmentSpec()
    network: NetworkSpec = PointNetSpec()
    encoder_weights: Path | None = None
    method: MethodSpec
    label_free_score: Literal["im", "bnm"] = "im"

    @model_validator(mode="after")
    def _consistent(self) -> PointRecipe:
        if isinstance(self.network, DGCNNSpec) and self.network.k > self.points:
            raise ValueError(f"network.k: expected at most the {self.points} points, found {self.network.k}")
        pseudo_labelled = any(stage.pseudo_labels for stage in self.stages)
        gated = isinstance(self.method, SelfSupervisedSpec) and self.method.gate is not None
        if gated and self.method.pretext_on == "target" and not pseudo_labelled:  # type: ignore[union-attr]
            raise ValueError(
                "method.gate: would never act: with pretext_on 'target' it needs a stage with pseudo_labels"
            )
        if self.source.data.kind == "unlabelled":
            raise ValueError("source.data.kind: 'unlabelled' is for a target, a source needs labels")
        if self.method.kind == "oracle" and self.target.data.kind == "unlabelled":
            raise ValueError("method.kind: an 'oracle' needs target labels, found target.data.kind 'unlabelled'")
        if pseudo_labelled and isinstance(self.method, SupervisedSpec):
            raise ValueError(f"stages: pseudo_labels are not used by method {self.method.kind!r}")
        return self

    @property
    def uses_target_labels(self) -> bool:
        """Whether training itself looks at target labels: an oracle, or the analysis gate."""
        if isinstance(self.method, SelfSupervisedSpec):
            return self.method.gate is not None and self.method.gate.kind == "cosine"
        return self.method.kind == "oracle"

    @property
    def setting(self) -> str:
        """Source and target in short, ``sim-cad→sim-scan``."""
        return f"{domain_name(self.source)}→{domain_name(self.target)}"


def domain_name(spec: DomainSpec) -> str:
    """A short name of a domain for tables: its data set, starred behind the virtual sensor."""
    data = spec.data
    if isinstance(data, SimulatedSpec):
        name = f"sim-{data.domain}"
    elif isinstance(data, PointDASpec):
        name = data.domain
    elif isinstance(data, ObjectsSpec):
        name = data.name
    else:
        name = data.root.name
    return f"{name}*" if spec.virtual_sensor is not None else name


PointRun = Run[PointRecipe]
"""A run on point clouds."""
