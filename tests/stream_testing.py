"""Tiny streams, batches of points made by hand, every method on frames: what tests of LiDAR and camera share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dense_testing import total
from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.class_statistics import ClassShares
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.weighted import Loss
from isthmus.methods.adapt_segnet import AdaptSegNet
from isthmus.methods.clan import CLAN
from isthmus.methods.coral import Coral
from isthmus.methods.cross_modal import LABEL, CrossModal
from isthmus.methods.cycada import CyCADA
from isthmus.methods.dscml import ALIGNED, DsCML, game_name
from isthmus.methods.fcns_in_the_wild import FCNsInTheWild
from isthmus.methods.min_entropy import MinEntropy
from isthmus.methods.xmuda import XMUDA
from isthmus.models.deformable_patch import DeformablePatch
from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator
from isthmus.models.two_streams import TwoStreams

CLASSES = ("road", "car", "tree", "wall")
HEIGHT, WIDTH = 7, 9
IMAGE_CHANNELS, POINT_CHANNELS = 6, 5
WEIGHTS = torch.tensor([1.0, 2.5, 0.5, 4.0])
STREAMS = ("2D", "3D")
PROGRESS = Progress(3, 0, 4, 10)


class Points(nn.Module):
    """A feature for every point, zero for absent ones, whose coordinates are never read."""

    def __init__(self, out_channels: int = POINT_CHANNELS) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.layer = nn.Linear(3, out_channels)

    def forward(self, points: Tensor, present: Tensor) -> Tensor:
        there = present[..., None]
        return torch.where(there, torch.tanh(self.layer(torch.where(there, points, 0.0))), 0.0)


def network(streams: tuple[str, ...] = STREAMS, **options: Any) -> TwoStreams:
    """One layer for each stream."""
    torch.manual_seed(0)
    image = nn.Conv2d(3, IMAGE_CHANNELS, 3, padding=1) if "2D" in streams else None
    return TwoStreams(len(CLASSES), image, Points() if "3D" in streams else None, **options)


def moved_patch(size: int = 3, strength: float = 0.3) -> DeformablePatch:
    """A patch whose offsets are far from zero."""
    torch.manual_seed(7)
    patch = DeformablePatch(IMAGE_CHANNELS, size)
    assert patch.offset is not None and patch.offset.bias is not None
    nn.init.normal_(patch.offset.weight, std=strength)
    nn.init.normal_(patch.offset.bias, std=strength)
    return patch


def batch(
    domain: str = "source",
    counts: tuple[int, ...] = (11, 0, 6, 9),
    *,
    labels: tuple[str, ...] = (LABEL,),
    unlabelled: tuple[int, ...] = (),
    seed: int = 0,
) -> Batch:
    """Frames of so many points, padded to the longest; a fifth of the points, and all of some frames, lack labels."""
    generator = torch.Generator().manual_seed(seed + len(domain))
    size, longest = len(counts), max(counts)
    there = torch.arange(longest) < torch.tensor(counts)[:, None]
    inputs = {
        "points": torch.where(there[..., None], torch.randn(size, longest, 3, generator=generator), 0.0),
        "present_points": there,
        "pixels": torch.rand(size, longest, 2, generator=generator) * torch.tensor([HEIGHT, WIDTH]) * there[..., None],
        "image": torch.rand(size, 3, HEIGHT, WIDTH, generator=generator),
    }
    found, valid, present = {}, {}, {}
    for name in labels:
        known = there & (torch.rand(size, longest, generator=generator) > 0.2)
        known[list(unlabelled)] = False
        label = torch.randint(0, len(CLASSES), (size, longest), generator=generator)
        found[name] = torch.where(known, label, 0)[:, None]
        valid[name] = known[:, None]
        present[name] = known.any(dim=1)
    return Batch(domain, inputs, found, present, torch.arange(size), valid)


def pair(**options: Any) -> dict[str, Batch]:
    """A labelled source and a target without labels; sweeps of different lengths, one frame without a point in each."""
    return {"source": batch("source", **options), "target": batch("target", (5, 12, 0), labels=(), **options)}


def poisoned(batch: Batch) -> Batch:
    """The same where absent points hold what would spoil everything that reads them."""
    absent = ~batch.inputs["present_points"]
    inputs = {name: values.clone() for name, values in batch.inputs.items()}
    for name in ("points", "pixels"):
        inputs[name][absent] = torch.nan
    labels = {name: torch.where(batch.valid[name], label, 999) for name, label in batch.labels.items()}
    return replace(batch, inputs=inputs, labels=labels)


def longer(batch: Batch, more: int = 4) -> Batch:
    """The same, padded with more absent points."""
    grown = {
        name: torch.cat([values, values.new_zeros(len(values), more, *values.shape[2:])], dim=1)
        for name, values in batch.inputs.items()
        if name != "image"
    }

    def wide(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(len(values), 1, more)], dim=2)

    return replace(
        batch,
        inputs={**batch.inputs, **grown},
        labels={name: wide(label) for name, label in batch.labels.items()},
        valid={name: wide(mask) for name, mask in batch.valid.items()},
    )


def rows(batch: Batch, chosen: list[int]) -> Batch:
    """Some of the frames."""
    return Batch(
        batch.domain,
        *({name: values[chosen] for name, values in each.items()} for each in (batch.inputs, batch.labels)),
        {name: values[chosen] for name, values in batch.present.items()},
        batch.sample_id[chosen],
        {name: values[chosen] for name, values in batch.valid.items()},
    )


def adversaries(
    names: tuple[str, ...], channels: int | dict[str, int], *, kind: str = "points", **options: Any
) -> dict[str, PointAdversary]:
    """A small game for each name."""
    settings = {"game": "non-saturating", "weight": 0.3, **options}
    made = {}
    for index, name in enumerate(names):
        torch.manual_seed(20 + index)
        width = channels if isinstance(channels, int) else channels[name]
        judge = ChunkDiscriminator(width, chunks=3) if kind == "chunks" else PointDiscriminator(width, hidden=(6,))
        made[name] = PointAdversary(name, judge, **settings)
    return made


def shares() -> ClassShares:
    """Bounds of three classes that predictions of a fresh network leave; the last one was never shown."""
    nan = float("nan")
    return ClassShares(*(torch.tensor([*row, nan]) for row in ([0.3, 0.0, 0.02], [0.4, 0.05, 0.1], [0.6, 0.1, 0.2])))


def cmal(
    alignment: str = "crossed", *, patch: DeformablePatch | None = None, kind: str = "points", **options: Any
) -> DsCML:
    """DsCML with CMAL's games."""
    names = tuple(game_name(*each) for each in ALIGNED[alignment])
    games = {key: options.pop(key) for key in ("game", "weight") if key in options}
    made = adversaries(names, len(CLASSES), kind=kind, **games)
    streams = network(patch=patch or moved_patch(), mimicry=True)
    return DsCML(streams, CLASSES, made, alignment=alignment, class_weights=WEIGHTS, **options)


