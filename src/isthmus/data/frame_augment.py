"""Random changes of LiDAR sweeps and of their images that keep every point on its pixel.

The two are changed independently of each other, as xMUDA does (Jaritz et al., CVPR 2020): a mirrored image goes with a
sweep that is rotated by any angle. What must stay right is which pixel belongs to which point, and that is an index
into the image, moved wherever the image moves.

Sweeps: the identity plus noise on all nine entries, a mirror image, a rotation about the vertical axis, a shift (by
which voxels fall differently). Images: a crop of fixed size at a random column, aligned with the bottom, a horizontal
flip, brightness, contrast and saturation. Points outside a crop become absent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import SampleRandom

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class FrameAugment:
    """How much a training frame is changed; zeros, 1-axis "none" and no crop change nothing.

    Args:
        matrix_noise: standard deviation of what is added to every entry of the identity (xMUDA: 0.1).
        mirror: the axis that changes sign with probability one half ("x" for nuScenes, "y" for KITTI and A2D2).
        rotation: the angle about z is uniform in [-rotation, rotation], radians (xMUDA: pi).
        shift: points move by up to this many metres along every axis (xMUDA: anywhere in its field of 4096 voxels).
        crop: height and width of the image that is left; None keeps all of it.
        flip: probability of a mirrored image.
        colour: brightness, contrast and saturation are multiplied by factors in [1 - colour, 1 + colour] (xMUDA: 0.4).
            The three come in this order, each clipped to [0, 1].
    """

    matrix_noise: float = 0.0
    mirror: Literal["none", "x", "y"] = "none"
    rotation: float = 0.0
    shift: float = 0.0
    crop: tuple[int, int] | None = None
    flip: float = 0.0
    colour: float = 0.0

    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """The batch with every frame changed in its own way.

        Raises:
            ValueError: the crop is larger than the image.
        """
        points = self._moved(batch.inputs["points"], random)
        inputs = {**batch.inputs, "points": torch.where(batch.inputs["present_points"][..., None], points, 0.0)}
        changed = replace(batch, inputs=inputs)
        if "image" in inputs:
            changed = self._image(changed, random)
        return changed

    def _moved(self, points: Tensor, random: SampleRandom) -> Tensor:
        # Drawn whether used or not: one option never changes what another draws.
        noise, uniform = random.normal(3, 3).to(points), random.uniform(5).to(points)
        matrix = torch.eye(3, dtype=points.dtype, device=points.device) + self.matrix_noise * noise
        if self.mirror != "none":
            sign = torch.ones_like(uniform[:, :3])
            sign[:, "xy".index(self.mirror)] = torch.where(uniform[:, 0] < 0.5, -1.0, 1.0)
            matrix = matrix * sign[:, None, :]
        angle = self.rotation * (2 * uniform[:, 1] - 1)
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        rows = [
            torch.stack([cosine, -sine, zero], dim=1),
            torch.stack([sine, cosine, zero], dim=1),
            torch.stack([zero, zero, zero + 1], dim=1),
        ]
        turned = points @ (torch.stack(rows, dim=1) @ matrix).transpose(1, 2)
        return turned + self.shift * uniform[:, None, 2:]

    def _image(self, batch: Batch, random: SampleRandom) -> Batch:
        image, pixels, present = batch.inputs["image"], batch.inputs["pixels"], batch.inputs["present_points"]
        uniform = random.uniform(5).to(image)
        height, width = image.shape[2:]
        rows, columns = self.crop or (height, width)
        if rows > height or columns > width:
            raise ValueError(f"crop: expected at most the image's {height} x {width}, found {rows} x {columns}")
        left = (uniform[:, 0] * (width - columns + 1)).floor().clamp(max=width - columns).long()
        image = torch.stack([each[:, height - rows :, at : at + columns] for each, at in zip(image, left.tolist())])
        row, column = pixels[..., 0] - (height - rows), pixels[..., 1] - left[:, None]
        inside = (row >= 0) & (column >= 0) & (column < columns) & present
        flipped = uniform[:, 1] < self.flip
        image = torch.where(flipped[:, None, None, None], image.flip(3), image)
        # A place on the border of two pixels belongs to the one behind it, in the mirror to the one before it.
        mirrored = torch.nextafter(columns - column, torch.zeros_like(column))
        column = torch.where(flipped[:, None], mirrored, column)
        if self.colour:
            image = _coloured(image, 1 + self.colour * (2 * uniform[:, 2:] - 1))
        pixels = torch.where(inside[..., None], torch.stack([row, column], dim=-1), 0.0)
        points = torch.where(inside[..., None], batch.inputs["points"], 0.0)
        valid = {name: mask & inside[:, None] for name, mask in batch.valid.items()}
        carried = {name: batch.present[name] & mask.flatten(1).any(dim=1) for name, mask in valid.items()}
        inputs = {**batch.inputs, "image": image, "pixels": pixels, "points": points, "present_points": inside}
        return replace(batch, inputs=inputs, valid=valid, present=carried)


def _coloured(image: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation multiplied. Shapes: ``(B, 3, H, W)`` in [0, 1], ``(B, 3)``."""
    brightness, contrast, saturation = (factors[:, k, None, None, None] for k in range(3))
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)[:, None, None]
    image = (image * brightness).clamp(0, 1)
    mean = (image * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    image = (mean + contrast * (image - mean)).clamp(0, 1)
    grey = (image * weights).sum(dim=1, keepdim=True)
    return (grey + saturation * (image - grey)).clamp(0, 1)
