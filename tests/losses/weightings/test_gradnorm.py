import pytest
import torch
from weighting_tester import TASKS, CombiningTester, some_losses

from isthmus.losses.weightings.gradnorm import GradNorm


def gradients(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)) * torch.tensor([[1.0], [4.0], [0.5]])


def slow_update(weights, gradients, losses, first, alpha, rate):
    """One step by automatic differentiation of the published objective, target held constant."""
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    norms = torch.stack([(w[i] * gradients[i].double()).norm() for i in range(len(weights))])
    pace = torch.tensor([now / then for now, then in zip(losses, first)], dtype=torch.float64)
    mean = norms.mean().detach()
    ((norms - mean * (pace / pace.mean()) ** alpha).abs().sum() / mean).backward()
    moved = w.detach() - rate * w.grad
    return (moved * w.detach().sum() / moved.sum()).tolist()


class TestGradNorm(CombiningTester):
    def build(self):
        return GradNorm(TASKS)

    def trained(self):
        weighting = GradNorm(TASKS, learning_rate=0.2)
        weighting.combine(gradients(), TASKS, torch.ones(3))
        assert weighting.weights.unique().numel() > 1
        return weighting


def test_weights_move_as_automatic_differentiation_says():
    weighting, weights = GradNorm(TASKS, alpha=1.5, learning_rate=0.01), [1.0, 1.0, 1.0]
    generator, first = torch.Generator().manual_seed(0), [2.0, 3.0, 1.0]
    for step in range(20):
        shares = torch.rand(3, generator=generator).tolist()
        losses = [share * start for share, start in zip(shares, first)] if step else first
        plain = gradients(step)
        scaled = plain * torch.tensor(weights)[:, None]
        direction = weighting.combine(scaled, TASKS, torch.tensor(losses) * torch.tensor(weights))
        torch.testing.assert_close(direction, scaled.sum(dim=0))
        weights = slow_update(weights, plain, losses, first, 1.5, 0.01)
        assert weighting.weights.tolist() == pytest.approx(weights, rel=1e-3)
    assert weighting.initial.tolist() == pytest.approx(first)


def test_norms_become_alike_when_no_task_is_to_be_favoured():
    weighting, plain = GradNorm(TASKS, alpha=0.0, learning_rate=0.01), gradients()
    for _ in range(400):
        weights = weighting.weights.clone()
        weighting.combine(plain * weights[:, None], TASKS, weights)
    norms = (plain * weighting.weights[:, None]).norm(dim=1)
    assert float(norms.max() / norms.min()) < 1.15
    assert float(weighting.weights.sum()) == pytest.approx(3.0, rel=1e-4)


def test_a_slow_task_gains_weight():
    weighting = GradNorm(TASKS, alpha=1.5)
    alike = torch.eye(3)
    weighting.combine(alike, TASKS, torch.ones(3))
    for _ in range(5):
        weights = weighting.weights.clone()
        weighting.combine(alike * weights[:, None], TASKS, weights * torch.tensor([0.2, 0.9, 0.2]))
    assert weighting.weights.argmax() == 1 and weighting.weights[1] > 1


def test_tasks_that_are_absent_keep_their_weight_and_the_others_their_sum():
    weighting = GradNorm(TASKS, learning_rate=0.1)
    weighting.weights.copy_(torch.tensor([0.5, 1.5, 1.0]))
    weighting.combine(gradients()[[0, 2]], ("segmentation", "normals"), torch.tensor([1.0, 2.0]))
    assert weighting.weights[1] == 1.5 and float(weighting.weights.sum()) == pytest.approx(3.0)
    assert weighting.weights[0] != 0.5
    assert weighting.initial[1].isnan() and weighting.initial[[0, 2]].tolist() == [2.0, 2.0]


def test_the_unit_of_the_losses_does_not_matter():
    weights = []
    for unit in (1e-3, 1.0, 1e3):
        weighting = GradNorm(TASKS)
        for step in range(3):
            weighting.combine(gradients(step) * unit, TASKS, torch.tensor([3.0, 2.0, 1.0 + step]) * unit)
        weights.append(weighting.weights.tolist())
    assert weights[0] == pytest.approx(weights[1], rel=1e-4)
    assert weights[2] == pytest.approx(weights[1], rel=1e-4)


def test_losses_of_a_step_keep_the_weights_from_before_it():
    weighting = GradNorm(TASKS, learning_rate=0.2)
    losses = weighting(some_losses())
    weighting.combine(gradients(), TASKS, torch.ones(3))
    gradient = torch.autograd.grad(losses["depth/source"].sum, some_leaf(losses["depth/source"].sum))[0]
    assert gradient.tolist() == [1.0, 1.0] and weighting.weights[1] != 1.0


def some_leaf(tensor: torch.Tensor) -> torch.Tensor:
    node = tensor.grad_fn
    while not hasattr(node, "variable"):
        node = next(child for child, _ in node.next_functions if child is not None)
    return node.variable


def test_weights_stay_positive_and_keep_their_sum_however_fast_they_move():
    weighting = GradNorm(TASKS, learning_rate=10.0)
    for step in range(20):
        weighting.combine(gradients(step), TASKS, torch.ones(3))
        assert (weighting.weights >= 0.999e-3).all() and float(weighting.weights.sum()) == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"learning_rate": 0.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected alpha >= 0 and learning_rate > 0"):
        GradNorm(TASKS, **options)


def test_identical_tasks_keep_equal_weights_however_the_labels_fall():
    """Each image has one label: shares of a batch change from step to step, and loss and gradient with them."""
    generator = torch.Generator().manual_seed(0)
    weighting = GradNorm(TASKS)
    row = torch.randn(20, generator=generator)
    for _ in range(300):
        shares = torch.bincount(torch.randint(3, (8,), generator=generator), minlength=3) / 8
        here = shares > 0
        tasks = tuple(task for task, there in zip(TASKS, here) if there)
        scales = (shares * weighting.weights)[here]
        weighting.combine(scales[:, None] * row, tasks, scales, shares[here])
    torch.testing.assert_close(weighting.weights, torch.ones(3), rtol=0, atol=0.1)
