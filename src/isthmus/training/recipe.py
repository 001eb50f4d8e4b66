"""A recipe: one typed, validated description of a run that a person can read, override and find again.

Recipes are YAML files; every field can be overridden by its dotted name (``method.gate.keep=0.8``,
``stages.0.steps=500``). An unknown key or a bad value is one error that names the nearest valid key or the allowed
values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from isthmus.errors import RecipeError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Literal["train", "val", "test"]
Rule = Literal["last", "source-val", "label-free", "confusion"]
OptimizerName = Literal["adam", "adamw", "sgd"]


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


class GraphRefinementSpec(Spec):
    """Refine pseudo-labels of clouds by a graph network, see :mod:`isthmus.training.points.graph_refinement`.

    A label that is not confident weighs ``others``; ``hidden`` is the graph network's width, by default that of the
    embeddings as published. A step takes all clouds if there are at most ``batch``, else clusters of that many; with
    ``batch`` null all, as published, in a time that grows with their number.
    """

    steps: int = Field(1000, ge=1)
    hidden: int | None = Field(None, ge=1)
    batch: int | None = Field(2048, ge=1)
    threshold: float = Field(0.95, ge=-1, le=1)
    at_most: int = Field(10, ge=1)
    hide: float = Field(0.2, ge=0, lt=1)
    others: Share = 0.2


class PseudoLabelSpec(Spec):
    """Which predictions on the target become labels before a stage.

    ``min_confidence`` keeps predictions at least that sure; ``class_share`` keeps that share of the most confident
    ones of every predicted class (1: all), and on frames any that is at least ``sure``, too. ``refresh_every`` makes
    them anew every so many steps within the stage: by the method as it is then, or with ``graph`` by a graph network
    that is trained on its predictions.
    """

    min_confidence: Share = 0.0
    class_share: Share = 1.0
    sure: Share = 1.0
    refresh_every: int | None = Field(None, ge=1)
    graph: GraphRefinementSpec | None = None

    @model_validator(mode="after")
    def _refreshed(self) -> PseudoLabelSpec:
        if self.graph is not None and self.refresh_every is None:
            raise ValueError("graph: needs refresh_every, the steps after which labels are refined, found none")
        return self


class StageSpec(Spec):
    """What is trained, for how many steps, from which weights, and what happens before.

    ``learning_rate_scale`` multiplies the rate of all parameters whose name starts with a key; ``frozen`` names
    prefixes that are not trained at all and whose BatchNorm stays in eval mode, ``frozen_after`` a boundary of the
    network behind which everything is frozen so. ``batch_norm="frozen"`` keeps all BatchNorm layers in eval mode.
    ``optimizers`` gives parts, by prefix, another optimiser than ``optimizer``. ``step`` halves the rate every
    ``decay_every`` steps; ``poly`` lets it fall with the power 0.9 of the steps that are left. ``domains`` are those
    whose batches the stage uses, all by default. ``keep_optimizer`` carries the running moments of the parameters that
    this stage and the one before both train over; otherwise a stage begins with fresh ones. ``start_from`` names the
    checkpoint of the stage before whose weights this one goes on from, or ``scratch``: those that the run began with
    (pseudo-labels are then made by the last weights of the stage before).
    """

    name: str = "stage1"
    steps: int = Field(1000, ge=1)
    domains: tuple[Literal["source", "target"], ...] = ()
    optimizer: OptimizerName = "adam"
    optimizers: dict[str, OptimizerName] = {}
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-5, ge=0)
    schedule: Literal["constant", "cosine", "onecycle", "step", "poly"] = "cosine"
    decay_every: int | None = Field(None, ge=1)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    learning_rate_scale: dict[str, float] = {}
    frozen: tuple[str, ...] = ()
    frozen_after: str | None = None
    batch_norm: Literal["train", "frozen"] = "train"
    keep_optimizer: bool = False
    start_from: Rule | Literal["before-overfit", "scratch"] = "last"
    pseudo_labels: PseudoLabelSpec | None = None

    @model_validator(mode="after")
    def _warm_up_ends(self) -> StageSpec:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: expected fewer than the stage's {self.steps}, found {self.warmup_steps}")
        if self.start_from == "scratch" and self.keep_optimizer:
            raise ValueError(
                "keep_optimizer: its moments belong to other weights than start_from 'scratch' begins with"
            )
        if (self.schedule == "step") != (self.decay_every is not None):
            raise ValueError(f"decay_every: expected it with schedule 'step' only, found {self.decay_every}")
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
    """What every run depends on, whatever it learns; each kind of problem adds its data, networks and methods."""

    rules: ClassVar[tuple[Rule, ...]] = ("source-val", "last")
    """How a checkpoint can be chosen; the first is the usual way."""
    starts: ClassVar[tuple[str, ...]] = ()
    """What else a stage can start from."""
    short_fields: ClassVar[dict[str, str]] = {}
    """Groups of fields that may be written without the group around them."""

    kind: str
    name: str
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    stages: tuple[StageSpec, ...] = (StageSpec(),)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    log_every: int = Field(10, ge=1)
    evaluate_every: int = Field(100, ge=1)
    checkpoint_every: int = Field(100, ge=1)
    engine: EngineSpec = EngineSpec()

    @model_validator(mode="after")
    def _stages_consistent(self) -> Self:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"stages: expected at least one, with names of their own, found {names}")
        if self.batch_size == 1 and any(stage.batch_norm == "train" for stage in self.stages):
            raise ValueError("batch_size: BatchNorm cannot train on batches of 1, use 2 or more, or batch_norm: frozen")
        if self.stages[0].pseudo_labels is not None:
            raise ValueError("stages.0.pseudo_labels: there is no trained model yet to make them")
        if self.stages[0].start_from != "last":
            raise ValueError("stages.0.start_from: there is no earlier stage to start from")
        for index, stage in enumerate(self.stages):
            if stage.start_from not in (*self.rules, *self.starts, "scratch"):
                allowed = ", ".join((*self.rules, *self.starts, "scratch"))
                raise ValueError(f"stages.{index}.start_from: expected one of {allowed}, found {stage.start_from!r}")
        return self

    @property
    def uses_target_labels(self) -> bool:
        """Whether training itself looks at target labels."""
        return False

    @property
    def setting(self) -> str:
        """What the recipe learns on, in short: rows of a table with the same one are comparable."""
        raise NotImplementedError

    @property
    def method_name(self) -> str:
        """The name under which the method stands in a table."""
        return self.name.rsplit("/", 1)[-1]

    def dump(self) -> str:
        """The whole recipe as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def kinds() -> dict[str, type[Recipe]]:
    """The kinds of recipe by the value of their field ``kind``."""
    from isthmus.training.dense.recipe import DenseRecipe
    from isthmus.training.frames.recipe import FrameRecipe
    from isthmus.training.points.recipe import PointRecipe

    return {"points": PointRecipe, "dense": DenseRecipe, "frames": FrameRecipe}


def parse(values: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Validate ``values``; raises one RecipeError that lists every problem with its field."""
    known = kinds()
    kind = values.get("kind", "points")
    if kind not in known:
        raise RecipeError(f"{where}: kind: expected one of {', '.join(known)}, found {kind!r}")
    try:
        return known[kind].model_validate(values)
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
    """Set fields by dotted name to values written as YAML (``("stages.0.steps", "500")``); returns a copy.

    A group that becomes another kind (``network.kind``) starts from that kind's defaults; kinds are set first.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(values)))
    for name, text in sorted(changes, key=lambda change: not change[0].endswith(".kind")):
        try:
            # YAML would read 9:1 as a number in base 60.
            value = text if re.fullmatch(r"\d+(:\d+)+", text.strip()) else yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = name.replace("-", "_").split(".")
        place: Any = result
        for depth, key in enumerate(parents):
            place = _enter(place, key, ".".join(parents[: depth + 1]))
        if isinstance(place, list):
            place[_position(place, last, name)] = value
        else:
            if parents and last == "kind" and place.get("kind") != value:
                place.clear()
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
