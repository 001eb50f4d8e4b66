import math
from itertools import chain

import pytest
import torch
from dense_task_tester import DenseTaskTester, example
from sklearn.metrics import accuracy_score, jaccard_score

from isthmus.tasks.segmentation import Segmentation
from isthmus.tasks.shape_parts import ShapeParts

CLASSES = tuple(f"part{number}" for number in range(8))


class TestShapeParts(DenseTaskTester):
    task = ShapeParts(CLASSES[:4])


def shapes(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Six clouds of 40 points; some lack classes in truth or prediction, one has no label at all."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(6, 8, 1, 40, generator=generator)
    label = torch.randint(8, (6, 1, 40), generator=generator)
    label[1], label[2] = label[1] % 3, 5
    output[2, 5] += 9  # all right, one class
    output[3, 6] += 9  # predicts nothing but a class
    valid = torch.rand(6, 1, 40, generator=generator) < 0.8
    valid[4] = False
    return output, label, valid


def test_the_score_is_the_mean_over_shapes_of_scikit_learns_macro_jaccard():
    task = ShapeParts(CLASSES)
    output, label, valid = shapes()
    truth = [label[i][valid[i]].tolist() for i in range(6)]
    found = [output.argmax(dim=1)[i][valid[i]].tolist() for i in range(6)]
    each = [jaccard_score(truth[i], found[i], average="macro") for i in range(6) if truth[i]]
    scores = task.scores(task.statistics(output, label, valid).sum(dim=0))
    assert float(scores["mean_iou"]) == pytest.approx(sum(each) / 5, rel=1e-12)
    assert float(scores["pixel_accuracy"]) == pytest.approx(accuracy_score([*chain(*truth)], [*chain(*found)]))
    for number, name in enumerate(CLASSES):
        own = [
            jaccard_score(t, f, labels=[number], average=None)[0]
            for t, f in zip(truth, found)
            if number in t or number in f
        ]
        assert float(scores[f"iou/{name}"]) == pytest.approx(sum(own) / len(own), rel=1e-12)


def test_it_is_another_score_than_that_of_all_points_together():
    output, label, valid = shapes()
    scores = [
        task.scores(task.statistics(output, label, valid).sum(dim=0))
        for task in (ShapeParts(CLASSES), Segmentation(CLASSES))
    ]
    assert abs(float(scores[0]["mean_iou"]) - float(scores[1]["mean_iou"])) > 0.01


def test_a_shape_counts_once_however_many_points_it_has():
    task = ShapeParts(("a", "b"))
    label = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]], [[0, 1, 0, 0, 0, 0, 0, 0]]])
    output = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 0, 0]]]), 2)
    valid = torch.ones_like(label, dtype=torch.bool)
    valid[1, :, 2:] = False
    score = task.scores(task.statistics(output.movedim(-1, 1).float(), label, valid).sum(dim=0))["mean_iou"]
    assert float(score) == pytest.approx((1 + (1 / 2 + 0) / 2) / 2)


def test_loss_is_the_mean_over_labelled_points():
    task = ShapeParts(CLASSES)
    output, label, valid = shapes()
    loss = task.loss(output, label, valid)
    for sample in range(6):
        terms = []
        for point in valid[sample, 0].nonzero().flatten().tolist():
            logits = output[sample, :, 0, point].tolist()
            terms.append(math.log(sum(map(math.exp, logits))) - logits[label[sample, 0, point]])
        assert float(loss[sample]) == pytest.approx(sum(terms) / max(1, len(terms)), rel=1e-5)


def test_images_with_two_dimensions_are_scored_alike():
    task = ShapeParts(CLASSES[:4])
    output, label, valid = example(task)
    flat = task.statistics(output.flatten(2)[:, :, None], label.flatten(1)[:, None], valid.flatten(1)[:, None])
    torch.testing.assert_close(task.statistics(output, label, valid), flat)
