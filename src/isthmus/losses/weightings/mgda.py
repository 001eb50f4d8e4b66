r"""Multiple-gradient descent (Désidéri, 2012; Sener and Koltun, NeurIPS 2018).

Weights :math:`\alpha` on the simplex such that :math:`\lVert \sum_t \alpha_t g_t / n_t \rVert` is least. The direction
is :math:`T \sum_t \alpha_t g_t` of the T tasks in the batch: as released, :math:`n_t` decides about weights and does
not scale gradients. The factor T, which the paper does not have, makes the weights add up to what uniform ones do, and
so keeps the balance with consistency terms.

Where released codes iterate (Frank-Wolfe), the weights are exact here: a point of least norm is a problem of
non-negative least squares. Gradients are those of all shared parameters; released codes take the gradient at the
bottleneck for an upper bound.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from isthmus.losses.weightings.base import Weighting

TIE = 1e-10
"""Of weights that are equally good the most even ones are taken; this is how much evenness is worth."""


class MGDA(Weighting):
    """The convex combination of gradients of least norm, times the number of tasks in the batch.

    A task without any gradient takes no part (it would be the point of least norm, and stop the others).

    Args:
        tasks: names of the tasks.
        normalisation: what a gradient is divided by: the task's loss, the gradient's norm, or nothing.
    """

    needs_gradients = True

    def __init__(self, tasks: tuple[str, ...], *, normalisation: Literal["loss", "l2", "none"] = "loss") -> None:
        super().__init__(tasks)
        self.normalisation = normalisation

    @torch.no_grad()
    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        """The common direction, see the module."""
        norms = torch.linalg.vector_norm(jacobian, dim=1).double()
        unit = jacobian / norms.clamp(min=torch.finfo(jacobian.dtype).tiny).to(jacobian)[:, None]
        lengths = {
            "loss": norms / means.double().clamp(min=torch.finfo(torch.float32).tiny),
            "l2": torch.ones_like(norms),
            "none": norms,
        }[self.normalisation]
        taking_part = (norms > 0).nonzero()[:, 0]
        if not len(taking_part):
            return jacobian.sum(dim=0)
        lengths = (lengths / lengths.max())[taking_part]
        gram = (unit[taking_part] @ unit[taking_part].T).double() * lengths[:, None] * lengths
        weights = jacobian.new_zeros(len(jacobian))
        weights[taking_part] = torch.from_numpy(least_norm_weights(gram.cpu().numpy())).to(weights)
        return len(taking_part) * (weights @ jacobian)


def least_norm_weights(gram: np.ndarray) -> np.ndarray:
    r"""The :math:`\alpha` on the simplex that minimises :math:`\alpha^\top G \alpha`. Shape: ``(T, T)`` to ``(T,)``.

    With :math:`G = B^\top B`, minimising :math:`\lVert B x \rVert^2 + (1^\top x - 1)^2` over :math:`x \ge 0` gives
    :math:`x = t\,\alpha`: for a given direction the best :math:`t` leaves :math:`v / (1 + v)`, which grows with
    :math:`v = \alpha^\top G \alpha`.
    """
    size = len(gram)
    scale = np.trace(gram) / size
    values, vectors = np.linalg.eigh(gram / (scale if scale > 0 else 1.0))
    root = np.sqrt(values.clip(min=0) + TIE)[:, None] * vectors.T
    solution, _ = nnls(np.vstack([root, np.ones(size)]), np.append(np.zeros(size), 1.0))
    weights: np.ndarray = solution / solution.sum()
    return weights
