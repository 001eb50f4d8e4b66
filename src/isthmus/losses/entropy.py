r"""Sure predictions without labels: MinEnt of ADVENT (Vu et al., CVPR 2019, Eq. 2 and 3).

.. math:: E_n = - \frac{1}{\log K} \sum_k p_{nk} \log p_{nk} \in [0, 1]

ADVENT adds up the entropies of an image's pixels; xMUDA's code takes their mean, as here, so that a weight means the
same for clouds of any size.
"""

from __future__ import annotations

import math

from torch import Tensor

from isthmus.losses.cross_modal import log_softmax
from isthmus.tasks.pixels import mean_over


def normalised_entropy(logits: Tensor, present: Tensor) -> Tensor:
    """Mean entropy of each sample's points, as a share of the greatest possible, in float32 at least.

    Args:
        logits: (B, K, 1, N) or (B, K, N), at least 2 classes.
        present: (B, N) bool.

    Shape:
        - output: (B,), in [0, 1]; 0 for a sample without a point, which the caller should not count
    """
    if logits.shape[1] < 2:
        raise ValueError(f"the entropy needs at least 2 classes, found {logits.shape[1]}")
    log_p = log_softmax(logits, present)
    entropy = -(log_p.exp() * log_p).sum(dim=1) / math.log(logits.shape[1])
    return mean_over(entropy[:, None], present[:, None])
