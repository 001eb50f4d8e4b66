"""One positive number per pixel: what depth and inverse depth have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import everywhere, masked, mean_over, ratio

SMALLEST = 1e-9
"""A prediction that is scored is at least this (as in the released evaluation of MTPSL)."""


class PositiveMap(DenseTask):
    """A positive number per pixel; outputs and labels are ``(B, 1, H, W)``, 0 in a label being "no label".

    The loss is taken on raw outputs, which may be negative; scores are those of ``max(output, 1e-9)``.
    """

    channels = 1
    headline = "abs_error"
    higher_is_better = False
    heading = "aErr"
    display_factor = 1.0

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean absolute difference over valid pixels."""
        valid = everywhere(label, valid)
        return mean_over((output.float() - masked(label, valid)).abs()[:, 0], valid)

    def activate(self, output: Tensor) -> Tensor:
        """The output, or 1e-9 where it is less. Shape: ``(B, 1, H, W)``."""
        return output.float().clamp(min=SMALLEST)

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Sums of absolute, relative and squared errors, and the number of pixels. Shape: ``(B, 4)``."""
        found, truth = self.activate(output)[:, 0].double(), masked(label, valid)[:, 0].double()
        error = (found - truth).abs()
        relative = error / truth.clamp(min=SMALLEST)
        terms = torch.stack([error, relative, error.square(), torch.ones_like(error)], dim=1)
        return masked(terms, valid).sum(dim=(2, 3))

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``abs_error`` and ``rmse`` in the label's unit, ``rel_error`` as a fraction of the truth."""
        absolute, relative, squared, count = statistics[..., :4].unbind(dim=-1)
        return {
            "abs_error": ratio(absolute, count),
            "rel_error": ratio(relative, count),
            "rmse": ratio(squared, count).sqrt(),
        }

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Prediction, 0 where it is negative, over the image's largest, in [0, 1]. Shape: ``(B, 1, H, W)``.

        An image that is nowhere positive is 0, without a gradient.
        """
        return _over_maximum(output.float().relu())

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """Label over the image's largest, in [0, 1], 0 where there is no label. Shape: ``(B, 1, H, W)``."""
        return _over_maximum(masked(label, valid))


def _over_maximum(values: Tensor) -> Tensor:
    return values / (values.amax(dim=(1, 2, 3), keepdim=True) + 1e-12)
