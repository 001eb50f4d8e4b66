import numpy as np
import pytest
import torch
from dense_task_tester import DenseTaskTester, example

from isthmus.tasks.depth import Depth
from isthmus.tasks.inverse_depth import InverseDepth


class TestDepth(DenseTaskTester):
    task = Depth()


class TestInverseDepth(DenseTaskTester):
    task = InverseDepth()


@pytest.mark.parametrize("task", [Depth(), InverseDepth()])
def test_loss_is_the_mean_distance_of_raw_outputs(task):
    output, label, valid = example(task, batch=3)
    for sample, loss in enumerate(task.loss(output, label, valid).tolist()):
        pixels = valid[sample].nonzero().tolist()
        distances = [abs(float(output[sample, 0, i, j]) - float(label[sample, 0, i, j])) for i, j in pixels]
        assert loss == pytest.approx(sum(distances) / len(distances), rel=1e-5)


def test_scores_equal_their_definitions_over_all_pixels_of_the_data_set():
    task = Depth()
    output, label, valid = example(task)
    scores = task.scores(task.statistics(output, label, valid).sum(dim=0))
    truth = label[:, 0][valid].double().numpy()
    found = np.maximum(output[:, 0][valid].double().numpy(), 1e-9)
    error = np.abs(found - truth)
    expected = {
        "abs_error": error.mean(),
        "rel_error": (error / truth).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "delta1": (np.maximum(found / truth, truth / found) < 1.25).mean(),
    }
    assert {name: float(value) for name, value in scores.items()} == pytest.approx(expected, rel=1e-6)
    assert 0 < scores["delta1"] < 1


def test_inverse_depth_has_the_same_errors_and_no_score_that_needs_metres():
    output, label, valid = example(Depth())
    metric, inverse = (task.scores(task.statistics(output, label, valid)) for task in (Depth(), InverseDepth()))
    assert metric.keys() - inverse.keys() == {"delta1"}
    for name, values in inverse.items():
        assert torch.equal(values, metric[name])


def test_a_perfect_prediction_and_one_a_factor_off():
    label, valid = torch.full((1, 1, 2, 2), 2.0), torch.ones(1, 2, 2, dtype=torch.bool)
    perfect, near, far = (Depth().scores(Depth().statistics(label * f, label, valid)) for f in (1.0, 1.2, 1.3))
    assert float(perfect["abs_error"]) == 0 and float(perfect["delta1"]) == 1
    assert float(near["delta1"]) == 1 and float(near["rel_error"]) == pytest.approx(0.2, rel=1e-5)
    assert float(far["delta1"]) == 0 and float(far["rmse"]) == pytest.approx(0.6, rel=1e-5)


def test_negative_outputs_are_scored_as_almost_zero():
    label, valid = torch.full((1, 1, 1, 2), 3.0), torch.ones(1, 1, 2, dtype=torch.bool)
    scores = Depth().scores(Depth().statistics(torch.full_like(label, -5.0), label, valid))
    assert float(scores["abs_error"]) == pytest.approx(3.0)
    assert Depth().activate(torch.tensor([-5.0, 2.0])).tolist() == pytest.approx([1e-9, 2.0])


def test_maps_are_relative_to_the_images_own_largest():
    output = torch.tensor([[[[1.0, -2.0, 4.0]]], [[[10.0, 5.0, 0.0]]]])
    assert Depth().prediction_map(output).squeeze().tolist() == [[0.25, 0.0, 1.0], [1.0, 0.5, 0.0]]
    valid = torch.tensor([[[True, True, True]], [[False, True, True]]])
    label = torch.tensor([[[[1.0, 2.0, 4.0]]], [[[10.0, 5.0, 1.0]]]])
    expected = torch.tensor([[0.25, 0.5, 1.0], [0.0, 1.0, 0.2]])
    torch.testing.assert_close(Depth().label_map(label, valid).squeeze(), expected)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_image_that_is_nowhere_positive_maps_to_zero_without_a_gradient(value):
    output = torch.full((1, 1, 4, 4), value, requires_grad=True)
    made = Depth().prediction_map(output)
    made.sum().backward()
    assert made.count_nonzero() == 0 and output.grad.count_nonzero() == 0
