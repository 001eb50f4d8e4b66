"""A ResNet with a decoder of three upsampling levels for all tasks, cut at named boundaries.

What TADA (Li et al., "Task-assisted domain adaptation with anchor tasks", 2020, Section 4.4) trains: ResNet-50, a
feature pyramid (Lin et al., CVPR 2017) "with 3 upsampling layers with skip connection", "a deconvolution layer as the
output layer" of each task, which makes outputs of half the image's size, and for tasks that need numbers without a
place "a fully-connected branch of 2 layers with 256 hidden units after the global average pooling over the second
upsampling layer's output". New layers are initialised after He. ::

    image -> stem 1/4 -> layer1 1/4 -> layer2 1/8 -> layer3 1/16 -> layer4 1/32
                           |             |             |              |
               heads 1/2 <- up3 1/4 <-- up2 1/8 <---- up1 1/16 <------+
                                         '-> vectors

HeadFreeze freezes what lies after a boundary: :meth:`ResNetFPN.after` gives its prefixes. The skip weights of a level
belong to the level ("we freeze the layers after the second upsampling layer, including any skip connection weights").

What the paper leaves open: levels are added, as in the feature pyramid, and smoothed by one convolution 3x3 with
BatchNorm and ReLU; features are enlarged to the size of the skip by taking the nearest; deconvolutions are 4x4 with
stride 2; the non-spatial branch counts as lying *after* the second upsampling (it takes nothing but its output), so
it freezes with the third level and the output layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.dense import DenseFeatures, check_channels, check_image
from isthmus.models.layers import scaled
from isthmus.models.resnet import ResNet, Weights, before_layers

LAYERS = ("layer1", "layer2", "layer3", "layer4")
LEVELS = {"up1": "layer3", "up2": "layer2", "up3": "layer1"}
"""The upsampling levels in forward order, each with the layer that it is joined with."""
POOLED = "up2"
VECTOR_HIDDEN = 256
KERNEL, STRIDE = 4, 2


class ResNetFPN(nn.Module):
    """Several dense predictions, and vectors, from one ResNet.

    Args:
        channels: output channels by task.
        vectors: for tasks of ``channels`` that need them, how many numbers without a place are appended to their maps.
        layers: of the ResNet, 18, 34 or 50.
        width: scales all channels, the decoder's and the branch's too, each to a multiple of 8.
        decoder_channels: of the upsampling levels.
        weights, normalise: of the ResNet, see :class:`isthmus.models.resnet.ResNet`; weights from a file fit width 1.
        output_size: "half" keeps the outputs at half the image's size, as the paper has them; "input" enlarges them
            bilinearly, so that losses and scores are taken in the labels' own pixels.

    Attributes:
        stem, layer1 ... layer4, up1, up2, up3, heads, vectors: what stages of a training can freeze; ``heads`` and
            ``vectors`` by task.
        boundaries: the names at which the network can be cut, in forward order.
        bottleneck_channels: of the bottleneck, which is the output of ``layer4``.

    Shape:
        - input: (B, 3, H, W) in [0, 1], any H and W; in training more than one value per channel in ``layer4``
        - output: :class:`DenseFeatures` of outputs (B, C_t + V_t, H, W), or half of it rounded up, whose last V_t
          channels are constant over the map; a bottleneck (B, bottleneck_channels, H / 32, W / 32), rounded up; and
          the output of every boundary but ``stem`` and ``heads`` as taps

    Raises:
        DataError: the weights do not fit.
        ValueError: an option or a task of ``vectors`` that is not there.

    Example:
        >>> network = ResNetFPN({"normals": 3, "keypoints": 21}, {"keypoints": 21}, layers=18, width=0.125).eval()
        >>> features = network(torch.rand(2, 3, 60, 80))
        >>> features.outputs["keypoints"].shape, features.taps["up2"].shape
        (torch.Size([2, 42, 60, 80]), torch.Size([2, 32, 8, 10]))
        >>> network.after("up2")
        ('up3', 'heads', 'vectors')
    """

    task_parts = ("heads", "vectors")
    boundaries: tuple[str, ...] = ("stem", *LAYERS, *LEVELS, "heads")

    def __init__(
        self,
        channels: dict[str, int],
        vectors: Mapping[str, int] | None = None,
        *,
        layers: int = 50,
        width: float = 1.0,
        decoder_channels: int = 256,
        weights: Weights | None = None,
        normalise: bool | None = None,
        output_size: Literal["input", "half"] = "input",
    ) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        self.vector_channels = {task: count for task, count in (vectors or {}).items() if count}
        if not self.vector_channels.keys() <= self.channels.keys() or min(self.vector_channels.values(), default=1) < 1:
            raise ValueError(f"vectors must be numbers for tasks among {', '.join(self.channels)}, found {vectors}")
        if output_size not in ("input", "half"):
            raise ValueError(f'output_size must be "input" or "half", found {output_size!r}')
        self.output_size = output_size
        encoder = ResNet(layers, width, dilated=False, weights=weights, normalise=normalise)
        self.bottleneck_channels = encoder.out_channels
        self.stem = Stem(encoder)
        for name in LAYERS:
            self.add_module(name, getattr(encoder, name))
        hidden = scaled(decoder_channels, width)
        of_layer = dict(zip(LAYERS, encoder.layer_channels))
        below = of_layer["layer4"]
        for name, skip in LEVELS.items():
            self.add_module(name, UpLevel(below, of_layer[skip], hidden))
            below = hidden
        self.heads = nn.ModuleDict(
            {
                task: nn.ConvTranspose2d(hidden, count, KERNEL, STRIDE, padding=(KERNEL - STRIDE) // 2)
                for task, count in self.channels.items()
            }
        )
        between = scaled(VECTOR_HIDDEN, width)
        self.vectors = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(hidden, between), nn.ReLU(inplace=True), nn.Linear(between, count))
                for task, count in self.vector_channels.items()
            }
        )
        for name in (*LEVELS, "heads", "vectors"):
            _initialise(getattr(self, name))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def after(self, boundary: str) -> tuple[str, ...]:
        """Names of the direct submodules that no output at the boundary depends on, in forward order.

        A name and a dot is what names of their parameters begin with. ``vectors`` is among them only if it is there.

        Raises:
            ValueError: no such boundary.
        """
        if boundary not in self.boundaries:
            raise ValueError(f"boundary must be one of {', '.join(self.boundaries)}, found {boundary!r}")
        behind = self.boundaries[self.boundaries.index(boundary) + 1 :]
        return (*behind, "vectors") if behind and self.vectors else behind

    def forward(self, image: Tensor) -> DenseFeatures:
        """Raw outputs of every task, the bottleneck, and the taps."""
        taps = self._encoded(image)
        features = bottleneck = taps["layer4"]
        for name, skip in LEVELS.items():
            features = taps[name] = getattr(self, name)(features, taps[skip])
        height, width = (-(-side // 2) for side in image.shape[-2:])
        outputs = {}
        for task, head in self.heads.items():
            # The levels are rounded up, so there may be a row and a column too many, on the far sides.
            output = head(features)[..., :height, :width]
            if self.output_size == "input":
                output = F.interpolate(output, scale_factor=2.0, mode="bilinear", align_corners=False)
                output = output[..., : image.shape[-2], : image.shape[-1]]
            outputs[task] = output
        # A plain mean: the gradient of adaptive pooling is not deterministic on every device.
        pooled = taps[POOLED].mean(dim=(2, 3)) if self.vectors else None
        for task, branch in self.vectors.items():
            output = outputs[task]
            vector = branch(pooled).to(output.dtype)[..., None, None]
            outputs[task] = torch.cat([output, vector.expand(-1, -1, *output.shape[-2:])], dim=1)
        return DenseFeatures(outputs, bottleneck, taps)

    def encode(self, image: Tensor) -> Tensor:
        """The bottleneck alone."""
        return self._encoded(image)["layer4"]

    def _encoded(self, image: Tensor) -> dict[str, Tensor]:
        check_image(image, 3)
        features, taps = self.stem(image), {}
        for name in LAYERS:
            features = taps[name] = getattr(self, name)(features)
        return taps


class Stem(nn.Module):
    """The first convolution of a ResNet with its BatchNorm, ReLU and pooling, taken out of it.

    Shape:
        - input: (B, 3, H, W) in [0, 1]
        - output: (B, C, H / 4, W / 4), rounded up
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.normalise = encoder.conv1, encoder.bn1, encoder.normalise
        self.register_buffer("mean", encoder.mean, persistent=False)
        self.register_buffer("std", encoder.std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Apply the stem."""
        if self.normalise:
            image = (image - self.mean) / self.std
        return before_layers(image, self.conv1, self.bn1)


class UpLevel(nn.Module):
    """Features enlarged to the size of a skip, to which they are added; then convolution 3x3, BatchNorm and ReLU.

    Args:
        in_channels: of the features, which a convolution 1x1 changes to ``out_channels`` if they are others.
        skip_channels: of the skip, which goes through a convolution 1x1.
        out_channels: of the output.

    Shape:
        - input: (B, in_channels, h, w), (B, skip_channels, H, W) with H and W about 2 h and 2 w
        - output: (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.lateral = nn.Conv2d(skip_channels, out_channels, 1)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Apply the level."""
        enlarged = F.interpolate(self.narrow(features), size=skip.shape[-2:], mode="nearest")
        return F.relu(self.norm(self.conv(enlarged + self.lateral(skip))), inplace=True)


def _initialise(network: nn.Module) -> None:
    """He-normal weights by the inputs, zero biases.

    By the inputs, as layers here have very different numbers of them (1x1 convolutions of 64 and of 2048 channels are
    added up). Of a deconvolution's kernel every output sees only ``(KERNEL / STRIDE)**2`` places.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * (KERNEL // STRIDE) ** 2)))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
