r"""Saliency of points and the skewness of a saliency map: the Measurer of SM-DSB.

Saliency follows Zheng et al., "PointCloud Saliency Maps" (ICCV 2019), as used by Tang et al., "Locating and
Mitigating Gradient Conflicts in Point Cloud Domain Adaptation via Saliency Map Skewness", Eq. 4:
:math:`s_i = -\frac{\partial L}{\partial r_i} r_i^{1+\alpha}`. With :math:`r\,\partial L/\partial r = g\cdot(p-c)`
this is :math:`s_i = -(g_i\cdot(p_i-c))\,r_i^{\alpha}`, which has no division and is finite at the centre.

Differences from the paper, each on purpose:

- Eq. 3 has a sign slip (its right side is *plus* the derivative by rho); Eq. 4 is what is computed here.
- The centre is the true per-axis median (the two middle values are averaged). ``centre="lower_median"`` is what
  ``torch.median`` would give, ``centre="mean"`` the centroid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Centre = Literal["median", "lower_median", "mean"]


def saliency(points: Tensor, gradient: Tensor, *, alpha: float = 1.0, centre: Centre = "median") -> Tensor:
    """Contribution of each point to the loss, Eq. 4.

    Shape: ``(B, N, 3)``, ``(B, N, 3)`` to ``(B, N)``, float32. ``gradient`` is the derivative of the (summed)
    classification loss by the points, in any scale; the sign of the result follows its sign.
    """
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape != gradient.shape:
        raise ValueError(
            "saliency: expected points and gradient of one shape (B, N, 3), "
            f"found {tuple(points.shape)} and {tuple(gradient.shape)}"
        )
    points, gradient = points.detach().float(), gradient.detach().float()
    if centre == "median":
        core = points.quantile(0.5, dim=1, keepdim=True, interpolation="midpoint")
    elif centre == "lower_median":
        core = points.median(dim=1, keepdim=True).values
    else:
        core = points.mean(dim=1, keepdim=True)
    offset = points - core
    radius = offset.norm(dim=-1)
    return -(gradient * offset).sum(dim=-1) * radius.pow(alpha)


def skewness(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """Biased (population) skewness of each row, Eq. 5, in float32.

    Shape: ``(B, N)``, optional boolean ``(B, N)`` of the entries that count, to ``(B,)``. A row without spread (or
    without a valid entry) has skewness 0; a row with a non-finite valid entry has NaN, which a gate reads as "no
    score". Invariant to the scale of a row from 1e-30 to 1e30, since each row is scaled to unit magnitude first.
    """
    values = values.detach().float()
    mask = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    finite = (values.isfinite() | ~mask).all(dim=1)
    values = torch.where(mask & values.isfinite(), values, 0.0)
    magnitude = values.abs().amax(dim=1, keepdim=True)
    values = values / magnitude.clamp(min=torch.finfo(torch.float32).tiny)
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    centred = torch.where(mask, values - values.sum(dim=1, keepdim=True) / count, 0.0)
    variance = centred.square().sum(dim=1) / count.squeeze(1)
    third = centred.pow(3).sum(dim=1) / count.squeeze(1)
    spread = variance > 1e-12  # of values scaled to magnitude 1: below this it is rounding
    result = torch.where(spread, third / variance.clamp(min=1e-12).pow(1.5), 0.0)
    return torch.where(finite, result, torch.nan)
