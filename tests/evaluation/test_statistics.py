import numpy as np
import pytest

from isthmus.evaluation.statistics import clustered_mean, mean_and_spread


def test_the_interval_of_independent_objects_is_the_normal_one() -> None:
    values = np.random.default_rng(0).binomial(1, 0.3, 2000).astype(float)
    interval = clustered_mean(values, np.arange(2000))
    error = np.sqrt(values.var() / 2000)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.standard_error == pytest.approx(error, rel=0.1)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert interval.smallest_detectable == pytest.approx(2.80 * error, rel=0.1)


def test_objects_of_one_room_are_not_independent() -> None:
    rooms = np.repeat(np.arange(40), 25)
    values = np.repeat(np.random.default_rng(1).binomial(1, 0.5, 40), 25).astype(float)
    clustered, naive = clustered_mean(values, rooms), clustered_mean(values, np.arange(1000))
    assert clustered.standard_error == pytest.approx(5 * naive.standard_error, rel=0.2)  # sqrt(25)


def test_rooms_of_unequal_size_weigh_by_their_objects() -> None:
    interval = clustered_mean(np.array([1.0, 1, 1, 0]), np.array(["a", "a", "a", "b"]))
    assert interval.estimate == 0.75 and interval.low == 0.0 and interval.high == 1.0


def test_one_room_or_none_gives_no_interval() -> None:
    assert np.isnan(clustered_mean(np.ones(5), np.zeros(5)).low)
    assert np.isnan(clustered_mean(np.ones(0), np.zeros(0)).estimate)


def test_no_difference_anywhere_is_an_interval_of_zero_that_does_not_exclude_zero() -> None:
    interval = clustered_mean(np.zeros(30), np.arange(30))
    assert (interval.low, interval.high) == (0.0, 0.0) and not interval.excludes_zero


def test_spread_is_the_sample_standard_deviation() -> None:
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert np.isnan(mean_and_spread([1.0])[1])
