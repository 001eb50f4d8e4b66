"""A U-Net whose encoder is a ResNet: the 2D network of xMUDA and DsCML.

Jaritz et al., "xMUDA: Cross-modal unsupervised domain adaptation for 3D semantic segmentation", CVPR 2020: a
ResNet-34 with ImageNet weights whose first convolution has no stride, transposed convolutions up, skips by
concatenation (Ronneberger et al., MICCAI 2015), 64 channels at the size of the image, from which features are taken
at the projected points. ::

    image -> stem 1 -> layer1 1/2 -> layer2 1/4 -> layer3 1/8 -> layer4 1/16
               |          |             |             |             |
    features 1 +-- up1 <--+---- up2 <---+---- up3 <---+---- up4 <---+

Layer by layer as released: dropout 0.4 on the outputs of ``layer3`` (also where it is a skip) and ``layer4``; each
level is a transposed convolution 2 x 2 with BatchNorm and ReLU, then, behind the skip, a convolution 3 x 3 with
BatchNorm and ReLU; the last level ends with the bare convolution. Differences:

- Images whose sides are no multiples of 16 are not padded with zeros: levels are rounded up, and one row or column too
  many is cut off on the way up. So BatchNorm sees no padding.
- No biases where BatchNorm follows.
- With pretrained weights ImageNet's mean and standard deviation are taken out of the images (``normalise``); the
  released configurations do not do that: ``normalise=False``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.dense import check_image
from isthmus.models.layers import scaled
from isthmus.models.resnet import PLANES, ResNet, Weights, shrink

LAYERS = ("layer1", "layer2", "layer3", "layer4")
LEVELS = ("up4", "up3", "up2", "up1")


class UNetResNet(nn.Module):
    """Features of every pixel.

    Args:
        layers: of the ResNet, 18, 34 or 50.
        width: scales all channels, each to a multiple of 8.
        dropout: probability of dropping a value behind ``layer3`` and ``layer4``, in [0, 1).
        weights, normalise: see :class:`isthmus.models.resnet.ResNet`; weights from a file fit width 1.

    Attributes:
        encoder: the ResNet; a prefix of names that gives pretrained weights a rate of their own.
        out_channels: of the features: 64 times the width.
        bottleneck_channels: of :meth:`encode`.

    Shape:
        - input: (B, 3, H, W) in [0, 1], any H and W; in training more than one value per channel at 1/16
        - output: (B, out_channels, H, W)

    Raises:
        DataError: the weights do not fit.

    Example:
        >>> network = UNetResNet(layers=18, width=0.125).eval()
        >>> network(torch.rand(2, 3, 33, 50)).shape
        torch.Size([2, 8, 33, 50])
    """

    def __init__(
        self,
        layers: int = 34,
        width: float = 1.0,
        *,
        dropout: float = 0.4,
        weights: Weights | None = None,
        normalise: bool | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ResNet(layers, width, dilated=False, weights=weights, normalise=normalise)
        self.encoder.conv1.stride = (1, 1)
        self.dropout = nn.Dropout(dropout)
        self.bottleneck_channels = below = self.encoder.out_channels
        skips = [self.encoder.in_channels, *self.encoder.layer_channels[:-1]]
        planes = [PLANES[0], *PLANES[:-1]]
        for name, skip, plane in zip(LEVELS, reversed(skips), reversed(planes)):
            out = scaled(plane, width)
            self.add_module(name, UpConcat(below, skip, out, last=name == LEVELS[-1]))
            below = out
        self.out_channels = below
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Features of the images."""
        *skips, features = self._encoded(image)
        for name, skip in zip(LEVELS, reversed(skips)):
            features = getattr(self, name)(features, skip)
        return features

    def encode(self, image: Tensor) -> Tensor:
        """The output of ``layer4``. Shape: (B, bottleneck_channels, H / 16, W / 16), rounded up."""
        return self._encoded(image)[-1]

    def _encoded(self, image: Tensor) -> list[Tensor]:
        check_image(image, 3)
        encoder = self.encoder
        if encoder.normalise:
            image = (image - encoder.mean) / encoder.std
        image = image.contiguous(memory_format=torch.channels_last)
        features = F.relu(encoder.bn1(encoder.conv1(image)), inplace=True)
        found = [features]
        features = shrink(features)
        for name in LAYERS:
            features = getattr(encoder, name)(features)
            if name in LAYERS[2:]:
                features = self.dropout(features)
            found.append(features)
        return found


class UpConcat(nn.Module):
    """Features doubled in size, put beside a skip and mixed.

    Args:
        in_channels, skip_channels, out_channels: of the features, the skip and the output.
        last: leave BatchNorm and ReLU at the end out.

    Shape:
        - input: (B, in_channels, h, w), (B, skip_channels, H, W) with h = H / 2 and w = W / 2, rounded up
        - output: (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(in_channels, out_channels, 2, 2, bias=False)
        self.enlarge_norm = nn.BatchNorm2d(out_channels)
        self.mix = nn.Conv2d(skip_channels + out_channels, out_channels, 3, padding=1, bias=last)
        self.mix_norm = None if last else nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Apply the level."""
        doubled = self.enlarge(features)[..., : skip.shape[2], : skip.shape[3]]
        doubled = F.relu(self.enlarge_norm(doubled), inplace=True)
        mixed: Tensor = self.mix(torch.cat([skip, doubled], dim=1))
        return mixed if self.mix_norm is None else F.relu(self.mix_norm(mixed), inplace=True)
