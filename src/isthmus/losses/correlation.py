r"""Features of two domains with the same second moments: deep CORAL and its logarithmic form.

Sun and Saenko, "Deep CORAL", ECCV 2016 workshops, Eq. 1 to 3, with covariances over the points of a domain's batch and
d channels:

.. math:: L = \frac{1}{4 d^2} \| C_S - C_T \|_F^2

Morerio et al., "Minimal-entropy correlation alignment", ICLR 2018, measure along geodesics instead (log-Euclidean):

.. math:: L_{log} = \frac{1}{4 d^2} \| \log C_S - \log C_T \|_F^2

A covariance of few points, or of features that ReLU has switched off, has eigenvalues 0, whose logarithm does not
exist. Eigenvalues below ``floor`` (1e-5 by default, against features of variance about 1 behind BatchNorm) are raised
to it, and directions in which both domains lie below it cost nothing. The gradient of the logarithm is worked out by
divided differences (Daleckii and Krein), which, unlike those of eigenvectors, are finite where eigenvalues are equal.

These compare batches and not samples: functions return one value, ``(1,)``, or none, ``(0,)``, where a domain has fewer
than two points and thus no covariance. The caller counts it: ``Loss.of(value, len(value), weight)``. Over several
processes that is the mean of their values, each of its own points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FLOOR = 1e-5
CLOSE = 1e-7
"""Eigenvalues whose difference is a smaller share of them than this count as equal. In float64."""


def coral(source: Tensor, target: Tensor, source_present: Tensor, target_present: Tensor) -> Tensor:
    """Squared distance of the covariances of two domains.

    Args:
        source, target: features, (B, N, C) and (B', N', C); both get gradients.
        source_present, target_present: (B, N) and (B', N') bool.

    Shape:
        - output: (1,), or (0,), see the module
    """
    return _distance(source, target, source_present, target_present, None)


def log_coral(
    source: Tensor, target: Tensor, source_present: Tensor, target_present: Tensor, *, floor: float = FLOOR
) -> Tensor:
    """Squared distance of the matrix logarithms of the covariances of two domains; as :func:`coral` otherwise.

    Args:
        floor: the least eigenvalue, greater than 0, see the module.
    """
    if not floor > 0:
        raise ValueError(f"floor must be greater than 0, found {floor}")
    return _distance(source, target, source_present, target_present, floor)


def covariance(rows: Tensor) -> Tensor:
    """Covariance over at least two rows, divided by their number less one; in float32 at least. (M, C) to (C, C)."""
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        centred = rows - rows.mean(dim=0)
        return centred.T @ centred / (len(rows) - 1)


def matrix_logarithm(matrix: Tensor, floor: float = FLOOR) -> Tensor:
    """Logarithm of the symmetric part of a matrix whose eigenvalues are first raised to ``floor``; in float64 inside.

    Shape: (C, C) to (C, C).
    """
    result: Tensor = _Logarithm.apply((matrix + matrix.T) / 2, floor)
    return result


def _distance(
    source: Tensor, target: Tensor, source_present: Tensor, target_present: Tensor, floor: float | None
) -> Tensor:
    if source.shape[2] != target.shape[2]:
        raise ValueError(f"both domains must have as many channels, found {source.shape[2]} and {target.shape[2]}")
    rows = [source[source_present], target[target_present]]
    if min(map(len, rows)) < 2:
        return torch.zeros(0, device=source.device)
    first, second = (covariance(each) for each in rows)
    if floor is not None:
        first, second = (matrix_logarithm(each, floor) for each in (first, second))
    return (first - second).square().sum()[None] / (4 * source.shape[2] ** 2)


class _Logarithm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, floor: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix.double())
        ctx.save_for_backward(values, vectors)
        ctx.floor = floor
        return ((vectors * values.clamp(min=floor).log()) @ vectors.T).to(matrix.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        slopes = divided_differences(values, ctx.floor)
        inner = vectors.T @ gradients[0].double() @ vectors
        return (vectors @ (slopes * inner) @ vectors.T).to(gradients[0].dtype), None


def divided_differences(values: Tensor, floor: float) -> Tensor:
    """(f(a) - f(b)) / (a - b) for all pairs of values, f(a) = log max(a, floor); f'(a) where a = b.

    Shape: (C,) to (C, C).
    """
    first, second = values[:, None], values[None]
    logs = values.clamp(min=floor).log()
    difference = first - second
    close = difference.abs() <= CLOSE * torch.maximum(first.abs(), second.abs())
    middle = (first + second) / 2
    slope = torch.where(middle > floor, 1 / middle.clamp(min=floor), 0.0)
    return torch.where(close, slope, (logs[:, None] - logs[None]) / torch.where(close, 1.0, difference))
