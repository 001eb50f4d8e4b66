"""ResNet-18, -34 and -50 with the parameter names of torchvision, so that its ImageNet weights fit.

He et al., "Deep residual learning for image recognition", CVPR 2016. At output stride 32 as there, or dilated at
output stride 8: then the last two layers have no stride and their convolutions are dilated instead (Yu et al., "Dilated
residual networks", CVPR 2017; DeepLab): a convolution that lost its stride keeps the dilation of what came before it,
and all that follow see twice as far, so that the pretrained filters look at the same places as before.

In the bottlenecks of ResNet-50 the convolution 3x3 has the stride, as in torchvision, and not the 1x1 before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.errors import DataError
from isthmus.models.film import Modulation, modulate
from isthmus.models.layers import scaled

BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
HUB = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
DILATIONS = (1, 1, 1, 1)
DILATED_STRIDES = (1, 2, 1, 1)
DILATED_DILATIONS = (1, 1, 2, 4)

Weights = Path | Literal["hub"]


class BasicBlock(nn.Module):
    """Two convolutions 3x3 around which the input is added, perhaps with a modulation after each BatchNorm.

    Args:
        in_channels, channels: before and after.
        stride: of the first convolution.
        before: dilation of the first convolution.
        dilation: of the second.

    Attributes:
        norms: how many BatchNorm layers the block has, the one of the shortcut last.

    Shape:
        - input: (B, in_channels, H, W)
        - output: (B, channels, H / stride, W / stride), rounded up
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, before: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=before, dilation=before, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
        self.norms = 2 if self.downsample is None else 3
        self.channels = channels

    def forward(self, features: Tensor, modulations: Sequence[Modulation | None] = (None, None, None)) -> Tensor:
        """Apply the block; ``modulations`` has an entry for each norm."""
        hidden = F.relu(modulate(self.bn1(self.conv1(features)), modulations[0]), inplace=True)
        hidden = modulate(self.bn2(self.conv2(hidden)), modulations[1])
        if self.downsample is not None:
            features = modulate(self.downsample(features), modulations[2])
        return F.relu(hidden + features, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 around which the input is added, perhaps with a modulation after each BatchNorm.

    Args:
        in_channels, channels: before, and of the convolution 3x3.
        stride: of the convolution 3x3.
        before: its dilation.
        dilation: of the blocks that follow; not used, since there is one convolution 3x3 only.

    Attributes:
        channels: of the output, ``EXPANSION`` times as many.
        norms: how many BatchNorm layers the block has, the one of the shortcut last.

    Shape:
        - input: (B, in_channels, H, W)
        - output: (B, 4 * channels, H / stride, W / stride), rounded up
    """

    EXPANSION = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, before: int, dilation: int) -> None:
        super().__init__()
        self.channels = self.EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=before, dilation=before, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, self.channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != self.channels:
            shortcut = nn.Conv2d(in_channels, self.channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(self.channels))
        self.norms = 3 if self.downsample is None else 4

    def forward(self, features: Tensor, modulations: Sequence[Modulation | None] = (None, None, None, None)) -> Tensor:
        """Apply the block; ``modulations`` has an entry for each norm."""
        hidden = F.relu(modulate(self.bn1(self.conv1(features)), modulations[0]), inplace=True)
        hidden = F.relu(modulate(self.bn2(self.conv2(hidden)), modulations[1]), inplace=True)
        hidden = modulate(self.bn3(self.conv3(hidden)), modulations[2])
        if self.downsample is not None:
            features = modulate(self.downsample(features), modulations[3])
        return F.relu(hidden + features, inplace=True)


class ResidualLayers(nn.Module):
    """The four layers of residual blocks, without what a ResNet has before and after them.

    Args:
        layers: of the whole ResNet: 18, 34 or 50.
        width: scales all channels, each to a multiple of 8.
        dilated: the last two layers keep the size; otherwise each halves it.

    Attributes:
        in_channels, out_channels: of the features.
        layer_channels: of the outputs of the four layers.

    Shape:
        - input: (B, in_channels, H, W)
        - output: (B, out_channels, H / 2, W / 2), or without dilation H / 8, rounded up
    """

    def __init__(self, layers: int = 18, width: float = 1.0, *, dilated: bool = True) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"layers must be one of {', '.join(map(str, BLOCKS))}, found {layers}")
        kind = Bottleneck if layers >= 50 else BasicBlock
        planes = [scaled(channels, width) for channels in PLANES]
        strides, dilations = (DILATED_STRIDES, DILATED_DILATIONS) if dilated else (STRIDES, DILATIONS)
        self.in_channels = channels = planes[0]
        dilation, self.layer_channels = 1, []
        for index, (own, count, stride, further) in enumerate(zip(planes, BLOCKS[layers], strides, dilations)):
            blocks = [kind(channels, own, stride=stride, before=dilation, dilation=further)]
            channels, dilation = blocks[0].channels, further
            blocks += [kind(channels, own, stride=1, before=further, dilation=further) for _ in range(count - 1)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            self.layer_channels.append(channels)
        self.out_channels = channels

    def blocks(self) -> Iterator[BasicBlock | Bottleneck]:
        """All blocks in their order."""
        for name in ("layer1", "layer2", "layer3", "layer4"):
            yield from getattr(self, name)

    def forward(self, features: Tensor) -> Tensor:
        """Apply all layers."""
        for block in self.blocks():
            features = block(features)
        return features


class ResNet(ResidualLayers):
    """An encoder of images, dilated at output stride 8 or as published at output stride 32.

    Args:
        layers: 18, 34 or 50.
        width: scales all channels, each to a multiple of 8.
        dilated: see above.
        weights: a file of a state dict with torchvision's names (``.pth``, ``.pt`` or ``.safetensors``), or "hub" to
            fetch torchvision's ImageNet weights from the network; otherwise He's initialisation.
        normalise: take ImageNet's mean and standard deviation out of the images first; by default where ``weights``
            are given.

    Shape:
        - input: (B, 3, H, W) in [0, 1], any H and W
        - output: (B, out_channels, H / 8, W / 8), or without dilation H / 32, rounded up

    Raises:
        DataError: the file is missing or unreadable, or its names or shapes are not those of this network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: int = 18,
        width: float = 1.0,
        *,
        dilated: bool = True,
        weights: Weights | None = None,
        normalise: bool | None = None,
    ) -> None:
        super().__init__(layers, width, dilated=dilated)
        self.conv1 = nn.Conv2d(3, self.in_channels, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.in_channels)
        self.normalise = weights is not None if normalise is None else normalise
        # Not among the weights: torchvision's files have no such keys.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        initialise_for_relu(self)
        if weights is not None:
            load_weights(self, layers, weights)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Features of the images."""
        if self.normalise:
            image = (image - self.mean) / self.std
        return super().forward(before_layers(image, self.conv1, self.bn1))


def before_layers(image: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """A ResNet's stem. Shape: (B, 3, H, W) to (B, C, H / 4, W / 4), rounded up."""
    features = norm(conv(image.contiguous(memory_format=torch.channels_last)))
    return shrink(F.relu(features, inplace=True))


