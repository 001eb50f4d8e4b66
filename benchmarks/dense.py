"""What dense prediction costs: the consistency term in one pass, layouts and precisions, tasks, the image loader."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from timing import Row, Step, compare, measure_peak
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment
from isthmus.data.image_store import prepare_images
from isthmus.data.image_stream import ImageStream
from isthmus.data.randomness import Progress
from isthmus.data.simulators.rooms import SimulatedRooms
from isthmus.losses.joint_space import cosine_distance, embed_pairs
from isthmus.losses.pairs import Pairs, cross_task_pairs
from isthmus.losses.weighted import Loss
from isthmus.methods.mtpsl import MTPSL
from isthmus.methods.multi_task import MultiTask
from isthmus.models import segnet as segnet_module
from isthmus.models.mapping import MappingNetwork
from isthmus.models.segnet import SegNet
from isthmus.tasks.build_dense import dense_task
from isthmus.tasks.dense import DenseTask

HEIGHT, WIDTH, BATCH = 96, 128, 8
CLASSES = tuple(f"class{i}" for i in range(13))
ORDER = ("segmentation", "depth", "normals", "saliency", "edges")
PROGRESS = Progress(0, 0, 0, 10)


def tasks(count: int) -> dict[str, DenseTask]:
    """The first ``count`` tasks."""
    return {name: dense_task(name, CLASSES if name == "segmentation" else ()) for name in ORDER[:count]}


def batch(count: int, height: int = HEIGHT, width: int = WIDTH) -> Batch:
    """Random images, each with the label of one task in turn."""
    generator = torch.Generator().manual_seed(0)
    labels: dict[str, Tensor] = {
        "segmentation": torch.randint(13, (BATCH, height, width), generator=generator),
        "depth": 1 + torch.rand(BATCH, 1, height, width, generator=generator),
        "normals": nn.functional.normalize(torch.randn(BATCH, 3, height, width, generator=generator), dim=1),
        "saliency": torch.randint(2, (BATCH, 1, height, width), generator=generator).float(),
        "edges": torch.randint(2, (BATCH, 1, height, width), generator=generator).float(),
    }
    chosen = {name: labels[name] for name in ORDER[:count]}
    return Batch(
        "source",
        {"image": torch.rand(BATCH, 3, height, width, generator=generator)},
        chosen,
        {name: torch.arange(BATCH) % count == column for column, name in enumerate(chosen)},
        torch.arange(BATCH),
        {name: torch.ones(BATCH, height, width, dtype=torch.bool) for name in chosen},
    )


def _total(losses: dict[str, Loss]) -> Tensor:
    return sum(loss.coefficient * loss.sum / loss.weight.clamp(min=1) for loss in losses.values())  # type: ignore


def consistency(batched: bool) -> Step:
    """The cross-task term of three tasks, forward and backward: in one pass, or image by image as released."""
    torch.manual_seed(0)
    kinds, data = tasks(3), batch(3)
    mapping = MappingNetwork({name: task.channels for name, task in kinds.items()}, codes=6, width=0.25, stages=4)
    outputs = {name: torch.randn(BATCH, task.channels, HEIGHT, WIDTH) for name, task in kinds.items()}
    for output in outputs.values():
        output.requires_grad_()
    pairs = cross_task_pairs(torch.stack(list(data.present.values()), dim=1))

    def run() -> None:
        if batched:
            chunks = [pairs]
        else:
            chunks = [Pairs(*(field[pairs.sample == n] for field in pairs)) for n in pairs.sample.unique()]
        total = torch.zeros(())
        for chunk in chunks:
            first, second = embed_pairs(mapping, kinds, outputs, data, chunk)
            total = total + cosine_distance(first, second, "map").sum()
        total.backward()

    return run


def training(count: int, cross_task: bool, labelled: int = BATCH) -> Step:
    """A training step of a quarter-width SegNet with ``count`` tasks; ``labelled`` images have one label each."""
    torch.manual_seed(0)
    kinds, data = tasks(count), batch(count, 48, 64)
    for present in data.present.values():
        present[labelled:] = False
    channels = {name: task.channels for name, task in kinds.items()}
    network = SegNet(channels, width=0.25, stages=4)
    if cross_task:
        mapping = MappingNetwork(channels, codes=count * (count - 1), width=0.25, stages=4)
        method: MultiTask = MTPSL(network, kinds, mapping, ImageAugment())
    else:
        method = MultiTask(network, kinds)
    optimizer = torch.optim.Adam(method.parameters())

    def run() -> None:
        _total(method({"source": data}, PROGRESS)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def segnet(layout: str, precision: str) -> Step:
    """Forward and backward of a quarter-width SegNet at 8 x 3 x 96 x 128."""
    torch.manual_seed(0)
    network = SegNet({"segmentation": 13, "depth": 1, "normals": 3}, width=0.25, stages=4)
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    network.to(memory_format=memory)
    image = torch.rand(BATCH, 3, HEIGHT, WIDTH).to(memory_format=memory)

    def run() -> None:
        # The network lays its own input out with channels last; the other side has to be kept from it.
        kept = (lambda maps, stages: maps) if layout == "contiguous" else segnet_module.filled_up
        with (
            patch.object(segnet_module, "filled_up", kept),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"),
        ):
            outputs = network(image).outputs
        sum(output.float().mean() for output in outputs.values()).backward()  # type: ignore[union-attr]

    return run


def images(folder: Path) -> Step:
    """One augmented batch of 8 images of 96 x 128 with three tasks from the store."""
    store = prepare_images(SimulatedRooms(train=64, val=0, test=0), folder, None)
    present = {name: np.ones(len(store), dtype=bool) for name in ("segmentation", "depth", "normals")}
    stream = ImageStream("source", store, store.indices("train"), BATCH, ImageAugment(), present)
    position = iter(range(10**9))
    return lambda: stream.batch(PROGRESS, next(position))


def _sides(folder: Path) -> dict:
    sides: dict = {
        "consistency in one pass": partial(consistency, True),
        "consistency image by image": partial(consistency, False),
        "images": partial(images, folder),
    }
    for layout in ("channels_last", "contiguous"):
        for precision in ("float32", "bf16"):
            sides[f"segnet {layout} {precision}"] = partial(segnet, layout, precision)
    for count in (2, 3, 4, 5):
        sides[f"mtpsl {count}"] = partial(training, count, True)
        sides[f"multi-task {count}"] = partial(training, count, False)
    for labelled in (1, 2, 4, 8):
        sides[f"mtpsl 5, {labelled} labelled"] = partial(training, 5, True, labelled)
    return sides


def one_pass() -> list[Row]:
    """All pairs of a batch through the mapping network at once, against one image at a time (BatchNorm over one)."""
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(Path(folder))
        names = ("consistency in one pass", "consistency image by image")
        return [compare(sides, __file__, "consistency term, 3 tasks", *names, rounds=5)]


def layouts() -> list[Row]:
    """Channels-last and bf16 against plain float32, SegNet."""
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(Path(folder))
        plain = "segnet contiguous float32"
        others = [name for name in sides if name.startswith("segnet") and name != plain]
        return [compare(sides, __file__, name, name, plain, rounds=5) for name in others]


def task_growth() -> list[Row]:
    """A step of MTPSL with 2 to 5 tasks against vanilla multi-task learning of the same ones; one label per image."""
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(Path(folder))
        return [
            compare(
                sides,
                __file__,
                f"mtpsl step, {count} tasks ({BATCH * (count - 1)} pairs)",
                f"mtpsl {count}",
                f"multi-task {count}",
                rounds=5,
            )
            for count in (2, 3, 4, 5)
        ]


def pair_growth() -> list[Row]:
    """A step of MTPSL with 5 tasks and 2, 4 or 8 labelled images (4 pairs each) against a single one."""
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(Path(folder))
        least = "mtpsl 5, 1 labelled"
        return [
            compare(sides, __file__, f"mtpsl step, 5 tasks, {4 * n} pairs", f"mtpsl 5, {n} labelled", least, rounds=5)
            for n in (2, 4, 8)
        ]


def image_loading() -> list[Row]:
    """Batches of images from the store against the step of vanilla multi-task learning that consumes them."""
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(Path(folder))
        row = compare(sides, __file__, "image loading against a step", "images", "multi-task 3", rounds=10)
        row["note"] = f"{BATCH / row['ours_s']:.0f} images/s of 96x128; the step is at 48x64; " + row["note"]
        return [row]


BENCHMARKS = (one_pass, layouts, task_growth, pair_growth, image_loading)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(f"{measure_peak(_sides(Path(scratch))[sys.argv[2]])}\n")
