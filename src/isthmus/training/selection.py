r"""Scores that choose a model without target labels.

- ``im``: information maximisation with the source prior, :math:`-\overline{H(p(y|x))} - KL(\bar p \,\|\, \pi_s)`: sure
  predictions whose mean resembles the source's class frequencies.
- ``bnm``: batch nuclear-norm (Cui et al., CVPR 2020), :math:`\|P\|_* / \sqrt{n \min(n, K)}` of the n x K predictions.

Both prefer a model that predicts few classes with confidence, so :func:`collapsed` vetoes those first. Higher is
better; neither looks at a target label.
"""

from __future__ import annotations

import torch
from torch import Tensor


def information_maximisation(logits: Tensor, prior: Tensor) -> float:
    """Score in (-inf, 0]. Shape: logits ``(n, K)``, prior ``(K,)`` of source class frequencies summing to 1.

    Classes that the source lacks get a floor of 1e-3, so that the divergence is finite.
    """
    log_probability = logits.double().log_softmax(dim=1)
    entropy = -(log_probability.exp() * log_probability).sum(dim=1).mean()
    mean = log_probability.exp().mean(dim=0)
    floored = prior.double().clamp(min=1e-3)
    divergence = (mean * (mean.clamp(min=1e-12).log() - (floored / floored.sum()).log())).sum()
    return float(-entropy - divergence)


def nuclear_norm(logits: Tensor) -> float:
    """Score in (0, 1]. Shape: ``(n, K)``."""
    probability = logits.double().softmax(dim=1)
    rows, columns = probability.shape
    return float(torch.linalg.matrix_norm(probability, "nuc") / (rows * min(rows, columns)) ** 0.5)


def collapsed(logits: Tensor, prior: Tensor, *, least: float = 0.5) -> bool:
    """Whether predictions use fewer than ``least`` of the effective number of classes of the source.

    The effective number is the exponential of the entropy of the class frequencies: of the argmax predictions
    ``(n, K)`` on one side, of ``prior`` ``(K,)`` on the other.
    """
    share = torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1]).double() / len(logits)
    return _effective_classes(share) < least * _effective_classes(prior.double())


def _effective_classes(share: Tensor) -> float:
    return float(torch.special.entr(share).sum().exp())
