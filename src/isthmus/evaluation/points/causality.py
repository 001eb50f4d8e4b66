r"""Which of two quantities is the cause? The additive-noise test of SM-DSB's Section V-C, with p-values.

Hoyer et al., "Nonlinear causal discovery with additive noise models" (NeurIPS 2008): if :math:`y = f(x) + n` with noise
n independent of x, then in general no such model holds from y to x. So y is regressed on x (a Gaussian process, which
scikit-learn fits by marginal likelihood), and the residuals are held against x by HSIC (hyppo, normalised, Gaussian
kernels of median width); then the other way round. The paper gives two such scores, .16 and .25, and nothing to
judge them by. Here:

- residuals are out of sample (each half is predicted from the other), or a flexible fit makes them look independent;
- each direction has a p-value for "the residuals are independent of the supposed cause", by permuting residuals;
- the difference of both scores has one against pairs that were permuted, between which there is no relation at all.

A direction is supported if its residuals look independent *and* those of the other do not. Gaussian noise around a
straight line fits both ways; a common cause, or noise that is not additive, may fit neither.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from isthmus.errors import IsthmusError

MOST = 150
"""About this many pairs are tested, drawn at random: a Gaussian process costs the cube of their number."""


@dataclass(frozen=True)
class Direction:
    """HSIC of residuals with the supposed cause, in [0, 1] but for estimation error, and its p-value."""

    hsic: float
    p_value: float


@dataclass(frozen=True)
class AdditiveNoise:
    """Both directions between a first and a second quantity; ``difference`` is the first minus the second HSIC."""

    forward: Direction
    """The first is the cause."""
    backward: Direction
    """The second is the cause."""
    difference: float
    difference_p: float
    pairs: int

    def verdict(self, level: float = 0.05) -> str:
        """What can be said at this level, in a few words."""
        fits = (self.forward.p_value >= level, self.backward.p_value >= level)
        if all(fits):
            return "both directions fit"
        if not any(fits):
            return "neither direction fits"
        return "first to second" if fits[0] else "second to first"


def additive_noise(
    first: np.ndarray,
    second: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    permutations: int = 500,
    refits: int = 99,
    seed: int = 0,
) -> AdditiveNoise:
    """Test both directions between two quantities ``(n,)``.

    Args:
        first, second: one pair per observation; those that are not finite are left out. Both are standardised.
        groups: observations are permuted within these ``(n,)`` only (samples of one training step), and what the
            groups differ by is taken out of both quantities first. Groups are drawn as a whole; those of one
            observation say nothing and are left out.
        permutations: of residuals, for the p-value of each direction.
        refits: permutations of pairs, each with regressions of its own, for the p-value of the difference; 0 leaves
            it out (NaN).
        seed: of everything random.

    Raises:
        IsthmusError: fewer than 20 pairs, a quantity that is constant, or hyppo is not installed.
    """
    random = np.random.default_rng(seed)
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    usable = np.isfinite(first) & np.isfinite(second)
    members = np.zeros(len(first), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    if groups is not None:  # one alone is its own mean
        usable &= np.bincount(members, usable)[members] > 1
    first, second, members = first[usable], second[usable], members[usable]
    if len(first) < 20:
        raise IsthmusError(f"additive-noise test: expected 20 pairs or more, found {len(first)}")
    first, second = (values - _means(values, members) for values in (first, second))
    # Whole groups are drawn, and halved: permutations stay within them, and means tie their members to each other.
    units = np.arange(len(first)) if groups is None else members
    chosen = _drawn(units, random)
    members, units = members[chosen], units[chosen]
    x, y = _standardised(first[chosen]), _standardised(second[chosen])
    halves = _halves(units, random)
    forward = _independence(x, _residuals(x, y, halves), members, permutations, random)
    backward = _independence(y, _residuals(y, x, halves), members, permutations, random)
    difference = forward.hsic - backward.hsic
    p_value = float("nan")
    if refits:
        null = np.empty(refits)
        for index in range(refits):
            other = y[_permutation(members, random)]
            null[index] = _hsic(x, _residuals(x, other, halves)) - _hsic(other, _residuals(other, x, halves))
        p_value = float((1 + (np.abs(null) >= abs(difference)).sum()) / (1 + refits))
    return AdditiveNoise(forward, backward, difference, p_value, len(x))


def _means(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The mean of each one's group. Shape: ``(n,)`` twice to ``(n,)``."""
    return (np.bincount(members, values) / np.maximum(np.bincount(members), 1))[members]


