import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import DataError
from isthmus.evaluation.points.estimates import (
    agreement,
    average_confidence,
    difference_of_confidences,
    estimate,
    mean_agreement,
    temperature,
    thresholded_confidence,
)


def calibrated(count: int, seed: int, spread: float = 2.0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they state."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * spread
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probability.cumsum(axis=1) < random.uniform(size=(count, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


def probabilities(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def test_average_confidence_is_that_of_a_loop():
    logits, _ = calibrated(20, 0)
    expected = sum(max(probabilities(row)) for row in logits.tolist()) / 20
    assert average_confidence(logits) == pytest.approx(expected)
    assert average_confidence(logits.astype(np.float32) * 1000) == pytest.approx(1.0)


def test_difference_of_confidences_moves_the_source_accuracy():
    source, labels = calibrated(200, 0)
    target, _ = calibrated(150, 1, spread=1.0)
    fall = average_confidence(source) - average_confidence(target)
    assert fall > 0.1
    assert difference_of_confidences(source, labels, target) == pytest.approx(accuracy(source, labels) - fall)
    wrong = (source.argmax(axis=1) + 1) % 4
    assert difference_of_confidences(source, wrong, target) == 0.0  # never below 0


@pytest.mark.parametrize("score", ["entropy", "confidence"])
def test_the_threshold_lets_as_many_of_the_source_pass_as_are_right(score):
    source, labels = calibrated(200, 0)
    assert thresholded_confidence(source, labels, source, score=score) == pytest.approx(accuracy(source, labels))
    target, _ = calibrated(170, 1, spread=1.0)

    def sure(row: list[float]) -> float:
        values = probabilities(row)
        return max(values) if score == "confidence" else sum(p * math.log(p) for p in values)

    scores = sorted(map(sure, source.tolist()))
    threshold = scores[round(200 * (1 - accuracy(source, labels)))]
    expected = sum(sure(row) >= threshold - 1e-12 for row in target.tolist()) / 170
    assert thresholded_confidence(source, labels, target, score=score) == pytest.approx(expected)


def test_a_source_that_is_all_wrong_or_all_right():
    source, _ = calibrated(50, 0)
    right = source.argmax(axis=1)
    assert thresholded_confidence(source, (right + 1) % 4, source) == 0.0
    assert thresholded_confidence(source, right, source) == 1.0


def test_agreement_is_a_share_of_samples_over_all_pairs():
    one, two, three = (np.eye(3)[rows] for rows in ([0, 1, 2, 0], [0, 1, 1, 1], [0, 2, 1, 0]))
    assert agreement(one, two) == 0.5 and agreement(one, one) == 1.0
    assert mean_agreement([one, two, three]) == pytest.approx((0.5 + 0.5 + 0.5) / 3)


def test_the_temperature_undoes_a_scaling_of_logits():
    logits, labels = calibrated(20000, 3)
    assert temperature(logits, labels) == pytest.approx(1.0, abs=0.05)
    assert temperature(logits * 5, labels) == pytest.approx(5 * temperature(logits, labels), rel=1e-3)
    heat = temperature(logits * 5, labels)

    def loss(at: float) -> float:
        scaled = logits * 5 / at
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(20000), labels]).mean())

    assert loss(heat) <= min(loss(heat * 1.01), loss(heat / 1.01))


def test_calibrated_networks_are_estimated_rightly_under_a_shift_that_leaves_them_calibrated():
    source, labels = calibrated(20000, 0, spread=3.0)
    target, truth = calibrated(20000, 1, spread=1.0)
    other = calibrated(20000, 2, spread=1.0)[0]
    found = estimate(source * 4, labels, target * 4, [other])
    true = accuracy(target, truth)
    assert found.source_accuracy - true > 0.2
    assert found.scaled_confidence == pytest.approx(true, abs=0.02)
    assert found.average_confidence - true > 0.1  # over-confident before scaling
    assert found.errors(true)["scaled_confidence"] == pytest.approx(found.scaled_confidence - true)
    assert found.agreement == pytest.approx(0.25, abs=0.02)  # independent networks
    assert "agreement" not in estimate(source, labels, target).errors(true)


def test_only_pairs_with_the_network_itself_count_for_its_agreement():
    source, labels = calibrated(30, 0)
    target, same = calibrated(30, 1)[0], calibrated(30, 2)[0]
    found = estimate(source, labels, target, [same, same])
    assert found.agreement == pytest.approx(agreement(target, same))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.floats(0.01, 50))
def test_estimates_are_shares_and_blind_to_order_and_to_a_shift_of_logits(seed, m, n, spread):
    source, labels = calibrated(m, seed, spread)
    target = calibrated(n, seed + 1, spread)[0]
    found = estimate(source, labels, target, [target[:, ::-1]])
    assert all(0 <= value <= 1 for value in vars(found).values())
    order = np.random.default_rng(seed).permutation(m)
    other = estimate(source[order] + 3, labels[order], target + 3, [target[:, ::-1]])
    for name in ("source_accuracy", "average_confidence", "difference_of_confidences", "agreement"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), abs=1e-9)


def test_what_does_not_fit_is_refused():
    logits, labels = calibrated(5, 0)
    with pytest.raises(DataError, match="labels: expected 0 to 3, found 0 to 4"):
        estimate(logits, np.array([0, 1, 2, 3, 4]), logits)
    with pytest.raises(DataError, match="expected 5 integers"):
        estimate(logits, labels[:4], logits)
    with pytest.raises(DataError, match="target: expected finite logits"):
        average_confidence(np.full((2, 2), np.nan))
    with pytest.raises(DataError, match="two or more logits of one shape"):
        mean_agreement([logits])
    with pytest.raises(DataError, match="two or more logits of one shape"):
        agreement(logits, logits[:3])
