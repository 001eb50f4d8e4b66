"""How the losses of several tasks become one step.

A weighting sees the losses of a step as :class:`isthmus.losses.weighted.Loss`, by name ``task/domain``. Those whose
first part is one of its tasks are its business; others (consistency terms) pass untouched. Every rule is defined for
tasks that are absent from the batch, and gives the same step on N processes as on one with the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from isthmus.losses.weighted import Loss


class Weighting(nn.Module):
    """Uniform weights; the base of the others.

    State that training changes lives in parameters (learned by the run's optimiser) or buffers, so that a checkpoint
    holds it.
    """

    needs_gradients: ClassVar[bool] = False
    """Whether the engine has to call :meth:`combine` with the gradients of the single tasks."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks

    def task_of(self, name: str) -> str | None:
        """The task that a loss belongs to, or None."""
        task = name.split("/")[0]
        return task if task in self.tasks else None

    def forward(self, losses: dict[str, Loss]) -> dict[str, Loss]:
        """Scale losses, or add some; called inside the step on every process. The default changes nothing."""
        return losses

    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        """The direction for the shared parameters. Shape: ``(T, P)``, ``(T,)``, ``(T,)`` to ``(P,)``.

        Row t is the gradient of the loss of ``tasks[t]`` as :meth:`forward` returned it, over all processes; ``means``
        are those losses, taken over all images of the batch, and ``shares`` how much of the batch is labelled for the
        task (``means / shares`` is the mean loss of a labelled image; None: all of it). Only tasks that are present
        somewhere in the batch have a row. The default adds up.
        """
        return jacobian.sum(dim=0)

    def observe(self, means: Mapping[str, float]) -> None:
        """Be told, after a step, the mean loss of the labelled samples of all processes, *before* scaling, by task.

        Tasks that were absent are not named.
        """
