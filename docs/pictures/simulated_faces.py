"""Draw ``docs/pictures/simulated-faces.png``: simulated faces of three domains with their keypoints and normals.

Run ``python docs/pictures/simulated_faces.py`` from the root of the project. Shown are faces of the test part as the
simulator makes them: the source, whose heads turn farther than the target's; the frontal source, whose heads turn like
them; and the target, in a camera's picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import matplotlib
import numpy as np

from isthmus.data.simulators.faces import Domain, SimulatedFaces
from isthmus.evaluation.dense.pictures import Look
from isthmus.tasks.build_dense import dense_task

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FACES = 4
SIZE, GAP, MARGIN = (120, 120), 8, 30


def draw(path: Path, seed: int) -> None:
    """Write a picture with a row per domain: images with keypoints, each beside its normals."""
    domains = get_args(Domain)
    look = dense_task("normals", ())
    height, width = SIZE
    page = np.array([MARGIN + 2 * FACES * (width + GAP) + GAP, GAP + len(domains) * (height + GAP)])
    figure = plt.figure(figsize=page / 100, dpi=100)
    for row, domain in enumerate(domains):
        reader = SimulatedFaces(train=0, val=0, test=4 * FACES, seed=seed, size=SIZE, domain=domain)
        top = GAP + row * (height + GAP)
        middle = 1 - (top + height / 2) / page[1]
        figure.text(MARGIN / 2 / page[0], middle, domain, rotation=90, ha="center", va="center", fontsize=11)
        for column in range(FACES):
            sample = reader.sample("test", 4 * column)
            normals = sample.labels["normals"].astype(np.float32)
            left = MARGIN + 2 * column * (width + GAP)
            place = (left / page[0], 1 - (top + height) / page[1], width / page[0], height / page[1])
            axes = figure.add_axes(place)
            axes.imshow(sample.image)
            points = sample.labels["keypoints"]
            axes.scatter(points[:, 0] * width - 0.5, points[:, 1] * height - 0.5, s=5, c="#33dd55", linewidths=0)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.axis("off")
            picture = Look.of(look, normals).picture(normals)
            figure.figimage(picture, left + width + GAP, page[1] - top - height, origin="upper")
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "simulated-faces.png")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw(chosen.out, chosen.seed)
