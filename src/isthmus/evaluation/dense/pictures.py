"""Labels and predictions as RGB pictures, in colours that mean the same wherever they are shown.

Classes have the colours of their data set where there is a custom: those of SceneNet RGB-D and SemanticFusion for
NYUv2's thirteen classes, Cityscapes' own (a category has that of its commonest class), PASCAL VOC's for sets that
begin with ``background``. Any other set of K classes has the first K of one fixed series of distinct colours.

Depth is *viridis* with near in yellow, inverse depth likewise; errors are *inferno* from black (none); probabilities
are grey. Normals have x in red, y in green, and in blue how much a surface faces the camera, as in pictures of NYUv2.
Pixels without a label are hatched, a pattern that no map of colours contains.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.data.images import ENCODINGS
from isthmus.data.readers.class_names import CITYSCAPES7, CITYSCAPES19, NYU13
from isthmus.evaluation.dense.points import point_colours, with_points
from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.tasks.dense import DenseTask

_NYU13 = (
    (0, 0, 255), (232, 88, 47), (0, 217, 0), (148, 0, 240), (222, 241, 23), (255, 205, 205), (0, 223, 228),
    (106, 135, 204), (116, 28, 41), (240, 35, 235), (0, 166, 156), (249, 139, 0), (225, 228, 194),
)  # fmt: skip
_CITYSCAPES7 = (
    (128, 64, 128), (70, 70, 70), (220, 220, 0), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 0, 142),
)  # fmt: skip
_CITYSCAPES19 = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
CUSTOMARY = {NYU13: _NYU13, CITYSCAPES7: _CITYSCAPES7, CITYSCAPES19: _CITYSCAPES19}

HATCH = ((255, 255, 255), (214, 214, 214))
"""Colours of the stripes where there is no label."""
ROBUST = (1.0, 99.0)
"""Percentiles between which depths are spread over the colours."""
DEGREES = 60.0
"""Angles between normals from here on have the colour of the largest error."""


def palette(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class, always the same for the same classes. Shape: ``(K, 3)`` uint8."""
    names = tuple(classes)
    if names in CUSTOMARY:
        return np.array(CUSTOMARY[names], dtype=np.uint8)
    if names[:1] == ("background",):
        return _voc_colours(len(names))
    return _distinct_colours()[: len(names)]


def _voc_colours(count: int) -> np.ndarray:
    """PASCAL VOC's series: the bits of the index, dealt to red, green and blue in turn, highest bit of each first."""
    index = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


@cache
def _distinct_colours() -> np.ndarray:
    """256 colours, each as far as can be from all before it, in Ottosson's Oklab (2020). Shape: ``(256, 3)`` uint8."""
    levels = np.linspace(0, 255, 9)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(rgb)
    usable = (lab[:, 0] > 0.25) & (lab[:, 0] < 0.93)  # neither like ink nor like the hatch
    rgb, lab = rgb[usable], lab[usable]
    blue = np.square(lab - _oklab(np.array([[0, 96, 192]]))).sum(axis=1).argmin()
    order = farthest_point_order(torch.from_numpy(lab)[None], 256, torch.tensor([blue]))[0]
    return np.rint(rgb[order.numpy()]).astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Coordinates in which distance is what people see. Shape: ``(n, 3)`` in [0, 255] to ``(n, 3)``."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376],
         [0.0514459929, 0.1073969566, 0.6299787005]]
    )  # fmt: skip
    return np.cbrt(cones) @ np.array(
        [[0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662],
         [-0.0040720468, 0.4505937099, -0.8086757660]]
    )  # fmt: skip


def pixel_values(task: DenseTask, activated: Tensor) -> np.ndarray:
    """What predictions say about each pixel, from what :meth:`DenseTask.activate` gives.

    Shape: ``(B, C, H, W)`` to ``(B, H, W)`` uint8 for a task with classes, ``(B, H, W, 3)`` float32 for normals,
    ``(B, H, W)`` float32 for the others. Keypoints are no map, ``(B, K, 3)`` of shares float32, and stay as they are.
    """
    if has_points(task):
        return activated.float().cpu().numpy()
    if task.classes:
        return activated.argmax(dim=1).byte().cpu().numpy()
    return label_values(task, activated.float())


