r"""Target images with as much of each class as source images have: the constraint of FCNs in the Wild.

Hoffman et al., "FCNs in the wild: Pixel-level adversarial and constraint-based adaptation", 2016. Per
source image that shows a class, the share of its labelled pixels (here: points) that the class has is recorded. The
lower 10 % boundary alpha, the mean delta and the upper 10 % boundary gamma of these shares bound what is predicted on
a target image. The paper was not at hand when this was written; as it is remembered:

- A class counts as shown by a target image if more than 0.1 alpha of its points are predicted (argmax) as it; the
  other classes are not constrained there. ``shown=0`` constrains every class that the source has ever shown, if one
  point is predicted as it; a negative value does so in any case.
- The share that is constrained is the mean probability of the class, q, and lies in [lower, gamma]. The paper also
  names delta as the lower bound, with slack for images that show less; ``lower="mean"`` with ``slack`` < 1 is that.
  The default is ``lower="tail"``, alpha, with full weight.
- Classes whose alpha exceeds 0.1 (road, building) count a tenth (``damping``), since they would drown the others.
- The paper solves for latent labels under the constraints (Pathak et al., CCNN) in turn with the network. Here
  violations are penalised by hinges, whose gradient has the same sign and ends where the constraint holds:

.. math:: \frac1K \sum_c w_c \left( s \max(0, lower_c - q_c) + \max(0, q_c - \gamma_c) \right)

Only source labels enter the statistics.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.losses.cross_modal import log_softmax


class ClassShares(NamedTuple):
    """alpha, delta and gamma: shares of a sample's points by class, (K,) each, NaN for a class never shown."""

    lower: Tensor
    mean: Tensor
    upper: Tensor


def sample_shares(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """The share of each class among the labelled points of each sample; NaN where a sample does not show the class.

    Args:
        labels: (B, 1, N) or (B, N) int64 in [0, classes) where ``valid``, of the same shape.

    Shape:
        - output: (B, classes) float64
    """
    labels, valid = labels.flatten(1), valid.flatten(1)
    sample = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    counts = torch.bincount((sample * classes + labels)[valid], minlength=len(labels) * classes)
    counts = counts.view(-1, classes).double()
    return torch.where(counts > 0, counts / counts.sum(dim=1, keepdim=True).clamp(min=1), torch.nan)


def class_shares(shares: Tensor, tail: float = 0.1) -> ClassShares:
    """Bounds from :func:`sample_shares` of all source samples, one under the other.

    Args:
        shares: (S, K).
        tail: the share of samples that lies below ``lower``, and above ``upper``, in [0, 0.5).
    """
    if not 0 <= tail < 0.5:
        raise ValueError(f"tail must lie in [0, 0.5), found {tail}")
    if not len(shares):
        raise ValueError("class shares need at least one source sample, found none")
    return ClassShares(shares.nanquantile(tail, dim=0), shares.nanmean(dim=0), shares.nanquantile(1 - tail, dim=0))


def class_statistics(
    logits: Tensor,
    present: Tensor,
    shares: ClassShares,
    *,
    lower: Literal["tail", "mean"] = "tail",
    slack: float = 1.0,
    shown: float = 0.1,
    large: float = 0.1,
    damping: float = 0.1,
) -> Tensor:
    """How far the predicted shares of classes lie outside of their bounds, in float32 at least.

    Args:
        logits: of target samples, (B, K, 1, N) or (B, K, N).
        present: (B, N) bool.
        shares: of the source.
        lower: which statistic is the lower bound.
        slack: factor of violations of the lower bound.
        shown: of its ``shares.lower``, the share above which a class is taken to be in the sample.
        large, damping: the factor of classes whose ``shares.lower`` exceeds ``large``.

    Shape:
        - output: (B,), in [0, 1] with the default factors; 0 for a sample without a point, which the caller should not
          count
    """
    if lower not in ("tail", "mean"):
        raise ValueError(f'lower must be "tail" or "mean", found {lower!r}')
    classes = logits.shape[1]
    if any(bound.shape != (classes,) for bound in shares):
        raise ValueError(f"shares must be of {classes} classes, found shape {tuple(shares.lower.shape)}")
    log_p = log_softmax(logits, present)
    points = present.sum(dim=1, keepdim=True).clamp(min=1)
    predicted = (log_p.exp() * present[:, None]).sum(dim=2) / points
    chosen = F.one_hot(log_p.detach().argmax(dim=1), classes) * present[..., None]
    chosen_share = chosen.sum(dim=1) / points
    known = shares.mean.isfinite()
    least, middle, most = (torch.where(known, bound, 0.0).to(predicted) for bound in shares)
    counted = known & (chosen_share > shown * least) & present.any(dim=1, keepdim=True)
    factor = counted * torch.where(least > large, damping, 1.0)
    below = (least if lower == "tail" else middle) - predicted
    violation = slack * below.clamp(min=0) + (predicted - most).clamp(min=0)
    return (factor * violation).sum(dim=1) / classes
