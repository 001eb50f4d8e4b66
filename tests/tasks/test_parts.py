import torch
from dense_task_tester import DenseTaskTester, example

from isthmus.tasks.parts import Parts
from isthmus.tasks.segmentation import Segmentation

CLASSES = ("background", "head", "torso")
TASK = Parts(CLASSES)


class TestParts(DenseTaskTester):
    task = TASK


def test_an_image_without_a_person_counts_nothing():
    output, label, valid = example(TASK)
    label[1] = 0
    label[3], label[3, 2, 2], valid[3, 2, 2] = 0, 1, False
    found, plain = (task.statistics(output, label, valid) for task in (TASK, Segmentation(CLASSES)))
    assert found[[1, 3]].count_nonzero() == 0 and plain[[1, 3]].sum() == valid[[1, 3]].sum()
    assert torch.equal(found[[0, 2, 4]], plain[[0, 2, 4]])


def test_it_is_trained_on_all_the_same():
    output, label, valid = example(TASK)
    label[1] = 0
    assert torch.equal(TASK.loss(output, label, valid), Segmentation(CLASSES).loss(output, label, valid))
    assert TASK.loss(output, label, valid)[1] > 0
