"""One class per pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import everywhere, masked, mean_over, ratio


class Segmentation(DenseTask):
    """Classification of every pixel into ``classes``; outputs are logits ``(B, K, H, W)``, labels in ``[0, K)``.

    The score is the mean intersection over union of *one* confusion matrix of the whole data set, in [0, 1], over the
    classes that occur in its truth or its predictions (the released code of MTPSL does not guard against absent ones).

    Args:
        classes: their names, in the order of the channels.
        name: the task's name.
        counted: indices of the classes over which ``mean_iou`` is taken (all, if None). Pixels of the others still
            count as errors where a counted class is predicted, and the other way round.

    Raises:
        ValueError: if ``counted`` is empty or names a class that is not there.
    """

    headline = "mean_iou"
    higher_is_better = True
    heading = "mIoU [%]"
    display_factor = 100.0

    def __init__(
        self, classes: tuple[str, ...], name: str = "segmentation", *, counted: tuple[int, ...] | None = None
    ) -> None:
        if counted is not None and not (counted and set(counted) <= set(range(len(classes)))):
            raise ValueError(f"counted: expected indices of {len(classes)} classes, found {counted}")
        self.name = name
        self.classes = classes
        self.channels = len(classes)
        self.counted = counted

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood over valid pixels; the softmax is float32 also under autocast."""
        valid = everywhere(label, valid)
        return mean_over(F.cross_entropy(output.float(), masked(label, valid), reduction="none"), valid)

    def activate(self, output: Tensor) -> Tensor:
        """Probabilities. Shape: ``(B, K, H, W)``."""
        return output.float().softmax(dim=1)

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Confusion matrices, rows are the truth, flattened. Shape: ``(B, K * K)``."""
        cells = self.channels**2
        sample = torch.arange(len(label), device=label.device)[:, None, None]
        cell = sample * cells + masked(label, valid) * self.channels + output.argmax(dim=1)
        return torch.bincount(cell[valid], minlength=len(label) * cells).view(-1, cells).double()

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``mean_iou``, ``pixel_accuracy`` and ``iou/<class>`` (NaN for a class that occurs nowhere), in [0, 1]."""
        confusion = statistics.unflatten(-1, (self.channels, self.channels))
        right = confusion.diagonal(dim1=-2, dim2=-1)
        iou = ratio(right, confusion.sum(dim=-1) + confusion.sum(dim=-2) - right)
        counted = iou if self.counted is None else iou[..., list(self.counted)]
        return {
            "mean_iou": counted.nanmean(dim=-1),
            "pixel_accuracy": ratio(right.sum(dim=-1), statistics.sum(dim=-1)),
            **{f"iou/{name}": iou[..., index] for index, name in enumerate(self.classes)},
        }

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Probabilities, or one-hot samples that pass the gradient of the relaxed sample on. Shape: ``(B, K, H, W)``.

        The sample is exactly one-hot, and finite for every draw in [0, 1]: draws are kept off the ends, where the
        released code of MTPSL draws anew.
        """
        if uniform is None:
            return self.activate(output)
        kind = torch.finfo(torch.float32)
        gumbel = -(-uniform.float().clamp(kind.tiny, 1 - kind.eps / 2).log()).log()
        soft = self.activate(output.float() + gumbel)
        hard = _one_hot(soft.argmax(dim=1), self.channels)
        return hard + (soft - soft.detach())

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """One-hot, all zero where there is no label. Shape: ``(B, K, H, W)``."""
        return masked(_one_hot(masked(label, valid), self.channels), valid)


def _one_hot(index: Tensor, channels: int) -> Tensor:
    return torch.zeros(len(index), channels, *index.shape[1:], device=index.device).scatter_(1, index[:, None], 1.0)