def method(name: str, streams: tuple[str, ...] = STREAMS) -> CrossModal:
    """A row of the tables."""
    given = {"class_weights": WEIGHTS}
    features = {"2D": IMAGE_CHANNELS, "3D": POINT_CHANNELS}
    match name:
        case "source-only":
            return CrossModal(network(streams), CLASSES, **given)
        case "min-entropy":
            return MinEntropy(network(streams), CLASSES, weight=0.7, **given)
        case "deep-coral" | "log-coral":
            return Coral(network(streams), CLASSES, form=name.split("-")[0], weight=0.7, **given)
        case "adapt-segnet":
            return AdaptSegNet(network(streams), CLASSES, adversaries(streams, len(CLASSES)), **given)
        case "cycada":
            return CyCADA(network(streams), CLASSES, adversaries(streams, features), **given)
        case "fcns-in-the-wild":
            games = adversaries(streams, features)
            return FCNsInTheWild(network(streams), CLASSES, games, shares=shares(), constraint=0.7, **given)
        case "clan":
            games = adversaries(streams, len(CLASSES))
            return CLAN(network(streams, mimicry=True), CLASSES, games, local=10.0, discrepancy=0.01, **given)
        case "xmuda":
            return XMUDA(network(mimicry=True), CLASSES, source_weight=0.9, target_weight=0.2, **given)
        case "cml" | "dscml":
            patch = moved_patch() if name == "dscml" else None
            return DsCML(network(mimicry=True, patch=patch), CLASSES, source_weight=0.9, target_weight=0.2, **given)
        case "cmal" | "cmal-literal":
            return cmal(game="literal" if name == "cmal-literal" else "non-saturating")
        case "cmal-chunks":
            return cmal("both", kind="chunks")
    raise KeyError(name)


ONE_STREAM = (
    "source-only", "min-entropy", "deep-coral", "log-coral", "adapt-segnet", "cycada", "fcns-in-the-wild", "clan",
)  # fmt: skip
METHODS = (*ONE_STREAM, "xmuda", "cml", "dscml", "cmal", "cmal-literal", "cmal-chunks")


def step(model: CrossModal, batches: dict[str, Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Mean losses and all gradients of a step."""
    model.zero_grad()
    losses = model(batches, PROGRESS)
    total(losses).backward()
    means = {name: float(loss.sum / loss.weight) if loss.weight > 0 else float("nan") for name, loss in losses.items()}
    return means, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(one: tuple, other: tuple, **tolerance: float) -> None:
    assert one[0].keys() == other[0].keys() and one[1].keys() == other[1].keys()
    torch.testing.assert_close(one[0], other[0], equal_nan=True, **tolerance)
    torch.testing.assert_close(one[1], other[1], **tolerance)


def distributions(logits: Tensor, present: Tensor) -> list[list[Tensor]]:
    """Probabilities of the points, frame by frame and point by point. Shape: ``(B, K, 1, N)``."""
    return [
        [torch.exp(frame[:, 0, n]) / torch.exp(frame[:, 0, n]).sum() for n in range(frame.shape[2]) if there[n]]
        for frame, there in zip(logits, present)
    ]


def divergence(teacher: Tensor, student: Tensor) -> float:
    """KL(teacher || student), class by class."""
    return sum(float(p) * (math.log(p) - math.log(q)) for p, q in zip(teacher.tolist(), student.tolist()))


def mean_divergence(teachers: list[list[Tensor]], students: list[list[Tensor]]) -> float:
    """The mean over the points of each frame, then over frames that have a point."""
    frames = [
        sum(divergence(p, q) for p, q in zip(ps, qs, strict=True)) / len(ps)
        for ps, qs in zip(teachers, students, strict=True)
        if ps
    ]
    return sum(frames) / len(frames)


def mean(loss: Loss) -> float:
    """The mean over the samples that a loss counts."""
    return float((loss.sum / loss.weight).detach())


def touched(model: nn.Module, loss: Tensor) -> set[str]:
    """Modules of parameters to which a loss has a gradient that is not zero."""
    names, parameters = zip(*model.named_parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    some = {name for name, gradient in zip(names, found) if gradient is not None and gradient.any()}
    return {name.rsplit(".", 1)[0].split(".layer")[0] for name in some}
