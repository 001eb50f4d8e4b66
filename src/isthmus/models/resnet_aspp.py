"""A dilated ResNet for all tasks and a head with atrous pyramid pooling for each.

What MTPSL (Li et al., CVPR 2022) trains on PASCAL-Context, after Vandenhende et al., "Multi-task learning for dense
prediction tasks: a survey", TPAMI 2021: ResNet-18 at output stride 8, pretrained on ImageNet, and DeepLab v3's head per
task with rates 12, 24, 36, 256 channels and dropout 0.5; outputs are enlarged bilinearly to the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.aspp import ASPPHead
from isthmus.models.dense import DenseFeatures, check_channels, check_image
from isthmus.models.layers import scaled
from isthmus.models.resnet import ResNet, Weights, initialise_for_relu


class ResNetASPP(nn.Module):
    """Several dense predictions from one ResNet.

    Args:
        channels: output channels by task.
        layers: of the ResNet, 18 or 34.
        width: scales all channels, the heads' too, each to a multiple of 8.
        aspp_channels, rates, dropout: of the heads, see :class:`isthmus.models.aspp.ASPPHead`.
        weights, normalise: of the encoder, see :class:`isthmus.models.resnet.ResNet`; weights from a file fit width 1.

    Attributes:
        encoder, heads: what stages of a training can freeze; ``heads`` by task.
        bottleneck_channels: of the bottleneck, which is the encoder's output.

    Shape:
        - input: (B, 3, H, W) in [0, 1], any H and W. A training batch of one image is possible: its pooled branch,
          which has one value per channel, is normalised with running statistics
        - output: :class:`DenseFeatures` of (B, C_t, H, W) and (B, bottleneck_channels, H', W') where H' is H / 8,
          rounded up

    Raises:
        DataError: the weights do not fit.

    Example:
        >>> network = ResNetASPP({"segmentation": 21, "edges": 1}, width=0.125).eval()
        >>> features = network(torch.rand(2, 3, 64, 96))
        >>> features.outputs["edges"].shape, features.bottleneck.shape
        (torch.Size([2, 1, 64, 96]), torch.Size([2, 64, 8, 12]))
    """

    def __init__(
        self,
        channels: dict[str, int],
        *,
        layers: int = 18,
        width: float = 1.0,
        aspp_channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        dropout: float = 0.5,
        weights: Weights | None = None,
        normalise: bool | None = None,
    ) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        self.encoder = ResNet(layers, width, weights=weights, normalise=normalise)
        self.bottleneck_channels = self.encoder.out_channels
        hidden = scaled(aspp_channels, width)
        self.heads = nn.ModuleDict(
            {
                task: ASPPHead(self.bottleneck_channels, count, hidden=hidden, rates=rates, dropout=dropout)
                for task, count in self.channels.items()
            }
        )
        initialise_for_relu(self.heads)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> DenseFeatures:
        """Raw outputs of every task, and the bottleneck."""
        bottleneck = self.encode(image)
        size = image.shape[-2:]
        outputs = {
            task: F.interpolate(head(bottleneck), size=size, mode="bilinear", align_corners=False)
            for task, head in self.heads.items()
        }
        return DenseFeatures(outputs, bottleneck)

    def encode(self, image: Tensor) -> Tensor:
        """The bottleneck alone."""
        check_image(image, 3)
        features: Tensor = self.encoder(image)
        return features