def shrink(features: Tensor) -> Tensor:
    """The pooling of a ResNet's stem: windows of 3x3, stride 2. Shape: (B, C, H, W) to half the size, rounded up."""
    return F.max_pool2d(features, 3, 2, padding=1)


def initialise_for_relu(network: nn.Module) -> None:
    """He-normal weights by the outputs and zero biases of all convolutions, as ResNet's authors draw them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def load_weights(network: nn.Module, layers: int, weights: Weights) -> None:
    """Fill ``network`` with a file's weights; a classifier ``fc`` in it, and counters that it lacks, are passed over.

    Raises DataError, naming keys, unless all others fit.
    """
    given = read_weights(layers, weights)
    given = {key: value for key, value in given.items() if not key.startswith("fc.")}
    own = network.state_dict()
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    problems = {
        "missing": [key for key in needed if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} (expected {tuple(own[key].shape)}, found {tuple(given[key].shape)})"
            for key in own
            if key in given and given[key].shape != own[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{title}: {_few(keys)}" for title, keys in problems.items() if keys)
        raise DataError(f"{weights}: expected the weights of a ResNet-{layers} of this width, found {listed}")
    network.load_state_dict(given, strict=False)


def read_weights(layers: int, weights: Weights) -> dict[str, Tensor]:
    """A state dict of tensors from a file or, only if asked by "hub", from the network."""
    if weights == "hub":
        fetched: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            HUB[layers], map_location="cpu", check_hash=True
        )
        return fetched
    path = Path(weights)
    if not path.is_file():
        raise DataError(f"{path}: expected a file of weights, found none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise DataError(f"{path}: reading .safetensors needs: pip install safetensors") from None
    except Exception as error:  # torch.load and safetensors raise errors of many kinds on broken files
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: expected a file of tensors, found {type(error).__name__}: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path}: expected a state dict of tensors, found {type(content).__name__} of other things")
    return content


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
