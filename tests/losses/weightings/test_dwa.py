import math

import pytest
import torch
from weighting_tester import TASKS, WeightingTester

from isthmus.losses.weightings.dwa import DWA

WINDOWS = [
    [{"segmentation": 4.0, "depth": 3.0, "normals": 2.0}, {"segmentation": 2.0, "depth": 1.0, "normals": 2.0}],
    [{"segmentation": 1.0, "depth": 2.0, "normals": 1.5}, {"segmentation": 2.0, "depth": 1.6, "normals": 0.5}],
]
AVERAGES = [{"segmentation": 3.0, "depth": 2.0, "normals": 2.0}, {"segmentation": 1.5, "depth": 1.8, "normals": 1.0}]


def watched(windows=WINDOWS, temperature=2.0) -> DWA:
    weighting = DWA(TASKS, temperature=temperature, interval=2)
    for window in windows:
        for means in window:
            weighting.observe(means)
    return weighting


def formula(ratios: list[float], temperature: float) -> list[float]:
    powers = [math.exp(ratio / temperature) for ratio in ratios]
    return [len(ratios) * power / sum(powers) for power in powers]


class TestDWA(WeightingTester):
    def build(self):
        return DWA(TASKS, interval=2)

    def trained(self):
        return watched()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_weights_are_those_of_the_formula(temperature):
    ratios = [AVERAGES[1][task] / AVERAGES[0][task] for task in TASKS]
    assert watched(temperature=temperature).weights().tolist() == pytest.approx(formula(ratios, temperature))


def test_weights_are_1_until_two_windows_are_full():
    for windows in ([], WINDOWS[:1], [WINDOWS[0], WINDOWS[1][:1]]):
        assert watched(windows).weights().tolist() == [1.0, 1.0, 1.0]


def test_only_the_last_two_windows_count():
    third = [dict.fromkeys(TASKS, 1.0)] * 2
    assert watched([*WINDOWS, third, third]).weights().tolist() == pytest.approx([1.0] * 3)
    assert watched([third, *WINDOWS]).weights().tolist() == watched().weights().tolist()


def test_a_task_that_a_window_does_not_hold_keeps_its_ratio():
    rest = [{"segmentation": 1.2, "normals": 0.9}] * 2
    ratios = [1.2 / 1.5, 1.8 / 2.0, 0.9 / 1.0]
    assert watched([*WINDOWS, rest]).weights().tolist() == pytest.approx(formula(ratios, 2.0))


def test_the_mean_of_a_window_is_over_the_steps_that_held_the_task():
    sparse = [[{"segmentation": 3.0, "depth": 2.0}, {"segmentation": 3.0}], [{"segmentation": 3.0, "depth": 1.0}, {}]]
    assert watched(sparse).weights().tolist() == pytest.approx(formula([1.0, 0.5, 1.0], 2.0))


def test_an_overflowed_loss_and_a_loss_of_zero_spoil_nothing():
    spoilt = [[*WINDOWS[0][:1], {"depth": math.inf, "normals": math.nan}], WINDOWS[1]]
    assert watched(spoilt).weights().isfinite().all()
    zero = [[dict.fromkeys(TASKS, 0.0)] * 2, WINDOWS[1]]
    assert watched(zero).weights().tolist() == [1.0, 1.0, 1.0]


def test_a_window_that_was_cut_resumes():
    weighting, resumed = watched([WINDOWS[0], WINDOWS[1][:1]]), DWA(TASKS, interval=2)
    resumed.load_state_dict(weighting.state_dict())
    for each in (weighting, resumed):
        each.observe(WINDOWS[1][1])
    assert torch.equal(weighting.weights(), resumed.weights()) and weighting.weights()[0] != 1


@pytest.mark.parametrize(("temperature", "interval"), [(0.0, 5), (1.0, 0)])
def test_settings_out_of_range_are_refused(temperature, interval):
    with pytest.raises(ValueError, match="expected positive temperature and interval"):
        DWA(TASKS, temperature=temperature, interval=interval)
