"""A recipe: one typed, validated description of a run that a person can read, override and find again.

Recipes are YAML files; every field can be overridden by its dotted name (``method.gate.keep=0.8``,
``stages.0.steps=500``). An unknown key or a bad value is one error that names the nearest valid key or the allowed
values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.errors import RecipeError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Literal["train", "val", "test"]


class Spec(BaseModel):
    """A part of a recipe; refuses unknown keys by naming the nearest valid one."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {close[0]!r}? " if close else ""
                    raise ValueError(f"unknown key {key!r}; {hint}valid keys: {', '.join(cls.model_fields)}")
        return value


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
    merge: dict[str, str] = {}
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


class PseudoLabelSpec(Spec):
    """Which predictions on the target become labels before a stage.

    ``min_confidence`` keeps predictions at least that sure; ``class_share`` keeps that share of the most confident
    ones of every predicted class (1: all).
    """

    min_confidence: Share = 0.0
    class_share: Share = 1.0


class StageSpec(Spec):
    """What is trained, for how many steps, from which weights, and what happens before.

    ``learning_rate_scale`` multiplies the rate of all parameters whose name starts with a key; ``frozen`` names
    prefixes that are not trained at all and whose BatchNorm stays in eval mode. ``batch_norm="frozen"`` keeps all
    BatchNorm layers in eval mode.
    """

    name: str = "stage1"
    steps: int = Field(1000, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-5, ge=0)
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    learning_rate_scale: dict[str, float] = {}
    frozen: tuple[str, ...] = ()
    batch_norm: Literal["train", "frozen"] = "train"
    keep_optimizer: bool = False
    start_from: Literal["last", "source-val", "label-free"] = "last"
    pseudo_labels: PseudoLabelSpec | None = None

    @model_validator(mode="after")
    def _warm_up_ends(self) -> StageSpec:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: expected fewer than the stage's {self.steps}, found {self.warmup_steps}")
        return self


class EngineSpec(Spec):
    """Where and how a run is executed; none of it changes what is computed, beyond rounding and batch size."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, ge=1)
    num_nodes: int = Field(1, ge=1)
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    @field_validator("strategy", mode="before")
    @classmethod
    def _no_fsdp(cls, value: Any) -> Any:
        if value == "fsdp":
            raise ValueError(
                "'fsdp' is not offered (coupled saliency differentiates parameters inside forward, which FSDP cannot "
                "do; it would need gating.saliency 'eval'); use 'ddp'"
            )
        return value


class Recipe(Spec):
    """Everything that a run depends on."""

    name: str
    seed: int = Field(0, ge=0)
    classes: tuple[str, ...] = Field(POINTDA_CLASSES, min_length=1)
    source: DomainSpec
    target: DomainSpec
    points: int = Field(1024, ge=16)
    batch_size: int = Field(32, ge=1)
    augment: AugmentSpec = AugmentSpec()
    network: NetworkSpec = PointNetSpec()
    encoder_weights: Path | None = None
    method: MethodSpec
    stages: tuple[StageSpec, ...] = (StageSpec(),)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    label_free_score: Literal["im", "bnm"] = "im"
    log_every: int = Field(10, ge=1)
    evaluate_every: int = Field(100, ge=1)
    checkpoint_every: int = Field(100, ge=1)
    engine: EngineSpec = EngineSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"stages: expected at least one, with names of their own, found {names}")
        if self.batch_size == 1 and any(stage.batch_norm == "train" for stage in self.stages):
            raise ValueError("batch_size: BatchNorm cannot train on batches of 1, use 2 or more, or batch_norm: frozen")
        if self.stages[0].pseudo_labels is not None:
            raise ValueError("stages.0.pseudo_labels: there is no trained model yet to make them")
        if self.stages[0].start_from != "last":
            raise ValueError("stages.0.start_from: there is no earlier stage to start from")
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

    def dump(self) -> str:
        """The whole recipe as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def parse(values: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Validate ``values``; raises one RecipeError that lists every problem with its field."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "\n".join(explain(problem) for problem in error.errors())) from None


def load(path: Path) -> Recipe:
    """Read a recipe file."""
    return parse(read_values(path), where=str(path))


def read_values(path: Path) -> dict[str, Any]:
    """The values of a recipe file before validation."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a readable YAML file, found {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of recipe fields, found {type(values).__name__}")
    return values


def override(values: Mapping[str, Any], changes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Set fields by dotted name to values written as YAML (``("stages.0.steps", "500")``); returns a copy."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(values)))
    for name, text in changes:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = name.replace("-", "_").split(".")
        place: Any = result
        for depth, key in enumerate(parents):
            place = _enter(place, key, ".".join(parents[: depth + 1]))
        if isinstance(place, list):
            place[_position(place, last, name)] = value
        else:
            place[last] = value
    return result


def _enter(place: Any, key: str, name: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, key, name)]
    inner = place.get(key)
    if inner is None:
        inner = place[key] = {}
    elif isinstance(inner, str):  # a kind written short, such as ``gate: skewness``
        inner = place[key] = {"kind": inner}
    if not isinstance(inner, (dict, list)):
        raise RecipeError(f"{name}: expected a group of fields, found the value {inner!r}")
    return inner


def _position(place: list[Any], key: str, name: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise RecipeError(f"{name}: expected a position from 0 to {len(place) - 1}, found {key!r}")
    return int(key)


def explain(problem: Any) -> str:
    """One of pydantic's problems as a line: field, what was expected, what was found."""
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    found = problem.get("input")
    shown = "" if isinstance(found, (Mapping, list, tuple, BaseModel)) else f", found {found!r}"
    return f"{field}: {message}{shown}" if field else message


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


def direction(recipe: Recipe) -> str:
    """Source and target in short, ``sim-cad→sim-scan``."""
    return f"{domain_name(recipe.source)}→{domain_name(recipe.target)}"
