"""One class per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from isthmus.tasks.base import Task


class Classification(Task):
    """Classification into ``classes``; outputs are logits ``(B, K)``, labels ``(B,)`` int64 in ``[0, K)``."""

    name = "class"

    def __init__(self, classes: tuple[str, ...], *, label_smoothing: float = 0.0) -> None:
        self.classes = classes
        self.channels = len(classes)
        self.label_smoothing = label_smoothing

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Cross-entropy of each sample. Shape: ``(B, K)``, ``(B,)`` to ``(B,)``."""
        return F.cross_entropy(output.float(), label, reduction="none", label_smoothing=self.label_smoothing)

    def metric(self) -> Metric:
        """Confusion matrix ``(K, K)``; rows are the truth, columns the prediction."""
        return MulticlassConfusionMatrix(self.channels)


def overall_accuracy(confusion: Tensor) -> float:
    """Share of samples predicted correctly, in [0, 1]; NaN without samples. ``confusion`` is ``(K, K)``."""
    total = confusion.sum().item()
    return confusion.diagonal().sum().item() / total if total else float("nan")


def class_accuracy(confusion: Tensor) -> Tensor:
    """Accuracy of each class, in [0, 1]; NaN for a class without samples. Shape: ``(K, K)`` to ``(K,)``."""
    counts = confusion.sum(dim=1)
    return torch.where(counts > 0, confusion.diagonal() / counts.clamp(min=1), torch.nan)


def mean_class_accuracy(confusion: Tensor) -> float:
    """Mean of :func:`class_accuracy` over the classes that have samples."""
    return torch.nanmean(class_accuracy(confusion)).item()
