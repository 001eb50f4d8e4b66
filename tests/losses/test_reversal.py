import math

import pytest
import torch

from isthmus.losses.reversal import dann_ramp, reverse_gradient


def test_values_pass_unchanged_and_the_gradient_is_the_negative_of_finite_differences() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(4, 2, dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x @ matrix).sin().square().sum()

    reversed_values = reverse_gradient(values, 0.7)
    assert torch.equal(reversed_values, values)
    function(reversed_values).backward()
    step = 1e-6
    for row in range(3):
        for column in range(4):
            moved = torch.zeros_like(values)
            moved[row, column] = step
            slope = float(function(values.detach() + moved) - function(values.detach() - moved)) / (2 * step)
            assert float(values.grad[row, column]) == pytest.approx(-0.7 * slope, abs=1e-7)


def test_the_ramp_is_the_published_one() -> None:
    assert dann_ramp(0.0) == 0.0
    assert dann_ramp(0.3) == pytest.approx(2 / (1 + math.exp(-3)) - 1)
    assert 0.999 < dann_ramp(1.0) < 1.0