def _drawn(units: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows of units drawn at random until there are about :data:`MOST` rows; all of them if there are no more."""
    order = random.permutation(np.unique(units))
    sizes = np.bincount(units)[order]
    count = max(1, int((np.cumsum(sizes) <= max(MOST, sizes[0])).sum()))
    return np.flatnonzero(np.isin(units, order[:count]))


def _halves(units: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """0 or 1 for every row, the same throughout a unit; row by row where there is one unit. Shape: ``(n,)``."""
    numbers = np.unique(units, return_inverse=True)[1]
    if not numbers.any():
        numbers = np.arange(len(units))
    return (random.permutation(numbers.max() + 1) % 2)[numbers]


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    if not spread > 0:
        raise IsthmusError("additive-noise test: expected quantities that differ, found a constant one")
    return (values - values.mean()) / spread


def _residuals(cause: np.ndarray, effect: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """What a Gaussian process fitted to one half leaves of the other. Shape: ``(n,)`` three times to ``(n,)``."""
    left = np.empty_like(effect)
    for half in (0, 1):
        kernel = ConstantKernel() * RBF(length_scale_bounds=(0.1, 100.0)) + WhiteKernel(noise_level_bounds=(1e-4, 10.0))
        fit = halves != half
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is a flat or linear fit
            model = GaussianProcessRegressor(kernel).fit(cause[fit, None], effect[fit])
        left[~fit] = effect[~fit] - model.predict(cause[~fit, None])
    return left


def _independence(
    cause: np.ndarray, residuals: np.ndarray, members: np.ndarray, permutations: int, random: np.random.Generator
) -> Direction:
    """HSIC, and its p-value by permuting residuals (within groups)."""
    first, second = _distances(cause, residuals)
    test = _hyppo()(compute_kernel=None)
    observed = float(test.statistic(first, second))
    more = 0
    for _ in range(permutations):
        order = _permutation(members, random)
        more += float(test.statistic(first, second[np.ix_(order, order)])) >= observed
    return Direction(observed, (1 + more) / (1 + permutations))


def _hsic(cause: np.ndarray, residuals: np.ndarray) -> float:
    return float(_hyppo()(compute_kernel=None).statistic(*_distances(cause, residuals)))


def _distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What hyppo's HSIC works with: one minus the Gaussian kernel, of each quantity. Shape: ``(n, n)`` twice.

    hyppo takes the kernel's width from the first quantity for both, so each comes with a median distance of 1.
    """
    from hyppo.tools import compute_kern

    scaled = [values[:, None] / (float(np.median(pdist(values[:, None]))) or 1.0) for values in (first, second)]
    kernels = compute_kern(*scaled, metric="gaussian")
    return 1 - kernels[0] / kernels[0].max(), 1 - kernels[1] / kernels[1].max()


def _permutation(members: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A permutation that moves nothing out of its group."""
    order = np.empty(len(members), dtype=np.int64)
    order[np.argsort(members, kind="stable")] = np.lexsort((random.random(len(members)), members))
    return order


def _hyppo() -> type:
    try:
        from hyppo.independence import Hsic
    except ImportError:
        raise IsthmusError(
            "additive-noise test: expected the package hyppo, found none; pip install 'isthmus[analysis]'"
        ) from None
    test: type = Hsic
    return test
