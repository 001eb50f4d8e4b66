"""The patch of an image that belongs to a point: DsCML's pooling from dense pixels to sparse points.

Peng et al., "Sparse-to-dense feature matching" (DsCML), ICCV 2021, Fig. 3 and 4. Every projected point has a patch of
5 x 5 pixels around it, which an offset map may deform ("borrowing from the deformable convolution", Dai et al., ICCV
2017); maximum, minimum and mean of the *features* of the patch then go to the classifier. Figure 4 pools features;
Eq. 2 and 3 have the maximum and the minimum of *probabilities*, which are no distributions. That literal reading
pools the map given as ``values``, and :func:`isthmus.models.two_streams.log_renormalised` makes distributions of it.

Three forms, by the names of the paper's Figure 3:

- DsCML: ``offsets="learned"``. The paper says nothing about the offset layer. Here it is one convolution 3 x 3 that
  starts at zero, as deformable convolution has it; row and column offsets in pixels, of each tap, shared by all
  channels and by the three pools, sampled bilinearly. It is worked out at the points' pixels only.
- sCML: ``offsets="zero"``, the square patch.
- what was released under the name of DsCML: ``offsets="zero", border="zeros"``, a 5 x 5 average pool that counts zeros
  beyond the border; its maximum and minimum leave the border out.

The patch lies around the pixel that contains the point. Taps beyond the border repeat the pixels on it ("replicate"):
then pools change continuously with the offsets, maximum and minimum are those over the part of the patch inside of the
image, and means are those of an image with a repeated border.

Memory: only taps at projected points are gathered, one after another, and the backward pass gathers them again; kept
for it are two bytes for each point and channel (which was the greatest, which the least) and each tap's
place.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.geometry.pixels import check_link, containing_pixels, corners, pixel_rows

OFFSET_KERNEL = 3
LARGEST = 15
"""Size of a patch whose taps can be numbered by a byte."""


class PatchPools(NamedTuple):
    """Features of each point's patch, (B, N, C) each; zero for absent points."""

    maximum: Tensor
    minimum: Tensor
    mean: Tensor


