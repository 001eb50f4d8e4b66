import math

import numpy as np
import pytest
import torch
from dense_task_tester import DenseTaskTester, example
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from isthmus.tasks.saliency import THRESHOLDS, Saliency

TASK = Saliency()


class TestSaliency(DenseTaskTester):
    task = TASK


def test_loss_weighs_a_pixel_by_the_share_of_the_other_class():
    output, label, valid = example(TASK, batch=3)
    for sample, loss in enumerate(TASK.loss(output, label, valid).tolist()):
        pixels = valid[sample].nonzero().tolist()
        salient = sum(float(label[sample, 0, i, j]) for i, j in pixels)
        total = 0.0
        for i, j in pixels:
            p = 1 / (1 + math.exp(-float(output[sample, 0, i, j])))
            weights = ((len(pixels) - salient) / len(pixels), salient / len(pixels))
            total -= weights[0] * math.log(p) if label[sample, 0, i, j] else weights[1] * math.log(1 - p)
        assert loss == pytest.approx(total / len(pixels), rel=1e-4)


def test_both_classes_pull_equally_at_a_logit_of_zero():
    output, label, valid = torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 1, 8, 8), None
    label[..., :3, :2] = 1
    TASK.loss(output, label, valid).sum().backward()
    assert float(output.grad.sum()) == pytest.approx(0.0, abs=1e-7) and output.grad.abs().sum() > 0


def test_scores_are_means_over_images_at_the_best_threshold():
    output, label, valid = example(TASK)
    each = [
        [
            jaccard_score(label[i, 0][valid[i]].numpy(), (output[i, 0].sigmoid() > t)[valid[i]].numpy())
            for i in range(len(output))
        ]
        for t in THRESHOLDS
    ]
    means = np.mean(each, axis=1)
    scores = TASK.scores(TASK.statistics(output, label, valid).sum(dim=0))
    assert float(scores["max_iou"]) == pytest.approx(means.max())
    assert float(scores["threshold"]) == THRESHOLDS[means.argmax()]
    assert float(scores["iou_at_0.5"]) == pytest.approx(means[THRESHOLDS.index(0.5)])
    assert THRESHOLDS[0] == 0.2 and THRESHOLDS[-1] == 0.9 and len(THRESHOLDS) == 15


def test_an_image_that_is_rightly_empty_scores_1_and_one_that_is_not_0():
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    empty, full = torch.full((1, 1, 4, 4), -9.0), torch.full((1, 1, 4, 4), 9.0)
    nothing = torch.zeros(1, 1, 4, 4)
    assert float(TASK.scores(TASK.statistics(empty, nothing, valid)[0])["max_iou"]) == 1
    assert float(TASK.scores(TASK.statistics(full, nothing, valid)[0])["max_iou"]) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4))
def test_statistics_add_up_over_any_split(seed, cut):
    output, label, valid = example(TASK, seed=seed)
    parts = [TASK.statistics(output[s], label[s], valid[s]).sum(dim=0) for s in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(sum(parts), TASK.statistics(output, label, valid).sum(dim=0), rtol=1e-12, atol=0)
