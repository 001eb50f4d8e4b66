"""Which pixels belong to what stands out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import everywhere, masked, mean_over, ratio

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(15))
"""0.2 to 0.9, the grid of ASTMT; 0.5 is one of them."""


class Saliency(DenseTask):
    """Two classes in one logit; outputs ``(B, 1, H, W)``, labels of 0 and 1 likewise.

    The score is the Jaccard index of each image, averaged over images, at the best of :data:`THRESHOLDS` for the whole
    data set (ASTMT, Vandenhende et al.). Where neither truth nor prediction has a salient pixel it is 1.
    """

    name = "saliency"
    channels = 1
    headline = "max_iou"
    higher_is_better = True
    heading = "sal. IoU [%]"
    display_factor = 100.0

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Class-balanced cross-entropy over valid pixels (Xie and Tu, ICCV 2015, eq. 2, divided by their number).

        A salient pixel weighs the image's share of others, another pixel the share of salient ones, both over *this
        sample's* valid pixels (ASTMT: over the batch, so that a sample's loss depends on its neighbours). So an image
        of one class alone has loss 0.
        """
        valid = everywhere(label, valid)
        truth = masked(label, valid)[:, 0]
        share = mean_over(truth, valid)[:, None, None]
        weight = torch.where(truth > 0.5, 1 - share, share)
        return mean_over(
            weight * F.binary_cross_entropy_with_logits(output[:, 0].float(), truth, reduction="none"), valid
        )

    def activate(self, output: Tensor) -> Tensor:
        """Probabilities. Shape: ``(B, 1, H, W)``."""
        return output.float().sigmoid()

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """The image's Jaccard index at each threshold, and whether it has a label at all. Shape: ``(B, 16)``."""
        truth = masked(label, valid) > 0.5
        thresholds = torch.tensor(THRESHOLDS, device=output.device)[:, None, None]
        found = (self.activate(output) > thresholds) & valid[:, None]
        both, either = (found & truth).sum(dim=(2, 3)).double(), (found | truth).sum(dim=(2, 3)).double()
        measured = valid.any(dim=-1).any(dim=-1)[:, None].double()
        return torch.cat([ratio(both, either).nan_to_num(1.0) * measured, measured], dim=1)

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``max_iou`` at the best threshold, that ``threshold``, and ``iou_at_0.5``; all in [0, 1]."""
        each = ratio(statistics[..., :-1], statistics[..., -1:])
        best = each.max(dim=-1)
        threshold = torch.tensor(THRESHOLDS, dtype=each.dtype, device=each.device)[best.indices]
        return {
            "max_iou": best.values,
            "threshold": torch.where(best.values.isnan(), torch.nan, threshold),
            "iou_at_0.5": each[..., THRESHOLDS.index(0.5)],
        }

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Probabilities. Shape: ``(B, 1, H, W)``."""
        return self.activate(output)

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """The label, 0 where there is none. Shape: ``(B, 1, H, W)``."""
        return masked(label, valid)
