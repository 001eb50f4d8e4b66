import math

import numpy as np
import pytest
import torch
from dense_task_tester import DenseTaskTester, example
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.tasks.boundary_matching import boundary_counts
from isthmus.tasks.edges import Edges

TASK = Edges(thresholds=(0.25, 0.5, 0.75))


class TestEdges(DenseTaskTester):
    task = TASK


def test_loss_weighs_boundaries_nineteen_times_others():
    output, label, valid = example(TASK, batch=3)
    for sample, loss in enumerate(TASK.loss(output, label, valid).tolist()):
        terms = []
        for i, j in valid[sample].nonzero().tolist():
            p = 1 / (1 + math.exp(-float(output[sample, 0, i, j])))
            terms.append(-0.95 * math.log(p) if label[sample, 0, i, j] else -0.05 * math.log(1 - p))
        assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_the_score_is_the_best_f_of_summed_counts():
    """Each image alone reaches F = 1 at a threshold of its own; the data set has to do with one for both."""
    label = torch.zeros(2, 1, 24, 24)
    label[:, :, :, 6] = 1
    probability = torch.full((2, 1, 24, 24), 1e-3)
    probability[0, :, :, 6] = 0.9
    probability[0, :, :, 16] = 0.6
    probability[1, :, :, 6] = 0.4
    valid = torch.ones(2, 24, 24, dtype=torch.bool)
    statistics = TASK.statistics(probability.logit(), label, valid)
    alone = TASK.scores(statistics)
    assert alone["ods_f"].tolist() == [1.0, 1.0] and alone["threshold"].tolist() == [0.75, 0.25]
    together = {name: float(value) for name, value in TASK.scores(statistics.sum(dim=0)).items()}
    assert together == pytest.approx({"ods_f": 4 / 5, "precision": 2 / 3, "recall": 1.0, "threshold": 0.25})


def test_counts_are_those_of_the_matching():
    output, label, valid = example(TASK, batch=2)
    for sample, row in enumerate(TASK.statistics(output, label, valid)):
        maps = (output[sample, 0].sigmoid().numpy(), label[sample, 0].bool().numpy(), valid[sample].numpy())
        # Images this small have a diagonal whose 0.75 % is less than a pixel: the floor counts.
        expected = boundary_counts(*maps, np.array([0.25, 0.5, 0.75]), 1.0 / np.hypot(*maps[1].shape) + 1e-9)
        assert row.view(3, 3).tolist() == expected.tolist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4))
def test_statistics_add_up_over_any_split(seed, cut):
    output, label, valid = example(TASK, seed=seed)
    parts = [TASK.statistics(output[s], label[s], valid[s]).sum(dim=0) for s in (slice(cut), slice(cut, None))]
    assert torch.equal(sum(parts), TASK.statistics(output, label, valid).sum(dim=0))


def test_no_prediction_at_all_is_f_0_with_no_precision():
    statistics = torch.tensor([0.0, 0.0, 5.0] * 3).double()
    scores = TASK.scores(statistics)
    assert float(scores["ods_f"]) == 0 and scores["precision"].isnan() and float(scores["recall"]) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"positive_weight": 1.0}, "positive_weight: expected between 0 and 1, found 1.0"),
        ({"tolerance": -0.1}, "tolerance: expected a fraction of the diagonal, found -0.1"),
        ({"thresholds": (0.5, 0.25)}, r"thresholds: expected ascending numbers between 0 and 1, found \(0.5, 0.25\)"),
        ({"thresholds": ()}, "thresholds: expected ascending"),
    ],
)
def test_settings_out_of_range_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        Edges(**changes)
