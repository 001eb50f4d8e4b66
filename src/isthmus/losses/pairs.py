"""Which pairs of tasks of which image a cross-task term compares (MTPSL, Eq. 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """P comparisons: the prediction of task ``source`` with the label of task ``target`` of image ``sample``.

    All ``(P,)`` int64, tasks by their position. ``sources`` is how many different source tasks the image has: |U_n| of
    Eq. 3.
    """

    sample: Tensor
    source: Tensor
    target: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.sample)


def cross_task_pairs(present: Tensor) -> Pairs:
    """Every unlabelled task with every labelled one; for an image with all labels, all ordered pairs.

    Args:
        present: which image carries which label, ``(B, K)`` bool. An image without any label has no pair.
    """
    tasks = present.shape[1]
    complete = present.all(dim=1)
    as_source = ~present | complete[:, None]
    different = ~torch.eye(tasks, dtype=torch.bool, device=present.device)
    compared = as_source[:, :, None] & present[:, None, :] & different
    sample, source, target = compared.nonzero(as_tuple=True)
    sources = as_source.sum(dim=1)
    return Pairs(sample, source, target, sources[sample])


def pair_code(first: Tensor, second: Tensor, tasks: int) -> Tensor:
    """Number of an ordered pair of different tasks, 0 to K (K - 1) - 1: the off-diagonal entries of A in row order."""
    return first * (tasks - 1) + second - (second > first).long()
