"""A backward pass in which the gradients of the single tasks are combined by a rule instead of added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning_fabric import Fabric
from torch import Tensor

from isthmus.losses.weightings.base import Weighting
from isthmus.methods.base import Method


def combined_gradients(
    method: Method,
    weighting: Weighting,
    parts: dict[str, Tensor],
    fabric: Fabric,
    labelled: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the gradient of a step into ``method``'s parameters.

    ``parts`` are this process's parts of the mean losses by name, ``labelled`` says by the same names how much of the
    batch of all processes enters a loss (1, the default: every image with a full factor). Gradients are added up over
    the processes *first*, so the rule sees the same rows as one process with the whole batch would. It decides on the
    shared parameters; heads get the gradient of their own loss, and losses that are no task's (consistency terms) are
    added as they are. A task that is absent everywhere has no row.
    """
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    wanted = {id(parameter) for parameter in method.shared_parameters()}
    shared = [parameter for parameter in parameters if id(parameter) in wanted]
    by_task: dict[str | None, Tensor] = {}
    shares: dict[str | None, Tensor] = {}
    for name, part in parts.items():
        task = weighting.task_of(name)
        by_task[task] = by_task[task] + part if task in by_task else part
        share = torch.ones_like(part) if labelled is None else labelled[name]
        shares[task] = shares[task] + share if task in shares else share
    tasks = sorted(task for task in by_task if task is not None)
    rows, values = [], []
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for task in (*tasks, None):
        mine = by_task.get(task)
        gradients = _gradients(mine, parameters)
        rows.append(torch.cat([g.reshape(-1) for g, p in zip(gradients, parameters) if id(p) in wanted]))
        values.append(torch.zeros((), device=rows[0].device) if mine is None else mine.detach().float())
        for place, gradient in zip(total, gradients):
            place += gradient
    jacobian, means = torch.stack(rows), torch.stack(values)
    if fabric.world_size > 1:
        jacobian, means, *total = (_summed(tensor, fabric) for tensor in (jacobian, means, *total))
    present = [row for row in range(len(tasks)) if bool(jacobian[row].any()) or bool(means[row] != 0)]
    direction = jacobian[-1]
    if present:
        names = tuple(tasks[row] for row in present)
        of_batch = torch.stack([shares[name] for name in names]).to(means)
        direction = direction + weighting.combine(jacobian[present], names, means[present], of_batch)
    pieces = iter(direction.split([parameter.numel() for parameter in shared]))
    for parameter, gradient in zip(parameters, total):
        parameter.grad = next(pieces).view_as(parameter).clone() if id(parameter) in wanted else gradient


def _summed(tensor: Tensor, fabric: Fabric) -> Tensor:
    result = fabric.all_reduce(tensor, reduce_op="sum")
    assert isinstance(result, Tensor)
    return result


def _gradients(share: Tensor | None, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    if share is None or not share.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(share, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if gradient is None else gradient for gradient, p in zip(found, parameters)]
