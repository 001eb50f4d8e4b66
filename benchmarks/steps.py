"""What a gate costs: a training step of SM-DSB against the same step of its host.

The host is DefRec on both domains; batches of 32 clouds of 1,024 points per domain; keep 0.7. ``ratio`` is host over
gated, so 1.0 is free and more is a gain; in stage 1 the source is gated, in stage 2 both domains. A step is forward,
backward and optimiser.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timing import Row, Step, compare, measure_peak
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.skewness import SkewnessGate
from isthmus.methods.self_supervised import GatingOptions, SelfSupervised
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn import DGCNN
from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.defrec import DefRec
from isthmus.tasks.classification import Classification

BATCH, POINTS, CLASSES = 32, 1024, 10


def batch(domain: str, labelled: bool) -> Batch:
    """Random clouds; labels present or not."""
    points = torch.randn(BATCH, POINTS, 3, generator=torch.Generator().manual_seed(int(domain == "target")))
    points = points / points.norm(dim=-1).amax(dim=1)[:, None, None]
    return Batch(
        domain,
        {"points": points},
        {"class": torch.arange(BATCH) % CLASSES},
        {"class": torch.full((BATCH,), labelled)},
        torch.arange(BATCH),
    )


def method(network: str, gated: bool, **options: Any) -> SelfSupervised:
    """The host, or the host with the gate."""
    torch.manual_seed(0)
    encoder: nn.Module = PointNet() if network == "pointnet" else DGCNN()
    head = ClassificationHead(encoder.pooled_channels, CLASSES, slope=0.0)
    pretext = DefRec(PointReconstructionHead(encoder.local_channels, encoder.pooled_channels))
    mixup = options.pop("mixup", False)
    return SelfSupervised(
        PointClassifier(encoder, head),
        Classification(tuple(map(str, range(CLASSES)))),
        pretext,
        mixup=mixup,
        gate=SkewnessGate(0.7) if gated else None,
        gating=GatingOptions(**options),
    )


def step(network: str, stage: int, gated: bool, naive: bool = False, **options: Any) -> Step:
    """A training step of one stage; ``naive`` takes the saliency in a second training-mode pass and drops nothing."""
    model = method(network, gated and not naive, **options).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    batches = {"source": batch("source", True), "target": batch("target", stage == 2)}
    progress = Progress(0, 0, 0, 10)

    def run() -> None:
        if naive:
            for each in batches.values():
                if each.present["class"].any():
                    leaf = each.inputs["points"].clone().requires_grad_()
                    model.task.loss(model.network(leaf), each.labels["class"]).sum().backward()
                    SkewnessGate(0.7)(leaf, leaf.grad)
            optimizer.zero_grad()
        losses = model(batches, progress)
        sum(loss.coefficient * loss.sum / loss.weight.clamp(min=1) for loss in losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _sides() -> dict[str, Callable[[], Step]]:
    sides: dict[str, Callable[[], Step]] = {}
    for network in ("pointnet", "dgcnn"):
        for stage in (1, 2):
            make = partial(step, network, stage)
            sides[f"{network} {stage} host"] = partial(make, False)
            sides[f"{network} {stage} coupled"] = partial(make, True)
    for stage in (1, 2):
        make = partial(step, "pointnet", stage)
        sides[f"pointnet {stage} eval"] = partial(make, True, saliency="eval")
        sides[f"pointnet {stage} drop=loss"] = partial(make, True, drop="loss")
        sides[f"pointnet {stage} naive"] = partial(make, True, naive=True)
        sides[f"pointnet {stage} pcm host"] = partial(make, False, mixup=True)
        sides[f"pointnet {stage} pcm clean coupled"] = partial(make, True, mixup=True)
        sides[f"pointnet {stage} pcm clean eval"] = partial(make, True, mixup=True, saliency="eval")
        sides[f"pointnet {stage} pcm mixed coupled"] = partial(make, True, mixup=True, saliency_view="mixed")
    return sides


SIDES = _sides()


def pointnet_steps() -> Iterator[Row]:
    """The promise, on PointNet: coupled saliency, dropped forward passes."""
    return _gated_steps("pointnet", rounds=9)


def dgcnn_steps() -> Iterator[Row]:
    """The promise, on DGCNN."""
    return _gated_steps("dgcnn", rounds=7)


def _gated_steps(network: str, rounds: int) -> Iterator[Row]:
    for stage, bound in ((1, "1.00"), (2, "0.92")):
        host, ours = f"{network} {stage} host", f"{network} {stage} coupled"
        row = compare(SIDES, __file__, f"SM-DSB step, {network}, stage {stage}", ours, host, rounds=rounds)
        cost = row["ours_s"] / row["reference_s"]
        yield {**row, "note": f"costs {cost:.2f} of the host, promised at most {bound}; {row['note']}"}


def other_ways() -> Iterator[Row]:
    """What the other options cost, on PointNet."""
    for stage in (1, 2):
        for option in ("eval", "drop=loss", "naive", "pcm clean coupled", "pcm clean eval", "pcm mixed coupled"):
            host = f"pointnet {stage} " + ("pcm host" if option.startswith("pcm") else "host")
            name = f"SM-DSB step, pointnet, stage {stage}, {option}"
            row = compare(SIDES, __file__, name, f"pointnet {stage} {option}", host, rounds=4)
            yield {**row, "note": f"costs {row['ours_s'] / row['reference_s']:.2f} of the host; {row['note']}"}


BENCHMARKS = (pointnet_steps, dgcnn_steps, other_ways)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
    else:
        sys.stdout.write(json.dumps([row for benchmark in BENCHMARKS for row in benchmark()], indent=1) + "\n")
