"""The 3D network of xMUDA and DsCML: a U-Net of submanifold sparse convolutions on voxels of 5 cm.

Graham, Engelcke, van der Maaten, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", CVPR 2018,
in the form of SparseConvNet's ``UNet`` that the cross-modal papers use: a first submanifold convolution, then on level
l = 0..6, with 16 (l + 1) channels, a block [BatchNorm, ReLU, submanifold 3x3x3], BatchNorm, ReLU and a strided 2x2x2
convolution down; on the way up BatchNorm, ReLU, the inverse convolution to the same voxels, concatenation behind the
features of the way down and a block from twice the channels; BatchNorm and ReLU at the end. No bias, no residual.

BatchNorm is over the occupied voxels of the whole batch, with SparseConvNet's epsilon of 1e-4. In training mode, a
level with fewer than two voxels is normalised with the running statistics, which stay as they are: PyTorch raises
there, SparseConvNet returns the bias whatever the features are and divides by zero in its running variance.

Different from xMUDA: points are voxelised here, in metres, by floor (there: beforehand, by truncation after a shift to
positive coordinates, in a cube of 4096 voxels that points must not leave). Levels halve absolute coordinates, so a
shift by multiples of ``2 ** (levels - 1)`` voxels changes nothing, a smaller one does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.geometry.voxels import voxelise
from isthmus.models.sparse_backend import BackendName, backend
from isthmus.models.sparse_conv import Backend, Convolve, SparseConv, SparseLevel


class SparseUNet(nn.Module):
    """Features for every point from a sparse U-Net over the voxels the points lie in.

    Args:
        in_channels: of the features of points; 1 where there are none and the constant 1 stands for them.
        channels: of the first level and the output; level l has (l + 1) times as many.
        levels: resolutions; the coarsest has voxels of ``voxel_size * 2 ** (levels - 1)``.
        repetitions: blocks on each level, on either way.
        voxel_size: edge of the finest voxels, in the unit of the points (metres).
        backend: "torch", or "spconv" where that is installed, or a function of one's own; weights fit all.

    Attributes:
        out_channels: of the output.

    Shape:
        - points: (B, N, 3); samples may be without any point, and so may the batch
        - present: (B, N) bool, which rows hold a point
        - features: (B, N, in_channels), averaged over each voxel; None for the constant 1
        - output: (B, N, channels): all points of a voxel have the same features; zero in absent rows, which get no
          gradient

    Example:
        >>> network = SparseUNet(channels=8, levels=3)
        >>> network(torch.rand(2, 100, 3), torch.ones(2, 100, dtype=torch.bool)).shape
        torch.Size([2, 100, 8])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 16,
        levels: int = 7,
        repetitions: int = 1,
        voxel_size: float = 0.05,
        backend: BackendName | Backend = "torch",
    ) -> None:
        super().__init__()
        smallest = min(in_channels, channels, levels, repetitions)
        if smallest < 1:
            raise ValueError(f"in_channels, channels, levels and repetitions must be at least 1, found {smallest}")
        if not voxel_size > 0:
            raise ValueError(f"voxel_size must be greater than 0, found {voxel_size}")
        self.in_channels, self.out_channels = in_channels, channels
        self.levels, self.voxel_size, self.backend = levels, voxel_size, backend
        self.first = SparseConv(in_channels, channels, 27)
        self.trunk = _Level(channels, 0, levels, repetitions)
        self.last = VoxelNorm(channels)

    def forward(self, points: Tensor, present: Tensor, features: Tensor | None = None) -> Tensor:
        """Features of every point."""
        dtype = self.first.weight.dtype
        expected = (*points.shape[:2], self.in_channels)
        if features is None and self.in_channels != 1:
            raise ValueError(f"features must be {expected}: only a network of 1 input channel can do without")
        if features is not None and features.shape != expected:
            raise ValueError(f"features must be {expected}, found {tuple(features.shape)}")
        voxels = voxelise(points, present, self.voxel_size)
        rows = voxels.mean(features.to(dtype)) if features is not None else None
        if rows is None:
            rows = torch.ones(len(voxels.counts), 1, dtype=dtype, device=points.device)
        levels = backend(self.backend)(voxels.coordinates, self.levels)
        return voxels.spread(self.last(self.trunk(self.first(rows, levels[0].same), levels)))


class VoxelNorm(nn.BatchNorm1d):
    """BatchNorm over voxels (V, C), then ReLU; with fewer than two voxels by the running statistics.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-4, momentum=0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features above zero, (V, C)."""
        if self.training and len(features) < 2:
            assert self.running_mean is not None and self.running_var is not None
            # Copies: the same buffers may move in another call before this one's backward pass.
            mean, variance = self.running_mean.clone(), self.running_var.clone()
            return F.batch_norm(features, mean, variance, self.weight, self.bias, eps=self.eps).relu()
        return F.relu(super().forward(features), inplace=True)


class _Block(nn.Module):
    """BatchNorm, ReLU and a submanifold convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = VoxelNorm(in_channels)
        self.conv = SparseConv(in_channels, out_channels, 27)

    def forward(self, features: Tensor, convolve: Convolve) -> Tensor:
        return self.conv(self.norm(features), convolve)


class _Level(nn.Module):
    """A level of the U and everything below it."""

    def __init__(self, channels: int, level: int, levels: int, repetitions: int) -> None:
        super().__init__()
        own, below = (level + 1) * channels, (level + 2) * channels
        self.level = level
        self.before = nn.ModuleList(_Block(own, own) for _ in range(repetitions))
        self.below: _Level | None = None
        if level < levels - 1:
            self.down_norm, self.down = VoxelNorm(own), SparseConv(own, below, 8)
            self.below = _Level(channels, level + 1, levels, repetitions)
            self.up_norm, self.up = VoxelNorm(below), SparseConv(below, own, 8)
            self.after = nn.ModuleList(_Block(2 * own if i == 0 else own, own) for i in range(repetitions))

    def forward(self, features: Tensor, levels: list[SparseLevel]) -> Tensor:
        own = levels[self.level]
        for block in self.before:
            features = block(features, own.same)
        if self.below is None:
            return features
        assert own.down is not None and own.up is not None
        deep = self.below(self.down(self.down_norm(features), own.down), levels)
        features = torch.cat([features, self.up(self.up_norm(deep), own.up)], dim=1)
        for block in self.after:
            features = block(features, own.same)
        return features
