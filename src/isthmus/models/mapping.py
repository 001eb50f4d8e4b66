"""The mapping of outputs and labels of any task to a space that a pair of tasks shares.

Li et al., "Learning multiple dense prediction tasks from partially annotated data" (MTPSL), CVPR 2022, Eq. 3 and 4: one
network for all pairs and all tasks. A layer of its own takes each task's maps in; then the encoder of SegNet, or the
residual blocks of a ResNet-18, follows, and after every BatchNorm a scale and a shift that depend on the code of the
pair (``isthmus.models.film``). What a code means is the caller's business: the paper numbers (input task, pair), the
released code the pair alone.

Paper and released code differ about the input layers: the paper modulates every layer, theirs included
(``film_inputs=True``, one table that all tasks share); the released code does not (the default).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.dense import check_channels
from isthmus.models.film import FiLM, Modulation, modulate
from isthmus.models.resnet import ResidualLayers, initialise_for_relu, shrink
from isthmus.models.segnet import SegNetEncoder, filled_up, initialise, stage_filters
from isthmus.models.unpool import max_pool

Backbone = Literal["segnet", "resnet"]


class MappingNetwork(nn.Module):
    """Maps of a task, and the code of a pair, to features of the shape of a network's bottleneck.

    Maps of all samples and pairs go through in one pass: :meth:`embed` each task's maps once, gather the rows that the
    pairs need, and call the network on them.

    Args:
        channels: of the maps, by task.
        codes: number of codes; None leaves every modulation out.
        width: scales all channels, each to a multiple of 8.
        stages: of SegNet's encoder; a ResNet takes no notice.
        film_inputs: modulate after the input layers too.
        backbone: "segnet" gives the shape of the bottleneck of :class:`isthmus.models.segnet.SegNet`, "resnet" that of
            :class:`isthmus.models.resnet_aspp.ResNetASPP`, at the same width (and stages). A "resnet" input layer is
            the ResNet's first, 7x7 with stride 2.

    Attributes:
        film: all tables, so that ``film`` as a prefix of names gives them a learning rate of their own.
        embedding_channels: C0, of what :meth:`embed` puts out; bottleneck_channels: C, of the output.

    Example:
        >>> network = MappingNetwork({"segmentation": 13, "depth": 1}, codes=2, width=0.125, stages=4).eval()
        >>> embedded = network.embed("depth", torch.rand(1, 1, 60, 80))
        >>> network(embedded.expand(2, -1, -1, -1), torch.tensor([0, 1])).shape
        torch.Size([2, 64, 4, 5])
    """

    def __init__(
        self,
        channels: dict[str, int],
        *,
        codes: int | None,
        width: float = 1.0,
        stages: int = 5,
        film_inputs: bool = False,
        backbone: Backbone = "segnet",
    ) -> None:
        super().__init__()
        if backbone not in ("segnet", "resnet"):
            raise ValueError(f'backbone must be "segnet" or "resnet", found {backbone!r}')
        if film_inputs and codes is None:
            raise ValueError("film_inputs needs codes, found None")
        self.channels = check_channels(channels)
        self.codes = codes
        self.film_inputs = film_inputs
        self.body: SegNetEncoder | ResidualLayers
        if backbone == "segnet":
            filters = stage_filters(stages, width)
            self.embedding_channels, self.bottleneck_channels = filters[0], filters[-1]
            self.body = SegNetEncoder(filters, filters[0])
            kernel, stride = 3, 1
        else:
            self.body = ResidualLayers(18, width)
            self.embedding_channels, self.bottleneck_channels = self.body.in_channels, self.body.out_channels
            kernel, stride = 7, 2
        self.inputs = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Conv2d(count, self.embedding_channels, kernel, stride, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(self.embedding_channels),
                )
                for task, count in self.channels.items()
            }
        )
        norms = [module.num_features for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]
        modulated = [self.embedding_channels, *norms] if film_inputs else norms
        self.film = nn.ModuleList([] if codes is None else [FiLM(codes, count) for count in modulated])
        if backbone == "segnet":
            initialise(self)
        else:
            initialise_for_relu(self)
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, task: str, maps: Tensor) -> Tensor:
        """The input layer of a task without its activation: convolution and BatchNorm.

        Shape: (n, C_t, H, W) to (n, C0, H, W), or with a ResNet to (n, C0, H / 2, W / 2), rounded up.
        """
        if task not in self.channels:
            raise ValueError(f"task must be one of {', '.join(self.channels)}, found {task!r}")
        if maps.ndim != 4 or maps.shape[1] != self.channels[task]:
            raise ValueError(f"{task} must be (n, {self.channels[task]}, H, W), found shape {tuple(maps.shape)}")
        embedded: Tensor = self.inputs[task](maps.contiguous(memory_format=torch.channels_last))
        return embedded

    def forward(self, embedded: Tensor, code: Tensor | None = None) -> Tensor:
        """Features of embedded maps, each under its code. Shape: (P, C0, H, W), (P,) int64 to (P, C, H', W')."""
        return self._run(embedded, code)[1]

    def features(self, embedded: Tensor, code: Tensor | None = None) -> Tensor:
        """The feature maps before the last pooling, or before a ResNet's last layer, for pictures.

        Shape: (P, C0, H, W), (P,) int64 to (P, C, 2H', 2W') or (P, C / 2, H', W').
        """
        return self._run(embedded, code)[0]

    def _run(self, embedded: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        if (code is None) != (self.codes is None):
            raise ValueError(f"code must be given exactly where the network has codes, which are {self.codes}")
        modulations = iter([None if code is None else film(code) for film in self.film])
        features = F.relu(modulate(embedded, next(modulations) if self.film_inputs else None))
        if isinstance(self.body, SegNetEncoder):
            return _encode(self.body, features, modulations)
        return _residual(self.body, features, modulations)


def _encode(body: SegNetEncoder, features: Tensor, modulations: Iterator[Modulation | None]) -> tuple[Tensor, Tensor]:
    last = pooled = filled_up(features, len(body.stages))
    for stage in body.stages:
        last = pooled
        for layer in stage.children():
            last = layer(last, next(modulations, None))
        pooled = max_pool(last)[0]
    return last, pooled


def _residual(
    body: ResidualLayers, features: Tensor, modulations: Iterator[Modulation | None]
) -> tuple[Tensor, Tensor]:
    features = shrink(features)
    last = features
    for name in ("layer1", "layer2", "layer3", "layer4"):
        last = features
        for block in getattr(body, name):
            features = block(features, [next(modulations, None) for _ in range(block.norms)])
    return last, features
