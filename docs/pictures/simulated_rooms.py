"""Draw ``docs/pictures/simulated-rooms.png``: four simulated rooms with what a network learns to predict from them.

Run ``python docs/pictures/simulated_rooms.py`` from the root of the project. Shown are views of the test part as the
simulator makes them, one of every fourth room.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from isthmus.data.readers.class_names import NYU13
from isthmus.data.simulators.rooms import SimulatedRooms
from isthmus.evaluation.dense.pictures import Look, palette
from isthmus.tasks.build_dense import dense_task

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

ROOMS = 4
TASKS = {
    name: dense_task(name, NYU13 if name == "segmentation" else ()) for name in ("segmentation", "depth", "normals")
}
TITLES = {
    "segmentation": "segmentation",
    "depth": "depth (near is yellow)",
    "normals": "normals (x red, y green)",
}
SIZE, GAP, MARGIN = (180, 240), 8, 30


def draw(path: Path, seed: int, first: int) -> None:
    """Write a picture with a row per room: the image and its labels, in the colours of reports and previews."""
    reader = SimulatedRooms(train=0, val=0, test=1, seed=seed, size=SIZE)
    samples = [reader.sample("test", first + room * 4 * reader.views) for room in range(ROOMS)]
    columns = {"image": [sample.image for sample in samples]}
    for name, task in TASKS.items():
        maps = [sample.labels[name].astype(np.uint8 if task.classes else np.float32) for sample in samples]
        columns[TITLES[name]] = [Look.of(task, values).picture(values) for values in maps]
    height, width = SIZE
    page = np.array([GAP + len(columns) * (width + GAP), 2 * MARGIN + ROOMS * (height + GAP)])
    figure = plt.figure(figsize=page / 100, dpi=100)
    for column, (title, pictures) in enumerate(columns.items()):
        left = GAP + column * (width + GAP)
        figure.text(
            (left + width / 2) / page[0], 1 - MARGIN / 2 / page[1], title, ha="center", va="center", fontsize=11
        )
        for row, picture in enumerate(pictures):
            # A pixel of the picture for every pixel of a map: nothing is drawn between them.
            figure.figimage(picture, left, page[1] - MARGIN - row * (height + GAP) - height, origin="upper")
    legend = [Patch(color=colour / 255, label=name) for name, colour in zip(NYU13, palette(NYU13))]
    figure.legend(handles=legend, loc="lower center", ncols=len(NYU13), frameon=False, fontsize=9.5,
                  handlelength=0.9, handletextpad=0.35, columnspacing=0.85)  # fmt: skip
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "simulated-rooms.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=2)
    chosen = parser.parse_args()
    draw(chosen.out, chosen.seed, chosen.first)
