"""Rules of other papers, as TorchJD implements them: PCGrad, CAGrad, Nash-MTL and UPGrad.

How long the direction of T tasks is:

- ``pcgrad`` (Yu et al., NeurIPS 2020): the sum of the projected gradients.
- ``cagrad`` (Liu et al., NeurIPS 2021; c = 0.4, the paper's choice on NYUv2) and ``upgrad`` (Quinton and Rey, 2024):
  T times what the papers define around the mean, so that tasks without a conflict add up as with uniform weights
  (CAGrad makes them up to 1 + c times longer). That keeps the balance with consistency terms.
- ``nash-mtl`` (Navon et al., ICML 2022): at most 1, whatever the losses; the released code clips it there.

An aggregator is made anew for each step. So there is no state that a checkpoint would have to hold: Nash-MTL starts its
search from equal weights, where the released code starts from the last step's.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.errors import IsthmusError
from isthmus.losses.weightings.base import Weighting

Rule = Literal["pcgrad", "cagrad", "nash-mtl", "upgrad"]
EXTRAS: dict[Rule, str] = {"pcgrad": "mtl", "cagrad": "mtl", "nash-mtl": "mtl-gpl", "upgrad": "mtl-gpl"}
"""The extra that installs what a rule needs; the solvers of the last two are GPL."""


class Aggregated(Weighting):
    """The gradients of the tasks in the batch, combined by a rule of TorchJD; a task without any takes no part.

    PCGrad projects in a random order; it is drawn from the number of steps so far, which a checkpoint holds.

    Args:
        tasks: names of the tasks.
        rule: which one, see the module.

    Raises:
        IsthmusError: if TorchJD or the rule's solver is not installed.
    """

    needs_gradients = True
    steps: Tensor

    def __init__(self, tasks: tuple[str, ...], rule: Rule) -> None:
        super().__init__(tasks)
        self.rule = rule
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        _aggregator(rule, len(tasks))

    @torch.no_grad()
    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        """The direction that the rule finds; see the module for its length."""
        norms = torch.linalg.vector_norm(jacobian, dim=1)
        rows = jacobian[norms > 0]
        if not len(rows):
            return jacobian.sum(dim=0)
        if self.rule == "nash-mtl":
            return _bargain(rows)
        # TorchJD takes a small Jacobian for zero; the rules themselves do not care for the unit.
        size = norms.max()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.steps))
            direction: Tensor = _aggregator(self.rule, len(rows))(rows / size) * size
        self.steps += 1
        return direction if self.rule == "pcgrad" else direction * len(rows)


def _bargain(rows: Tensor) -> Tensor:
    if len(rows) == 1:
        # TorchJD's solver wants two; this is what it solves for one.
        return rows[0] / torch.linalg.vector_norm(rows).clamp(min=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are solving a parameterized problem", category=UserWarning)
        direction: Tensor = _aggregator("nash-mtl", len(rows))(rows)
    return direction


def _aggregator(rule: Rule, tasks: int) -> nn.Module:
    try:
        from torchjd import aggregation

        match rule:
            case "pcgrad":
                return aggregation.PCGrad()
            case "cagrad":
                return aggregation.CAGrad(c=0.4)
            case "upgrad":
                return aggregation.UPGrad()
            case "nash-mtl":
                return aggregation.NashMTL(n_tasks=tasks, max_norm=1.0, update_weights_every=1, optim_niter=20)
    except ImportError as error:
        extra = EXTRAS[rule]
        licence = " (its solver is under the GPL)" if extra == "mtl-gpl" else ""
        raise IsthmusError(
            f"weighting {rule!r}: expected TorchJD and its solver{licence}, found {error}; "
            f"install them with: pip install 'isthmus[{extra}]'"
        ) from error
    raise IsthmusError(f"weighting: expected one of {sorted(EXTRAS)}, found {rule!r}")
