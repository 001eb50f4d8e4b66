"""How fast frames come out of the store: against the step that consumes them, and against pickles with image files.

xMUDA keeps a list of dicts in memory, unpickled at the start, and opens a frame's image file each time. Two data sets:
simulated streets as in the tables (images of 64 x 112 as PNG, so both sides read the very same pixels), and frames of
the sizes of nuScenes (7,000 points, photographs of 900 x 1600 as JPEG, used at 225 x 400: the store resizes them once,
xMUDA at every reading). All files are in the page cache for both sides.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import Row, Step, compare, measure_peak

from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frame_stream import LABEL, FrameStream, read_frames
from isthmus.data.frames import Frame, FrameReader, frames
from isthmus.data.randomness import Progress
from isthmus.data.simulators.lidar_streets import SimulatedLidarStreets
from isthmus.training.frames.build import build_augment, build_method
from isthmus.training.frames.presets import frame_recipes
from isthmus.training.frames.problem import class_counts
from isthmus.training.optimisation import build_optimizers

RECIPE = frame_recipes()["source-only/streets-light"]()
"""The cheapest: both streams of the tables, labels alone, one domain."""

FOLDER = "BENCHMARK_FRAMES"
"""Names the folder with all data in the environment, so that fresh processes find it prepared."""


@dataclass(frozen=True)
class LargeFrames:
    """Random frames of the sizes of nuScenes; images with shapes and grain, which compress like photographs."""

    count: int
    classes: tuple[str, ...] = ("vehicle", "pedestrian", "bike", "traffic_boundary", "background")

    def fingerprint(self) -> dict[str, Any]:
        """The number of frames."""
        return {"reader": "large_frames", "version": 1, "count": self.count}

    def entries(self) -> range:
        """Seeds."""
        return range(self.count)

    def read(self, entry: int) -> Frame:
        """All are for training."""
        rng = np.random.default_rng(entry)
        points = rng.uniform([2, -25, -2], [50, 25, 4], size=(7000, 3)).astype(np.float32)
        pixels = rng.uniform([300, 0], [900, 1600], size=(7000, 2)).astype(np.float32)
        blobs = Image.fromarray(rng.integers(0, 256, (45, 80, 3), dtype=np.uint8))
        image = np.asarray(blobs.resize((1600, 900), Image.Resampling.BICUBIC)) + rng.normal(0, 4, (900, 1600, 1))
        labels = rng.integers(0, len(self.classes), 7000).astype(np.uint8)
        return Frame(points, pixels, image.clip(0, 255).astype(np.uint8), labels, f"{entry:04d}", "train")


READERS: dict[str, tuple[FrameReader, tuple[int, int] | None, str]] = {
    "streets": (SimulatedLidarStreets(domain="day", train=16, val=0, test=0), None, "png"),
    "large": (LargeFrames(12), (225, 400), "jpg"),
}


def folder() -> Path:
    """Where everything lies."""
    return Path(os.environ[FOLDER])


def store(data: str) -> FrameStore:
    """Ours."""
    reader, size, _ = READERS[data]
    return prepare_frames(reader, folder() / "stores", size)


def pickles(data: str) -> Path:
    """xMUDA's form: a pickle of frames, and image files beside it. Written once."""
    reader, _, ending = READERS[data]
    place = folder() / data
    file = place / "train.pkl"
    if file.exists():
        return file
    place.mkdir()
    entries = []
    for frame in frames(reader):
        assert isinstance(frame, Frame) and frame.image is not None
        path = place / f"{frame.name.replace('/', '_')}.{ending}"
        Image.fromarray(frame.image).save(path, quality=90)
        arrays = {"points": frame.points, "seg_labels": frame.labels, "points_img": frame.pixels}
        entries.append({**arrays, "camera_path": path.name})
    file.write_bytes(pickle.dumps(entries))
    return file


def positions(total: int) -> Iterator[np.ndarray]:
    """Rows of a batch, again and again through all frames."""
    for start in count(step=RECIPE.batch_size):
        yield np.arange(start, start + RECIPE.batch_size) % total


