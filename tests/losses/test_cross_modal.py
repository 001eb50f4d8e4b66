import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.losses.cross_modal import kl_divergence, mimicry
from isthmus.losses.weighted import Loss
from isthmus.models.two_streams import log_renormalised


def branches(batch: int = 3, classes: int = 4, points: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    student, teacher = (3 * torch.randn(batch, classes, 1, points, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.rand(batch, points) < 0.6


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def by_hand(student: Tensor, teacher: Tensor, present: Tensor) -> list[float]:
    """KL(teacher || student) in plain numbers, point by point."""
    found = []
    for b in range(len(student)):
        values = []
        for n in range(student.shape[-1]):
            if present[b, n]:
                p, q = softmax(teacher[b, :, 0, n].tolist()), softmax(student[b, :, 0, n].tolist())
                values.append(sum(own * math.log(own / other) for own, other in zip(p, q)))
        found.append(sum(values) / len(values) if values else 0.0)
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 4), st.integers(0, 6))
def test_mimicry_is_the_divergence_of_student_from_teacher(seed, batch, classes, points):
    student, teacher, present = branches(batch, classes, points, seed)
    expected = torch.tensor(by_hand(student, teacher, present), dtype=torch.float64)
    torch.testing.assert_close(mimicry(student, teacher, present), expected)
    torch.testing.assert_close(mimicry(student[:, :, 0], teacher[:, :, 0], present), expected)


def test_direction_and_units_by_hand():
    """P = (1/2, 1/2) and Q = (1/4, 3/4): the two directions are different numbers."""
    teacher = torch.zeros(1, 2, 1, 1)
    student = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1)
    there = torch.ones(1, 1, dtype=torch.bool)
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    backward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert mimicry(student, teacher, there).item() == pytest.approx(forward, rel=1e-6)
    assert mimicry(teacher, student, there).item() == pytest.approx(backward, rel=1e-6)
    assert forward != pytest.approx(backward, rel=0.05)


def test_teacher_gets_no_gradient_and_the_students_is_the_difference_of_probabilities():
    student, teacher, present = branches()
    student.requires_grad_()
    teacher.requires_grad_()
    mimicry(student, teacher, present).sum().backward()
    assert teacher.grad is None
    share = (present / present.sum(dim=1, keepdim=True).clamp(min=1))[:, None, None]
    torch.testing.assert_close(student.grad, (student.softmax(dim=1) - teacher.softmax(dim=1)).detach() * share)
    assert torch.autograd.gradcheck(lambda s: mimicry(s, teacher, present), student)


def test_it_is_zero_where_both_agree_and_never_negative():
    student, teacher, present = branches()
    torch.testing.assert_close(mimicry(student + 5, student, present), torch.zeros(3, dtype=torch.float64))
    assert (mimicry(student, teacher, present) >= 0).all()


def test_absent_points_are_not_read_and_samples_without_any_are_zero():
    student, teacher, present = branches()
    present[1] = False
    expected = mimicry(student, teacher, present)
    assert expected[1] == 0 and expected[0] > 0
    hole = ~present[:, None, None].expand_as(student)
    filled = student.masked_fill(hole, torch.nan).requires_grad_()
    found = mimicry(filled, teacher.masked_fill(hole, torch.inf), present)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert filled.grad.isfinite().all() and not filled.grad[1].any()


def test_float32_under_autocast_and_for_extreme_logits():
    student, teacher, present = (each if each.dtype == torch.bool else each.float() for each in branches())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = mimicry(student.bfloat16(), teacher.bfloat16(), present)
    assert half.dtype == torch.float32
    assert torch.equal(half, mimicry(student.bfloat16().float(), teacher.bfloat16().float(), present))
    sure = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).requires_grad_()
    value = mimicry(sure, -sure.detach(), torch.ones(1, 1, dtype=torch.bool))
    value.sum().backward()
    assert value.item() == pytest.approx(2e4) and sure.grad.isfinite().all()


def test_pooled_probabilities_become_distributions_by_hand():
    scores = torch.tensor([0.6, 0.6, 0.3]).view(1, 3, 1)
    torch.testing.assert_close(log_renormalised(scores).exp().flatten(), torch.tensor([0.4, 0.4, 0.2]))
    nothing = torch.zeros(1, 3, 2).requires_grad_()
    logs = log_renormalised(nothing)
    torch.testing.assert_close(logs.exp(), torch.full((1, 3, 2), 1 / 3))
    logs.sum().backward()
    assert nothing.grad.isfinite().all()
    drawn = torch.rand(2, 4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(log_renormalised, drawn)


def test_divergence_of_log_probabilities_lets_both_gradients_through():
    student, teacher, present = branches()
    logs = [each.log_softmax(dim=1).requires_grad_() for each in (teacher, student)]
    torch.testing.assert_close(kl_divergence(*logs, present), mimicry(student, teacher, present))
    assert torch.autograd.gradcheck(lambda t, s: kl_divergence(t, s, present), tuple(logs))


def test_it_is_wrapped_as_other_losses_are():
    student, teacher, present = branches()
    per_sample = mimicry(student, teacher, present)
    loss = Loss.of(per_sample, present.any(dim=1).sum(), 0.1)
    assert float(loss.sum / loss.weight) == pytest.approx(sum(by_hand(student, teacher, present)) / 3)
