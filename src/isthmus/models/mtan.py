"""MTAN: a SegNet shared by all tasks, from every stage of which each task picks its features by attention.

Liu et al., "End-to-end multi-task learning with attention", CVPR 2019, Section 3. Beside the shared network, each task
has an attention module at every stage of the encoder and of the decoder. In stage j let ``u`` be the shared features
after the stage's first convolution and ``p`` those after its last (before pooling). Then, for a task,

    mask  = sigmoid(BN(conv1x1(relu(BN(conv1x1([u; passed]))))))         (Eq. 2: h and g)
    own   = mask * p                                                     (Eq. 1)
    passed to the next stage = resample(relu(BN(conv3x3(own))))          (Eq. 2: f)

and the first stage has nothing passed to it, so its mask depends on ``u`` alone. g reduces to the stage's channels, h
keeps them. The convolutions f of a stage are one set for all tasks. A head on what the last stage's attention has left
predicts.

Decisions where the paper leaves room: masks of [0, 1] come from BatchNorm and sigmoid; resampling is maximum pooling
2x2 in the encoder, bilinear doubling in the decoder, and nothing between the last stage of the encoder and the first of
the decoder, which have the same size; f changes to the channels of the next stage's ``u``; the heads are those of the
shared SegNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.dense import DenseFeatures, check_channels, check_image
from isthmus.models.segnet import (
    ConvLayer,
    SegNetDecoder,
    SegNetEncoder,
    SegNetHead,
    filled_up,
    initialise,
    stage_filters,
)
from isthmus.models.unpool import max_pool, max_unpool


class AttentionModule(nn.Module):
    """A soft mask of one task for the features of one stage.

    Shape:
        - first: (B, C, H, W), features after the stage's first convolution; passed: (B, D, H, W), or None where D is 0
        - last: (B, C, H, W), features after its last convolution
        - output: (B, C, H, W), ``last`` times a mask between 0 and 1
    """

    def __init__(self, channels: int, passed: int) -> None:
        super().__init__()
        self.reduce = ConvLayer(channels + passed, channels, kernel=1)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, first: Tensor, last: Tensor, passed: Tensor | None) -> Tensor:
        """The task's own features."""
        seen = first if passed is None else torch.cat([first, passed], dim=1)
        return self.norm(self.conv(self.reduce(seen))).sigmoid() * last


class MTANet(nn.Module):
    """Several dense predictions from one SegNet with attention modules for each task.

    Args:
        channels: output channels by task.
        in_channels: of the images.
        width: scales all filters, each to a multiple of 8.
        stages: of the encoder and of the decoder, 1 to 5.

    Attributes:
        encoder, decoder: shared; passing: shared, the convolutions between the attention modules of two stages;
        attention, heads: by task; their names are ``task_parts``.
        bottleneck_channels: of the bottleneck, which is the shared encoder's output after its last pooling.

    Shape:
        - input: (B, in_channels, H, W) in [0, 1], any H and W
        - output: :class:`DenseFeatures` of (B, C_t, H, W) and (B, bottleneck_channels, H', W') where H' is
          H / 2**stages, rounded up

    Example:
        >>> network = MTANet({"segmentation": 13, "depth": 1}, width=0.125, stages=4).eval()
        >>> features = network(torch.rand(2, 3, 60, 80))
        >>> features.outputs["depth"].shape, features.bottleneck.shape
        (torch.Size([2, 1, 60, 80]), torch.Size([2, 64, 4, 5]))
    """

    task_parts = ("heads", "attention")

    def __init__(self, channels: dict[str, int], *, in_channels: int = 3, width: float = 1.0, stages: int = 5) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        filters = stage_filters(stages, width)
        self.in_channels = in_channels
        self.bottleneck_channels = filters[-1]
        self.encoder = SegNetEncoder(filters, in_channels)
        self.decoder = SegNetDecoder(filters)
        along = [*filters, *reversed([filters[0], *filters[:-1]])]  # channels of every stage, encoder then decoder
        self.passing = nn.ModuleList(ConvLayer(before, after) for before, after in pairwise(along))
        self.attention = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    AttentionModule(count, passed) for count, passed in zip(along, [0, *along[1:]], strict=True)
                )
                for task in self.channels
            }
        )
        self.heads = nn.ModuleDict({task: SegNetHead(filters[0], count) for task, count in self.channels.items()})
        initialise(self)

    def forward(self, image: Tensor) -> DenseFeatures:
        """Raw outputs of every task, and the bottleneck."""
        shared, bottleneck = self._shared(self._prepared(image))
        height, width = image.shape[-2:]
        outputs = {task: head(self._own(task, shared))[..., :height, :width] for task, head in self.heads.items()}
        return DenseFeatures(outputs, bottleneck)

    def encode(self, image: Tensor) -> Tensor:
        """The bottleneck alone."""
        bottleneck: Tensor = self.encoder(self._prepared(image))[0]
        return bottleneck

    def _prepared(self, image: Tensor) -> Tensor:
        check_image(image, self.in_channels)
        return filled_up(image, len(self.encoder.stages))

    def _shared(self, features: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """First and last features of every stage, encoder then decoder, and the bottleneck."""
        shared, indices = [], []
        for stage in self.encoder.stages:
            shared.append(_first_and_last(stage, features))
            features, index = max_pool(shared[-1][1])
            indices.append(index)
        bottleneck = features
        for stage, index in zip(self.decoder.stages, reversed(indices), strict=True):
            shared.append(_first_and_last(stage, max_unpool(features, index)))
            features = shared[-1][1]
        return shared, bottleneck

    def _own(self, task: str, shared: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """What the attention of the last stage of the decoder leaves to a task."""
        own, passed = torch.empty(0), None
        for module, passing, (first, last) in zip(
            self.attention[task].children(), [None, *self.passing], shared, strict=True
        ):
            if passing is not None:
                passed = _resampled(passing(own), first)
            own = module(first, last, passed)
        return own


def _first_and_last(stage: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    first, *others = stage.children()
    early: Tensor = first(features)
    late = early
    for layer in others:
        late = layer(late)
    return early, late


def _resampled(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[-1] > like.shape[-1]:
        return max_pool(features)[0]
    if features.shape[-1] < like.shape[-1]:
        return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return features
