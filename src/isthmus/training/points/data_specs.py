"""The data sets of a recipe and its two domains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from isthmus.training.recipe import Part, Share, Spec


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


class BodiesSpec(Spec):
    """Simulated bodies with labelled parts."""

    kind: Literal["bodies"] = "bodies"
    domain: Literal["standing", "posed", "stocky", "scan"]
    train: int = Field(120, ge=0)
    val: int = Field(20, ge=0)
    test: int = Field(60, ge=0)
    seed: int = 0


class PointSegDASpec(Spec):
    """PointSegDA in its published layout under ``root``; ``parts`` names its eight labels."""

    kind: Literal["pointsegda"] = "pointsegda"
    root: Path
    domain: Literal["adobe", "faust", "mit", "scape"]
    parts: tuple[str, ...] = tuple(f"part{number}" for number in range(1, 9))
    up: Literal["z", "y"] = "z"


class HumanSegSpec(Spec):
    """The real bodies in ``$ISTHMUS_DATA/human_seg``."""

    kind: Literal["human_seg"] = "human_seg"
    name: Literal["faust", "shrec07"]


LABELLED_POINTS = (BodiesSpec, PointSegDASpec, HumanSegSpec)
"""Data sets whose labels are those of points."""

DataSpec = Annotated[
    SimulatedSpec
    | PointDASpec
    | ModelNetSpec
    | FolderSpec
    | UnlabelledSpec
    | HDF5Spec
    | ObjectsSpec
    | BodiesSpec
    | PointSegDASpec
    | HumanSegSpec,
    Field(discriminator="kind"),
]


BODIES: dict[str, dict[str, Any]] = {
    "faust": {"data": {"kind": "human_seg", "name": "faust"}},
    # Ten shapes: adapted to without labels, and measured on, all of them.
    "shrec07": {
        "data": {"kind": "human_seg", "name": "shrec07"},
        "train_on": ("train", "val", "test"),
        "evaluate_on": ("train", "val", "test"),
    },
    **{name: {"data": {"kind": "bodies", "domain": name}} for name in ("standing", "posed", "stocky", "scan")},
}
"""Domains of bodies that are known by one word."""


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

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A domain of bodies may be written by its name alone: ``--source faust --target shrec07``.

        Named and refined in the same breath, it comes as a group with the name as its ``kind``.
        """
        changes = {"kind": value} if isinstance(value, str) else value
        if not isinstance(changes, dict) or "kind" not in changes:
            return value
        if changes["kind"] not in BODIES:
            known = ", ".join(BODIES)
            raise ValueError(f"expected a group of fields, or one of {known}, found {changes['kind']!r}")
        named = BODIES[changes["kind"]]
        rest = {name: field for name, field in changes.items() if name != "kind"}
        return {**named, **rest, "data": {**named["data"], **rest.get("data", {})}}


def domain_name(spec: DomainSpec) -> str:
    """A short name of a domain for tables: its data set, starred behind the virtual sensor."""
    data = spec.data
    if isinstance(data, SimulatedSpec):
        name = f"sim-{data.domain}"
    elif isinstance(data, PointDASpec):
        name = data.domain
    elif isinstance(data, BodiesSpec):
        name = f"bodies-{data.domain}"
    elif isinstance(data, PointSegDASpec):
        name = f"segda-{data.domain}"
    elif isinstance(data, ObjectsSpec | HumanSegSpec):
        name = data.name
    else:
        name = data.root.name
    return f"{name}*" if spec.virtual_sensor is not None else name
