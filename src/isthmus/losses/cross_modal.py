r"""What one modality says about points, imitated by the other: the loss of xMUDA, and DsCML's form of it.

Jaritz et al., "xMUDA", CVPR 2020: the softmax of a student's (mimicry) head is drawn to that of the teacher's main
head,

.. math:: D_{KL}(P \| Q) = \sum_k P_k (\log P_k - \log Q_k)

with the teacher as P. No gradient reaches the teacher, so modalities learn from each other's predictions only. xMUDA
takes the mean over all points of a batch; here it is taken over each sample's points first, so that a sample's loss
does not depend on its neighbours.

DsCML (Peng et al., ICCV 2021, Eq. 1 to 3) leaves the order of its K(a, b) and its stop-gradients open; its released
code has them as xMUDA. Its Eq. 2 and 3 compare maxima of probabilities over a patch, which add up to more than 1, and
minima, which add up to less:
:func:`isthmus.models.two_streams.log_renormalised` makes distributions of them (the literal reading). Where
features are pooled, as in its Figure 4, the classifier's logits go into :func:`mimicry`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.tasks.pixels import masked, mean_over


def mimicry(student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
    """KL(softmax of the teacher || softmax of the student), the mean over each sample's points, in float32 at least.

    Args:
        student, teacher: logits, (B, K, 1, N) or (B, K, N); the teacher gets no gradient.
        present: (B, N) bool.

    Shape:
        - output: (B,), nats; 0 for a sample without a point, which the caller should not count
    """
    return kl_divergence(log_softmax(teacher, present).detach(), log_softmax(student, present), present)


def kl_divergence(teacher: Tensor, student: Tensor, present: Tensor) -> Tensor:
    """KL(teacher || student) of *log*-probabilities, the mean over each sample's points; both get gradients.

    Shape: (B, K, 1, N) or (B, K, N) twice and (B, N) to (B,).
    """
    teacher, student = (masked(wide(each).flatten(2), present) for each in (teacher, student))
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)
    return mean_over(divergence[:, None], present[:, None])


def log_softmax(logits: Tensor, present: Tensor) -> Tensor:
    """Log-probabilities of the points, in float32 at least. What absent points hold is never read.

    Shape: (B, K, 1, N) or (B, K, N), and (B, N), to (B, K, N).
    """
    return masked(wide(logits).flatten(2), present).log_softmax(dim=1)


def wide(values: Tensor) -> Tensor:
    """In float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
