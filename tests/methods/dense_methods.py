"""The methods of dense prediction, small and with BatchNorm in eval mode unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dense_testing import mapping, segnet, settled, tasks
from isthmus.data.image_augment import ImageAugment
from isthmus.methods.base import Method
from isthmus.methods.contrastive import Contrastive
from isthmus.methods.direct_map import DirectMap
from isthmus.methods.discriminator import Discriminator
from isthmus.methods.mtpsl import MTPSL, JointSpaceOptions
from isthmus.methods.multi_task import MultiTask
from isthmus.methods.perceptual_map import PerceptualMap
from isthmus.methods.semi_supervised import SemiSupervised
from isthmus.methods.single_task import SingleTask
from isthmus.methods.x_task import XTask
from isthmus.models.pair_discriminator import PairDiscriminator


def small_map(in_channels: int, wanted: dict[str, int]) -> torch.nn.Module:
    return segnet(wanted, in_channels)


def mtpsl(codes: int | None = 6, film_inputs: bool = True, reduction: str = "mean", **options: Any) -> MTPSL:
    torch.manual_seed(0)
    network = mapping(codes, film_inputs=film_inputs and codes is not None)
    return settled(
        MTPSL(segnet(), tasks(), network, ImageAugment(), JointSpaceOptions(**options), reduction=reduction)  # type: ignore[arg-type]
    )


def built(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return settled(make())


METHODS: dict[str, Callable[..., Method]] = {
    "multi-task": lambda **own: built(lambda: MultiTask(segnet(), tasks(), **own)),
    "semi-supervised": lambda **own: built(lambda: SemiSupervised(segnet(), tasks(), ImageAugment(), **own)),
    "mtpsl": lambda **own: mtpsl(**own),
    "mtpsl-released": lambda **own: mtpsl(
        film_inputs=False, weight=2.0, regulariser=0.5, condition="pair", joint_space="map", detach_feature=True,
        encoding="gumbel", second_view=True, **{"reduction": "sum", **own},
    ),
    "direct-map": lambda **own: built(lambda: DirectMap(segnet(), tasks(), small_map, **own)),
    "perceptual-map": lambda **own: built(lambda: PerceptualMap(segnet(), tasks(), small_map, **own)),
    "contrastive": lambda **own: built(lambda: Contrastive(segnet(), tasks(), mapping(), **own)),
    "discriminator": lambda **own: built(
        lambda: Discriminator(segnet(), tasks(), mapping(), PairDiscriminator(16, hidden=8), **own)
    ),
    "x-task": lambda **own: built(lambda: XTask(segnet(), tasks(), small_map, **own)),
    "single-task": lambda **own: built(lambda: SingleTask(lambda wanted: segnet(wanted), tasks(), **own)),
}  # fmt: skip
