"""What anchor tasks cost: a step of HeadFreeze's second stage against one that trains everything, and adversaries."""

from __future__ import annotations

import sys
from functools import partial

import torch
from timing import Row, Step, compare, measure_peak
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.adversary import Adversary
from isthmus.losses.weighted import Loss
from isthmus.methods.adversarial import Adversarial, Tap
from isthmus.methods.multi_task import MultiTask
from isthmus.models.patch_discriminator import PatchDiscriminator
from isthmus.models.resnet_fpn import ResNetFPN
from isthmus.tasks.build_dense import dense_task
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.build import tap_channels
from isthmus.training.optimisation import build_optimizers, freeze, training_mode
from isthmus.training.recipe import StageSpec

HEIGHT, WIDTH, BATCH = 60, 80, 8
CLASSES = tuple(f"class{i}" for i in range(13))
PROGRESS = Progress(0, 0, 9, 10)

ADVERSARIES = {
    "dann layer4": (Tap("layer4"),),
    "output normals": (Tap("output/normals"),),
    "advent segmentation": (Tap("output/segmentation", self_information=True),),
    "multilevel": (Tap("output/normals"), Tap("layer4/normals")),
}


def tasks() -> dict[str, DenseTask]:
    """Main and anchor task of simulated rooms."""
    return {"normals": dense_task("normals", ()), "segmentation": dense_task("segmentation", CLASSES)}


def batches() -> dict[str, Batch]:
    """Random images: the source has both labels, the target those of the anchor."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for first, domain in ((0, "source"), (100, "target")):
        labels = {
            "normals": nn.functional.normalize(torch.randn(BATCH, 3, HEIGHT, WIDTH, generator=generator), dim=1),
            "segmentation": torch.randint(13, (BATCH, HEIGHT, WIDTH), generator=generator),
        }
        found[domain] = Batch(
            domain,
            {"image": torch.rand(BATCH, 3, HEIGHT, WIDTH, generator=generator)},
            labels,
            {name: torch.full((BATCH,), domain == "source" or name == "segmentation") for name in labels},
            torch.arange(BATCH) + first,
            {name: torch.ones(BATCH, HEIGHT, WIDTH, dtype=torch.bool) for name in labels},
        )
    return found


def _total(losses: dict[str, Loss]) -> Tensor:
    return sum(loss.coefficient * loss.sum / loss.weight.clamp(min=1) for loss in losses.values())  # type: ignore


def training(taps: tuple[Tap, ...] = (), frozen_after: str | None = None) -> Step:
    """A step of TADA's Eq. 6 by a ResNet-18 of half the width, 8 + 8 images of 60 x 80, Adam and SGD as in recipes."""
    torch.manual_seed(0)
    kinds, data = tasks(), batches()
    network = ResNetFPN({name: t.channels for name, t in kinds.items()}, layers=18, width=0.5, decoder_channels=64)
    if taps:
        channels = tap_channels(network)
        games = []
        for tap in taps:
            seen = kinds[tap.task].channels if tap.task else channels[tap.part]
            game = "non-saturating" if tap.task else "reversal"
            games.append((tap, Adversary(tap.name, PatchDiscriminator(seen), game=game, weight=0.01)))
        method: MultiTask = Adversarial(network, kinds, games, channels, reduction="sum", joint_batches=True)
    else:
        method = MultiTask(network, kinds, reduction="sum", joint_batches=True)
    optimizers = {"adversaries": "sgd"} if taps else {}
    stage = StageSpec(optimizers=optimizers, frozen_after=frozen_after, weight_decay=0.0)
    freeze(method, stage)
    training_mode(method, stage)
    chosen = build_optimizers(method, stage)

    def run() -> None:
        _total(method(data, PROGRESS)).backward()
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()

    return run


def operations(step: Step) -> int:
    """Floating-point operations of a step, without those that are not matrix products or convolutions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def _sides() -> dict:
    sides: dict = {"everything": training, "frozen behind up2": partial(training, (), "up2")}
    sides["frozen behind layer4"] = partial(training, (), "layer4")
    return sides | {name: partial(training, taps) for name, taps in ADVERSARIES.items()}


def headfreeze() -> list[Row]:
    """A step with what lies behind a boundary frozen against one that trains everything: same losses, same batches."""
    sides, rows = _sides(), []
    everything = operations(sides["everything"]())
    for name in ("frozen behind up2", "frozen behind layer4"):
        share = operations(sides[name]()) / everything
        note = f"{1 - share:.1%} fewer operations in convolutions; "
        rows.append(compare(sides, __file__, f"step, {name}", name, "everything", rounds=20, note=note))
    return rows


def adversaries() -> list[Row]:
    """A step with an adversary (5 layers, without noise) against the same step without."""
    return [compare(_sides(), __file__, f"step, {name}", name, "everything", rounds=10) for name in ADVERSARIES]


BENCHMARKS = (headfreeze, adversaries)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    sys.stdout.write(f"{measure_peak(_sides()[sys.argv[2]])}\n")
