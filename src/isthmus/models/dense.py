"""What a network of dense predictions makes of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class DenseFeatures(NamedTuple):
    """Outputs by task, and the deepest feature map that the tasks share.

    ``outputs`` maps a task to raw values ``(B, C_t, H, W)``, without activation, at the size of the image;
    ``bottleneck`` is ``(B, C, H', W')``, smaller than the image by a factor that the network's docstring names.
    Networks with named boundaries hand out the feature maps there as ``taps``, ``(B, C, H', W')`` each.
    """

    outputs: dict[str, Tensor]
    bottleneck: Tensor
    taps: dict[str, Tensor] = {}  # noqa: RUF012 (nobody writes into it)


def split_features(features: DenseFeatures, sizes: Sequence[int]) -> list[DenseFeatures]:
    """The features of a batch as those of the batches that it was put together from, ``sizes`` images each.

    Raises ValueError where they do not add up.
    """
    if sum(sizes) != len(features.bottleneck):
        raise ValueError(f"sizes must add up to {len(features.bottleneck)} images, found {list(sizes)}")
    outputs = {task: output.split(list(sizes)) for task, output in features.outputs.items()}
    taps = {name: tap.split(list(sizes)) for name, tap in features.taps.items()}
    return [
        DenseFeatures(
            {task: parts[index] for task, parts in outputs.items()},
            bottleneck,
            {name: parts[index] for name, parts in taps.items()},
        )
        for index, bottleneck in enumerate(features.bottleneck.split(list(sizes)))
    ]


def check_channels(channels: dict[str, int]) -> dict[str, int]:
    """The output channels by task, in their order. Raises ValueError where there is none or one is below 1."""
    if not channels or min(channels.values()) < 1:
        raise ValueError(f"channels must name at least one task, each with at least 1 channel, found {channels}")
    return dict(channels)


def check_image(image: Tensor, in_channels: int) -> None:
    """Raises ValueError where ``image`` is not ``(B, in_channels, H, W)``."""
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise ValueError(f"image must be (B, {in_channels}, H, W), found shape {tuple(image.shape)}")
