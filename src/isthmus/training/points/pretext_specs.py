"""The self-supervised tasks of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from isthmus.training.recipe import Spec

VoxelOrder = Literal["sample", "batch"]
LeastPoints = Annotated[int, Field(ge=1, le=1024)]


class DefRecSpec(Spec):
    """Deformation and reconstruction, see :class:`isthmus.pretexts.defrec.DefRec`."""

    kind: Literal["defrec"] = "defrec"
    region: Literal["voxel", "ball", "feature", "split", "gradient", "lambertian"] = "voxel"
    variance: float = Field(0.001, gt=0)
    min_points: LeastPoints | None = None
    voxel_order: VoxelOrder = "sample"


class GASTSpec(Spec):
    """Distortion location and rotation of mixed clouds, see :mod:`isthmus.pretexts.combined`; weight 0 is without."""

    kind: Literal["gast"] = "gast"
    distortion_weight: float = Field(0.5, ge=0)
    rotation_weight: float = Field(0.2, ge=0)
    min_points: LeastPoints = 20
    variance: float = Field(0.001, gt=0)
    voxel_order: VoxelOrder = "sample"
    share_per: Literal["batch", "sample"] = "batch"

    @model_validator(mode="after")
    def _some(self) -> GASTSpec:
        if not self.distortion_weight and not self.rotation_weight:
            raise ValueError("distortion_weight, rotation_weight: expected one of them greater than 0, found 0 and 0")
        return self


class MLSPSpec(Spec):
    """Masked local structure, see :class:`isthmus.pretexts.masked_structure.MaskedStructure`."""

    kind: Literal["mlsp"] = "mlsp"
    radius: float = Field(0.13, gt=0)
    radius_points: int = Field(1024, ge=1)
    position_weight: float = Field(0.5, ge=0)
    normal_weight: float = Field(0.5, ge=0)
    cardinality_weight: float = Field(0.05, ge=0)
    absolute_weight: float = Field(0.05, ge=0)
    mask_weight: float = Field(27.0, gt=0)
    neighbours: int = Field(20, ge=3)
    bin_width: float = Field(2.0, gt=0)
    shift: int = Field(0, ge=0)
    match: Literal["index", "nearest"] = "index"
    min_points: LeastPoints = 40
    variance: float = Field(0.001, gt=0)
    voxel_order: VoxelOrder = "sample"


class ImplicitSpec(Spec):
    """Unsigned distance at random places, see :class:`isthmus.pretexts.implicit_distance.ImplicitDistance`."""

    kind: Literal["implicit"] = "implicit"
    queries: int = Field(2048, ge=1)
    neighbours: int = Field(3, ge=1)
    widest: int = Field(20, ge=1)


PretextSpec = Annotated[DefRecSpec | GASTSpec | MLSPSpec | ImplicitSpec, Field(discriminator="kind")]
