import numpy as np
import pytest

from isthmus.errors import IsthmusError
from isthmus.evaluation.points.causality import AdditiveNoise, Direction, _independence, _permutation, additive_noise

pytest.importorskip("hyppo")


def caused(random: np.random.Generator, pairs: int = 120) -> tuple[np.ndarray, np.ndarray]:
    cause = random.uniform(-1, 1, pairs)
    return cause, cause**3 + random.uniform(-0.15, 0.15, pairs)


def test_a_known_direction_is_found_whichever_comes_first() -> None:
    cause, effect = caused(np.random.default_rng(0))
    found = additive_noise(cause, effect, permutations=99, refits=19)
    assert found.verdict() == "first to second" and found.pairs == 120
    assert found.forward.p_value > 0.05 > found.backward.p_value and found.difference < 0
    assert found.difference_p == pytest.approx(1 / 20)
    turned = additive_noise(effect, cause, permutations=99, refits=0)
    assert turned.verdict() == "second to first" and turned.difference == pytest.approx(-found.difference, abs=1e-6)
    assert np.isnan(turned.difference_p)


def test_independent_pairs_are_rejected_about_as_often_as_they_may() -> None:
    """40 tests of 5 % each: more than 7 rejections have a probability below 0.001."""
    rejected = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = additive_noise(
            random.exponential(size=30), random.uniform(size=30), permutations=39, refits=0, seed=seed
        )
        rejected += (found.forward.p_value <= 0.05) + (found.backward.p_value <= 0.05)
    assert rejected <= 7


def test_hsic_is_that_of_a_slow_sum() -> None:
    """Bias-corrected and normalised, from its definition (Szekely and Rizzo's U-centring of 1 - kernel)."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=25), 0.1 * random.normal(size=25)
    y = y + 0.07 * x

    def centred(values: np.ndarray) -> np.ndarray:
        n = len(values)
        distance = np.abs(values[:, None] - values)
        width = np.median(distance[np.triu_indices(n, 1)])
        d = 1 - np.exp(-(distance**2) / (2 * width**2))
        result = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if i != j:
                    result[i, j] = (
                        d[i, j] - d[i].sum() / (n - 2) - d[:, j].sum() / (n - 2) + d.sum() / ((n - 1) * (n - 2))
                    )
        return result

    a, b = centred(x), centred(y)
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    found = _independence(x, y, np.zeros(25, int), 19, random)
    assert found.hsic == pytest.approx(expected) and found.p_value == 1 / 20


def test_groups_are_permuted_within_and_their_means_do_not_count() -> None:
    members = np.array([2, 0, 1, 0, 2, 2, 1, 0])
    orders = [_permutation(members, np.random.default_rng(seed)) for seed in range(20)]
    assert all((members[order] == members).all() and sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) > 10
    random = np.random.default_rng(5)
    groups = np.repeat(np.arange(6), 20)
    drift = groups * 5.0
    first, second = random.uniform(size=120) + drift, random.exponential(size=120) - drift
    found = additive_noise(first, second, groups=groups, permutations=39, refits=0)
    assert found.verdict() == "both directions fit"
    assert additive_noise(
        first - drift, second, groups=groups, permutations=39, refits=0
    ).forward.hsic == pytest.approx(found.forward.hsic)


def test_of_many_groups_whole_ones_are_drawn() -> None:
    """Of one sample from each group nothing would be left; here the direction is found in as many pairs."""
    random = np.random.default_rng(5)
    groups = np.repeat(np.arange(200), 15)
    cause = random.uniform(-2, 2, size=len(groups))
    effect = 0.5 * cause**2 + 0.3 * random.normal(size=len(groups))
    found = additive_noise(cause, effect, groups=groups, permutations=99, refits=0)
    assert found.pairs == 150
    assert found.backward.p_value <= 0.02
    alone = np.arange(len(groups)) % 2990
    with pytest.raises(IsthmusError, match="expected 20 pairs or more, found 10"):
        additive_noise(cause[:2995], effect[:2995], groups=alone[:2995], permutations=9, refits=0)


def test_verdicts_and_what_cannot_be_tested() -> None:
    fits, fails = Direction(0.0, 0.4), Direction(0.3, 0.01)
    assert AdditiveNoise(fails, fails, 0.0, 1.0, 20).verdict() == "neither direction fits"
    assert AdditiveNoise(fits, fits, 0.0, 1.0, 20).verdict() == "both directions fit"
    with pytest.raises(IsthmusError, match="expected 20 pairs or more, found 19"):
        additive_noise(np.arange(20.0), np.r_[np.nan, np.arange(19.0)])
    with pytest.raises(IsthmusError, match="constant"):
        additive_noise(np.arange(30.0), np.ones(30))
