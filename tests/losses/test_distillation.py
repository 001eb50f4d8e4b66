import math

import pytest
import torch

from isthmus.losses.distillation import distillation


def slow(student: list[float], teacher: list[float], low: float, high: float) -> float:
    def softmax(values: list[float], temperature: float) -> list[float]:
        weights = [math.exp(v / temperature) for v in values]
        return [w / sum(weights) for w in weights]

    p, q = softmax(teacher, low), softmax(student, high)
    return -sum(a * math.log(b) for a, b in zip(p, q))


@pytest.mark.parametrize(("student_temperature", "teacher_temperature"), [(0.5, 0.1), (1.0, 0.3)])
def test_it_is_the_cross_entropy_of_two_softmaxes(student_temperature: float, teacher_temperature: float) -> None:
    student, teacher = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = distillation(
        student, teacher, student_temperature=student_temperature, teacher_temperature=teacher_temperature
    )
    expected = [
        slow(s, t, teacher_temperature, student_temperature) for s, t in zip(student.tolist(), teacher.tolist())
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_gradients_reach_the_student_only() -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64).unbind()
    student, teacher = student.requires_grad_(), teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: distillation(s, teacher), student)
    distillation(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_a_student_that_agrees_with_the_teacher_has_the_least_loss() -> None:
    teacher = torch.randn(3, 8)
    agreeing = distillation(5 * teacher, teacher)  # 5 t / 0.5 = t / 0.1
    entropy = torch.distributions.Categorical(logits=teacher / 0.1).entropy()
    torch.testing.assert_close(agreeing, entropy)
    assert (distillation(torch.randn(3, 8), teacher) >= entropy).all()


def test_it_is_finite_in_float32_for_half_precision_and_large_embeddings() -> None:
    embedding = torch.tensor([[0.0, 3000.0, 5.0]], dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distillation(embedding.flip(1), embedding)
    assert loss.dtype == torch.float32 and loss.isfinite().all()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        distillation(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="teacher_temperature must be greater than 0, found 0"):
        distillation(torch.zeros(2, 3), torch.zeros(2, 3), teacher_temperature=0.0)
