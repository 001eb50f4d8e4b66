"""How fast our point kernels and networks are, each against the usual way of writing it.

Run with ``python benchmarks/kernels.py [name ...]``; it writes a JSON list. All timings of networks are one forward and
backward pass in training mode.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timing
import torch
from timing import Row, Step, measure_peak
from torch import Tensor, nn

from isthmus.geometry.chamfer import chamfer
from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.geometry.knn import knn
from isthmus.models.dgcnn import DGCNN
from isthmus.models.layers import PointLayer, PooledPointLayer
from isthmus.models.pointnet import PointNet


def clouds(count: int, size: int) -> Tensor:
    """Random clouds of which the farthest point lies on the unit sphere."""
    points = torch.randn(count, size, 3, generator=torch.Generator().manual_seed(0))
    points -= points.mean(dim=1, keepdim=True)
    return points / points.norm(dim=-1).amax(dim=1)[:, None, None]


def training_step(encoder: nn.Module, points: Tensor, *, bf16: bool = False) -> Step:
    """One forward and backward pass, with gradients for every parameter."""

    def step() -> None:
        encoder.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            local, pooled = encoder(points)
        (local.float().square().mean() + pooled.float().square().mean()).backward()

    return step


class UsualOrder(PooledPointLayer):
    """Normalise and activate all points, then take the maximum: what PooledPointLayer avoids."""

    def forward(self, features: Tensor) -> Tensor:
        """The maximum of the layer's output over each cloud."""
        return PointLayer.forward(self, features).amax(dim=1)


def in_usual_order(encoder: nn.Module) -> nn.Module:
    """The same network with every pooled layer in the usual order."""
    for module in encoder.modules():
        if isinstance(module, PooledPointLayer):
            module.__class__ = UsualOrder
    return encoder


def compiled(encoder: nn.Module) -> nn.Module:
    """The same network through ``torch.compile``, in place."""
    encoder.compile()
    return encoder


def broadcast_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """The dense form: a (B, N, M, 3) tensor."""
    square = (a[:, :, None] - b[:, None]).square().sum(dim=-1)
    return square.amin(dim=2).mean(dim=1) + square.amin(dim=1).mean(dim=1)


def chamfer_step(distance: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """Value and gradient for 16 pairs of clouds of 1024 points."""
    a, b = clouds(32, 1024).chunk(2)
    a.requires_grad_()
    return lambda: torch.autograd.grad(distance(a, b).sum(), a)


def cdist_knn(points: Tensor, k: int) -> Tensor:
    """Neighbours from the whole distance matrix."""
    return torch.cdist(points, points).topk(k, dim=-1, largest=False).indices


def loop_order(points: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point sampling as usually written: NumPy, one cloud after the other."""
    order = np.empty((len(points), count), dtype=np.int64)
    for cloud, found in zip(points, order, strict=True):
        nearest = np.full(len(cloud), np.inf, dtype=np.float32)
        taken = int(np.square(cloud - cloud.mean(axis=0)).sum(axis=1).argmax())
        for step in range(count):
            found[step] = taken
            nearest = np.minimum(nearest, np.square(cloud - cloud[taken]).sum(axis=1))
            taken = int(nearest.argmax())
    return order


def _dgcnn(**options: Any) -> DGCNN:
    torch.manual_seed(0)
    return DGCNN(k=20, **options)


def _pointnet() -> PointNet:
    torch.manual_seed(0)
    return PointNet()


# What runs on each side, by name, so that a fresh process can be told which one to measure.
SIDES: dict[str, Callable[[], Step]] = {
    "dgcnn split": lambda: training_step(_dgcnn(), clouds(16, 1024)),
    "dgcnn textbook": lambda: training_step(_dgcnn(edge_form="plain"), clouds(16, 1024)),
    "dgcnn split bf16": lambda: training_step(_dgcnn(), clouds(16, 1024), bf16=True),
    "dgcnn split compiled": lambda: training_step(compiled(_dgcnn()), clouds(16, 1024)),
    "pointnet": lambda: training_step(_pointnet(), clouds(32, 1024)),
    "pointnet usual order": lambda: training_step(in_usual_order(_pointnet()), clouds(32, 1024)),
    "pointnet bf16": lambda: training_step(_pointnet(), clouds(32, 1024), bf16=True),
    "pointnet compiled": lambda: training_step(compiled(_pointnet()), clouds(32, 1024)),
    "knn": lambda: partial(knn, clouds(16, 1024), 20),
    "knn cdist": lambda: partial(cdist_knn, clouds(16, 1024), 20),
    "chamfer": lambda: chamfer_step(chamfer),
    "chamfer broadcast": lambda: chamfer_step(broadcast_chamfer),
    "fps": lambda: partial(farthest_point_order, clouds(64, 2048), 1024),
    "fps loop": lambda: partial(loop_order, clouds(64, 2048).numpy(), 1024),
}


compare = partial(timing.compare, SIDES, __file__)


def dgcnn() -> list[Row]:
    """Split edge convolutions against the textbook's, forward and backward, 16 x 1024 points, k = 20."""
    return [compare("DGCNN, split against textbook", "dgcnn split", "dgcnn textbook", rounds=4)]


def dgcnn_options() -> list[Row]:
    """What bf16 autocast and torch.compile add to our own eager float32 network."""
    return [
        compare("DGCNN, bf16 against float32", "dgcnn split bf16", "dgcnn split", rounds=4),
        compare(
            "DGCNN, compiled against eager",
            "dgcnn split compiled",
            "dgcnn split",
            rounds=4,
            note="memory of the compiled side includes the compiler's; ",
        ),
    ]


def pointnet() -> list[Row]:
    """Maximum before BatchNorm against the usual order, forward and backward, 32 x 1024 points."""
    return [compare("PointNet, maximum first against usual order", "pointnet", "pointnet usual order", rounds=6)]


def pointnet_options() -> list[Row]:
    """What bf16 autocast and torch.compile add to our own eager float32 network."""
    return [
        compare("PointNet, bf16 against float32", "pointnet bf16", "pointnet", rounds=6),
        compare(
            "PointNet, compiled against eager",
            "pointnet compiled",
            "pointnet",
            rounds=6,
            note="memory of the compiled side includes the compiler's; ",
        ),
    ]


def neighbours() -> list[Row]:
    """20 neighbours in 3-D, 16 x 1024 points."""
    return [compare("kNN in 3-D against cdist and topk", "knn", "knn cdist", rounds=15)]


def chamfer_distance() -> list[Row]:
    """Value and gradient, 16 x 1024 points."""
    return [compare("Chamfer against broadcast", "chamfer", "chamfer broadcast", rounds=8)]


def farthest_points() -> list[Row]:
    """1024 of 2048 points, 64 clouds."""
    return [compare("Farthest points against a loop over clouds", "fps", "fps loop", rounds=2)]


BENCHMARKS = (neighbours, chamfer_distance, farthest_points, pointnet, pointnet_options, dgcnn, dgcnn_options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
    else:
        chosen = [benchmark for benchmark in BENCHMARKS if not sys.argv[1:] or benchmark.__name__ in sys.argv[1:]]
        sys.stdout.write(json.dumps([row for benchmark in chosen for row in benchmark()], indent=1) + "\n")
