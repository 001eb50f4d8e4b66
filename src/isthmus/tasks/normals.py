"""Surface normals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import everywhere, masked, mean_over, ratio

SHORTEST = 1e-4
"""A vector shorter than this is divided by this instead of its length, so that no gradient exceeds its inverse."""
BINS_PER_DEGREE = 10
WITHIN = (11.25, 22.5, 30.0)
"""Angles, in degrees, for which the share of pixels below is scored."""


class Normals(DenseTask):
    """A unit vector per pixel; outputs ``(B, 3, H, W)`` of any length, labels likewise, 0 being "no label".

    Both are brought to unit length (interpolation shortens labels). Angles are those between prediction and truth, in
    degrees; a prediction of exactly zero is taken to be 90 degrees off.

    The median comes from a histogram with bins of 0.1 degrees, as statistics must be sums: it lies in the same bin
    as the exact (lower) median, so it is off by 0.1 degrees at most, and is interpolated within. Statistics that were
    kept with other bins (0.25 degrees in earlier versions) are understood.
    """

    name = "normals"
    channels = 3
    headline = "mean_error"
    higher_is_better = False
    heading = "mErr [°]"
    display_factor = 1.0

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """One minus the mean cosine over valid pixels, in [0, 2]."""
        valid = everywhere(label, valid)
        cosine = (_unit(output.float()) * _unit(masked(label, valid))).sum(dim=1)
        return mean_over(1 - cosine, valid)

    def activate(self, output: Tensor) -> Tensor:
        """Unit vectors; one that is shorter than 1e-4 stays shorter than 1. Shape: ``(B, 3, H, W)``."""
        return _unit(output.float())

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Sums of angles and their squares, counts within limits, number of pixels, histogram. Shape: ``(B, 1806)``."""
        angle = _degrees_between(output.double(), masked(label, valid).double())
        terms = [angle, angle.square(), *(angle < limit for limit in WITHIN), torch.ones_like(angle)]
        sums = masked(torch.stack([term.double() for term in terms], dim=1), valid).sum(dim=(2, 3))
        bins = 180 * BINS_PER_DEGREE
        place = (angle.nan_to_num(180.0) * BINS_PER_DEGREE).long().clamp(max=bins - 1)
        place = place + bins * torch.arange(len(angle), device=angle.device)[:, None, None]
        histogram = torch.bincount(place[valid], minlength=len(angle) * bins).view(-1, bins)
        return torch.cat([sums, histogram.double()], dim=1)

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``mean_error``, ``median_error`` and ``rmse`` in degrees; ``within_<limit>``, shares in [0, 1]."""
        angle, squared, *near, count = statistics[..., : 3 + len(WITHIN)].unbind(dim=-1)
        return {
            "mean_error": ratio(angle, count),
            "median_error": _median(statistics[..., 3 + len(WITHIN) :]),
            "rmse": ratio(squared, count).sqrt(),
            **{f"within_{limit:g}": ratio(part, count) for limit, part in zip(WITHIN, near)},
        }

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """``(n + 1) / 2`` of the unit vectors, in [0, 1]. Shape: ``(B, 3, H, W)``."""
        return (self.activate(output) + 1) / 2

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """``(n + 1) / 2``, so 1/2 where there is no label. Shape: ``(B, 3, H, W)``."""
        return (_unit(masked(label, valid)) + 1) / 2


def _unit(vectors: Tensor) -> Tensor:
    # Several times faster over three channels than torch's norm along a dimension.
    squared = vectors.square().sum(dim=1, keepdim=True)
    return vectors / squared.clamp(min=SHORTEST**2).sqrt()


def _degrees_between(a: Tensor, b: Tensor) -> Tensor:
    """Angles. The arc tangent is exact at 0 and 180 degrees, where the arc cosine loses half its digits."""
    sine, cosine = torch.linalg.cross(a, b, dim=1).square().sum(dim=1).sqrt(), (a * b).sum(dim=1)
    undirected = (a == 0).all(dim=1)
    return torch.where(undirected, 90.0, torch.atan2(sine, cosine) * (180 / math.pi))


def _median(histogram: Tensor) -> Tensor:
    """The angle below which half of the counts lie, in degrees; bins cover 180. Shape: ``(..., bins)`` to ``(...)``."""
    below = histogram.cumsum(dim=-1)
    half = below[..., -1:] / 2
    place = (below < half).sum(dim=-1, keepdim=True).clamp(max=histogram.shape[-1] - 1)
    inside = histogram.gather(-1, place)
    fraction = (half - (below.gather(-1, place) - inside)) / inside.clamp(min=torch.finfo(inside.dtype).tiny)
    return torch.where(half > 0, (place + fraction) * (180 / histogram.shape[-1]), torch.nan).squeeze(-1)
