"""The sparse U-Net of the cross-modal methods: a step, and its kernel maps, against other ways on the CPU.

The batch is four frames of a simulated spinning LiDAR, together 20,000 voxels of 5 cm, with 2 to 9 occupied neighbours
from the finest level to the coarsest, as in a sweep of nuScenes. A step is forward and backward with gradients for all
parameters, and includes voxels and maps.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from itertools import product

import numpy as np
import torch
from timing import Row, Step, compare, measure_peak
from torch import Tensor

from isthmus.geometry.voxels import keys_of, unique_cells, voxelise
from isthmus.models.sparse_conv import Convolve, SparseLevel, torch_levels
from isthmus.models.sparse_unet import SparseUNet

FRAMES, VOXELS, SIZE = 4, 5000, 0.05


def frame(seed: int) -> Tensor:
    """Points (5000, 3) on a street with 60 boxes, one in each voxel, that 48 beams see within 40 degrees ahead."""
    rng = np.random.default_rng(seed)
    azimuth, elevation = np.meshgrid(np.radians(np.linspace(-40, 40, 700)), np.radians(np.linspace(-24, 4, 48)))
    rays = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3)
    distance = np.where(rays[:, 2] < -1e-3, -1.8 / np.minimum(rays[:, 2], -1e-3), np.inf)
    for _ in range(60):
        half = rng.uniform([0.3, 0.3, 0.5], [2.5, 2.5, 2.0])
        middle = np.array([rng.uniform(4, 45), rng.uniform(-25, 25), half[2] - 1.8])
        with np.errstate(divide="ignore"):
            sides = np.sort(np.stack([(middle - half) / rays, (middle + half) / rays]), axis=0)
        near, far = sides[0].max(axis=1), sides[1].min(axis=1)
        distance = np.where((near < far) & (near > 0), np.minimum(distance, near), distance)
    seen = distance < 50
    points = rays[seen] * (distance[seen] + rng.normal(scale=0.02, size=seen.sum()))[:, None]
    cells = np.unique(np.floor(points / SIZE), axis=0)
    return torch.from_numpy((rng.permutation(cells)[:VOXELS] + 0.5) * SIZE).float()


def batch() -> tuple[Tensor, Tensor]:
    """Points (4, 5000, 3) and that all are present."""
    points = torch.stack([frame(seed) for seed in range(FRAMES)])
    return points, torch.ones(points.shape[:2], dtype=torch.bool)


def training_step(backend: str) -> Step:
    """One forward and backward pass of the network of the papers."""
    torch.manual_seed(0)
    chosen = {"plain": plain_levels}.get(backend, backend)
    network, data = SparseUNet(backend=chosen), batch()  # type: ignore[arg-type]

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(*data).square().mean().backward()

    return step


def maps_step(levels: object) -> Step:
    """All maps of seven levels."""
    coordinates = voxelise(*batch(), SIZE).coordinates
    return partial(levels, coordinates, 7)  # type: ignore[arg-type]


def plain_pairs(read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ``read`` that hold the wanted cells ``written`` (V, 4), and which of these were found."""
    both = keys_of(torch.cat([read, written]))[0]
    keys, wanted = both[: len(read)], both[len(read) :]
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    found = keys[at] == wanted
    return at[found], found.nonzero().squeeze(1)


def plain_same(coordinates: Tensor) -> list[tuple[Tensor, Tensor]]:
    """One search for each of the 27 neighbours."""
    steps = product((-1, 0, 1), repeat=3)
    return [plain_pairs(coordinates, coordinates + torch.tensor([0, *step])) for step in steps]


def plain_down(coordinates: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The next level, and one search for each of the 8 children."""
    coarse = unique_cells(coordinates >> torch.tensor([0, 1, 1, 1]))[0]
    corner = coarse * torch.tensor([1, 2, 2, 2])
    return coarse, [plain_pairs(coordinates, corner + torch.tensor([0, *c])) for c in product((0, 1), repeat=3)]


def plain_levels(coordinates: Tensor, levels: int) -> list[SparseLevel]:
    """The usual way in plain PyTorch: a search for each offset, gather, product and ``index_add`` for each weight."""
    found = []
    for level in range(levels):
        same = plain(plain_same(coordinates), len(coordinates))
        if level == levels - 1:
            return [*found, SparseLevel(same, None, None)]
        coarse, pairs = plain_down(coordinates)
        up = plain([(written, read) for read, written in pairs], len(coordinates))
        found.append(SparseLevel(same, plain(pairs, len(coarse)), up))
        coordinates = coarse
    return found


def plain(pairs: list[tuple[Tensor, Tensor]], rows: int) -> Convolve:
    """Autograd does the rest."""

    def convolve(features: Tensor, weight: Tensor) -> Tensor:
        out = features.new_zeros(rows, weight.shape[2])
        for (read, written), kernel in zip(pairs, weight, strict=True):
            out = out.index_add(0, written, features[read] @ kernel)
        return out

    return convolve


SIDES = {
    "ours": partial(training_step, "torch"),
    "plain": partial(training_step, "plain"),
    "spconv": partial(training_step, "spconv"),
    "maps": partial(maps_step, torch_levels),
    "plain maps": partial(maps_step, plain_levels),
}


def sparse_unet() -> list[Row]:
    """Sparse U-Net, m = 16, seven levels, forward and backward, 20,000 voxels; spconv where it is installed."""
    rows = [
        compare(SIDES, __file__, "sparse U-Net against plain index_add", "ours", "plain", rounds=10),
        compare(SIDES, __file__, "kernel maps against a search for each offset", "maps", "plain maps", rounds=20),
    ]
    if find_spec("spconv"):
        note = "spconv's CPU build, made to go backward; "
        rows.append(compare(SIDES, __file__, "sparse U-Net against spconv", "ours", "spconv", rounds=20, note=note))
    return rows


BENCHMARKS = (sparse_unet,)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
