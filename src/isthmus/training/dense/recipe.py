"""Recipes that train one network for many dense predictions, where each image carries labels for only some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from isthmus.training.recipe import Recipe, Rule, Share, Spec
from isthmus.training.run import Run

Size = tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]


class RoomsSpec(Spec):
    """Simulated indoor rooms: 13 classes, metric depth, normals, edges."""

    kind: Literal["rooms"] = "rooms"
    train: int = Field(1200, ge=0)
    val: int = Field(200, ge=0)
    test: int = Field(400, ge=0)
    seed: int = 0
    size: Size = (96, 128)
    style: Literal["synthetic", "camera"] = "synthetic"


class StreetsSpec(Spec):
    """Simulated streets: 7 classes, inverse depth, normals, human parts, saliency, edges."""

    kind: Literal["streets"] = "streets"
    train: int = Field(1200, ge=0)
    val: int = Field(200, ge=0)
    test: int = Field(400, ge=0)
    seed: int = 0
    size: Size = (96, 128)


class FacesSpec(Spec):
    """Simulated faces: normals, keypoints, parts of the face, edges; see :mod:`isthmus.data.simulators.faces`."""

    kind: Literal["faces"] = "faces"
    domain: Literal["source", "source-frontal", "target"]
    train: int = Field(1200, ge=0)
    val: int = Field(200, ge=0)
    test: int = Field(400, ge=0)
    seed: int = 0
    size: Size = (96, 96)
    framing: Literal["head", "face"] = "head"
    grey: bool = False


class YaleBSpec(Spec):
    """The real Yale B faces in ``$ISTHMUS_DATA/dense``; whole persons are held out."""

    kind: Literal["yale-b"] = "yale-b"
    lights: Literal["front", "side", "all"] = "all"
    test_subjects: tuple[str, ...] = Field(min_length=1)
    val_subjects: tuple[str, ...] = ()


class MTANSpec(Spec):
    """NYUv2 or Cityscapes as MTAN preprocessed them (``.npy`` trees); their ``val`` is the test part."""

    kind: Literal["mtan"] = "mtan"
    root: Path
    dataset: Literal["nyuv2", "cityscapes"]
    label: Literal["label_7", "label_19"] = "label_7"
    validation_share: Share = 0.1


class NYUv2ParquetSpec(Spec):
    """NYUv2 as the Hugging Face mirror stores it."""

    kind: Literal["nyuv2-parquet"] = "nyuv2-parquet"
    root: Path
    validation_share: Share = 0.1


class PascalContextSpec(Spec):
    """PASCAL-Context with five tasks, in the layout of ASTMT."""

    kind: Literal["pascal-context"] = "pascal-context"
    root: Path
    validation_share: Share = 0.1


class ScanNetViewsSpec(Spec):
    """Views of real ScanNet scans in ``$ISTHMUS_DATA/dense``; whole rooms are held out."""

    kind: Literal["scannet-views"] = "scannet-views"
    test_rooms: tuple[str, ...] = Field(min_length=1)
    val_rooms: tuple[str, ...] = Field(min_length=1)


class ImageFolderSpec(Spec):
    """Your own images and, per task, a folder of label files of the same name; any may be missing."""

    kind: Literal["images"] = "images"
    root: Path
    classes: tuple[str, ...] = ()


ImageDataSpec = Annotated[
    RoomsSpec
    | StreetsSpec
    | FacesSpec
    | YaleBSpec
    | MTANSpec
    | NYUv2ParquetSpec
    | PascalContextSpec
    | ScanNetViewsSpec
    | ImageFolderSpec,
    Field(discriminator="kind"),
]


class LabelsSpec(Spec):
    """Which image keeps which task's label in the training and validation parts.

    ``full`` all there are, ``one`` a single one, ``random`` between 1 and K - 1, ``ratio`` one each in the proportions
    of ``ratio`` (in the order of the tasks), ``file`` what a partial-label file says (``isthmus data labels``, or a
    published one). Labels of other tasks than ``tasks`` (all by default) are never read.
    """

    setting: Literal["full", "one", "random", "ratio", "file"] = "full"
    ratio: tuple[Annotated[float, Field(ge=0)], ...] = ()
    file: Path | None = None
    seed: int = 0
    tasks: tuple[str, ...] | None = None

    @field_validator("ratio", mode="before")
    @classmethod
    def _colons(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            # YAML reads 9:1 as a number in base 60.
            raise ValueError(
                f"expected one number per task, '[9, 1]' or \"'9:1'\" with quotes of its own, found {value}"
            )
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(":"))
        except ValueError:
            raise ValueError(f"expected numbers with colons between them, found {value!r}") from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.setting == "ratio") != bool(self.ratio):
            raise ValueError(
                f"ratio: expected proportions with setting 'ratio' (--labels.setting ratio), [] with others, found "
                f"{self.ratio} with {self.setting!r}"
            )
        if (self.setting == "file") != (self.file is not None):
            raise ValueError(f"file: expected a file with setting 'file' only, found {self.file}")
        return self


class ImageDomainSpec(Spec):
    """A domain of images: its data, which labels are kept, and the size that images are brought to (None: as is)."""

    data: ImageDataSpec
    labels: LabelsSpec = LabelsSpec()
    size: Size | None = None


class ImageAugmentSpec(Spec):
    """Training augmentation, see :class:`isthmus.data.image_augment.ImageAugment`."""

    scales: tuple[Annotated[float, Field(ge=1)], ...] = Field((1.0, 1.2, 1.5), min_length=1)
    flip: Share = 0.5
    colour_shift: Share = 0.0
    inverse_depth: Literal["multiply", "divide"] = "multiply"
    normals: Literal["renormalise", "interpolate"] = "renormalise"


class SegNetSpec(Spec):
    """SegNet with a shared encoder and decoder (MTAN's "split"); fewer stages keep a finer joint space."""

    kind: Literal["segnet"] = "segnet"
    width: float = Field(1.0, gt=0)
    stages: int = Field(5, ge=1, le=5)


class MTANetSpec(Spec):
    """SegNet with an attention module per task at every stage."""

    kind: Literal["mtan"] = "mtan"
    width: float = Field(1.0, gt=0)
    stages: int = Field(5, ge=1, le=5)


class ResNetASPPSpec(Spec):
    """Dilated ResNet with an ASPP head per task; ``weights`` is a file of ImageNet weights, never required."""

    kind: Literal["resnet-aspp"] = "resnet-aspp"
    layers: Literal[18, 34] = 18
    width: float = Field(1.0, gt=0)
    aspp_channels: int = Field(256, ge=1)
    dropout: Share = 0.5
    weights: Path | Literal["hub"] | None = None


class ResNetFPNSpec(Spec):
    """ResNet with a decoder of three upsampling levels with skips; see :mod:`isthmus.models.resnet_fpn`."""

    kind: Literal["resnet-fpn"] = "resnet-fpn"
    layers: Literal[18, 34, 50] = 18
    width: float = Field(1.0, gt=0)
    decoder_channels: int = Field(128, ge=1)
    weights: Path | Literal["hub"] | None = None


DenseNetworkSpec = Annotated[SegNetSpec | MTANetSpec | ResNetASPPSpec | ResNetFPNSpec, Field(discriminator="kind")]

Reduction = Literal["mean", "sum"]


class SingleTaskSpec(Spec):
    """A network of its own for every task: what multi-task learning is measured against."""

    kind: Literal["single-task"]


class MultiTaskSpec(Spec):
    """Vanilla multi-task learning, Eq. 1; ``mean`` over an image's labels as printed, ``sum`` as released."""

    kind: Literal["multi-task"]
    reduction: Reduction = "mean"
    joint_batches: bool = False


class SemiSupervisedSpec(Spec):
    """Consistency of the unlabelled tasks under cropping, Eq. 2."""

    kind: Literal["semi-supervised"]
    reduction: Reduction = "mean"
    weight: float = Field(1.0, ge=0)


class MTPSLSpec(Spec):
    """Cross-task consistency in joint pairwise spaces, Eq. 3 and 4; see :mod:`isthmus.methods.mtpsl`."""

    kind: Literal["mtpsl"]
    reduction: Reduction = "mean"
    weight: float = Field(1.0, ge=0)
    regulariser: float = Field(1.0, ge=0)
    condition: Literal["input-and-pair", "pair", "none"] = "input-and-pair"
    film_inputs: bool = True
    joint_space: Literal["vector", "map"] = "vector"
    detach_feature: bool = True
    encoding: Literal["softmax", "gumbel"] = "softmax"
    second_view: bool = False


class CrossTaskSpec(Spec):
    """The alternatives to a joint space: Direct-Map, Perceptual-Map, Contrastive-Loss, Discriminator-Loss."""

    kind: Literal["direct-map", "perceptual-map", "contrastive", "discriminator"]
    reduction: Reduction = "mean"
    weight: float = Field(1.0, ge=0)
    map_width: float | None = Field(None, gt=0)
    margin: float = Field(0.5, ge=0)


class XTaskSpec(Spec):
    """Cross-task consistency of Zamir et al.: maps between labels are learnt first, then held fixed."""

    kind: Literal["x-task"]
    reduction: Reduction = "mean"
    weight: float = Field(1.0, ge=0)
    map_width: float | None = Field(None, gt=0)


class AdversarySpec(Spec):
    """A discriminator at a tap, and the game against it; see :mod:`isthmus.losses.adversary`."""

    tap: str
    game: Literal["reversal", "non-saturating"] = "reversal"
    weight: float = Field(0.1, ge=0)
    start: float = Field(0.5, ge=0, lt=1)
    ramp: bool = False
    input_noise: float = Field(0.0, ge=0)
    activation_noise: float = Field(0.0, ge=0)
    label_noise: float = Field(0.0, ge=0, le=0.5)
    self_information: bool = False
    mask: str | None = None
    layers: int = Field(5, ge=1)
    hidden: int = Field(64, ge=1)
    stride: int = Field(2, ge=1)
    batch_norm: bool = False


class AdversarialSpec(Spec):
    """Multi-task learning with adversaries between the domains."""

    kind: Literal["adversarial"]
    adversaries: tuple[AdversarySpec, ...]
    reduction: Reduction = "sum"
    joint_batches: bool = True

    @model_validator(mode="after")
    def _names(self) -> Self:
        if not self.adversaries:
            raise ValueError("adversaries: expected at least one, found none")
        return self


class CustomDenseSpec(Spec):
    """A method of the user's own, handed to :func:`isthmus.training.engine.train` as an object."""

    kind: Literal["custom"]
    name: str


DenseMethodSpec = Annotated[
    SingleTaskSpec
    | MultiTaskSpec
    | SemiSupervisedSpec
    | MTPSLSpec
    | CrossTaskSpec
    | XTaskSpec
    | AdversarialSpec
    | CustomDenseSpec,
    Field(discriminator="kind"),
]


class PlainWeightingSpec(Spec):
    """``uniform``; through TorchJD ``pcgrad``, ``cagrad``, and (GPL solvers) ``nash-mtl``, ``upgrad``."""

    kind: Literal["uniform", "pcgrad", "cagrad", "nash-mtl", "upgrad"] = "uniform"


class UncertaintySpec(Spec):
    """Kendall et al.: learned homoscedastic uncertainty."""

    kind: Literal["uncertainty"]
    form: Literal["kendall", "mtan"] = "kendall"
    initial: float = -0.5


class DWASpec(Spec):
    """Dynamic weight average over windows of ``interval`` steps."""

    kind: Literal["dwa"]
    temperature: float = Field(2.0, gt=0)
    interval: int = Field(100, ge=1)


class GradNormSpec(Spec):
    """Chen et al.: gradient norms of alike tasks."""

    kind: Literal["gradnorm"]
    alpha: float = Field(1.5, ge=0)
    learning_rate: float = Field(0.025, gt=0)


class MGDASpec(Spec):
    """Sener and Koltun: the point of least norm among convex combinations of the gradients."""

    kind: Literal["mgda"]
    normalisation: Literal["loss", "l2", "none"] = "loss"


WeightingSpec = Annotated[
    PlainWeightingSpec | UncertaintySpec | DWASpec | GradNormSpec | MGDASpec, Field(discriminator="kind")
]


class KeypointsSpec(Spec):
    """How points become heat maps, see :class:`isthmus.tasks.keypoints.Keypoints`; ``sigma`` is in pixels."""

    sigma: float = Field(2.0, gt=0)
    depth_weight: float = Field(1.0, ge=0)


GRADIENT_WEIGHTINGS = ("pcgrad", "cagrad", "nash-mtl", "upgrad", "gradnorm", "mgda")


class DenseRecipe(Recipe):
    """Images with labels of some tasks, one network for all of them, and a method."""

    starts: ClassVar[tuple[str, ...]] = ("before-overfit",)
    short_fields: ClassVar[dict[str, str]] = {"data": "source.data", "labels": "source.labels", "size": "source.size"}

    kind: Literal["dense"] = "dense"
    source: ImageDomainSpec
    target: ImageDomainSpec | None = None
    """Another domain, whose test part is then the one that counts; ``labels.tasks`` says what may be learnt from."""
    tasks: tuple[str, ...] = ()
    """Those of the data set that are learnt, in the order of tables; all by default."""
    main: str | None = None
    """The one task that counts, where the others are there to help it: checkpoints and gains go by it alone."""
    anchor: str | None = None
    """The task that helps it. ``labels.tasks``, ``task_weights`` and adversaries may say ``main`` and ``anchor``."""
    augment: ImageAugmentSpec = ImageAugmentSpec()
    views: ImageAugmentSpec = ImageAugmentSpec(scales=(1.2, 1.5), flip=0.0)
    """How a method makes a second view of an augmented image (semi-supervised, mtpsl with ``second_view``): a crop."""
    network: DenseNetworkSpec = SegNetSpec()
    method: DenseMethodSpec
    task_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    weighting: WeightingSpec = PlainWeightingSpec()
    keypoints: KeypointsSpec = KeypointsSpec()
    counted_classes: tuple[str, ...] = ()
    """Classes of the segmentation that its mean IoU counts; all by default."""
    measure_test: Literal["always", "chosen"] = "always"
    """Measure the test part at every evaluation, or only where a checkpoint is chosen; it never decides anything."""

    @field_validator("weighting", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for index, stage in enumerate(self.stages):
            if stage.pseudo_labels is not None:
                raise ValueError(f"stages.{index}.pseudo_labels: not offered for kind 'dense'")
        if self.weighting.kind in GRADIENT_WEIGHTINGS and self.engine.precision == "16-mixed":
            raise ValueError(
                f"weighting.kind: {self.weighting.kind!r} combines gradients of single tasks, which the loss scaling "
                "of engine.precision '16-mixed' does not allow: use 'bf16-mixed' or '32-true'"
            )
        if self.main is not None and self.main == self.anchor:
            raise ValueError(f"anchor: expected another task than main, found {self.anchor!r}")
        if self.main is not None and self.tasks and self.main not in map(self.task, self.tasks):
            raise ValueError(f"main: expected one of the tasks {', '.join(self.tasks)}, found {self.main!r}")
        if self.target is None and (self.method.kind == "adversarial" or any(s.domains for s in self.stages)):
            raise ValueError("target: expected a second domain for adversaries and stages.*.domains, found none")
        if isinstance(self.method, AdversarialSpec):
            taps = [self._tap(adversary.tap) for adversary in self.method.adversaries]
            if len(set(taps)) != len(taps):
                raise ValueError(f"method.adversaries: expected taps of their own, found {', '.join(taps)}")
        if self.method.kind == "x-task" and len(self.stages) < 2:
            raise ValueError("stages: method 'x-task' learns its maps in the first and the network in the others")
        if self.method.kind == "single-task" and self.weighting.kind != "uniform":
            raise ValueError(f"weighting.kind: single tasks have nothing to balance, found {self.weighting.kind!r}")
        cross_task = self.method.kind in (
            "mtpsl",
            "direct-map",
            "perceptual-map",
            "contrastive",
            "discriminator",
            "x-task",
        )
        if cross_task and len(self.tasks) == 1:
            raise ValueError(
                f"tasks: method {self.method.kind!r} compares tasks and needs two, found {self.tasks[0]!r}"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks: expected each once, found {', '.join(self.tasks)}")
        if self.method.kind == "x-task" and self.weighting.kind in GRADIENT_WEIGHTINGS:
            raise ValueError(
                f"weighting.kind: {self.weighting.kind!r} has nothing to combine while x-task learns its maps"
            )
        if self.method.kind in ("single-task", "custom") and self.task_weights:
            raise ValueError(
                f"task_weights: method {self.method.kind!r} takes none, found {', '.join(self.task_weights)}"
            )
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:  # type: ignore[override]
        """``confusion``, the paper's sign that adaptation works, is there where a discriminator is."""
        return ("source-val", "last", "confusion") if self.method.kind == "adversarial" else ("source-val", "last")

    @property
    def uses_target_labels(self) -> bool:
        """Whether labels of the main task are learnt from in the target."""
        if self.target is None or self.main is None:
            return False
        return self.target.labels.tasks is None or self.main in map(self.task, self.target.labels.tasks)

    def task(self, name: str) -> str:
        """The task that is meant by ``main`` or ``anchor``; other names as they are."""
        return {"main": self.main, "anchor": self.anchor}.get(name) or name

    def _tap(self, name: str) -> str:
        part, slash, task = name.partition("/")
        return f"{part}{slash}{self.task(task)}"

    @property
    def method_name(self) -> str:
        """The first part of a name such as ``mtpsl/rooms-onelabel``."""
        return self.name.split("/")[0]

    @property
    def setting(self) -> str:
        """Data set and label setting in short, ``rooms, one label``; or both data sets, ``rooms→scannet-views``."""
        if self.target is not None:
            return f"{_data_name(self.source.data)}→{_data_name(self.target.data)}"
        name, labels = _data_name(self.source.data), self.source.labels
        if labels.setting == "ratio":
            return f"{name}, {':'.join(f'{part:g}' for part in labels.ratio)}"
        words = {"one": "one label", "random": "random labels", "full": "full labels"}
        return f"{name}, {words.get(labels.setting, labels.file.stem if labels.file else '')}"


def _data_name(data: Any) -> str:
    """A data set in short."""
    names = {
        "mtan": getattr(data, "dataset", ""),
        "images": getattr(getattr(data, "root", None), "name", ""),
        "rooms": "rooms" if getattr(data, "style", "synthetic") == "synthetic" else "camera rooms",
        "faces": f"faces, {getattr(data, 'domain', '')}",
    }
    name = names.get(data.kind, data.kind)
    return f"{name} (test {'+'.join(data.test_rooms)})" if isinstance(data, ScanNetViewsSpec) else name


DenseRun = Run[DenseRecipe]
"""A run of dense predictions."""
