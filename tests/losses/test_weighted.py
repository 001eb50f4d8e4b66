import torch

from isthmus.losses.weighted import Loss


def test_a_loss_is_its_sum_over_its_weight_and_remembers_its_coefficient() -> None:
    loss = Loss.of(torch.tensor([1.0, 2.0, 6.0]), 4, 0.5)
    assert loss.sum == 9 and loss.weight == 4 and loss.coefficient == 0.5


def test_those_who_take_part_are_counted_by_the_weight_unless_said_otherwise() -> None:
    per_sample = torch.tensor([1.0, 2.0])
    assert Loss.of(per_sample, 5).taking_part == 5
    assert Loss.of(per_sample, 5, samples=2).taking_part == 2
    assert Loss.of(per_sample, 5, samples=0).taking_part == 0


def test_weight_and_samples_carry_no_gradient() -> None:
    count = torch.tensor(3.0, requires_grad=True)
    loss = Loss.of(torch.ones(2, requires_grad=True), count, samples=count)
    assert loss.sum.requires_grad and not loss.weight.requires_grad
    assert loss.samples is not None and not loss.samples.requires_grad


def test_an_absent_loss_is_zero_without_a_gradient_but_may_carry_weight() -> None:
    loss = Loss.absent(torch.device("cpu"), 2.0, weight=3)
    assert loss.sum == 0 and not loss.sum.requires_grad
    assert loss.weight == 3 and loss.taking_part == 0 and loss.coefficient == 2


def test_sums_and_weights_of_the_parts_of_a_batch_add_up() -> None:
    values = torch.rand(7)
    whole, parts = Loss.of(values, 7), [Loss.of(values[:3], 3), Loss.of(values[3:], 4)]
    torch.testing.assert_close(sum(p.sum for p in parts) / sum(p.weight for p in parts), whole.sum / whole.weight)
