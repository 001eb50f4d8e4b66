r"""Category-level adversarial learning, CLAN (Luo et al., "Taking a closer look at domain shift", CVPR 2019).

Two classifiers on one feature are kept different, and where they agree on a target point nevertheless, the point
counts as well aligned and its adversarial loss little:

.. math::

    L_{weight} = \frac{w_1 \cdot w_2}{\|w_1\| \|w_2\|} \quad
    L_{adv} = -E[\log D(G(X_S))] - E[(\lambda_{local} (1 - \cos(p_1, p_2)) + \epsilon) \log(1 - D(G(X_T)))]

Numbers of the paper and the released code: lambda_local 40 (GTA5) or 10 (SYNTHIA), epsilon 0.4, weight of L_weight
0.01 and of L_adv 0.001, both damped linearly to 0 over the training, the former doubled; the first 5 % of the
training without the factor. The discriminator sees softmax(l_1 + l_2).

p_1 and p_2 are probabilities (released; the paper says "predictions"). The released code lets the gradient of the loss
through the factor, too, which then teaches the classifiers to agree wherever the discriminator is right: that is
``attached=True``. The paper calls the factor a weight, and by default it is one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.losses.cross_modal import log_softmax, wide
from isthmus.tasks.pixels import masked, mean_over

LEAST_NORM = 1e-12


def weight_discrepancy(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    """Cosine of two classifiers' parameters, each laid out as one vector. It falls as they become different.

    Args:
        first, second: parameters in the same order and shapes, e.g. ``module.parameters()``; biases count if given.

    Shape:
        - output: (1,), in [-1, 1]: one value, whatever the batch. The released code adds 1, so that it is positive.

    Raises:
        ValueError: the parameters do not have the same shapes, or there are none.
    """
    pairs = [list(first), list(second)]
    shapes = [[tuple(each.shape) for each in side] for side in pairs]
    if shapes[0] != shapes[1] or not shapes[0]:
        found = f"{shapes[0]} and {shapes[1]}"
        raise ValueError(f"both classifiers must have parameters of the same shapes, found {found}")
    one, two = (torch.cat([wide(each).flatten() for each in side]) for side in pairs)
    return (one @ two / (one.norm() * two.norm()).clamp(min=LEAST_NORM))[None]


def local_factor(
    first: Tensor,
    second: Tensor,
    present: Tensor,
    *,
    weight: float = 40.0,
    floor: float = 0.4,
    attached: bool = False,
) -> Tensor:
    """The factor of each target point's adversarial loss: weight * (1 - cos(p_1, p_2)) + floor.

    Args:
        first, second: logits of the two classifiers, (B, K, 1, N) or (B, K, N).
        present: (B, N) bool.
        weight: lambda_local.
        floor: epsilon.
        attached: let gradients through.

    Shape:
        - output: (B, N), in [floor, weight + floor]; 0 for absent points
    """
    one, two = (log_softmax(logits, present).exp() for logits in (first, second))
    cosine = (one * two).sum(dim=1) / (one.norm(dim=1) * two.norm(dim=1))
    factor = masked(weight * (1 - cosine).clamp(min=0) + floor, present)
    return factor if attached else factor.detach()


def domain_cross_entropy(
    logits: Tensor, present: Tensor, source: bool | Tensor, factor: Tensor | None = None
) -> Tensor:
    """What a discriminator of points loses, or a network that has to fool it: the mean over each sample's logits.

    Args:
        logits: of "source", (B, M), of a discriminator in :mod:`isthmus.models.point_discriminator`.
        present: (B, M) bool.
        source: what they should be called, for all samples or (B,) for each (1: source).
        factor: (B, M), see :func:`local_factor`; the mean is taken over all present points, not over the factors.

    Shape:
        - output: (B,), 0 for a sample without a point, which the caller should not count
    """
    logits = masked(wide(logits), present)
    named = torch.as_tensor(source, device=logits.device).to(logits)
    labels = named.expand(len(logits))[:, None].expand_as(logits)
    lost = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if factor is not None:
        lost = lost * masked(factor, present)
    return mean_over(lost[:, None], present[:, None])
