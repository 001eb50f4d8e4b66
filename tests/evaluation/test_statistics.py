import numpy as np
import pytest

from isthmus.evaluation.statistics import clustered_mean, crossed_mean, mean_and_spread


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


def test_seeds_that_disagree_widen_the_interval_and_seeds_that_agree_do_not() -> None:
    rng = np.random.default_rng(3)
    objects = rng.normal(0.1, 0.3, 400)
    agree = np.stack([objects, objects, objects])
    apart = np.stack([objects - 0.2, objects, objects + 0.2])
    groups = np.arange(400)
    same, wide = crossed_mean(agree, groups), crossed_mean(apart, groups)
    single = clustered_mean(objects, groups)
    assert same.estimate == pytest.approx(wide.estimate) == pytest.approx(objects.mean())
    assert same.standard_error == pytest.approx(single.standard_error)
    assert same.high - same.low == pytest.approx(2 * 1.966 * single.standard_error, rel=0.01)
    # three seeds 0.2 apart: standard error 0.2 / sqrt(3), Student's t with hardly more than 2 degrees of freedom
    assert wide.high - wide.low == pytest.approx(2 * 4.2 * 0.2 / np.sqrt(3), rel=0.1)
    assert not wide.excludes_zero and same.excludes_zero


def test_the_crossed_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(150):
        seeds, objects = rng.normal(0, 0.05, (4, 1)), rng.normal(0, 0.5, (1, 60))
        found = crossed_mean(seeds + objects + rng.normal(0, 0.1, (4, 60)), np.arange(60))
        hits += found.low <= 0 <= found.high
    assert hits / 150 > 0.9


def test_one_room_gives_no_interval_however_many_seeds() -> None:
    found = crossed_mean(np.array([[1.0, 0, 1], [0, 0, 1]]), np.zeros(3))
    assert np.isnan(found.low) and not found.excludes_zero


def test_a_single_seed_leaves_the_interval_over_objects() -> None:
    values = np.random.default_rng(5).normal(size=(1, 50))
    assert crossed_mean(values, np.arange(50)) == clustered_mean(values[0], np.arange(50))