class DeformablePatch(nn.Module):
    """Maximum, minimum and mean over a patch of pixels for each projected point.

    Args:
        channels: of the features, from which the offsets are made.
        size: of the patch, odd, at most 15.
        offsets, border: see the module; ``border="zeros"`` concerns the mean and exists without offsets only.

    Attributes:
        offset: the convolution that makes the offsets (two channels for each tap, row by row: down, right), or None.

    Raises:
        ValueError: an impossible option, or shapes that do not belong together.

    Example:
        >>> patch = DeformablePatch(8)
        >>> places, there = 20 * torch.rand(2, 30, 2), torch.ones(2, 30, dtype=torch.bool)
        >>> patch(torch.rand(2, 8, 20, 20), places, there).mean.shape
        torch.Size([2, 30, 8])
    """

    def __init__(
        self,
        channels: int,
        size: int = 5,
        offsets: Literal["learned", "zero"] = "learned",
        *,
        border: Literal["replicate", "zeros"] = "replicate",
    ) -> None:
        super().__init__()
        if not 1 <= size <= LARGEST or size % 2 == 0:
            raise ValueError(f"size must be odd and at most {LARGEST}, found {size}")
        if offsets not in ("learned", "zero") or border not in ("replicate", "zeros"):
            raise ValueError(f"offsets must be learned or zero, border replicate or zeros, found {offsets}, {border}")
        if offsets == "learned" and border == "zeros":
            raise ValueError('border="zeros" is the fixed patch as released and needs offsets="zero", found "learned"')
        self.size = size
        self.border = border
        self.offset: nn.Conv2d | None = None
        if offsets == "learned":
            self.offset = nn.Conv2d(channels, 2 * size * size, OFFSET_KERNEL, padding=OFFSET_KERNEL // 2)
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, pixels: Tensor, present: Tensor, values: Tensor | None = None) -> PatchPools:
        """The three pools.

        Args:
            features: (B, channels, H, W).
            pixels: (B, N, 2), row and column of each point, see :mod:`isthmus.geometry.pixels`.
            present: (B, N) bool.
            values: (B, C, H, W), what is pooled if not the features.
        """
        values = features if values is None else values
        check_link(features, pixels, present)
        if values.shape[:1] + values.shape[2:] != features.shape[:1] + features.shape[2:]:
            raise ValueError(
                f"values must be maps of shape (B, C, H, W) as the features, "
                f"found {tuple(values.shape)} for {tuple(features.shape)}"
            )
        seen, taps = self._gathered(features, pixels, present)
        pools = _Pools.apply(_wide_rows(values), *taps)
        return PatchPools(*(_put_back(pool.to(values.dtype), seen, present.shape) for pool in pools))

    def mean(self, features: Tensor, pixels: Tensor, present: Tensor) -> Tensor:
        """The mean alone, bit for bit that of :meth:`forward`: what a prediction needs.

        Meant to be called without gradients: with them, all taps are kept. Shape: (B, N, channels).
        """
        check_link(features, pixels, present)
        seen, taps = self._gathered(features, pixels, present)
        table = _wide_rows(features)
        total = table.new_zeros(len(seen), table.shape[1])
        for tap in range(len(taps.rows)):
            total += taps.counted(tap, taps.values(tap, table))
        return _put_back((total / len(taps.rows)).to(features.dtype), seen, present.shape)

    def _gathered(self, features: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, _Taps]:
        """The numbers (M,) of the present points, and the pixels of their taps."""
        height, width = features.shape[2:]
        seen, image, square, moved = self._taps(features, pixels, present)
        if moved is not None:
            around = corners(moved.transpose(0, 1), image, (height, width))
            corner = (0, around.right, around.down, around.down + around.right)
            return seen, _Taps(around.first, around.fraction, torch.tensor(corner, device=features.device))
        row, column = square.unbind(dim=2)
        inside: Tensor | None = None
        if self.border == "zeros":
            inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width)).T.contiguous()
        index = (image[:, None] * height + row.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
        return seen, _Taps(index.T.contiguous(), inside=inside)

    def places(self, features: Tensor, pixels: Tensor, present: Tensor) -> Tensor:
        """Where each tap of each point's patch lies: row and column, not yet moved onto the border.

        Shape: (B, N, size * size, 2), zero for absent points. What a report draws.
        """
        check_link(features, pixels, present)
        seen, _, square, moved = self._taps(features, pixels, present)
        centred = square.to(torch.promote_types(features.dtype, torch.float32)) if moved is None else moved
        return _put_back(centred + 0.5, seen, present.shape)

    def _taps(self, features: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of the M present points: their numbers, their images, pixels of the fixed patch, places of the deformed one.

        Shape: (M,), (M,), (M, size * size, 2) int64, (M, size * size, 2) from the centre of the first pixel, or None.
        """
        seen = present.flatten().nonzero()[:, 0]
        image = seen // max(1, present.shape[1])
        centre = torch.stack(containing_pixels(pixels, present, (features.shape[2], features.shape[3])), dim=2)
        centre = centre.flatten(0, 1)[seen]
        square = centre[:, None] + _grid(self.size, centre.device)
        if self.offset is None:
            return seen, image, square, None
        # In the precision of the weights: half a mantissa is not enough for places in an image.
        with torch.autocast(features.device.type, enabled=False):
            around = _neighbourhood(features, image, centre, OFFSET_KERNEL).to(self.offset.weight.dtype)
            weight = self.offset.weight.permute(0, 2, 3, 1).flatten(1)
            offsets = F.linear(around.flatten(1), weight, self.offset.bias)
            moved = square + offsets.unflatten(1, square.shape[1:])
        return seen, image, square, moved


def _grid(size: int, device: torch.device) -> Tensor:
    """Row and column of each tap from the middle one. Shape: (size * size, 2) int64."""
    reach = torch.arange(size, device=device) - size // 2
    return torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=2).flatten(0, 1)


def _neighbourhood(features: Tensor, image: Tensor, centre: Tensor, size: int) -> Tensor:
    """What a convolution of this size sees at some pixels, zeros beyond the border. Shape: (M, size * size, C)."""
    height, width = features.shape[2:]
    row, column = (centre[:, None] + _grid(size, centre.device)).unbind(dim=2)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (image[:, None] * height + row.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
    values = pixel_rows(features).index_select(0, index.flatten()).unflatten(0, index.shape)
    return torch.where(inside[..., None], values, torch.zeros((), dtype=values.dtype, device=values.device))


def _wide_rows(values: Tensor) -> Tensor:
    """A row for each pixel, at least in float32. Shape: (B, C, H, W) to (B * H * W, C)."""
    table = pixel_rows(values)
    return table.to(torch.promote_types(table.dtype, torch.float32))


def _put_back(rows: Tensor, seen: Tensor, shape: torch.Size) -> Tensor:
    """Rows of the present points among zeros. Shape: (M, ...), (M,) to (B, N, ...)."""
    everywhere = rows.new_zeros(shape.numel(), *rows.shape[1:])
    return everywhere.index_copy(0, seen, rows).unflatten(0, tuple(shape))


class _Taps(NamedTuple):
    """Which rows of a table of pixels the T taps of M patches are.

    ``rows`` (T, M) is the pixel of each tap; or, with ``fraction`` (T, M, 2), the first of its four, see
    :class:`isthmus.geometry.pixels.Corners`, and ``steps`` (4,) is how far behind it the four lie. ``inside`` (T, M)
    says which taps count for the mean; all if None. The mean is divided by T in any case.
    """

    rows: Tensor
    fraction: Tensor | None = None
    steps: Tensor | None = None
    inside: Tensor | None = None

    def values(self, tap: int, table: Tensor) -> Tensor:
        """Of one tap of all patches. Shape: (P, C) to (M, C)."""
        if self.fraction is None or self.steps is None:
            return table.index_select(0, self.rows[tap])
        # A sum of rows with weights, in one go.
        four, weights = self.rows[tap, :, None] + self.steps, _weights(self.fraction[tap].to(table.dtype))
        return F.embedding_bag(four, table, per_sample_weights=weights, mode="sum")

    def counted(self, tap: int, values: Tensor) -> Tensor:
        """What a tap adds to the mean. Shape: (M, C)."""
        return values if self.inside is None else values * self.inside[tap, :, None]


class _Pools(torch.autograd.Function):
    """Maximum, minimum and mean over taps, tap by tap.

    Of equal taps the first is the greatest (the least), as max pooling has it.

    Args:
        table: (P, C), a row for each pixel, at least float32.
        taps: see :class:`_Taps`, field by field.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, *fields: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        taps = _Taps(*fields)  # type: ignore[arg-type]
        shape = (taps.rows.shape[1], table.shape[1])
        maximum, minimum = (table.new_full(shape, end) for end in (-torch.inf, torch.inf))
        total = table.new_zeros(shape)
        greatest, least = (torch.zeros(shape, dtype=torch.uint8, device=table.device) for _ in range(2))
        for tap in range(len(taps.rows)):
            value = taps.values(tap, table)
            # As numbers: several times as fast as filling through a mask. Taps only go up, so the last one stays.
            torch.maximum(greatest, (value > maximum).view(torch.uint8) * tap, out=greatest)
            torch.maximum(least, (value < minimum).view(torch.uint8) * tap, out=least)
            torch.maximum(maximum, value, out=maximum)
            torch.minimum(minimum, value, out=minimum)
            total += taps.counted(tap, value)
        ctx.save_for_backward(table, *taps, greatest, least)
        return maximum, minimum, total / len(taps.rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        table, index, fraction, steps, inside, greatest, least = ctx.saved_tensors
        to_maximum, to_minimum, to_mean = gradients
        to_mean = to_mean / len(index)
        for_table = torch.zeros_like(table)
        for_fraction = None if fraction is None else torch.zeros_like(fraction)
        for tap in range(len(index)):
            slope = to_mean if inside is None else to_mean * inside[tap, :, None]
            slope = torch.addcmul(slope, greatest == tap, to_maximum).addcmul_(least == tap, to_minimum)
            if fraction is None:
                for_table.index_add_(0, index[tap], slope)
                continue
            place = fraction[tap].to(table.dtype)
            along = []
            for step, weight in zip(steps, _weights(place).unbind(dim=1)):
                corner = index[tap] + step
                for_table.index_add_(0, corner, slope * weight[:, None])
                along.append((table.index_select(0, corner) * slope).sum(dim=1))
            down, right = place.unbind(dim=1)
            by_row = torch.lerp(along[2] - along[0], along[3] - along[1], right)
            by_column = torch.lerp(along[1] - along[0], along[3] - along[2], down)
            for_fraction[tap] = torch.stack([by_row, by_column], dim=1)  # type: ignore[index]
        return for_table, None, for_fraction, None, None


def _weights(fraction: Tensor) -> Tensor:
    """Of the four corners: at the place, right of it, below it, and both. Shape: (M, 2) to (M, 4)."""
    down, right = fraction.unbind(dim=1)
    return torch.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], dim=1)
