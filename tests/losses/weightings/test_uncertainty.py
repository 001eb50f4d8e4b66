import math

import pytest
import torch
from weighting_tester import TASKS, WeightingTester, some_losses, step

from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.uncertainty import Uncertainty

S = {"segmentation": -0.3, "depth": 0.4, "normals": 1.1}


def learned(**options) -> Uncertainty:
    weighting = Uncertainty(TASKS, **options)
    for task, value in S.items():
        torch.nn.init.constant_(weighting.log_variance[task], value)
    return weighting


class TestUncertainty(WeightingTester):
    def build(self):
        return Uncertainty(TASKS)

    def trained(self):
        return learned()


@pytest.mark.parametrize(
    ("options", "divisors"),
    [
        ({}, {"segmentation": 1, "depth": 2, "normals": 2}),
        ({"form": "mtan"}, {"segmentation": 2, "depth": 2, "normals": 2}),
        ({"constants": {"depth": 5.0}}, {"segmentation": 1, "depth": 5, "normals": 2}),
    ],
)
def test_the_step_is_that_of_the_formula(options, divisors):
    means = {name.split("/")[0]: value.item() for name, value in step(some_losses()).items()}
    added = step(learned(**options)(some_losses()))
    for task, s in S.items():
        assert added[f"{task}/source"].item() == pytest.approx(math.exp(-s) / divisors[task] * means[task])
        assert added[f"uncertainty/{task}"].item() == pytest.approx(s / 2)


def test_gradients_are_those_of_the_formula_and_an_absent_task_has_none():
    weighting = learned()
    sum(step(weighting(some_losses(without="normals"))).values()).backward()
    means = {name.split("/")[0]: value.item() for name, value in step(some_losses()).items()}
    for task, c in (("segmentation", 1), ("depth", 2)):
        expected = -math.exp(-S[task]) / c * means[task] + 0.5
        assert weighting.log_variance[task].grad.item() == pytest.approx(expected)
    assert weighting.log_variance["normals"].grad.item() == 0


def test_a_task_on_one_process_alone_counts_in_full():
    weighting = learned()
    added = step(weighting(some_losses(without="depth")), weighting(some_losses()))
    assert added["uncertainty/depth"].item() == pytest.approx(S["depth"] / 2)


def test_two_domains_share_an_uncertainty_and_its_term_is_added_once():
    losses = {f"depth/{domain}": Loss.of(torch.tensor([2.0]), 1.0) for domain in ("source", "target")}
    added = step(learned()(losses))
    assert added.keys() == {"depth/source", "depth/target", "uncertainty/depth"}
    assert added["uncertainty/depth"].item() == pytest.approx(S["depth"] / 2)
    assert added["depth/target"].item() == pytest.approx(math.exp(-S["depth"]))


def test_it_starts_as_told_and_the_optimiser_sees_it():
    weighting = Uncertainty(TASKS, initial=-0.7)
    assert [value.item() for value in weighting.parameters()] == pytest.approx([-0.7] * 3)
    assert {name for name, _ in weighting.named_parameters()} == {f"log_variance.{task}" for task in TASKS}


@pytest.mark.parametrize("constants", [{"dept": 1.0}, {"depth": 0.0}])
def test_constants_are_checked(constants):
    with pytest.raises(ValueError, match="constants: expected positive numbers for tasks of"):
        Uncertainty(TASKS, constants=constants)
