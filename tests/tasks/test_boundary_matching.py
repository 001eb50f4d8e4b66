import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, shift
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage import morphology

from isthmus.geometry.thinning import thin
from isthmus.tasks.boundary_matching import boundary_counts, count_pairs, maxima_across

HALF = np.array([0.5])


def slow_pairs(predicted: np.ndarray, truth: np.ndarray, radius: float) -> int:
    """A maximum matching as an assignment problem over all pairs."""
    distance = cdist(np.argwhere(predicted), np.argwhere(truth))
    near = distance <= radius
    return int(near[linear_sum_assignment(-near.astype(float))].sum())


def f_measure(strength: np.ndarray, truth: np.ndarray, tolerance: float) -> float:
    pairs, predicted, true = boundary_counts(strength, truth, np.ones_like(truth), HALF, tolerance)[0]
    return 2 * pairs / (predicted + true)


def outlines(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Curved boundaries, with branches and crossings, two pixels wide where they run straight."""
    regions = gaussian_filter(np.random.default_rng(seed).normal(size=size), 5) > 0
    edge = np.zeros(size, dtype=bool)
    edge[:-1] |= regions[1:] != regions[:-1]
    edge[:, :-1] |= regions[:, 1:] != regions[:, :-1]
    return edge


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 0.5), radius=st.floats(0, 4.5))
def test_pairs_are_as_many_as_an_assignment_finds_and_symmetric(seed, density, radius):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 9, 11)) < density
    assert count_pairs(a, b, radius) == slow_pairs(a, b, radius) == count_pairs(b, a, radius)


def test_one_true_pixel_is_paired_once():
    truth, predicted = np.zeros((2, 5, 5), dtype=bool)
    truth[2, 2] = predicted[1:4, 1:4] = True
    assert count_pairs(predicted, truth, 2.0) == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 1), scale=st.floats(0.3, 3))
def test_thinning_equals_that_of_scikit_image(seed, density, scale):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(3, 21, 17)), (0, scale, scale))
    masks = noise < np.quantile(noise, density)
    np.testing.assert_array_equal(thin(masks), [morphology.thin(mask) for mask in masks])


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_prediction_has_f_1_at_no_tolerance(seed):
    truth = outlines(seed)
    assert f_measure(truth.astype(float), truth, 0.0) == 1
    thick = np.pad(truth, 1)[2:, 1:-1] | truth
    assert f_measure(thick.astype(float), thick, 0.0) == 1


@pytest.mark.parametrize(("pixels", "expected"), [(1, 1.0), (2, 1.0), (3, 0.0), (-2, 1.0), (-3, 0.0)])
def test_a_shifted_line_is_right_up_to_the_tolerance_and_wrong_beyond(pixels, expected):
    truth = np.zeros((60, 80), dtype=bool)
    truth[:, 40] = True
    predicted = np.roll(truth, pixels, axis=1).astype(float)
    assert f_measure(predicted, truth, 2.5 / 100) == expected


@pytest.mark.parametrize("seed", range(3))
def test_truth_and_a_binary_prediction_can_change_places(seed):
    a, b = outlines(seed), outlines(seed + 10)
    assert 0 < f_measure(a.astype(float), b, 0.02) == f_measure(b.astype(float), a, 0.02) < 1


def test_a_blurred_line_is_found_where_it_is_strongest():
    """The profile rises slowly and falls fast: the middle of what is above a low threshold is not the line."""
    truth = np.zeros((60, 60), dtype=bool)
    truth[np.arange(60), np.clip(np.arange(60) // 2 + 15, 0, 59)] = True
    blurred = sum(
        weight * shift(gaussian_filter(truth.astype(float), 1.0), (0, -step), order=1)
        for step, weight in enumerate(np.linspace(1, 0.2, 9))
    )
    strength = blurred / blurred.max()
    low = np.array([0.3])
    valid = np.zeros_like(truth)
    valid[8:-8] = True
    pairs, predicted, true = boundary_counts(strength, truth, valid, low, 1.5 / np.hypot(60, 60))[0]
    assert pairs > 0.95 * true and pairs > 0.85 * predicted
    middle = thin(strength >= 0.3) & valid
    assert count_pairs(middle, truth & valid, 1.5) < 0.2 * true
    for kept, row in zip(maxima_across(strength)[8:-8], strength[8:-8]):
        assert kept[row.argmax()] == row.max() and np.count_nonzero(kept > 0.3) <= 2


def test_pixels_without_a_label_are_neither_predicted_nor_true():
    truth, valid = np.zeros((2, 20, 20), dtype=bool)
    truth[:, 10] = valid[:8] = True
    assert boundary_counts(truth.astype(float), truth, valid, HALF, 0.0).tolist() == [[8, 8, 8]]


def test_nothing_predicted_and_nothing_true_are_counts_of_zero():
    nothing, everywhere = np.zeros((10, 10), dtype=bool), np.ones((10, 10), dtype=bool)
    line = np.eye(10, dtype=bool)
    assert boundary_counts(nothing * 1.0, nothing, everywhere, HALF, 0.1).tolist() == [[0, 0, 0]]
    assert boundary_counts(nothing * 1.0, line, everywhere, HALF, 0.1).tolist() == [[0, 0, 10]]
    assert boundary_counts(line * 1.0, nothing, everywhere, HALF, 0.1).tolist() == [[0, 10, 0]]


def test_each_threshold_is_counted_on_its_own():
    truth, strength = np.zeros((20, 30), dtype=bool), np.zeros((20, 30))
    truth[:, 5] = True
    strength[:, 5], strength[:, 20] = 0.8, 0.4
    counts = boundary_counts(strength, truth, np.ones_like(truth), np.array([0.2, 0.6, 0.9]), 0.0)
    assert counts.tolist() == [[20, 40, 20], [20, 20, 20], [0, 0, 20]]
