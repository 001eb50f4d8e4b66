import pytest

from isthmus.evaluation.dense.words import (
    data_words,
    frozen_words,
    method_words,
    network_words,
    stage_words,
    task_words,
)
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.presets import named


def dense(name: str) -> DenseRecipe:
    recipe = named(name)
    assert isinstance(recipe, DenseRecipe)
    return recipe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("headfreeze-dann/rooms", "an adversary between the domains at layer4 (gradient reversal, weight 0.1)"),
        (
            "mtl-both-dann-layer4-out/rooms",
            "adversaries between the domains at layer4 (gradient reversal, weight 0.1) and",
        ),
        ("mtl-both-output/faces", "at the predicted normals (non-saturating, weight 0.01)"),
        ("mtl-both-multilevel/rooms", "normals predicted from layer4 (non-saturating, weight 0.002)"),
        ("mtl-both-advent/rooms", "self-information of the predicted segmentation"),
        ("headfreeze/rooms", "One network for all tasks"),
    ],
)
def test_methods(name: str, expected: str) -> None:
    assert expected in method_words(dense(name), 2)


def test_network_of_one_task_is_not_called_one_for_all() -> None:
    assert method_words(dense("baseline/rooms"), 1) == "One network, trained on the labels there are"
    assert "all tasks" not in method_words(dense("baseline-dann/rooms"), 1)


def test_networks() -> None:
    assert network_words(dense("headfreeze/rooms")) == "ResNet-18 with a pyramid decoder of width 0.25"
    assert network_words(dense("headfreeze/folder")) == "ResNet-50 with a pyramid decoder of width 1"


def test_every_simulated_domain_is_called_so() -> None:
    assert data_words(dense("headfreeze/rooms")) == "simulated rooms → simulated camera rooms"
    assert data_words(dense("headfreeze/folder")) == "source → target"
    real = data_words(dense("headfreeze/rooms-views1"))
    assert real.startswith("simulated rooms → scannet-views") and real.count("simulated") == 1
    assert data_words(dense("multi-task/rooms-onelabel")) == "simulated rooms, one label"


def test_tasks() -> None:
    assert task_words(dense("headfreeze/faces"), ["normals", "keypoints"]) == "normals with keypoints as the anchor"
    assert task_words(dense("baseline/faces"), ["normals"]) == "normals"
    assert task_words(dense("multi-task/rooms-onelabel"), ["depth", "inverse_depth"]) == "depth, inverse depth"


def test_freezing() -> None:
    first, second = dense("headfreeze/rooms").stages
    assert (frozen_words(first), stage_words(first)) == ("", "source")
    assert (frozen_words(second), stage_words(second)) == ("everything behind up2", "frozen behind up2")
    other = second.model_copy(update={"name": "b", "frozen_after": None, "frozen": ("network.heads",)})
    assert (frozen_words(other), stage_words(other)) == ("network.heads", "b: network.heads frozen")
    assert stage_words(second.model_copy(update={"name": "late"})) == "late: frozen behind up2"
