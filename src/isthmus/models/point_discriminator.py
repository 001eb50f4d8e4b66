"""Tell source from target by what is said about points: CMAL's discriminator as released, and a plain one.

Peng et al., "Sparse-to-dense feature matching" (DsCML + CMAL), ICCV 2021, Section 3.3: two discriminators of one
architecture look at the probabilities of all points of a sample, of which the paper says no more.

The released one (:class:`ChunkDiscriminator`) takes every point's scores through one layer, takes means over 8 chunks
of consecutive points, and judges chunks. It pools the points of the whole *batch* into 8 chunks, the size of its
batches, which cut across samples as those have different numbers of points, and cannot take a batch of another size;
here each sample has its own 8 chunks. Its three layers of 256 channels share one BatchNorm, and so do they here.

BatchNorm sees present points (chunks) only. In training it needs two of them; given fewer it falls back on its running
statistics. Logits mean "source" (in the released code they mean "target").
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINT_CHANNELS = 64
CHUNK_CHANNELS = (128, 256, 256, 256, 512)


class PointLogits(NamedTuple):
    """What a discriminator says: ``logits`` of "source" (B, M), 0 where not ``present`` (B, M) bool."""

    logits: Tensor
    present: Tensor


class ChunkDiscriminator(nn.Module):
    """A logit for each chunk of consecutive points of a sample: CMAL as released.

    A sample's points are divided in their order as adaptive pooling does it: chunk i of M holds the points from
    floor(i n / M) up to ceil((i + 1) n / M), so chunks of few points overlap and none is empty.

    Args:
        in_channels: of a point, usually the number of classes.
        chunks: M, of each sample.
        batch_norm: as released; otherwise none.

    Shape:
        - input: (B, N, in_channels), (B, N) bool
        - output: :class:`PointLogits` of M; a sample without a point has no chunk

    Example:
        >>> discriminator = ChunkDiscriminator(5)
        >>> there = torch.ones(2, 30, dtype=torch.bool)
        >>> discriminator(torch.rand(2, 30, 5).softmax(dim=2), there).logits.shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, *, chunks: int = 8, batch_norm: bool = True) -> None:
        super().__init__()
        if chunks < 1:
            raise ValueError(f"chunks must be at least 1, found {chunks}")
        self.chunks = chunks
        self.point = nn.Linear(in_channels, POINT_CHANNELS)
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in pairwise((POINT_CHANNELS, *CHUNK_CHANNELS))
        )
        self.logit = nn.Linear(CHUNK_CHANNELS[-1], 1)
        self.point_norm = nn.BatchNorm1d(POINT_CHANNELS) if batch_norm else None
        self.norms = (
            nn.ModuleDict({str(channels): nn.BatchNorm1d(channels) for channels in dict.fromkeys(CHUNK_CHANNELS)})
            if batch_norm
            else None
        )

    def forward(self, values: Tensor, present: Tensor) -> PointLogits:
        """One logit for each chunk."""
        check_points(values, present)
        rows = _normed(self.point(values[present]), self.point_norm).relu()
        hidden = _among_zeros(rows, present)
        kept = present.any(dim=1, keepdim=True).expand(-1, self.chunks)
        rows = (_chunk_shares(present, self.chunks).to(hidden.dtype) @ hidden)[kept]
        for layer in self.layers:
            norm = None if self.norms is None else self.norms[str(layer.out_features)]
            rows = _normed(layer(rows), norm).relu()
        return PointLogits(_among_zeros(self.logit(rows), kept)[..., 0], kept)


class PointDiscriminator(nn.Module):
    """A logit for each point: fully connected layers with leaky ReLU, AdaptSegNet's discriminator without neighbours.

    Args:
        in_channels: of a point.
        hidden: channels of the layers between.
        batch_norm: BatchNorm behind every layer but the last.

    Shape:
        - input: (B, N, in_channels), (B, N) bool
        - output: :class:`PointLogits` of N
    """

    def __init__(self, in_channels: int, *, hidden: tuple[int, ...] = (64, 128), batch_norm: bool = False) -> None:
        super().__init__()
        if min(hidden, default=1) < 1:
            raise ValueError(f"hidden must be channels of at least 1, found {hidden}")
        widths = (in_channels, *hidden)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden) if batch_norm else None
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, values: Tensor, present: Tensor) -> PointLogits:
        """One logit for each point."""
        check_points(values, present)
        rows = values[present]
        for index, layer in enumerate(self.layers):
            rows = F.leaky_relu(_normed(layer(rows), None if self.norms is None else self.norms[index]), 0.2)
        return PointLogits(_among_zeros(self.logit(rows), present)[..., 0], present)


def point_rows(maps: Tensor) -> Tensor:
    """Logits or probabilities of a branch as a discriminator takes them. Shape: (B, K, 1, N) to (B, N, K)."""
    return maps.flatten(2).transpose(1, 2)


def check_points(values: Tensor, present: Tensor) -> None:
    """Raises ValueError unless the shapes are (B, N, C) and (B, N)."""
    if values.dim() != 3 or values.shape[:2] != present.shape:
        found = f"{tuple(values.shape)}, {tuple(present.shape)}"
        raise ValueError(f"values and present must be (B, N, C) and (B, N), found {found}")


def _normed(rows: Tensor, norm: nn.Module | None) -> Tensor:
    if norm is None:
        return rows
    if isinstance(norm, nn.BatchNorm1d) and norm.training and len(rows) < 2:
        return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    normed: Tensor = norm(rows)
    return normed


def _among_zeros(rows: Tensor, present: Tensor) -> Tensor:
    """Rows of what is present among zeros. Shape: (M, C), (B, N) to (B, N, C)."""
    everywhere = rows.new_zeros(present.numel(), rows.shape[1])
    return everywhere.index_copy(0, present.flatten().nonzero()[:, 0], rows).unflatten(0, present.shape)


def _chunk_shares(present: Tensor, chunks: int) -> Tensor:
    """By how much each point enters the mean of each chunk. Shape: (B, N) to (B, chunks, N) float32."""
    rank = present.cumsum(dim=1)[:, None] - 1
    count = present.sum(dim=1)[:, None, None]
    chunk = torch.arange(chunks, device=present.device)[:, None]
    start = chunk * count // chunks
    end = -(-((chunk + 1) * count) // chunks)
    inside = (rank >= start) & (rank < end) & present[:, None]
    return inside / (end - start).clamp(min=1)
