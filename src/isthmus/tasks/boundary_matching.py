"""How well predicted boundaries lie on true ones: the counts behind the F-measure of boundary benchmarks.

The protocol is that of BSDS (Martin, Fowlkes and Malik, PAMI 2004; Arbelaez et al., PAMI 2011): maxima across
boundaries, then for each threshold a map of thin lines, whose pixels are paired one to one with true ones no further
than a fraction of the image's diagonal away. What differs from the released benchmark:

- Pairs are those of a matching with as many pairs as possible. The benchmark finds one of least total distance among
  randomly thinned-out candidates, with a price on staying single that makes it almost always as large.
- The truth is thinned like the prediction, so that a label wider than a pixel can be predicted perfectly.
- Orientation, for the maxima, is that of the larger principal curvature at one scale (a Gaussian of 2 pixels).

pyEdgeEval, a port of the benchmark, has not been released since 2024 and needs a compiler.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from isthmus.geometry.thinning import thin

SCALE = 2.0
"""Pixels; the scale at which the orientation of a boundary is taken."""
CLEARLY = 1.01
"""A pixel gives way to a neighbour that is stronger by more than this factor."""


def boundary_counts(
    strength: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
    thresholds: np.ndarray,
    tolerance: float,
    least: float = 0.0,
) -> np.ndarray:
    """Pairs, predicted pixels and true pixels at each threshold; ``F = 2 * pairs / (predicted + true)``.

    Shape: ``(H, W)`` float, ``(H, W)`` bool twice, ``(T,)`` ascending, to ``(T, 3)`` int64. ``strength`` lies in
    [0, 1]; pixels outside ``valid`` are neither predicted nor true; ``tolerance`` is a fraction of the diagonal,
    but at least ``least`` pixels.
    """
    lines = thin(maxima_across(strength)[None] >= thresholds[:, None, None]) & valid
    thin_truth = thin(truth & valid)
    radius = max(tolerance * float(np.hypot(*truth.shape)), least)
    pairs = [count_pairs(line, thin_truth, radius) for line in lines]
    return np.stack([pairs, lines.sum(axis=(1, 2)), np.full(len(lines), thin_truth.sum())], axis=1)


def maxima_across(strength: np.ndarray) -> np.ndarray:
    """The strength where no pixel next to it *across* the boundary is clearly stronger, 0 elsewhere.

    Shape: ``(H, W)`` to ``(H, W)``, float64. Plateaus stay; :func:`thin` is for them.
    """
    strength = np.asarray(strength, dtype=np.float64)
    yy, xy, xx = (ndimage.gaussian_filter(strength, SCALE, order=order) for order in ((2, 0), (1, 1), (0, 2)))
    # The direction in which the surface bends most: down across a ridge, up across its foot.
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.where(xx + yy < 0, np.pi / 2, 0.0)
    place, step = np.indices(strength.shape), np.stack([np.sin(angle), np.cos(angle)])
    beside = [ndimage.map_coordinates(strength, place + s * step, order=1, mode="nearest") for s in (1, -1)]
    kept: np.ndarray = np.where(np.maximum(*beside) > CLEARLY * strength, 0.0, strength)
    return kept


def count_pairs(predicted: np.ndarray, truth: np.ndarray, radius: float) -> int:
    """The largest number of one-to-one pairs of a predicted and a true pixel at most ``radius`` pixels apart.

    Shape: ``(H, W)`` bool, twice.
    """
    reach = int(radius)
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    # Nearest first: that is how the search for pairs begins, and most of those stay.
    steps = steps[np.argsort(np.hypot(*steps.T), kind="stable")]
    steps = steps[np.hypot(*steps.T) <= radius]
    number = np.pad(np.where(truth, truth.cumsum().reshape(truth.shape) - 1, -1), reach, constant_values=-1)
    row, column = (axis[:, None] for axis in np.nonzero(predicted))
    partner = number[row + reach + steps[:, 0], column + reach + steps[:, 1]]
    near = partner >= 0
    starts = np.concatenate([[0], near.sum(axis=1).cumsum()])
    shape = (len(partner), int(truth.sum()))
    graph = csr_matrix((np.ones(starts[-1], dtype=bool), partner[near], starts), shape=shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
