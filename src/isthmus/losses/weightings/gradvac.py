r"""Gradient vaccine, GradVac (Wang et al., ICLR 2021): gradients are brought to the cosine they usually have.

For tasks i and j with gradients :math:`g_i, g_j` and cosine :math:`\phi`, below the moving average
:math:`\hat\phi_{ij}` of it, the rule adds to the gradient of i

.. math:: \frac{\|g_i\| (\hat\phi \sqrt{1 - \phi^2} - \phi \sqrt{1 - \hat\phi^2})}{\|g_j\| \sqrt{1 - \hat\phi^2}}\, g_j,

which gives it the cosine :math:`\hat\phi` with g_j. Then :math:`\hat\phi` moves towards :math:`\phi`. At
:math:`\hat\phi = 0`, where it starts, this is PCGrad; where gradients usually agree it acts before they conflict.

The paper takes gradients layer by layer; here they are those of all shared parameters. The order in which a task meets
the others is drawn from the number of steps so far. TorchJD's rule does the same sums, but its moving average is not
part of a checkpoint, so a resumed run would start it anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.losses.weightings.base import Weighting

MOST = 1 - 1e-6
"""Averages are kept this far below 1, where two gradients of one direction would ask for an infinite length."""


class GradVac(Weighting):
    """The sum of the vaccinated gradients; a task without any gradient takes no part.

    Args:
        tasks: names of the tasks.
        rate: by how much the average moves in a step, in (0, 1]; the paper has 0.01.

    Raises:
        ValueError: if ``rate`` is out of range.
    """

    needs_gradients = True
    cosines: Tensor
    steps: Tensor

    def __init__(self, tasks: tuple[str, ...], *, rate: float = 0.01) -> None:
        super().__init__(tasks)
        if not 0 < rate <= 1:
            raise ValueError(f"rate: expected more than 0 and at most 1, found {rate}")
        self.rate = rate
        self.register_buffer("cosines", torch.zeros(len(tasks), len(tasks), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        """The vaccinated sum; everything is worked out from the products of the gradients with each other."""
        norms = torch.linalg.vector_norm(jacobian, dim=1)
        taking_part = (norms > 0).nonzero()[:, 0].tolist()
        if not taking_part:
            return jacobian.sum(dim=0)
        scaled = jacobian[taking_part] / norms.max()
        gram = (scaled @ scaled.T).double().cpu()
        rows = [self.tasks.index(tasks[row]) for row in taking_part]
        averages = self.cosines.cpu()
        weights = torch.eye(len(rows), dtype=torch.float64)
        generator = torch.Generator().manual_seed(int(self.steps))
        for i, task in enumerate(rows):
            for j in torch.randperm(len(rows), generator=generator).tolist():
                if i == j:
                    continue
                own = (weights[i] @ gram @ weights[i]).clamp(min=0).sqrt()
                other = gram[j, j].sqrt()
                cosine = (weights[i] @ gram[j] / (own * other).clamp(min=torch.finfo(own.dtype).tiny)).clamp(-1, 1)
                usual = averages[task, rows[j]].clamp(-MOST, MOST)
                if cosine < usual:
                    wanted, found = (1 - usual**2).sqrt(), (1 - cosine**2).sqrt()
                    weights[i, j] += own * (usual * found - cosine * wanted) / (other * wanted)
                averages[task, rows[j]] = (1 - self.rate) * averages[task, rows[j]] + self.rate * cosine
        self.cosines.copy_(averages)
        self.steps += 1
        direction: Tensor = weights.sum(dim=0).to(scaled) @ scaled * norms.max()
        return direction
