r"""Maximum mean discrepancy of two samples, with a mixture of Gaussian kernels.

Gretton et al., "A kernel two-sample test", JMLR 2012, Eq. 3 (unbiased) and Eq. 5 (biased):

.. math::

    \mathrm{MMD}^2 = \mathrm{mean}_{ij}\, k(s_i, s_j) + \mathrm{mean}_{ij}\, k(t_i, t_j)
                     - 2\, \mathrm{mean}_{ij}\, k(s_i, t_j), \qquad
    k(a, b) = \sum_\sigma \exp\Bigl(-\frac{\|a - b\|^2}{2 \sigma^2}\Bigr)

The biased estimate takes the means over all pairs, the unbiased one leaves the pairs of a sample with itself out. The
bandwidths of PointDAN (Qin et al., NeurIPS 2019) are 0.01 to 100, a factor of ten apart; that its kernels are added up
and not averaged is our reading.

Distances are taken directly, not from a matrix product: with a bandwidth of 0.01, a rounding of 1e-4 in the distance of
a sample to itself would be half of a kernel.

Like a correlation this compares batches and not samples: one value, ``(1,)``, or none, ``(0,)``, where there are too
few samples. The caller counts it: ``Loss.of(value, len(value), weight)``. Over several processes that is the mean of
their values, each of its own samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BANDWIDTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


def mmd(source: Tensor, target: Tensor, *, bandwidths: Sequence[float] = BANDWIDTHS, unbiased: bool = False) -> Tensor:
    """Squared maximum mean discrepancy, in float32 at least; both samples get gradients.

    Args:
        source, target: one row of features for each sample.
        bandwidths: the standard deviations of the kernels, in units of the features, each greater than 0.
        unbiased: leave the pairs of a sample with itself out; the value may then be negative.

    Shape:
        - source: (m, C), target: (n, C)
        - output: (1,), or (0,) where a domain has no sample (unbiased: fewer than two). Biased: from 0 to twice the
          number of bandwidths

    Raises:
        ValueError: shapes that do not fit, or a bandwidth that is not positive.

    Example:
        >>> mmd(torch.zeros(3, 2), torch.zeros(4, 2)).item()
        0.0
    """
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(
            f"source and target must be (m, C) and (n, C), found {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"bandwidths must be some numbers greater than 0, found {tuple(bandwidths)}")
    if min(len(source), len(target)) < (2 if unbiased else 1):
        return torch.zeros(0, device=source.device)
    with torch.autocast(source.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(source.dtype, target.dtype), torch.float32)
        rows = torch.cat([source.to(wide), target.to(wide)])
        kernels = _kernels(rows, bandwidths)
        first = len(source)
        within = [kernels[:first, :first], kernels[first:, first:]]
        if unbiased:
            own = len(bandwidths)  # what a sample says of itself: 1 from each kernel
            means = [(block.sum() - own * len(block)) / (len(block) * (len(block) - 1)) for block in within]
        else:
            means = [block.mean() for block in within]
        return (means[0] + means[1] - 2 * kernels[:first, first:].mean())[None]


def _kernels(rows: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """The kernel of all pairs of rows. Shape: (n, C) to (n, n)."""
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([torch.exp(distance / (-2 * sigma**2)) for sigma in bandwidths]).sum(dim=0)
