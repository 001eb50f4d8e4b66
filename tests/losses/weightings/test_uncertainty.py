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
        assert added[f"uncertainty/{task}/source"].item() == pytest.approx(s / 2 * 1.5 / 4)


def test_gradients_are_those_of_the_formula_and_an_absent_task_has_none():
    weighting = learned()
    sum(step(weighting(some_losses(without="normals"))).values()).backward()
    means = {name.split("/")[0]: value.item() for name, value in step(some_losses()).items()}
    for task, c in (("segmentation", 1), ("depth", 2)):
        expected = -math.exp(-S[task]) / c * means[task] + 0.5 * 1.5 / 4
        assert weighting.log_variance[task].grad.item() == pytest.approx(expected)
    assert weighting.log_variance["normals"].grad.item() == 0


def test_a_task_on_one_process_alone_counts_by_the_images_of_both():
    weighting = learned()
    added = step(weighting(some_losses(without="depth")), weighting(some_losses()))
    assert added["uncertainty/depth/source"].item() == pytest.approx(S["depth"] / 2 * 1.5 / 8)


@pytest.mark.parametrize("share", [1.0, 1 / 3, 1 / 9])
def test_a_constant_loss_is_as_certain_however_rarely_it_is_labelled(share):
    weighting = Uncertainty(TASKS)
    optimizer = torch.optim.SGD(weighting.parameters(), lr=1.0 / share)
    for _ in range(200):
        loss = Loss.of(torch.tensor([3.0 * share]), 1.0, samples=share, mass=share)
        sum(step(weighting({"depth/source": loss})).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    # The minimum of e^-s / 2 L + s / 2 is at e^s = L.
    assert weighting.log_variance["depth"].exp().item() == pytest.approx(3.0, rel=1e-4)


def test_two_domains_share_an_uncertainty():
    losses = {f"depth/{domain}": Loss.of(torch.tensor([2.0]), 1.0) for domain in ("source", "target")}
    added = step(learned()(losses))
    assert added.keys() == {f"{kind}depth/{d}" for kind in ("", "uncertainty/") for d in ("source", "target")}
    assert added["uncertainty/depth/source"].item() == pytest.approx(S["depth"] / 2)
    assert added["depth/target"].item() == pytest.approx(math.exp(-S["depth"]))


def test_it_starts_as_told_and_the_optimiser_sees_it():
    weighting = Uncertainty(TASKS, initial=-0.7)
    assert [value.item() for value in weighting.parameters()] == pytest.approx([-0.7] * 3)
    assert {name for name, _ in weighting.named_parameters()} == {f"log_variance.{task}" for task in TASKS}


@pytest.mark.parametrize("constants", [{"dept": 1.0}, {"depth": 0.0}])
def test_constants_are_checked(constants):
    with pytest.raises(ValueError, match="constants: expected positive numbers for tasks of"):
        Uncertainty(TASKS, constants=constants)