def label_values(task: DenseTask, label: Tensor) -> np.ndarray:
    """A batch's labels in the form of :func:`pixel_values`."""
    if has_points(task):
        return label.float().cpu().numpy()
    if task.classes:
        return label.byte().cpu().numpy()
    values = label.cpu().numpy()
    return values[:, 0] if values.shape[1] == 1 else np.ascontiguousarray(values.transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class Look:
    """How the maps of one task are coloured, the same way for all that are compared.

    Attributes:
        task: the task.
        low: the smallest depth (or probability) that is told apart.
        high: the largest one; for a task with classes and for normals both mean nothing.
        forward: whether the z axis of normals points away from the camera (what is seen then has a negative z).
    """

    task: DenseTask
    low: float = 0.0
    high: float = 1.0
    forward: bool = False

    @classmethod
    def of(cls, task: DenseTask, values: np.ndarray, valid: np.ndarray | None = None) -> Look:
        """The look that suits a map of the task (:func:`pixel_values`), usually the truth."""
        known = values if valid is None else values[valid]
        if task.name == "normals":
            return cls(task, forward=bool(known[..., 2].mean() < 0) if known.size else False)
        if not has_errors(task) or not known.size:
            return cls(task)
        low, high = np.percentile(known, ROBUST)
        return cls(task, float(low), max(float(high), float(low) + 1e-6))

    @property
    def colours(self) -> np.ndarray:
        """Of the classes, or of the points, ``(K, 3)`` uint8."""
        return point_colours(self.task.classes) if has_points(self.task) else palette(self.task.classes)

    @property
    def has_scale(self) -> bool:
        """Whether colours stand for numbers between ``low`` and ``high``."""
        return not self.task.classes and self.task.name != "normals"

    def scale(self, shares: np.ndarray) -> np.ndarray:
        """Colours at shares in [0, 1] of the way from ``low`` to ``high``. Shape: ``(...)`` to ``(..., 3)`` uint8."""
        name = "gray" if not has_errors(self.task) else "viridis_r" if self.task.name == "depth" else "viridis"
        return colour_map(shares, name)

    def picture(self, values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """A map of the task as a picture. Shape: ``(H, W[, 3])`` and ``(H, W)`` bool to ``(H, W, 3)`` uint8."""
        if self.task.classes:
            rgb = self.colours[np.where(values < len(self.task.classes), values, 0)]
        elif self.task.name == "normals":
            towards = values * np.array([1, 1, -1 if self.forward else 1], dtype=np.float32)
            rgb = np.rint((towards.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        else:
            rgb = self.scale((values - self.low) / (self.high - self.low))
        return rgb if valid is None else hatched(rgb, valid)

    def on_image(
        self, image: np.ndarray, values: np.ndarray, width: int, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """A prediction as a picture of about ``width`` pixels (:func:`enlarged`); points are drawn onto the image.

        Shape: ``(H, W, 3)`` uint8, a map of any size or ``(K, 3)`` points, to ``(H', W', 3)`` uint8.
        """
        if has_points(self.task):
            return with_points(enlarged(image, width, smooth=True), values, self.task.classes, valid)
        return enlarged(self.picture(values, valid), width)


def has_points(task: DenseTask) -> bool:
    """Whether a prediction is a list of points, and not a map."""
    return task.name in ENCODINGS and ENCODINGS[task.name].points


def has_errors(task: DenseTask) -> bool:
    """Whether a prediction is more or less wrong at each pixel, so that a picture of its errors says something."""
    return task.name in ("depth", "inverse_depth", "normals")


def errors(task: DenseTask, values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute differences, or angles in degrees between normals. Shape: ``(H, W[, 3])`` twice, to ``(H, W)``."""
    if task.name != "normals":
        return np.abs(values.astype(np.float32) - truth)
    sine, cosine = np.linalg.norm(np.cross(values, truth), axis=-1), (values * truth).sum(axis=-1)
    return np.degrees(np.arctan2(sine, cosine))


def error_picture(found: np.ndarray, high: float, valid: np.ndarray | None = None) -> np.ndarray:
    """Errors from 0 (black) to ``high`` and above (pale yellow). Shape: ``(H, W)`` to ``(H, W, 3)`` uint8."""
    rgb = error_scale(found / max(high, 1e-9))
    return rgb if valid is None else hatched(rgb, valid)


def error_scale(shares: np.ndarray) -> np.ndarray:
    """Colours of errors at shares in [0, 1] of the largest. Shape: ``(...)`` to ``(..., 3)`` uint8."""
    return colour_map(shares, "inferno")


def hatched(rgb: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The picture with stripes where it is not valid. Shape: ``(H, W, 3)`` uint8, ``(H, W)`` bool to the same."""
    row, column = np.indices(valid.shape)
    stripes = np.array(HATCH, dtype=np.uint8)[((row + column) // 2) % 2]
    return np.where(valid[..., None], rgb, stripes)


def colour_map(shares: np.ndarray, name: str) -> np.ndarray:
    """Colours of one of matplotlib's maps at shares in [0, 1]. Shape: ``(...)`` to ``(..., 3)`` uint8."""
    place = np.rint(np.nan_to_num(shares, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    return _table(name)[place]


@cache
def _table(name: str) -> np.ndarray:
    table: np.ndarray = np.rint(matplotlib.colormaps[name](np.arange(256) / 255)[:, :3] * 255).astype(np.uint8)
    return table


def enlarged(rgb: np.ndarray, width: int, *, smooth: bool = False) -> np.ndarray:
    """The picture at about ``width`` pixels: a small one enlarged by a whole factor, a large one shrunk.

    Enlarging repeats pixels and invents none; ``smooth`` averages when shrinking (for photographs and smooth maps; maps
    of classes would get colours that are none). Shape: ``(H, W, 3)`` uint8 to ``(H', W', 3)`` uint8.
    """
    height, own = rgb.shape[:2]
    if own <= width:
        factor = max(1, width // own)
        return rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (width, max(1, round(height * width / own)))
    way = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(rgb).resize(size, way))


def png(rgb: np.ndarray, *, colours: int | None = None) -> bytes:
    """A PNG file of a picture; with ``colours`` (at most 256) it is reduced to so many and much smaller."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if colours is not None:
        image = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def data_uri(file: bytes) -> str:
    """A PNG file as an address that holds all of it, for pages that load nothing."""
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"
