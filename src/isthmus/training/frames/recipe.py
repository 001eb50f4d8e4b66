"""The recipe of point segmentation from LiDAR and camera, carried from a labelled source to an unlabelled target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from isthmus.models.deformable_patch import LARGEST
from isthmus.training.dense.recipe import Size
from isthmus.training.recipe import Recipe, Rule, Share, Spec
from isthmus.training.run import Run

ValidationShare = Annotated[float, Field(ge=0, lt=1)]
"""Of the training scenes, where a data set publishes no validation part for its role as a source."""


Weight = Annotated[float, Field(ge=0)]


class LidarStreetsSpec(Spec):
    """Simulated streets seen by a LiDAR and a camera; see :mod:`isthmus.data.simulators.lidar_streets`."""

    kind: Literal["lidar-streets"] = "lidar-streets"
    domain: Literal["day", "night", "country-a", "country-b", "lidar64", "lidar16"]
    train: int = Field(400, ge=0)
    val: int = Field(80, ge=0)
    test: int = Field(160, ge=0)
    seed: int = 0
    size: Size = (64, 112)


class SweepsSpec(Spec):
    """Real sweeps with point labels in ``$ISTHMUS_DATA/lidar_camera``, without images, on mapped classes."""

    kind: Literal["sweeps"] = "sweeps"
    sensor: Literal["nuscenes", "ika", "semantickitti"]
    front: bool = False


class CamVidSpec(Spec):
    """CamVid's photographs in ``$ISTHMUS_DATA/dense``, whose pixels stand for points: for the 2D stream alone."""

    kind: Literal["camvid"] = "camvid"
    light: Literal["day", "dusk"]


class NuScenesSpec(Spec):
    """Raw nuScenes; ``protocol`` says where labels come from and into which classes they are merged."""

    kind: Literal["nuscenes"] = "nuscenes"
    root: Path
    domain: Literal["day", "night", "usa", "singapore", "all"]
    protocol: Literal["nuscenes-box5", "nuscenes-seg5", "nuscenes-seg6"] = "nuscenes-box5"
    validation_share: ValidationShare | None = None


class A2D2Spec(Spec):
    """A2D2's front centre camera."""

    kind: Literal["a2d2"] = "a2d2"
    root: Path
    validation_share: ValidationShare = 0.05


class SemanticKITTISpec(Spec):
    """SemanticKITTI with KITTI's left colour camera."""

    kind: Literal["semantickitti"] = "semantickitti"
    root: Path
    protocol: Literal["semantickitti-10", "semantickitti-vkitti6", "semantickitti-seg6"] = "semantickitti-10"


class VirtualKITTISpec(Spec):
    """Virtual KITTI."""

    kind: Literal["virtualkitti"] = "virtualkitti"
    root: Path
    validation_share: ValidationShare = 0.05


class XMUDAPickleSpec(Spec):
    """What xMUDA's own preprocessing wrote, read by an unpickler that knows arrays and numbers only."""

    kind: Literal["xmuda-pickle"] = "xmuda-pickle"
    preprocess: Path
    images: Path
    protocol: str
    splits: dict[Literal["train", "val", "test"], tuple[str, ...]] = Field(min_length=1)


FrameDataSpec = Annotated[
    LidarStreetsSpec
    | SweepsSpec
    | CamVidSpec
    | NuScenesSpec
    | A2D2Spec
    | SemanticKITTISpec
    | VirtualKITTISpec
    | XMUDAPickleSpec,
    Field(discriminator="kind"),
]


class FrameAugmentSpec(Spec):
    """Training augmentation, see :class:`isthmus.data.frame_augment.FrameAugment`."""

    matrix_noise: float = Field(0.1, ge=0)
    mirror: Literal["none", "x", "y"] = "y"
    rotation: float = Field(math.pi, ge=0)
    shift: float = Field(1.0, ge=0)
    crop: Size | None = None
    flip: Share = 0.5
    colour: Share = 0.4


