import math

import numpy as np
import pytest
import torch
from dense_task_tester import DenseTaskTester, example
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from isthmus.tasks.segmentation import Segmentation

CLASSES = ("bed", "books", "ceiling", "chair")


class TestSegmentation(DenseTaskTester):
    task = Segmentation(CLASSES)


def test_loss_equals_a_loop_over_pixels():
    task = Segmentation(CLASSES)
    output, label, valid = example(task, batch=2)
    for sample, loss in enumerate(task.loss(output, label, valid).tolist()):
        terms = []
        for row, column in valid[sample].nonzero().tolist():
            logits = output[sample, :, row, column].tolist()
            terms.append(math.log(sum(map(math.exp, logits))) - logits[label[sample, row, column]])
        assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_scores_equal_those_of_scikit_learn():
    task = Segmentation(CLASSES)
    output, label, valid = example(task)
    scores = task.scores(task.statistics(output, label, valid).sum(dim=0))
    truth, found = label[valid].numpy(), output.argmax(dim=1)[valid].numpy()
    each = jaccard_score(truth, found, average=None)
    assert [float(scores[f"iou/{name}"]) for name in CLASSES] == pytest.approx(each)
    assert float(scores["mean_iou"]) == pytest.approx(each.mean())
    assert float(scores["pixel_accuracy"]) == pytest.approx(accuracy_score(truth, found))


def test_rows_of_the_confusion_are_the_truth():
    output = torch.zeros(1, 2, 1, 3)
    output[:, 1, :, [0, 2]] = 1.0
    label = torch.tensor([[[0, 0, 1]]])
    statistics = Segmentation(("a", "b")).statistics(output, label, torch.ones(1, 1, 3, dtype=torch.bool))
    assert statistics.tolist() == [[1.0, 1.0, 0.0, 1.0]]


def test_a_class_that_occurs_nowhere_takes_no_part_in_the_mean():
    task = Segmentation(("a", "b", "never"))
    scores = task.scores(torch.tensor([3.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]).double())
    assert scores["iou/never"].isnan()
    assert float(scores["mean_iou"]) == pytest.approx((3 / 4 + 2 / 3) / 2)
    only_predicted = task.scores(torch.tensor([3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).double())
    assert float(only_predicted["mean_iou"]) == pytest.approx((3 / 4 + 0) / 2)


def test_only_counted_classes_enter_the_mean():
    confusion = torch.tensor([3.0, 1.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 5.0]).double()
    assert float(Segmentation(("a", "b", "c"), counted=(0, 2)).scores(confusion)["mean_iou"]) == pytest.approx(
        (3 / 4 + 5 / 7) / 2
    )


@pytest.mark.parametrize("counted", [(), (0, 4), (-1,)])
def test_counted_classes_have_to_be_there(counted):
    with pytest.raises(ValueError, match=r"counted: expected indices of 4 classes, found"):
        Segmentation(CLASSES, counted=counted)


def test_the_score_of_a_data_set_is_not_the_mean_over_batches():
    task = Segmentation(("a", "b"))
    right, wrong = torch.tensor([9.0, 1.0, 0.0, 0.0]).double(), torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    accumulated = float(task.scores(right + wrong)["mean_iou"])
    averaged = (float(task.scores(right)["mean_iou"]) + float(task.scores(wrong)["mean_iou"])) / 2
    assert accumulated == pytest.approx((9 / 11 + 1 / 3) / 2)
    assert averaged == pytest.approx((9 / 20 + 1 / 4) / 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4))
def test_statistics_add_up_over_any_split(seed, cut):
    task = Segmentation(CLASSES)
    output, label, valid = example(task, seed=seed)
    parts = [task.statistics(output[s], label[s], valid[s]).sum(dim=0) for s in (slice(cut), slice(cut, None))]
    assert torch.equal(sum(parts), task.statistics(output, label, valid).sum(dim=0))
    assert sum(parts).sum() == valid.sum()


def test_gumbel_samples_are_one_hot_at_the_right_rates_and_pass_a_gradient():
    task = Segmentation(CLASSES)
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])[None, :, None, None].expand(1, 4, 100, 100).clone().requires_grad_()
    uniform = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
    sample = task.prediction_map(logits, uniform)
    assert torch.equal(sample.unique(), torch.tensor([0.0, 1.0])) and (sample.sum(dim=1) == 1).all()
    rates = sample.mean(dim=(0, 2, 3))
    np.testing.assert_allclose(rates.detach(), logits[0, :, 0, 0].softmax(0).detach(), atol=0.015)
    relaxed = (logits - (-uniform.log()).log()).softmax(dim=1)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    found, expected = (torch.autograd.grad((made * weight).sum(), logits)[0] for made in (sample, relaxed))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("draw", [0.0, 1.0, 1 - 2**-24, 2**-149])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e30])
def test_gumbel_samples_are_finite_at_the_ends_of_the_draws(draw, scale):
    logits = (torch.randn(2, 4, 3, 3) * scale).requires_grad_()
    uniform = torch.full((2, 4, 3, 3), draw)
    uniform[:, 0] = 0.5
    sample = Segmentation(CLASSES).prediction_map(logits, uniform)
    sample.square().sum().backward()
    assert sample.isfinite().all() and (sample.sum(dim=1) == 1).all() and logits.grad.isfinite().all()


def test_label_map_is_one_hot_with_zeros_where_there_is_no_label():
    label, valid = torch.tensor([[[2, 255, 0]]]), torch.tensor([[[True, False, True]]])
    assert Segmentation(("a", "b", "c")).label_map(label, valid)[0, :, 0].T.tolist() == [
        [0, 0, 1],
        [0, 0, 0],
        [1, 0, 0],
    ]
