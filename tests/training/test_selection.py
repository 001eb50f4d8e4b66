import math

import numpy as np
import pytest
import torch

from isthmus.training.pseudo_labels import choose
from isthmus.training.selection import collapsed, information_maximisation, nuclear_norm

PRIOR = torch.tensor([0.5, 0.25, 0.25])


def sure(classes: list[int], total: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), total).float() * 50


def test_information_maximisation_is_its_formula() -> None:
    logits = torch.randn(20, 3)
    p = logits.double().softmax(1).numpy()
    entropy = np.mean([-sum(x * math.log(x) for x in row) for row in p])
    mean = p.mean(0)
    divergence = sum(m * math.log(m / q) for m, q in zip(mean, PRIOR.tolist()))
    assert information_maximisation(logits, PRIOR) == pytest.approx(-entropy - divergence, rel=1e-3)


def test_sure_predictions_in_the_sources_proportions_score_best() -> None:
    best = information_maximisation(sure([0, 0, 1, 2]), PRIOR)
    assert best == pytest.approx(0.0, abs=0.01)
    assert best > information_maximisation(sure([0, 0, 0, 0]), PRIOR)
    assert best > information_maximisation(torch.zeros(4, 3), PRIOR)


def test_nuclear_norm_is_one_for_sure_and_balanced_predictions_and_matches_svd() -> None:
    assert nuclear_norm(sure([0, 1, 2] * 4)) == pytest.approx(1.0, abs=1e-6)
    logits = torch.randn(30, 3)
    singular = np.linalg.svd(logits.double().softmax(1).numpy(), compute_uv=False)
    assert nuclear_norm(logits) == pytest.approx(singular.sum() / math.sqrt(30 * 3), rel=1e-6)
    assert nuclear_norm(sure([0] * 12)) < 0.6


def test_the_guard_vetoes_few_classes_and_lets_the_prior_pass() -> None:
    assert collapsed(sure([0] * 10), PRIOR)
    assert not collapsed(sure([0, 0, 1, 2]), PRIOR)
    assert not collapsed(sure([0] * 9 + [1]), torch.tensor([1.0, 0.0, 0.0]))


def test_pseudo_labels_respect_confidence_and_balance_classes() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]]))
    rows = np.array([4, 0, 2, 5, 7])
    everything = choose(logits, rows, 8)
    assert everything.labels[rows].tolist() == [0, 0, 0, 1, 1]
    assert np.flatnonzero(everything.present).tolist() == [0, 2, 4, 5, 7]
    assert np.flatnonzero(choose(logits, rows, 8, min_confidence=0.7).present).tolist() == [0, 4, 5]
    # half of each class, rounded up: the two surest of three, the surest of two
    assert np.flatnonzero(choose(logits, rows, 8, class_share=0.5).present).tolist() == [0, 4, 5]
    assert not choose(logits, rows, 8, class_share=0.0).present.any()
