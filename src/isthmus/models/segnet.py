"""SegNet for several dense tasks: one encoder and one decoder for all, and a small head for each.

Badrinarayanan et al., "SegNet", TPAMI 2017, as the baseline "split" of MTAN (Liu et al., CVPR 2019) has it, which
MTPSL (Li et al., CVPR 2022) trains on NYUv2 and Cityscapes: filters 64, 128, 256, 512, 512, every stage two (the first
two stages) or three convolutions 3x3 with BatchNorm and ReLU, pooling with indices and unpooling. The first convolution
of a decoder stage changes the number of channels.

Differences from the literature: ``width`` scales the filters; ``stages`` < 5 keeps the first ones only, so that small
images have a bottleneck with some extent left; images of any size are filled up with zeros at the right and the bottom
and outputs cut back; convolutions before a BatchNorm have no bias, which it would remove.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.dense import DenseFeatures, check_channels, check_image
from isthmus.models.film import Modulation, modulate
from isthmus.models.layers import scaled
from isthmus.models.unpool import max_pool, max_unpool

FILTERS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)


class ConvLayer(nn.Module):
    """Convolution without bias, BatchNorm, perhaps a modulation, ReLU; keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor, modulation: Modulation | None = None) -> Tensor:
        """Apply the layer. Shape: (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return F.relu(modulate(self.norm(self.conv(features)), modulation), inplace=True)


class SegNetEncoder(nn.Module):
    """Stages of convolutions, each followed by a pooling.

    Args:
        filters: of the stages, see :func:`stage_filters`.
        in_channels: of the input.

    Shape:
        - input: (B, in_channels, H, W), H and W multiples of 2**stages
        - output: the pooled features of the last stage, (B, filters[-1], H/2**stages, W/2**stages), and the indices of
          every pooling, the first stage first
    """

    def __init__(self, filters: Sequence[int], in_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            _stage(before, after, count)
            for before, after, count in zip([in_channels, *filters], filters, CONVOLUTIONS, strict=False)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode, and say where the maxima were."""
        indices = []
        for stage in self.stages:
            features, index = max_pool(stage(features))
            indices.append(index)
        return features, indices


class SegNetDecoder(nn.Module):
    """The encoder's stages backwards, the deepest first: unpooling, then convolutions.

    Shape:
        - input: what :class:`SegNetEncoder` puts out
        - output: (B, filters[0], H, W)
    """

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        down = [(after, before, count) for before, after, count in zip([filters[0], *filters], filters, CONVOLUTIONS)]
        self.stages = nn.ModuleList(_stage(*sizes) for sizes in reversed(down))

    def forward(self, features: Tensor, indices: Sequence[Tensor]) -> Tensor:
        """Decode back to the size of the image."""
        for stage, index in zip(self.stages, reversed(indices), strict=True):
            features = stage(max_unpool(features, index))
        return features


class SegNet(nn.Module):
    """Several dense predictions from one SegNet.

    Args:
        channels: output channels by task.
        in_channels: of the images.
        width: scales all filters, each to a multiple of 8.
        stages: of the encoder and of the decoder, 1 to 5.

    Attributes:
        encoder, decoder, heads: what stages of a training can freeze; ``heads`` by task.
        bottleneck_channels: of the bottleneck, which is the encoder's output *after* its last pooling.

    Shape:
        - input: (B, in_channels, H, W) in [0, 1], any H and W
        - output: :class:`DenseFeatures` of (B, C_t, H, W) and (B, bottleneck_channels, H', W') where H' is
          H / 2**stages, rounded up

    Example:
        >>> network = SegNet({"segmentation": 13, "depth": 1}, width=0.125, stages=4).eval()
        >>> features = network(torch.rand(2, 3, 60, 80))
        >>> features.outputs["segmentation"].shape, features.bottleneck.shape
        (torch.Size([2, 13, 60, 80]), torch.Size([2, 64, 4, 5]))
    """

    def __init__(self, channels: dict[str, int], *, in_channels: int = 3, width: float = 1.0, stages: int = 5) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        filters = stage_filters(stages, width)
        self.in_channels = in_channels
        self.bottleneck_channels = filters[-1]
        self.encoder = SegNetEncoder(filters, in_channels)
        self.decoder = SegNetDecoder(filters)
        self.heads = nn.ModuleDict({task: SegNetHead(filters[0], count) for task, count in self.channels.items()})
        initialise(self)

    def forward(self, image: Tensor) -> DenseFeatures:
        """Raw outputs of every task, and the bottleneck."""
        bottleneck, indices = self.encoder(self._prepared(image))
        decoded = self.decoder(bottleneck, indices)
        height, width = image.shape[-2:]
        outputs = {task: head(decoded)[..., :height, :width] for task, head in self.heads.items()}
        return DenseFeatures(outputs, bottleneck)

    def encode(self, image: Tensor) -> Tensor:
        """The bottleneck alone."""
        bottleneck: Tensor = self.encoder(self._prepared(image))[0]
        return bottleneck

    def _prepared(self, image: Tensor) -> Tensor:
        check_image(image, self.in_channels)
        return filled_up(image, len(self.encoder.stages))


class SegNetHead(nn.Sequential):
    """Convolution 3x3 that keeps the channels, no activation, and convolution 1x1 to the task's channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1),
            nn.Conv2d(in_channels, out_channels, 1),
        )


def stage_filters(stages: int, width: float) -> list[int]:
    """Filters of the first ``stages`` stages. Raises ValueError where there are not that many."""
    if not 1 <= stages <= len(FILTERS):
        raise ValueError(f"stages must be between 1 and {len(FILTERS)}, found {stages}")
    return [scaled(filters, width) for filters in FILTERS[:stages]]


def filled_up(maps: Tensor, stages: int) -> Tensor:
    """Zeros at the right and the bottom up to multiples of 2**stages; channels innermost in memory."""
    height, width = (-size % 2**stages for size in maps.shape[-2:])
    return F.pad(maps, (0, width, 0, height)).contiguous(memory_format=torch.channels_last)


def initialise(network: nn.Module) -> None:
    """Xavier-normal weights (gain 1) and zero biases of all convolutions; weights laid out as the features are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _stage(before: int, after: int, count: int) -> nn.Sequential:
    return nn.Sequential(ConvLayer(before, after), *(ConvLayer(after, after) for _ in range(count - 1)))
