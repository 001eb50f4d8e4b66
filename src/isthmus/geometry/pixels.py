"""The link from points to pixels: features of an image at the places that points are seen at.

A place is (row, column): the image's top left corner is (0, 0), the centre of its first pixel (0.5, 0.5), and rows go
from 0 to H. So the pixel that contains a place is its floor, and resizing an image scales places.

Only gathers and additions by index are used. PyTorch's ``grid_sample`` has no deterministic gradient on every device.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Corners(NamedTuple):
    """The four pixel centres around places, as rows of :func:`pixel_rows`.

    ``first`` (...) int64 is the one above on the left; the one below is ``down`` rows further and the one on the right
    ``right`` rows (0 where the image has a single row or column). ``fraction`` (..., 2) in [0, 1] is how far the place
    lies below and to the right of it; the gradient of the place goes through it.
    """

    first: Tensor
    fraction: Tensor
    down: int
    right: int


def sample_pixels(
    features: Tensor, pixels: Tensor, present: Tensor, mode: Literal["nearest", "bilinear"] = "nearest"
) -> Tensor:
    """Features at the points' places.

    Args:
        features: (B, C, H, W).
        pixels: (B, N, 2), row and column of each point. A place outside of the image is moved onto its border.
        present: (B, N) bool; what ``pixels`` holds for absent points is never read.
        mode: "nearest" is the pixel that contains the point (xMUDA cuts its indices down to integers, too);
            "bilinear" mixes the four pixel centres around it, and repeats the border. Bilinear samples are
            differentiable with respect to ``pixels`` too.

    Shape:
        - output: (B, N, C), zero for absent points, to which no gradient goes

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> places = torch.tensor([[[1.9, 0.2], [1.0, 1.0], [0.0, 0.0]]])
        >>> there = torch.tensor([[True, True, False]])
        >>> sample_pixels(image, places, there).flatten().tolist()
        [3.0, 4.0, 0.0]
        >>> sample_pixels(image, places, there, "bilinear").flatten().tolist()
        [3.0, 2.5, 0.0]
    """
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'mode must be "nearest" or "bilinear", found {mode!r}')
    check_link(features, pixels, present)
    size = (features.shape[2], features.shape[3])
    table = pixel_rows(features)
    image = torch.arange(len(features), device=features.device)[:, None]
    if mode == "nearest":
        row, column = containing_pixels(pixels, present, size)
        index = (image * size[0] + row) * size[1] + column
        values = table.index_select(0, index.flatten()).unflatten(0, index.shape)
    else:
        around = corners(torch.where(present[..., None], pixels, 0.5) - 0.5, image, size)
        values = mixed(table, around)
    return torch.where(present[..., None], values, torch.zeros((), dtype=values.dtype, device=values.device))


def check_link(features: Tensor, pixels: Tensor, present: Tensor) -> None:
    """Raises ValueError unless the shapes are (B, C, H, W), (B, N, 2) and (B, N)."""
    if (
        features.dim() != 4
        or pixels.dim() != 3
        or pixels.shape[2] != 2
        or pixels.shape[:2] != present.shape
        or len(pixels) != len(features)
    ):
        found = ", ".join(str(tuple(tensor.shape)) for tensor in (features, pixels, present))
        raise ValueError(f"features, pixels, present must be (B, C, H, W), (B, N, 2), (B, N), found {found}")
    if 0 in features.shape[2:]:
        raise ValueError(f"features must have at least one pixel, found shape {tuple(features.shape)}")


def pixel_rows(features: Tensor) -> Tensor:
    """A row for each pixel, image by image and line by line; no copy where channels lie innermost (channels_last).

    Shape: (B, C, H, W) to (B * H * W, C).
    """
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def containing_pixels(pixels: Tensor, present: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column of the pixel that contains each point; (0, 0) for absent points. Shape: (B, N) int64, twice."""
    whole = torch.where(present[..., None], pixels.detach(), 0).floor()
    row, column = whole.unbind(dim=-1)
    # Before the cast: places far outside would not fit into an integer.
    return row.clamp(0, size[0] - 1).long(), column.clamp(0, size[1] - 1).long()


def corners(centred: Tensor, image: Tensor, size: tuple[int, int]) -> Corners:
    """What lies around places that are given from the centre of the first pixel, i.e. (row - 0.5, column - 0.5).

    Args:
        centred: (..., 2). Places off the outermost pixel centres are moved onto them, and then get no gradient.
        image: number of the image, broadcast over (...).
        size: H and W.
    """
    limit = torch.tensor([size[0] - 1, size[1] - 1], dtype=centred.dtype, device=centred.device)
    inside = torch.clamp(centred, torch.zeros_like(limit), limit)
    # Not further than the last pixel but one: a place on the last centre still has a slope, the one towards the inside.
    start = torch.minimum(inside.detach().floor(), (limit - 1).clamp(min=0))
    row, column = start.long().unbind(dim=-1)
    index = (image * size[0] + row) * size[1] + column
    return Corners(index, inside - start, size[1] if size[0] > 1 else 0, 1 if size[1] > 1 else 0)


def mixed(table: Tensor, around: Corners) -> Tensor:
    """Bilinear values of :func:`pixel_rows`, computed at least in float32. Shape: (P, C), (...) to (..., C)."""
    kind = torch.promote_types(table.dtype, torch.float32)
    shape = around.first.shape
    above, beside, below, across = (
        table.index_select(0, (around.first + step).flatten()).unflatten(0, shape).to(kind)
        for step in (0, around.right, around.down, around.down + around.right)
    )
    down, right = around.fraction.to(kind)[..., None].unbind(dim=-2)
    return torch.lerp(torch.lerp(above, beside, right), torch.lerp(below, across, right), down).to(table.dtype)
