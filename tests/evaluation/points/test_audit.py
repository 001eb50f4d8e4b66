import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import IsthmusError
from isthmus.evaluation.points.audit import (
    Plan,
    decisive,
    disagreement,
    inclusion_probabilities,
    labels_needed,
    plan,
    systematic,
    total_of,
    verdict,
)
from isthmus.evaluation.points.label_sheet import OTHER


def runs(samples: int, seed: int, *, differ: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two runs that differ on about a share of the samples."""
    random = np.random.default_rng(seed)
    first = random.normal(size=(samples, 3)) * 2
    second = np.where(random.uniform(size=(samples, 1)) < differ, random.permuted(first, axis=1), first)
    return first, second


def truth(first: np.ndarray, second: np.ndarray, seed: int, right: float) -> np.ndarray:
    """Labels: mostly the first run's prediction, else the second's or any."""
    random = np.random.default_rng(seed)
    draw = random.uniform(size=len(first))
    either = np.where(draw < (right + 1) / 2, second.argmax(axis=1), random.integers(0, 3, len(first)))
    return np.where(draw < right, first.argmax(axis=1), either)


def difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    return float((first.argmax(axis=1) == labels).mean() - (second.argmax(axis=1) == labels).mean())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(1, 70), st.sampled_from(["equal", "decisive"]))
def test_nothing_is_asked_twice_or_where_the_runs_agree(samples, seed, count, draw):
    first, second = runs(samples, seed)
    found = plan(first, second, count, seed=seed, draw=draw)
    differing = disagreement(first, second)
    assert len(found.rows) == min(count, len(differing)) == len(set(found.rows.tolist()))
    assert set(found.rows.tolist()) <= set(differing.tolist())
    assert (first[found.rows].argmax(axis=1) != second[found.rows].argmax(axis=1)).all()
    assert ((found.probability > 0) & (found.probability <= 1)).all()
    assert (found.differing, found.samples) == (len(differing), samples)
    again = plan(first, second, count, seed=seed, draw=draw)
    assert np.array_equal(again.rows, found.rows) and np.array_equal(again.probability, found.probability)


def test_another_seed_draws_others():
    first, second = runs(200, 0)
    assert not np.array_equal(plan(first, second, 10, seed=0).rows, plan(first, second, 10, seed=1).rows)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.integers(1, 40))
def test_probabilities_add_up_and_follow_the_sizes(sizes, count):
    found = inclusion_probabilities(np.array(sizes), count)
    assert found.sum() == pytest.approx(min(count, len(sizes)))
    assert ((found > 0) & (found <= 1)).all()
    ratio = found[found < 1] / np.array(sizes)[found < 1]
    assert np.allclose(ratio, ratio[:1])
    if (found < 1).any():  # a certain one would have come out above the others' ratio
        assert (np.array(sizes)[found == 1] * ratio[0] >= 1 - 1e-9).all()


def test_each_sample_is_drawn_with_its_probability():
    random = np.random.default_rng(0)
    probability = inclusion_probabilities(random.uniform(0.5, 4, size=12), 5)
    assert (probability == 1).sum() in range(0, 5)
    draws = 6000
    counts = np.zeros(12)
    for _ in range(draws):
        drawn = systematic(probability, random)
        assert len(drawn) == 5 and len(set(drawn.tolist())) == 5
        counts[drawn] += 1
    error = np.sqrt(probability * (1 - probability) / draws)
    assert (np.abs(counts / draws - probability) <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("draw", ["equal", "decisive"])
def test_the_estimate_is_unbiased_and_its_interval_covers(draw):
    first, second = runs(150, 3, differ=0.9)
    labels = truth(first, second, 4, right=0.6)
    true = difference(first, second, labels)
    assert abs(true) > 0.05
    found = []
    for seed in range(1200):
        drawn = plan(first, second, 20, seed=seed, draw=draw)
        found.append(verdict(drawn, first, second, labels[drawn.rows]))
    estimates = np.array([each.difference for each in found])
    assert estimates.mean() == pytest.approx(true, abs=4 * estimates.std() / np.sqrt(1200))
    covered = np.mean([each.low <= true <= each.high for each in found])
    assert 0.93 <= covered <= 0.995
    widths = np.array([each.high - each.low for each in found])
    assert widths.mean() / 2 < 3 * estimates.std()  # neither does it cover by being useless


@pytest.mark.parametrize("losing", [0.03, 0.1])
@pytest.mark.parametrize("count", [5, 15])
def test_labels_that_nearly_all_agree_do_not_claim_certainty(losing, count):
    samples = 120
    first, second = np.tile([1.0, 0.0, 0.0], (samples, 1)), np.tile([0.0, 1.0, 0.0], (samples, 1))
    labels = (np.arange(samples) < losing * samples).astype(np.int64)
    true = difference(first, second, labels)
    covered = []
    for seed in range(500):
        drawn = plan(first, second, count, seed=seed)
        found = verdict(drawn, first, second, labels[drawn.rows])
        assert found.low < found.high
        covered.append(found.low <= true <= found.high)
    assert np.mean(covered) >= 0.93


def test_all_labels_give_the_true_difference_and_no_doubt():
    first, second = runs(50, 0)
    labels = truth(first, second, 1, right=0.5)
    drawn = plan(first, second, 1000)
    found = verdict(drawn, first, second, labels[drawn.rows])
    assert found.difference == pytest.approx(difference(first, second, labels))
    assert found.low == found.difference == found.high
    same = plan(first, first, 3)
    assert len(same.rows) == 0
    empty = verdict(same, first, first, np.zeros(0, np.int64))
    assert (empty.difference, empty.low, empty.high, empty.better) == (0.0, 0.0, 0.0, "undecided")


def test_the_variance_with_equal_probabilities_is_the_textbooks_with_two_labels_more():
    outcome, differing = np.array([1.0, 1.0, -1.0, 0.0, 1.0]), 25
    estimate, variance, counted = total_of(outcome, np.full(5, 0.2), differing)
    assert estimate == pytest.approx(outcome.mean() * differing) and counted == 5
    squares = ((outcome - outcome.mean()) ** 2).sum()
    more = (1 - outcome.mean()) ** 2 + (-1 - outcome.mean()) ** 2
    textbook = differing**2 * (1 - 5 / 25) / 5 * (squares + more) / (5 + 1)
    assert variance == pytest.approx(textbook)


def test_an_object_of_no_class_counts_for_neither_run():
    first, second = np.array([[1.0, 0], [1, 0]]), np.array([[0.0, 1], [0, 1]])
    drawn = plan(first, second, 2)
    assert verdict(drawn, first, second, np.array([0, OTHER])).difference == 0.5
    assert verdict(drawn, first, second, np.array([0, 0])).better == "first"
    assert verdict(drawn, first, second, np.array([1, OTHER])).better == "second"


def test_swapping_the_runs_turns_the_verdict_round():
    first, second = runs(80, 5, differ=0.8)
    labels = truth(first, second, 6, right=0.5)
    one, other = plan(first, second, 15, seed=2), plan(second, first, 15, seed=2)
    assert np.array_equal(one.rows, other.rows)
    here, there = verdict(one, first, second, labels[one.rows]), verdict(other, second, first, labels[one.rows])
    assert (here.difference, here.low, here.high) == pytest.approx((-there.difference, -there.high, -there.low))


def test_decisive_draws_prefer_samples_on_which_one_run_is_probably_right():
    first = np.array([[9.0, 0, 0], [0.1, 0, 0], [0, 0, 0.0]])
    second = np.array([[0, 9.0, 0], [0, 0.1, 0], [0, 0, 0.0]])
    found = decisive(first[:2], second[:2])
    assert found[0] > found[1]
    powers = np.exp([[0.1, 0, 0], [0, 0.1, 0]])
    mean = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
    assert found[1] == pytest.approx(np.sqrt(mean[0] + mean[1]))
    assert found.min() >= found.max() / 2 and decisive(first[:0], second[:0]).shape == (0,)


def test_the_number_of_labels_gives_about_the_width_that_was_asked_for():
    samples, differing = 1000, 200
    for half in (0.02, 0.05, 0.1):
        count = labels_needed(samples, differing, half)
        outcome = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
        drawn = Plan(np.arange(count), np.full(count, count / differing), differing, samples)
        first = np.tile([1.0, 0.0], (samples, 1))
        second = first.copy()
        second[:differing] = [0.0, 1.0]
        found = verdict(drawn, first, second, (outcome < 0).astype(np.int64))
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert labels_needed(1000, 200, 0.05) < labels_needed(1000, 200, 0.04) < labels_needed(1000, 200, 0.01) <= 200
    assert labels_needed(1000, 200, 0.05, decisive_share=0.5) < labels_needed(1000, 200, 0.05)
    assert labels_needed(1000, 200, 1e-9) == 200 and labels_needed(1000, 200, 0.2) == 0
    assert labels_needed(10, 0, 0.1) == 0
    with pytest.raises(IsthmusError, match="half_width"):
        labels_needed(10, 5, 0.0)


def test_what_does_not_fit_the_plan_is_refused():
    first, second = runs(60, 0)
    drawn = plan(first, second, 5)
    with pytest.raises(IsthmusError, match="expected 5 integers"):
        verdict(drawn, first, second, np.zeros(4, np.int64))
    with pytest.raises(IsthmusError, match="that the plan was made from"):
        verdict(drawn, first, first, np.zeros(5, np.int64))
    with pytest.raises(IsthmusError, match="of one shape"):
        plan(first, second[:3], 5)
    with pytest.raises(IsthmusError, match="at least 1"):
        plan(first, second, 0)
    with pytest.raises(IsthmusError, match="finite"):
        plan(first, np.full_like(second, np.nan), 5)
