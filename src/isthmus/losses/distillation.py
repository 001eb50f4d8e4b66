r"""A student's embedding learns the teacher's, each read as a distribution over its channels.

.. math:: L_b = - \sum_d \mathrm{softmax}(t_b / \tau_t)_d \, \log \mathrm{softmax}(s_b / \tau_s)_d

Cardace et al., "Self-Distillation for Unsupervised 3D Domain Adaptation" (WACV 2023), after DINO (Caron et al., ICCV
2021) but without its centring: a sharp teacher alone, and the classification beside it, keep embeddings apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

STUDENT_TEMPERATURE = 0.5
TEACHER_TEMPERATURE = 0.1


def distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    student_temperature: float = STUDENT_TEMPERATURE,
    teacher_temperature: float = TEACHER_TEMPERATURE,
) -> Tensor:
    """Cross-entropy of each sample, in float32 at least; no gradient reaches the teacher.

    Args:
        student: (B, D), embeddings, any real numbers.
        teacher: (B, D), embeddings of the same samples.
        student_temperature: greater than 0.
        teacher_temperature: greater than 0; smaller than the student's sharpens.

    Raises:
        ValueError: if shapes differ or a temperature is not positive.

    Shape:
        - output: (B,), at least the entropy of the teacher's distribution
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            "distillation: expected embeddings of one shape (B, D), "
            f"found {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    for name, value in (("student", student_temperature), ("teacher", teacher_temperature)):
        if not value > 0:
            raise ValueError(f"distillation: {name}_temperature must be greater than 0, found {value}")
    target = (_wide(teacher.detach()) / teacher_temperature).softmax(dim=1)
    log_p = (_wide(student) / student_temperature).log_softmax(dim=1)
    return -(target * log_p).sum(dim=1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
