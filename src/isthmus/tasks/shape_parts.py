"""Parts of shapes: one class per point, scored shape by shape."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.tasks.pixels import ratio
from isthmus.tasks.segmentation import Segmentation


class ShapeParts(Segmentation):
    """Classification of every point of a cloud into parts; outputs are logits ``(B, K, 1, N)``, labels ``(B, 1, N)``.

    The score is PointSegDA's (Achituve et al., WACV 2021): the mean of the intersections over union of *each shape*,
    over the classes in its truth or its prediction (scikit-learn's macro Jaccard), then the mean over shapes. A shape
    counts once, however many points it has, and a small part as much as a large one. This is not the score of
    :class:`isthmus.tasks.segmentation.Segmentation`, which adds all points up first.

    Statistics are additive all the same: each shape's mean and a 1, each class's score and whether it counts, and the
    points that are right and that there are. A shape without a valid point has zeros only.
    """

    heading = "shape mIoU [%]"

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__(classes, "parts")

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Shape: ``(B, 4 + 2 K)``."""
        confusion = super().statistics(output, label, valid).unflatten(-1, (self.channels, self.channels))
        right = confusion.diagonal(dim1=-2, dim2=-1)
        iou = ratio(right, confusion.sum(dim=-1) + confusion.sum(dim=-2) - right)
        counted = ~iou.isnan()
        measured = counted.any(dim=-1, keepdim=True)
        points = confusion.sum(dim=(-2, -1)).unsqueeze(-1)
        mean = torch.where(measured, iou.nanmean(dim=-1, keepdim=True), 0.0)
        return torch.cat(
            [mean, measured.double(), right.sum(dim=-1, keepdim=True), points, iou.nan_to_num(0.0), counted.double()],
            dim=-1,
        )

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``mean_iou``, ``pixel_accuracy`` (of points), and ``iou/<class>`` over the shapes where it counts."""
        mean, shapes, right, points = statistics[..., :4].unbind(dim=-1)
        iou, counted = statistics[..., 4:].chunk(2, dim=-1)
        by_class = ratio(iou, counted)
        return {
            "mean_iou": ratio(mean, shapes),
            "pixel_accuracy": ratio(right, points),
            **{f"iou/{name}": by_class[..., index] for index, name in enumerate(self.classes)},
        }
