"""Scale-crop and flip of images together with their label maps, as one resampling per tensor, and colour shifts.

A crop of (H/s, W/s) at a random place is brought back to (H, W), as if the camera had zoomed in by s: metric depth is
divided by s, inverse depth multiplied, normals keep their direction. Images and normals are interpolated bilinearly,
every other map takes the nearest pixel. Keypoints go where what they mark is seen; those that leave the window lose
their label; their depth grows with the horizontal distances, as it is measured in widths of the image (its origin
stays where it was: the mean of all points, not of those that are left); and in a mirrored image left and right points
change names.

Differences from the preprocessing that MTAN and MTPSL released, each kept as an option: they divide inverse depth
by s as well (``inverse_depth="divide"``; physically the wrong direction), and do not renormalise normals after the
interpolation (``normals="interpolate"``). They pick the nearest label pixel with the rounding of
``F.interpolate(mode="nearest")``; here it is the pixel nearest to the very place where the image was sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.images import ENCODINGS, mirror_partners
from isthmus.data.randomness import SampleRandom


@dataclass(frozen=True)
class Window:
    """What of each image is looked at. All ``(B,)``: first row and column in pixels, zoom s >= 1, mirrored or not."""

    top: Tensor
    left: Tensor
    scale: Tensor
    flipped: Tensor

    def extent(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rows and columns in pixels of the part of a ``height x width`` image that is looked at. Shape: ``(B,)``."""
        return (height / self.scale).floor(), (width / self.scale).floor()

    def moved(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points of the image are seen: the inverse of :meth:`grid`. Shape: ``(B, K, 3)`` to ``(B, K, 3)``.

        Points are (u, v, z) as in ``isthmus.data.images``; the result may lie outside [0, 1]. A mirrored point keeps
        its row: whose place it takes is for the caller to know.
        """
        rows, columns = self.extent(height, width)
        zoom_y = (height - 1) / (rows - 1).clamp(min=1)[:, None]
        zoom_x = (width - 1) / (columns - 1).clamp(min=1)[:, None]
        u, v, z = points.unbind(dim=-1)
        # A pixel's number is that of its centre, half a pixel away from its border.
        x = (u * width - 0.5 - self.left[:, None]) * zoom_x
        y = (v * height - 0.5 - self.top[:, None]) * zoom_y
        x = torch.where(self.flipped[:, None], width - 1 - x, x)
        return torch.stack([(x + 0.5) / width, (y + 0.5) / height, z * zoom_x], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Sampling places in [-1, 1], corners aligned, for ``F.grid_sample``. Shape: ``(B, height, width, 2)``."""
        rows, columns = self.extent(height, width)
        y = torch.linspace(0, 1, height, device=self.scale.device)
        x = torch.linspace(0, 1, width, device=self.scale.device)
        at_y = self.top[:, None] + y * (rows[:, None] - 1)
        at_x = self.left[:, None] + torch.where(self.flipped[:, None], 1 - x, x) * (columns[:, None] - 1)
        grid_y, grid_x = 2 * at_y / (height - 1) - 1, 2 * at_x / (width - 1) - 1
        shape = (len(self.scale), height, width)
        return torch.stack([grid_x[:, None, :].expand(shape), grid_y[:, :, None].expand(shape)], dim=-1)


def resampled(maps: Tensor, grid: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
    """Maps seen through a window. Shape: ``(B, C, H, W)``, ``(B, H, W, 2)`` to ``(B, C, H, W)``."""
    return F.grid_sample(maps, grid.to(maps.dtype), mode=mode, padding_mode="border", align_corners=True)


@dataclass(frozen=True)
class ImageAugment:
    """Random scale-crop, horizontal flip and colour shift; ``scales=(1.0,)`` and zeros change nothing.

    ``colour_shift`` s adds to each channel of an image, whose values lie in [0, 1], a number drawn from [-s, s], and
    clips. TADA shifts colours at random and neither transforms nor flips; it does not say by how much.
    ``keypoints`` are the names of the points in the order of their labels, without which no image with labelled points
    can be mirrored; an ``ImageStream`` fills them in.
    """

    scales: tuple[float, ...] = (1.0, 1.2, 1.5)
    flip: float = 0.5
    colour_shift: float = 0.0
    inverse_depth: Literal["multiply", "divide"] = "multiply"
    normals: Literal["renormalise", "interpolate"] = "renormalise"
    keypoints: tuple[str, ...] = ()

    def window(self, random: SampleRandom, height: int, width: int, device: torch.device) -> Window:
        """A random window per sample."""
        draws = random.uniform(4).to(device)
        scales = torch.tensor(self.scales, device=device)
        scale = scales[(draws[:, 0] * len(scales)).long().clamp(max=len(scales) - 1)]
        free_rows, free_columns = height - (height / scale).floor(), width - (width / scale).floor()
        top = (draws[:, 1] * (free_rows + 1)).floor().clamp(max=height)
        left = (draws[:, 2] * (free_columns + 1)).floor().clamp(max=width)
        return Window(top.minimum(free_rows), left.minimum(free_columns), scale, draws[:, 3] < self.flip)

    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """The batch seen through random windows; a label without a valid pixel or point left becomes absent."""
        image, seen = batch.inputs["image"], batch
        if self.flip or max(self.scales) > 1:
            seen = self.through(batch, self.window(random, image.shape[2], image.shape[3], image.device))
        if not self.colour_shift:
            return seen
        shift = self.colour_shift * (2 * random.uniform(3, 1, 1).to(image.device) - 1)
        return replace(seen, inputs={**seen.inputs, "image": (seen.inputs["image"] + shift).clamp(0, 1)})

    def through(self, batch: Batch, window: Window) -> Batch:
        """The batch seen through given windows."""
        image = batch.inputs["image"]
        grid = window.grid(image.shape[2], image.shape[3])
        labels, valid, present = {}, {}, {}
        for task, label in batch.labels.items():
            if ENCODINGS[task].points:
                labels[task], mask = self._points(label, batch.valid[task], grid, window)
            else:
                mask = resampled(batch.valid[task][:, None].float(), grid, "nearest")[:, 0] > 0.5
                labels[task] = self._label(task, label, grid, window)
            if task == "normals":
                # Renormalising makes a unit vector of the last bits of a neighbour's.
                labels[task] = torch.where(mask[:, None], labels[task], 0.0)
            valid[task] = mask
            present[task] = batch.present[task] & mask.flatten(1).any(dim=1)
        seen = resampled(image, grid, "bilinear")
        return replace(batch, inputs={**batch.inputs, "image": seen}, labels=labels, valid=valid, present=present)

    def _label(self, task: str, label: Tensor, grid: Tensor, window: Window) -> Tensor:
        if not label.is_floating_point():
            return resampled(label[:, None].float(), grid, "nearest")[:, 0].to(label.dtype)
        return self.map_through(task, label, grid, window, "bilinear" if task == "normals" else "nearest")

    def _points(self, label: Tensor, valid: Tensor, grid: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """Labelled points in the window; coordinates of those outside are 0. Shape: ``(B, K, 3)``, ``(B, K)``."""
        moved = self.map_through("keypoints", label, grid, window)
        valid = torch.where(window.flipped[:, None], valid[:, self._partners(valid.shape[1], window)], valid)
        place = moved[..., :2]
        # Rounding must not take the label of a point on the border.
        inside = ((place >= -1e-5) & (place <= 1 + 1e-5)).all(dim=-1) & valid
        moved = torch.cat([place.clamp(0, 1), moved[..., 2:]], dim=-1)
        return torch.where(inside[..., None], moved, 0.0), inside

    def _partners(self, count: int, window: Window) -> list[int]:
        if not self.keypoints and not self.flip and not window.flipped.any():
            return list(range(count))
        if len(self.keypoints) != count:
            raise ValueError(
                f"keypoints: expected the names of {count} points, by which mirrored ones change places, found "
                f"{', '.join(self.keypoints) or 'none'}"
            )
        return list(mirror_partners(self.keypoints))

    def map_through(
        self,
        task: str,
        maps: Tensor,
        grid: Tensor,
        window: Window,
        mode: Literal["bilinear", "nearest"] = "bilinear",
    ) -> Tensor:
        """A task's maps, predicted or true, seen through a window. Shape: ``(B, C, H, W)``; points: ``(B, K, 3)``."""
        if ENCODINGS[task].points:
            points = window.moved(maps, grid.shape[1], grid.shape[2])
            partners = self._partners(points.shape[1], window)
            return torch.where(window.flipped[:, None, None], points[:, partners], points)
        moved = resampled(maps, grid, mode)
        if task in ("depth", "inverse_depth"):
            closer = task == "depth" or self.inverse_depth == "divide"
            factor = window.scale[:, None, None, None]
            return moved / factor if closer else moved * factor
        if task == "normals":
            sign = torch.ones_like(moved[:, :, :1, :1])
            sign[:, 0, 0, 0] = torch.where(window.flipped, -1.0, 1.0)
            moved = moved * sign
            if self.normals == "interpolate":
                return moved
            # Several times faster here than F.normalize, whose norm over a few channels is slow.
            return moved / moved.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
        return moved
