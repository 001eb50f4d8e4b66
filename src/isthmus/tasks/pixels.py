"""Means over the pixels that carry a label, safe where there are none."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(label: Tensor, valid: Tensor) -> Tensor:
    """The label with zeros where there is none, whatever was there (also NaN).

    Shape: ``(B, H, W)`` or ``(B, C, H, W)``, with ``valid`` ``(B, H, W)``, to the label's shape.
    """
    mask = valid if label.dim() == valid.dim() else valid[:, None]
    return torch.where(mask, label, torch.zeros((), dtype=label.dtype, device=label.device))


def mean_over(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid pixels of each sample, 0 for a sample without. Shape: ``(B, H, W)`` twice, to ``(B,)``."""
    return masked(values, valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, NaN where ``whole`` is 0. Shape: ``(...)`` twice, to ``(...)``."""
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(whole.dtype).tiny), torch.nan)


def everywhere(label: Tensor, valid: Tensor | None) -> Tensor:
    """``valid``, or a mask that is true for every pixel of the label's last two dimensions. Shape: ``(B, H, W)``."""
    if valid is not None:
        return valid
    return torch.ones(len(label), *label.shape[-2:], dtype=torch.bool, device=label.device)