def from_store(data: str) -> Step:
    """A batch as it is."""
    opened = store(data)
    rows, labels = positions(len(opened)), {LABEL: opened.labels}
    return lambda: read_frames(opened, next(rows), labels, "source")


def augmented(data: str) -> Step:
    """A batch of training, with everything that training does to it."""
    opened = store(data)
    augment = build_augment(RECIPE.source.augment)
    stream = FrameStream("source", opened, opened.indices("train"), RECIPE.batch_size, augment, {LABEL: opened.labels})
    position = count()
    return lambda: stream.batch(Progress(0, 0, 0, 400), next(position))


def from_pickles(data: str) -> Step:
    """A batch in xMUDA's form: images on top of each other, points one after the other."""
    _, size, _ = READERS[data]
    file = pickles(data)
    entries = pickle.loads(file.read_bytes())  # written by this program
    rows = positions(len(entries))

    def run() -> dict[str, torch.Tensor]:
        chosen = [entries[row] for row in next(rows)]
        images, pixels = [], []
        for entry in chosen:
            image, place = Image.open(file.with_name(entry["camera_path"])), entry["points_img"]
            if size is not None:
                place = place * np.array([size[0] / image.height, size[1] / image.width], np.float32)
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255))
            pixels.append(torch.from_numpy(place))
        return {
            "image": torch.stack(images),
            "pixels": torch.cat(pixels),
            "points": torch.cat([torch.from_numpy(entry["points"]) for entry in chosen]),
            "labels": torch.cat([torch.from_numpy(entry["seg_labels"]).long() for entry in chosen]),
        }

    return run


def consuming(data: str) -> Step:
    """A training step: forward, backward and optimiser."""
    opened = store(data)
    method = build_method(RECIPE, opened.classes, class_counts(opened))
    optimizers = build_optimizers(method, RECIPE.stages[0])
    batch = augmented(data)()

    def run() -> None:
        losses = method({"source": batch}, Progress(0, 0, 0, 400))
        sum(loss.coefficient * loss.sum / loss.weight for loss in losses.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return run


SIDES = {
    f"{side.__name__}, {data}": partial(side, data)
    for side in (from_store, augmented, from_pickles, consuming)
    for data in READERS
}


def check_equal() -> None:
    """Both forms of the streets hold the very same frames."""
    ours, theirs = from_store("streets")(), from_pickles("streets")()
    present = ours.inputs["present_points"]  # type: ignore[attr-defined]
    found = {name: ours.inputs[name][present] for name in ("points", "pixels")}  # type: ignore[attr-defined]
    found |= {"image": ours.inputs["image"], "labels": ours.labels[LABEL][:, 0][present]}  # type: ignore[attr-defined]
    assert all(torch.equal(found[name], values) for name, values in theirs.items())  # type: ignore[attr-defined]


def frame_store() -> list[Row]:
    """Batches of the recipe's size from the store: against a training step, and against pickles with image files."""
    with tempfile.TemporaryDirectory() as name:
        os.environ[FOLDER] = name
        check_equal()
        rows = []
        for title, side, other, data, rounds in (
            ("frames loaded and augmented against consumed", "augmented", "consuming", "streets", 15),
            ("frames read against pickles and PNG", "from_store", "from_pickles", "streets", 40),
            ("large frames read against pickles and JPEG", "from_store", "from_pickles", "large", 10),
            (
                "large frames read and augmented against pickles and JPEG as is",
                "augmented",
                "from_pickles",
                "large",
                10,
            ),
        ):
            row = compare(SIDES, __file__, title, f"{side}, {data}", f"{other}, {data}", rounds=rounds)
            ours, reference = (RECIPE.batch_size / row[key] for key in ("ours_s", "reference_s"))
            rows.append({**row, "note": f"{ours:.0f} against {reference:.0f} frames/s; {row['note']}"})
    return rows


BENCHMARKS = (frame_store,)

if __name__ == "__main__" and sys.argv[1:2] == ["--peak"]:
    sys.stdout.write(f"{measure_peak(SIDES[sys.argv[2]])}\n")
