"""Features of two domains at the same places, reduced to a plane: Figure 3 of TADA.

TADA (Li et al., 2020, Section 5.1): features at different places may hold different information, so the paper takes
them at facial keypoints and performs one PCA for each ("e.g. nose tip"). So every location has axes of its own, over
the images of both domains. Where the domains have no keypoints, locations are fixed places of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.data.image_store import ImageStore
from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.methods.base import Method
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures

IMAGES = 32
"""At most so many of each domain."""
LOCATIONS = 4
FEWEST = 3
"""A location that is labelled in fewer images of a domain is left out."""
CHUNK = 8
FIXED = {"top": (0.5, 0.15), "left": (0.15, 0.5), "centre": (0.5, 0.5), "bottom": (0.5, 0.85)}
"""Columns and rows as shares of the image's width and height."""


@dataclass(frozen=True)
class Plane:
    """The features of both domains at one location, on their first two principal components.

    Attributes:
        source: coordinates of the source's images, ``(n, 2)``.
        target: coordinates of the target's images, ``(m, 2)``.
        explained: share of the variance that the two components hold, in [0, 1].
        gap: the distance between the domains' means over all channels, divided by the root mean squared distance of the
            images from the mean of their own domain; by chance it is about :attr:`chance`.
    """

    source: np.ndarray
    target: np.ndarray
    explained: float
    gap: float

    @property
    def chance(self) -> float:
        """The root mean squared gap of two samples of one distribution."""
        return float(np.sqrt(1 / len(self.source) + 1 / len(self.target)))


def shown_rows(store: ImageStore, count: int = IMAGES) -> np.ndarray:
    """Test images spread evenly, validation images where there is no test part. Shape: at most ``(count,)``."""
    rows = next(
        (store.indices(part) for part in ("test", "val", "train") if len(store.indices(part))), np.zeros(0, int)
    )
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def has_taps(method: Method | None) -> bool:
    """Whether a method's network hands out its feature maps by name."""
    return isinstance(method, MultiTask) and hasattr(method.network, "boundaries")


def location_names(source: ImageStore, target: ImageStore) -> list[str]:
    """Keypoints far from each other that both domains have labels of, or the fixed places' names."""
    if "keypoints" not in source.tasks or source.tasks["keypoints"] != target.tasks.get("keypoints"):
        return list(FIXED)
    names = source.tasks["keypoints"]
    places = [_labelled_points(store, shown_rows(store)) for store in (source, target)]
    counts = np.min([np.isfinite(found).all(axis=2).sum(axis=0) for found in places], axis=0)
    usable = np.flatnonzero(counts >= FEWEST)
    if len(usable) < 2:
        return list(FIXED)
    mean = np.nanmean(np.concatenate(places)[:, usable], axis=0)
    central = int(np.square(mean - mean.mean(axis=0)).sum(axis=1).argmin())
    count = min(LOCATIONS, len(usable))
    flat = torch.from_numpy(np.pad(mean, ((0, 0), (0, 1)))).float()
    order = farthest_point_order(flat[None], count, torch.tensor([central]))[0]
    return [names[usable[int(index)]] for index in order]


def places(store: ImageStore, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Column and row of each location in each image as shares, NaN without a label. Shape: ``(n, L, 2)``."""
    if set(names) <= FIXED.keys():
        return np.tile(np.array([FIXED[name] for name in names]), (len(rows), 1, 1))
    return _labelled_points(store, rows)[:, [store.tasks["keypoints"].index(name) for name in names]]


def _labelled_points(store: ImageStore, rows: np.ndarray) -> np.ndarray:
    points = np.full((len(rows), len(store.tasks["keypoints"]), 2), np.nan)
    there = store.present[rows, list(store.tasks).index("keypoints")]
    points[there] = store.labels("keypoints")[rows[there]][:, :, :2]
    return points


@torch.no_grad()
def sampled_features(
    method: MultiTask, store: ImageStore, rows: np.ndarray, where: np.ndarray, taps: Sequence[str]
) -> dict[str, np.ndarray]:
    """Feature vectors at places, between the centres of a feature map bilinearly.

    Shape: ``(n,)`` rows, ``(n, L, 2)`` places, to ``(n, L, C)`` float64 by tap, NaN where a place is.
    """
    found: dict[str, list[np.ndarray]] = {tap: [] for tap in taps}
    for start in range(0, len(rows), CHUNK):
        chunk = slice(start, start + CHUNK)
        images = torch.from_numpy(np.ascontiguousarray(store.images[rows[chunk]])).permute(0, 3, 1, 2)
        device = next(method.parameters()).device
        features: DenseFeatures = method.network(images.float().div(255).contiguous().to(device))
        grid = torch.from_numpy(2 * where[chunk] - 1).float()
        for tap in taps:
            found[tap].append(_at(features.taps[tap].float().cpu(), grid))
    return {tap: np.concatenate(values) for tap, values in found.items()}


def _at(features: Tensor, grid: Tensor) -> np.ndarray:
    sampled = F.grid_sample(features, grid.nan_to_num(0.0)[:, None], padding_mode="border", align_corners=False)
    values: np.ndarray = sampled[:, :, 0].permute(0, 2, 1).double().numpy()
    values[~np.isfinite(grid.numpy()).all(axis=2)] = np.nan
    return values


def plane(source: np.ndarray, target: np.ndarray) -> Plane | None:
    """The first two principal components over both domains; None with too few vectors of one, or no difference at all.

    Directions are such that the target lies to the right of and above the source. Shape: ``(n, C)``, ``(m, C)``, rows
    of NaN not counted.
    """
    source, target = (values[np.isfinite(values).all(axis=1)] for values in (source, target))
    if min(len(source), len(target)) < FEWEST or source.shape[1] < 2:
        return None
    together = np.concatenate([source, target])
    centred = together - together.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    variance = np.square(lengths)
    if variance.sum() <= 0:
        return None
    difference = target.mean(axis=0) - source.mean(axis=0)
    axes = directions[:2] * np.where(directions[:2] @ difference < 0, -1, 1)[:, None]
    placed = centred @ axes.T
    within = np.concatenate([values - values.mean(axis=0) for values in (source, target)])
    spread = np.sqrt(np.square(within).sum(axis=1).mean())
    return Plane(
        placed[: len(source)],
        placed[len(source) :],
        float(variance[:2].sum() / variance.sum()),
        float(np.linalg.norm(difference) / max(spread, 1e-12)),
    )
