"""Nearest neighbours in batches of point sets.

Two ways to the same answer: a k-d tree per cloud (scipy) for three dimensions on the CPU, where it is the fastest
by a factor of two to four, and a matrix product with ``topk`` everywhere else: on a GPU, in feature spaces, and
whenever the code is traced (``torch.compile``, ``torch.export``). The two agree except on ties and on distances
that differ by rounding only, where the order is arbitrary in both.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

MAX_BLOCK = 2**24
"""Most entries of a distance matrix held at once (64 MiB in float32)."""


def knn(points: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` nearest points of the same cloud, nearest first.

    A point is its own neighbour, at distance 0: it comes first unless the cloud repeats it, in which case any of
    the copies may. Ties are broken arbitrarily and differently on different devices. No gradient flows.

    Args:
        points: coordinates or features, any scale. Neighbours of a cloud that is not finite are arbitrary.
        k: number of neighbours, from 1 to N.

    Returns:
        int64 indices into the points of the same cloud.

    Raises:
        ValueError: if the shape is not (B, N, C) or ``k`` is not between 1 and N.

    Shape:
        - points: (B, N, C), floating
        - returns: (B, N, k), int64

    Example:
        >>> knn(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]]), 2).tolist()
        [[[0, 1], [1, 0], [2, 1]]]
    """
    if points.ndim != 3:
        raise ValueError(f"points must be (B, N, C), found shape {tuple(points.shape)}")
    if k < 1 or k > points.shape[1]:
        raise ValueError(f"k must be between 1 and the {points.shape[1]} points of a cloud, found {k}")
    points = _plain_float(points.detach())
    if not _trees_pay(points):
        return _smallest(points, points, k, None)
    found = np.empty((len(points), points.shape[1], k), dtype=np.int64)
    ranks = [*range(1, k + 1)]
    for i, cloud in enumerate(points.numpy()):
        found[i] = cKDTree(cloud).query(cloud, k=ranks)[1]
    return torch.from_numpy(found)


def nearest(query: Tensor, reference: Tensor, reference_mask: Tensor | None = None) -> Tensor:
    """Index of the reference point nearest to each query point.

    Ties are broken arbitrarily. Where a cloud has no reference point to offer (its mask is empty) the index is 0,
    so that it can still be gathered; the caller has to leave such clouds out. No gradient flows.

    Args:
        query: the points to start from. Neighbours of points that are not finite are arbitrary.
        reference: the points to find, in the same units.
        reference_mask: which reference points take part; all of them by default.

    Returns:
        int64 indices into the reference points of the same cloud.

    Raises:
        ValueError: if the shapes do not fit together, or M is 0.

    Shape:
        - query: (B, N, 3)
        - reference: (B, M, 3)
        - reference_mask: (B, M), bool
        - returns: (B, N), int64

    Example:
        >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]])
        >>> nearest(torch.tensor([[[2.5, 0, 0], [0.2, 0, 0]]]), line).tolist()
        [[2, 0]]
    """
    if query.ndim != 3 or reference.ndim != 3 or query.shape[-1] != 3 or reference.shape[-1] != 3:
        raise ValueError(
            "query and reference must be (B, N, 3) and (B, M, 3), found shapes "
            f"{tuple(query.shape)} and {tuple(reference.shape)}"
        )
    if query.shape[0] != reference.shape[0]:
        raise ValueError(f"query holds {query.shape[0]} clouds, reference {reference.shape[0]}")
    if reference.shape[1] == 0:
        raise ValueError("reference holds no points")
    if reference_mask is not None and (
        reference_mask.shape != reference.shape[:2] or reference_mask.dtype != torch.bool
    ):
        raise ValueError(
            f"reference_mask must be bool {tuple(reference.shape[:2])}, found {reference_mask.dtype} "
            f"{tuple(reference_mask.shape)}"
        )
    query, reference = _plain_float(query.detach()), _plain_float(reference.detach())
    if _trees_pay(query, reference):
        return _nearest_by_tree(query, reference, reference_mask)
    return _smallest(query, reference, 1, reference_mask).squeeze(-1)


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def _trees_pay(*clouds: Tensor) -> bool:
    """Whether to use trees; they refuse what is not finite, which is for the caller's loss to report."""
    if _traced() or clouds[0].shape[-1] != 3 or clouds[0].device.type != "cpu":
        return False
    return all(bool(points.isfinite().all()) for points in clouds)


def _plain_float(points: Tensor) -> Tensor:
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def _nearest_by_tree(query: Tensor, reference: Tensor, reference_mask: Tensor | None) -> Tensor:
    found = np.zeros(query.shape[:2], dtype=np.int64)
    masks = None if reference_mask is None else reference_mask.numpy()
    for i, (start, goal) in enumerate(zip(query.numpy(), reference.numpy(), strict=True)):
        if masks is None:
            found[i] = cKDTree(goal).query(start)[1]
        elif masks[i].any():
            offered = np.flatnonzero(masks[i])
            found[i] = offered[cKDTree(goal[offered]).query(start)[1]]
    return torch.from_numpy(found)


def _smallest(query: Tensor, reference: Tensor, k: int, reference_mask: Tensor | None) -> Tensor:
    """The ``k`` smallest distances by matrix product, in blocks of clouds so that memory stays bounded."""
    # Distances do not change with the origin, but |a|^2 - 2ab + |b|^2 loses its digits far away from it.
    origin = reference.mean(dim=1, keepdim=True)
    query, reference = query - origin, reference - origin
    offset = reference.square().sum(dim=-1).unsqueeze(1)
    if reference_mask is not None:
        offset = offset.masked_fill(~reference_mask.unsqueeze(1), torch.inf)

    def block(query: Tensor, reference: Tensor, offset: Tensor) -> Tensor:
        # |a|^2 is the same for a whole row and does not change the order in it.
        with torch.autocast(query.device.type, enabled=False):
            distance = torch.baddbmm(offset, query, reference.transpose(1, 2), alpha=-2)
        if k == 1:
            return distance.argmin(dim=-1, keepdim=True)
        return distance.topk(k, dim=-1, largest=False).indices

    if _traced():
        return block(query, reference, offset)
    clouds = max(1, MAX_BLOCK // max(1, query.shape[1] * reference.shape[1]))
    rows = max(1, MAX_BLOCK // reference.shape[1])
    return torch.cat(
        [
            torch.cat([block(part, goal, offset_part) for part in start.split(rows, dim=1)], dim=1)
            for start, goal, offset_part in zip(
                query.split(clouds), reference.split(clouds), offset.split(clouds), strict=True
            )
        ]
    )