class FrameDomainSpec(Spec):
    """A domain: its data, the size of its images (None: their own), and how its training frames are changed."""

    data: FrameDataSpec
    size: Size | None = None
    augment: FrameAugmentSpec = FrameAugmentSpec()


class SparseUNetSpec(Spec):
    """The sparse U-Net of SparseConvNet's kind; ``channels`` grow by as many at every level."""

    channels: int = Field(16, ge=1)
    levels: int = Field(7, ge=1)
    repetitions: int = Field(1, ge=1)
    voxel_size: float = Field(0.05, gt=0)


class ImageUNetSpec(Spec):
    """U-Net with a ResNet encoder."""

    layers: Literal[18, 34] = 34
    width: float = Field(1.0, gt=0)
    dropout: float = Field(0.4, ge=0, lt=1)
    weights: Path | Literal["hub"] | None = None


class PatchSpec(Spec):
    """Where the 2D stream looks: the pixel of a point (size 1), a square, or a square with learned offsets."""

    size: int = Field(5, ge=1, le=LARGEST)
    offsets: Literal["learned", "zero"] = "learned"

    @field_validator("size")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"expected an odd number, found {size}")
        return size


class BaselineSpec(Spec):
    """Labels alone: of the source, or (``oracle``, marked as such everywhere) of the target."""

    kind: Literal["source-only", "oracle"]


class MinEntropySpec(Spec):
    """ADVENT's direct entropy minimisation on both streams' target predictions."""

    kind: Literal["min-entropy"]
    weight: float = Field(0.001, ge=0)


class CoralSpec(Spec):
    """Second-order statistics of the streams' features made alike: deep CORAL, or between logarithms of matrices."""

    kind: Literal["coral"]
    form: Literal["deep", "log"] = "log"
    weight: float = Field(1.0, ge=0)


class PointAdversarySpec(Spec):
    """A discriminator of points, and the game against it."""

    game: Literal["non-saturating", "literal"] = "non-saturating"
    weight: float = Field(0.001, ge=0)
    sides: tuple[Weight, Weight] = (0.5, 0.5)
    """Of the source's and the target's term in the discriminator's loss."""
    discriminator: Literal["chunks", "points"] = "points"


class FeatureAdversarySpec(Spec):
    """AdaptSegNet (probabilities), CyCADA's and FCNs-in-the-Wild's feature level, CLAN: a discriminator per stream."""

    kind: Literal["adapt-segnet", "cycada", "fcns-in-the-wild", "clan"]
    adversary: PointAdversarySpec = PointAdversarySpec()
    constraint: float = Field(1.0, ge=0)
    """Of FCNs-in-the-Wild's class statistics."""
    local: float = Field(10.0, ge=0)
    discrepancy: float = Field(0.01, ge=0)
    """CLAN's weights of the local term and of the two classifiers' likeness."""

    @model_validator(mode="after")
    def _factors(self) -> Self:
        game = (self.adversary.game, self.adversary.discriminator)
        if self.kind == "clan" and game != ("non-saturating", "points"):
            raise ValueError(
                f"adversary: clan weighs points, which needs game non-saturating and discriminator points, found "
                f"{game[0]} and {game[1]}"
            )
        return self


class XMUDASpec(Spec):
    """Each stream's mimicry head imitates the other stream's prediction, on both domains."""

    kind: Literal["xmuda"]
    source_weight: float = Field(1.0, ge=0)
    target_weight: float = Field(0.1, ge=0)


