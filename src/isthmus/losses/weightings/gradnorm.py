r"""GradNorm (Chen et al., ICML 2018): weights that make the tasks' gradients alike, and slow tasks' larger.

With :math:`G_t = \lVert w_t \nabla L_t \rVert` the weights descend

.. math:: \sum_t \Bigl| G_t - \bar G\, r_t^{\alpha} \Bigr| \Big/ \bar G, \qquad
          r_t = \frac{L_t / L_t(0)}{\mathrm{mean}_u\, L_u / L_u(0)},

the target :math:`\bar G r_t^\alpha` held constant. Differences from the paper:

- All shared parameters count, where the paper takes the last shared layer.
- The division by :math:`\bar G`, so that a step of the weights does not depend on the unit of the losses, and plain
  descent. The paper leaves the optimiser open; released codes use Adam, which is blind to that unit as well.
- Sums and means are over the tasks of the batch; weights of the others stay, and :math:`L_t(0)` is the loss of the
  first batch that holds the task.
- :math:`L_t` and its gradient are those of a *labelled* image. Taken over the whole batch, as the step has them, both
  would follow how many images of the batch happen to carry the label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting

LEAST = 1e-3
"""A weight is at least this, so that it can come back."""


class GradNorm(Weighting):
    """Weights that balance gradient norms; the losses of a step are scaled with the weights from before it.

    Args:
        tasks: names of the tasks.
        alpha: how strongly slow tasks are favoured; 0 asks for equal norms.
        learning_rate: of the weights.

    Raises:
        ValueError: if ``alpha`` is negative or ``learning_rate`` not positive.
    """

    needs_gradients = True
    weights: Tensor
    initial: Tensor

    def __init__(self, tasks: tuple[str, ...], *, alpha: float = 1.5, learning_rate: float = 0.025) -> None:
        super().__init__(tasks)
        if alpha < 0 or not learning_rate > 0:
            raise ValueError(f"expected alpha >= 0 and learning_rate > 0, found {alpha} and {learning_rate}")
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("initial", torch.full((len(tasks),), torch.nan))

    def forward(self, losses: dict[str, Loss]) -> dict[str, Loss]:
        """Scale the losses of the tasks."""
        # A copy: combine changes the weights before the graph is gone.
        weights = dict(zip(self.tasks, self.weights.clone()))
        scaled = {}
        for name, loss in losses.items():
            task = self.task_of(name)
            scaled[name] = loss if task is None else loss._replace(sum=loss.sum * weights[task])
        return scaled

    @torch.no_grad()
    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        """Add the gradients up, and move the weights of ``tasks`` by a step that keeps their sum."""
        rows = torch.tensor([self.tasks.index(task) for task in tasks], device=self.weights.device)
        weights = self.weights[rows]
        labelled = torch.ones_like(weights) if shares is None else shares.to(weights)
        losses = means.to(weights) / labelled / weights
        first = self.initial[rows]
        self.initial[rows] = first = torch.where(first.isnan() & losses.isfinite(), losses, first)

        norms = torch.linalg.vector_norm(jacobian, dim=1).to(weights) / labelled
        progress = (losses / first).nan_to_num(1.0, posinf=1.0, neginf=1.0).clamp(min=0)
        pace = progress / progress.mean().clamp(min=torch.finfo(progress.dtype).tiny)
        mean_norm = norms.mean()
        if mean_norm > 0 and mean_norm.isfinite():
            too_large = (norms - mean_norm * pace**self.alpha).sign()
            moved = weights - self.learning_rate * too_large * norms / mean_norm / weights
            above = (moved - LEAST).clamp(min=0)
            if above.sum() > 0:
                # What is above the least is scaled, so that neither the sum nor the bound is missed.
                self.weights[rows] = LEAST + above * ((weights.sum() - LEAST * len(tasks)) / above.sum())
        return jacobian.sum(dim=0)
