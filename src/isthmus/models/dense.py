"""What a network of dense predictions makes of a batch of images."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DenseFeatures(NamedTuple):
    """Outputs by task, and the deepest feature map that the tasks share.

    ``outputs`` maps a task to raw values ``(B, C_t, H, W)``, without activation, at the size of the image;
    ``bottleneck`` is ``(B, C, H', W')``, smaller than the image by a factor that the network's docstring names.
    """

    outputs: dict[str, Tensor]
    bottleneck: Tensor


def check_channels(channels: dict[str, int]) -> dict[str, int]:
    """The output channels by task, in their order. Raises ValueError where there is none or one is below 1."""
    if not channels or min(channels.values()) < 1:
        raise ValueError(f"channels must name at least one task, each with at least 1 channel, found {channels}")
    return dict(channels)


def check_image(image: Tensor, in_channels: int) -> None:
    """Raises ValueError where ``image`` is not ``(B, in_channels, H, W)``."""
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise ValueError(f"image must be (B, {in_channels}, H, W), found shape {tuple(image.shape)}")
