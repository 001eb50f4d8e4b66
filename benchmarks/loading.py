"""How fast batches come out of the prepared store, against the fastest training step that consumes them."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from steps import batch
from timing import THREADS, Row, Step, compare, measure_peak
from torch import nn

from isthmus.data.augment import Augment
from isthmus.data.randomness import Progress
from isthmus.data.simulators.objects import SimulatedObjects
from isthmus.data.store import prepare
from isthmus.data.stream import KnownLabels, Stream
from isthmus.models.classifier import PointClassifier
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet

READER = SimulatedObjects("cad", train=512, val=0, test=0)


def loading(folder: Path) -> Step:
    """One augmented batch of 32 clouds of 1,024 points from the store."""
    store = prepare(READER, folder, 1024)
    labels = KnownLabels(store.labels, store.labels >= 0)
    stream = Stream("source", store, store.indices("train"), 32, 1024, Augment(), {"class": labels})
    position = iter(range(10**9))
    return lambda: stream.batch(Progress(0, 0, 0, 10), next(position))


def consuming() -> Step:
    """The cheapest step there is: source-only, the narrowest network, bf16."""
    torch.manual_seed(0)
    encoder = PointNet(width=0.125, input_transform=False, feature_transform=False)
    model = PointClassifier(encoder, ClassificationHead(encoder.pooled_channels, 10, width=0.125, slope=0.0))
    optimizer = torch.optim.Adam(model.parameters())
    data = batch("source", True)

    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(data.inputs["points"]).float(), data.labels["class"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _sides(folder: Path) -> dict:
    return {"loading": partial(loading, folder), "consuming": consuming}


def store() -> list[Row]:
    """Loading against consuming, and a later epoch against reading everything again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        prepare(READER, folder, 1024)
        prepared = time.perf_counter() - start
        row = compare(
            _sides(folder), __file__, "Store: a batch loaded against consumed", "loading", "consuming", rounds=40
        )
        rate = 32 / row["ours_s"]
        note = (
            f"{rate:.0f} clouds/s loaded and augmented, {32 / row['reference_s']:.0f} consumed at most; {row['note']}"
        )
        epoch = row["ours_s"] * len(READER_PARTS) / 32
        second = {
            "name": "Store: a later epoch against making the data again",
            "ours_s": epoch,
            "reference_s": prepared,
            "ratio": prepared / epoch,
            "ours_mib": row["ours_mib"],
            "reference_mib": None,
            "note": f"512 simulated CAD clouds, one reading; threads: {THREADS}",
        }
    return [{**row, "note": note}, second]


READER_PARTS = range(READER.train)
BENCHMARKS = (store,)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        with tempfile.TemporaryDirectory() as name:
            sys.stdout.write(f"{measure_peak(_sides(Path(name))[sys.argv[2]])}\n")
    else:
        sys.stdout.write(json.dumps([row for benchmark in BENCHMARKS for row in benchmark()], indent=1) + "\n")
