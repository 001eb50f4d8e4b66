"""Draw ``docs/pictures/simulated-objects.png``: the ten classes in the three simulated domains.

Run ``python docs/pictures/simulated_objects.py`` from the root of the project. Every domain shows two training samples
per class, the next two after the first ``--skip`` ones, turned about z as the reader turned them. Points on the far
side of a shape are left out of the picture, so that it reads as a surface; scans show all their points.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.data.simulators.objects import DOMAINS, SimulatedObjects
from isthmus.geometry.visibility import hidden_point_removal

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PER_CLASS = 2


def draw(path: Path, seed: int, skip: int) -> None:
    """Write a picture with a column per class and two rows per domain."""
    rows = len(DOMAINS) * PER_CLASS
    figure, cells = plt.subplots(rows, len(POINTDA_CLASSES), figsize=(20, 12.6), squeeze=False)
    for block, domain in enumerate(DOMAINS):
        reader = SimulatedObjects(domain, 1, 0, 0, seed=seed, points=4096 if domain == "scan" else 9000)
        seen = dict.fromkeys(range(len(POINTDA_CLASSES)), -skip)
        index = 0
        while min(seen.values()) < PER_CLASS:
            sample = reader.sample("train", index)
            order = seen[sample.label]
            if 0 <= order < PER_CLASS:
                _draw_cloud(cells[block * PER_CLASS + order, sample.label], sample.points, solid=domain != "scan")
            seen[sample.label] += 1
            index += 1
        cells[block * PER_CLASS, 0].text(-0.08, -0.05, domain, transform=cells[block * PER_CLASS, 0].transAxes,
                                         rotation=90, va="center", ha="center", fontsize=24)  # fmt: skip
    for column, name in enumerate(POINTDA_CLASSES):
        cells[0, column].set_title(name, fontsize=20)
    figure.subplots_adjust(left=0.03, right=1, bottom=0, top=0.95, wspace=0, hspace=0)
    figure.set_dpi(64)
    figure.canvas.draw()
    # One colour map on white: 64 colours look the same and take a quarter of the bytes.
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_cloud(cell: plt.Axes, points: np.ndarray, solid: bool) -> None:
    """Show a cloud from the front, the left and above, each point lit by the normal of its neighbourhood."""
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    _, neighbours = cKDTree(points).query(points, k=12)
    near = points[neighbours] - points[neighbours].mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near))[1][:, :, 0]
    light = np.abs(normals @ np.array([0.45, -0.55, 0.7]))
    turn, tilt = np.radians(30), np.radians(22)
    sideways = points @ [np.cos(turn), np.sin(turn), 0]
    away = points @ [-np.sin(turn), np.cos(turn), 0]
    upwards = points[:, 2] * np.cos(tilt) + away * np.sin(tilt)
    towards = points[:, 2] * np.sin(tilt) - away * np.cos(tilt)
    order = np.argsort(towards)
    if solid:
        far_eye = 20 * np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
        shown = hidden_point_removal(points / np.linalg.norm(points, axis=1).max(), far_eye, exponent=3.0)
        order = shown[np.argsort(towards[shown])]
    reach = max(np.abs(sideways).max(), np.abs(upwards).max()) * 1.08
    colours = plt.get_cmap("cividis")(0.1 + 0.8 * light[order])
    cell.scatter(sideways[order], upwards[order], c=colours, s=3.0, linewidths=0)
    cell.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    cell.set_axis_off()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures" / "simulated-objects.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=5)
    chosen = parser.parse_args()
    draw(chosen.out, chosen.seed, chosen.skip)