class DsCMLSpec(Spec):
    """Sparse-to-dense cross-modal learning; see :mod:`isthmus.methods.dscml`."""

    kind: Literal["dscml"]
    patch: PatchSpec | None = PatchSpec()
    variant: Literal["paper", "released"] = "paper"
    pooled: Literal["features", "probabilities"] = "features"
    terms: Literal["max-min", "mean", "none"] = "max-min"
    source_weight: float = Field(1.0, ge=0)
    target_weight: float = Field(0.1, ge=0)
    alignment: Literal["crossed", "same", "both"] | None = None
    """CMAL: which predictions each discriminator is shown; None for DsCML without it."""
    adversary: PointAdversarySpec = PointAdversarySpec(weight=0.05, discriminator="chunks")
    adversary_weights: dict[Literal["2D", "3D"], Weight] = Field({})
    """In place of the adversary's own weight, by the target's stream that is to be called source."""
    student: Literal["mimicry", "classifier"] = "mimicry"
    """What imitates where no extremes do."""
    mimicry_shown: bool = False
    """Whether discriminators see the mimicry heads' predictions as well."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.variant == "released" and self.patch is not None and self.patch.offsets == "learned":
            raise ValueError("patch.offsets: expected 'zero' with variant 'released', found 'learned'")
        if self.pooled == "probabilities" and self.patch is None:
            raise ValueError("pooled: expected 'features' without a patch, found 'probabilities'")
        if self.alignment is None and (self.mimicry_shown or self.adversary_weights):
            raise ValueError("alignment: expected one with mimicry_shown or adversary_weights, found none")
        if self.mimicry_shown and (self.student == "classifier" or self.terms == "none"):
            raise ValueError("mimicry_shown: nothing trains mimicry heads with student 'classifier' or terms 'none'")
        return self


class CustomFrameSpec(Spec):
    """A method of the user's own, handed to :func:`isthmus.training.engine.train` as an object."""

    kind: Literal["custom"]
    name: str


FrameMethodSpec = Annotated[
    BaselineSpec | MinEntropySpec | CoralSpec | FeatureAdversarySpec | XMUDASpec | DsCMLSpec | CustomFrameSpec,
    Field(discriminator="kind"),
]


class FrameRecipe(Recipe):
    """Two domains of frames, one or two streams, a method; target labels are never part of it, but for an oracle."""

    rules: ClassVar[tuple[Rule, ...]] = ("source-val", "label-free", "last")

    kind: Literal["frames"] = "frames"
    source: FrameDomainSpec
    target: FrameDomainSpec
    streams: tuple[Literal["2D", "3D"], ...] = Field(("2D", "3D"), min_length=1)
    image_network: ImageUNetSpec = ImageUNetSpec()
    point_network: SparseUNetSpec = SparseUNetSpec()
    method: FrameMethodSpec
    class_weights: Literal["log", "none"] = "log"
    """xMUDA's log-smoothed weights, of the labels of the source's training part alone, or ones."""
    pseudo_weight: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"streams: expected each once, found {', '.join(self.streams)}")
        if self.method.kind in ("xmuda", "dscml") and len(self.streams) < 2:
            raise ValueError(f"streams: method {self.method.kind!r} needs 2D and 3D, found {self.streams[0]!r}")
        return self

    @property
    def uses_target_labels(self) -> bool:
        """An oracle's."""
        return self.method.kind == "oracle"

    @property
    def method_name(self) -> str:
        """The first part of a name such as ``dscml/day-night``."""
        return self.name.split("/")[0]

    @property
    def setting(self) -> str:
        """Source and target in short."""
        return f"{data_name(self.source.data)}→{data_name(self.target.data)}"


def data_name(data: Any) -> str:
    """A data set in short, with the protocol of its classes: rows of different ones are never compared."""
    parts = {
        "lidar-streets": lambda: data.domain,
        "sweeps": lambda: f"{data.sensor} sweeps{', front' if data.front else ''}",
        "camvid": lambda: f"CamVid {data.light}",
        "nuscenes": lambda: f"{data.domain} ({data.protocol})",
        "semantickitti": lambda: data.protocol,
        "xmuda-pickle": lambda: f"{'+'.join(data.splits.get('test', ()))} ({data.protocol})",
    }
    return str(parts.get(data.kind, lambda: data.kind)())


FrameRun = Run[FrameRecipe]
"""A run on frames."""
