"""Which pixels are boundaries."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.tasks.boundary_matching import boundary_counts
from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import everywhere, masked, mean_over, ratio

THRESHOLDS = tuple(round(0.03 * step, 2) for step in range(1, 34))

LEAST_DISTANCE = 1.0
"""Pixels that a pair may always lie apart."""


class Edges(DenseTask):
    """Boundaries in one logit; outputs ``(B, 1, H, W)``, labels of 0 and 1 likewise.

    The score is the F-measure of counts summed over the data set, at the threshold that is best for all of it (odsF);
    how predictions are paired with true pixels is said in ``isthmus.tasks.boundary_matching``. Statistics are worked
    out on the CPU.

    Args:
        positive_weight: weight of a boundary pixel in the loss; others weigh ``1 - positive_weight``.
        tolerance: how far apart a pair may lie, as a fraction of the image's diagonal, but at least ``LEAST_DISTANCE``
            pixels: on images of fewer than 134 pixels of diagonal the fraction alone would allow no distance at all.
        thresholds: ascending, in (0, 1). BSDS takes 99; the cost grows with their number.

    Raises:
        ValueError: if one of them is out of range.
    """

    name = "edges"
    channels = 1
    headline = "ods_f"
    higher_is_better = True
    heading = "odsF [%]"
    display_factor = 100.0

    def __init__(
        self,
        *,
        positive_weight: float = 0.95,
        tolerance: float = 0.0075,
        thresholds: tuple[float, ...] = THRESHOLDS,
    ) -> None:
        if not 0 < positive_weight < 1:
            raise ValueError(f"positive_weight: expected between 0 and 1, found {positive_weight}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance: expected a fraction of the diagonal, found {tolerance}")
        if not thresholds or sorted(set(thresholds)) != list(thresholds) or not 0 < thresholds[0] <= thresholds[-1] < 1:
            raise ValueError(f"thresholds: expected ascending numbers between 0 and 1, found {thresholds}")
        self.positive_weight = positive_weight
        self.tolerance = tolerance
        self.thresholds = thresholds

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean weighted cross-entropy over valid pixels."""
        valid = everywhere(label, valid)
        truth = masked(label, valid)[:, 0]
        weight = torch.where(truth > 0.5, self.positive_weight, 1 - self.positive_weight)
        return mean_over(
            weight * F.binary_cross_entropy_with_logits(output[:, 0].float(), truth, reduction="none"), valid
        )

    def activate(self, output: Tensor) -> Tensor:
        """Probabilities. Shape: ``(B, 1, H, W)``."""
        return output.float().sigmoid()

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Pairs, predicted pixels and true pixels at each threshold. Shape: ``(B, 3 * T)``."""
        strength, truth = self.activate(output)[:, 0].cpu().numpy(), (masked(label, valid)[:, 0] > 0.5).cpu().numpy()
        thresholds = np.array(self.thresholds)
        counts = [
            boundary_counts(*maps, thresholds, self.tolerance, LEAST_DISTANCE)
            for maps in zip(strength, truth, valid.cpu().numpy())
        ]
        flat = np.stack(counts).reshape(len(truth), -1).astype(np.float64)
        return torch.from_numpy(flat).to(output.device)

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``ods_f``, and ``precision``, ``recall`` and ``threshold`` where it is reached; all in [0, 1]."""
        pairs, predicted, true = statistics.unflatten(-1, (len(self.thresholds), 3)).unbind(dim=-1)
        f = ratio(2 * pairs, predicted + true)
        best = f.nan_to_num(-1.0).argmax(dim=-1, keepdim=True)
        thresholds = torch.tensor(self.thresholds, dtype=f.dtype, device=f.device).expand_as(f)
        scores = {
            "ods_f": f,
            "precision": ratio(pairs, predicted),
            "recall": ratio(pairs, true),
            "threshold": torch.where(f.isnan(), torch.nan, thresholds),
        }
        return {name: score.gather(-1, best).squeeze(-1) for name, score in scores.items()}

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Probabilities. Shape: ``(B, 1, H, W)``."""
        return self.activate(output)

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """The label, 0 where there is none. Shape: ``(B, 1, H, W)``."""
        return masked(label, valid)
