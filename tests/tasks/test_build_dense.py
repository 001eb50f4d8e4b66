import typing

import pytest

from isthmus.data.images import DenseTaskName
from isthmus.tasks.build_dense import dense_task


@pytest.mark.parametrize("name", typing.get_args(DenseTaskName))
def test_every_kind_of_label_has_its_task(name):
    classes = ("background", "head") if name in ("segmentation", "parts", "keypoints") else ()
    task = dense_task(name, classes)
    assert task.name == name and task.classes == classes and (not classes or task.channels == 2)


@pytest.mark.parametrize(
    ("name", "classes", "complaint"),
    [
        ("depht", (), "task: expected a kind of dense prediction, found 'depht'"),
        ("depth", ("near", "far"), r"task 'depth': expected no classes, found \('near', 'far'\)"),
        ("parts", (), r"task 'parts': expected names of classes, found \(\)"),
        ("keypoints", (), r"task 'keypoints': expected names of classes, found \(\)"),
    ],
)
def test_what_is_no_task_is_refused(name, classes, complaint):
    with pytest.raises(ValueError, match=complaint):
        dense_task(name, classes)
