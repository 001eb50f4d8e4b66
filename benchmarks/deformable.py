"""DsCML's pooling at the points against pooling the whole map, and against a copy of the map for each tap.

Forward and backward, with gradients for the map and, where there are offsets, for their convolution. ``small`` is the
setting of the tables on simulated streets, ``papers`` that of DsCML on nuScenes with two frames, or one where the other
side takes gigabytes. Offsets are drawn at random, of about a pixel. Every row also says how far pools and gradients of
the two sides lie apart, as a share of the largest value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timing import Row, compare, measure_peak
from torch import Tensor, nn

from isthmus.geometry.pixels import containing_pixels
from isthmus.models.deformable_patch import DeformablePatch

SIZE = 5


class Setting(NamedTuple):
    """Frames, channels, height and width of their maps, and points of each."""

    frames: int
    channels: int
    height: int
    width: int
    points: int


SETTINGS = {
    "small": Setting(2, 16, 64, 112, 1550),
    "papers": Setting(2, 64, 225, 400, 7000),
    "papers, one frame": Setting(1, 64, 225, 400, 7000),
}

Pool = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
Measured = Callable[[], tuple[Tensor, ...]]


def at_points(maps: Tensor, pixels: Tensor, present: Tensor) -> Tensor:
    """The pixels that contain the points. Shape: (B, C, H, W) to (B, N, C)."""
    row, column = containing_pixels(pixels, present, (maps.shape[2], maps.shape[3]))
    return maps.permute(0, 2, 3, 1)[torch.arange(len(maps))[:, None], row, column]


def pooled_everywhere(features: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """The form that was released: three pools of the whole map, sampled at the points."""
    maximum, minimum = (sign * F.max_pool2d(sign * features, SIZE, 1, SIZE // 2) for sign in (1, -1))
    mean = F.avg_pool2d(features, SIZE, 1, SIZE // 2)
    return tuple(at_points(each, pixels, present) for each in (maximum, minimum, mean))


def of_copies(copies: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """Maximum, minimum and mean over taps (B, C, 25, H, W), sampled at the points."""
    pools = copies.max(dim=2).values, copies.min(dim=2).values, copies.mean(dim=2)
    return tuple(at_points(each, pixels, present) for each in pools)


def copied_square(features: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """A copy of the map for each tap of the square patch."""
    padded = F.pad(features, [SIZE // 2] * 4, mode="replicate")
    copies = F.unfold(padded, SIZE).unflatten(1, (features.shape[1], -1)).unflatten(3, features.shape[2:])
    return of_copies(copies, pixels, present)


def copied_deformed(offset: nn.Conv2d, features: Tensor, pixels: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """A copy of the map for each tap, sampled where the offsets of every pixel say."""
    height, width = features.shape[2:]
    reach = torch.arange(SIZE) - SIZE // 2
    taps = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=2).reshape(SIZE**2, 1, 1, 2)
    centres = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=2)
    offsets = offset(features).unflatten(1, (SIZE**2, 2)).permute(0, 1, 3, 4, 2)
    places = (2 * (centres + taps + offsets) + 1) / torch.tensor([height, width]) - 1
    copies = F.grid_sample(features, places.flip(4).flatten(1, 2), padding_mode="border", align_corners=False)
    return of_copies(copies.unflatten(2, (SIZE**2, height)), pixels, present)


def patch(offsets: str, channels: int, **options: str) -> DeformablePatch:
    """Ours, with offsets of about a pixel if any."""
    torch.manual_seed(1)
    made = DeformablePatch(channels, SIZE, offsets, **options)  # type: ignore[arg-type]
    if made.offset is not None:
        nn.init.normal_(made.offset.weight, std=0.3 / channels**0.5)
    return made


def forms(channels: int) -> dict[str, tuple[Pool, tuple[Tensor, ...]]]:
    """The pools, and which parameters they have gradients for."""
    learned = patch("learned", channels)
    assert learned.offset is not None
    parameters = tuple(learned.parameters())
    return {
        "learned": (learned, parameters),
        "square": (patch("zero", channels), ()),
        "released": (patch("zero", channels, border="zeros"), ()),
        "pooled everywhere": (pooled_everywhere, ()),
        "copied square": (copied_square, ()),
        "copied deformed": (partial(copied_deformed, learned.offset), parameters),
    }


def step(form: str, setting: Setting) -> Measured:
    """Forward and backward; gives pools and gradients."""
    frames, channels, height, width, points = setting
    torch.manual_seed(0)
    features = torch.randn(frames, channels, height, width, requires_grad=True)
    # As seen by a LiDAR: nothing in the upper third.
    pixels = torch.rand(frames, points, 2) * torch.tensor([height * 2 / 3, width]) + torch.tensor([height / 3, 0])
    present = torch.ones(frames, points, dtype=torch.bool)
    pool, parameters = forms(channels)[form]

    def run() -> tuple[Tensor, ...]:
        pools = pool(features, pixels, present)
        slopes = torch.autograd.grad(sum(each.square().sum() for each in pools), (features, *parameters))
        return (*(each.detach() for each in pools), *slopes)

    return run


SIDES = {f"{form}, {name}": partial(step, form, setting) for form in forms(1) for name, setting in SETTINGS.items()}


def apart(ours: str, reference: str) -> float:
    """The largest difference of pools and gradients, as a share of the largest value of each."""
    both = zip(SIDES[ours]()(), SIDES[reference]()(), strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in both)


COMPARED = (
    ("released", "pooled everywhere", "square patch against pools of the whole map"),
    ("square", "copied square", "square patch against 25 copies of the map"),
    ("learned", "copied deformed", "deformed patch against 25 deformed copies"),
)


def deformable_pool() -> list[Row]:
    """5 x 5 patches at projected points, forward and backward, against dense forms; memory as well as time."""
    rows = []
    for form, other, title in COMPARED:
        for name in ("small", "papers" if other == "pooled everywhere" else "papers, one frame"):
            ours, reference = f"{form}, {name}", f"{other}, {name}"
            rounds = 10 if name == "small" else 2
            row = compare(SIDES, __file__, f"{title}, {name}", ours, reference, rounds=rounds)
            frames, channels, height, width, points = SETTINGS[name]
            note = (
                f"{frames} frames of {height} x {width}, {channels} channels, {points} points; memory ratio "
                f"{row['reference_mib'] / row['ours_mib']:.3g}; apart by {apart(ours, reference):.0e}; {row['note']}"
            )
            rows.append({**row, "note": note})
    return rows


BENCHMARKS = (deformable_pool,)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
