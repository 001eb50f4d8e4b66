"""Batches of labelled images: batch t is a pure function of (seed, t), so a resumed run needs no loader state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment
from isthmus.data.image_store import ImageStore
from isthmus.data.images import ENCODINGS, valid_pixels
from isthmus.data.order import Order
from isthmus.data.randomness import Progress
from isthmus.errors import DataError


def read_batch(store: ImageStore, rows: np.ndarray, present: Mapping[str, np.ndarray], domain: str) -> Batch:
    """Images of a store with the labels that ``present`` (``(n,)`` bool by task, over the whole store) lets through.

    A label that is not let through is never read.
    """
    image = torch.from_numpy(np.ascontiguousarray(store.images[rows])).permute(0, 3, 1, 2).float().div_(255)
    labels, valid, carried = {}, {}, {}
    for task, mask in present.items():
        here = mask[rows]
        label, pixels = _read_label(store, task, rows, here)
        labels[task], valid[task] = label, pixels
        carried[task] = torch.from_numpy(here) & pixels.flatten(1).any(dim=1)
    sample_id = torch.from_numpy(np.asarray(rows, dtype=np.int64))
    return Batch(domain, {"image": image.contiguous()}, labels, carried, sample_id, valid)


def _read_label(store: ImageStore, task: str, rows: np.ndarray, here: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    kept = store.labels(task)
    raw = np.zeros((len(rows), *kept.shape[1:]), dtype=kept.dtype)
    raw[here] = kept[rows[here]]
    pixels = valid_pixels(task, raw)
    pixels &= here.reshape(-1, *(1,) * (pixels.ndim - 1))
    if task in ("segmentation", "parts"):
        return torch.from_numpy(np.where(pixels, raw, 0).astype(np.int64)), torch.from_numpy(pixels)
    values = torch.from_numpy(raw.astype(np.float32))
    if ENCODINGS[task].points:
        mask = torch.from_numpy(pixels)
        return torch.where(mask[..., None], values, 0.0), mask
    values = values.permute(0, 3, 1, 2).contiguous() if task == "normals" else values[:, None]
    return torch.where(torch.from_numpy(pixels)[:, None], values, 0.0), torch.from_numpy(pixels)


@dataclass
class ImageStream:
    """Shuffled, augmented training batches of ``rows`` of a store.

    ``present`` says which sample carries which task's label, ``(n,)`` bool by task over the whole store. Every process
    takes its own slice of the same global batch of ``batch_size * world`` samples. A batch may span two epochs. The
    augmentation is told the names of the store's keypoints, unless it knows some.
    """

    domain: str
    store: ImageStore
    rows: np.ndarray
    batch_size: int
    augment: ImageAugment
    present: Mapping[str, np.ndarray]
    _order: Order = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError(f"{self.store.path}: the {self.domain} domain has no image to train on")
        if not self.augment.keypoints:
            self.augment = replace(self.augment, keypoints=self.store.tasks.get("keypoints", ()))
        self._order = Order(len(self.rows), self.domain)

    def batch(self, progress: Progress, position: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of global step ``position`` on this process."""
        rows = self.rows[self._order.at(position, self.batch_size, progress.seed, rank=rank, world=world)]
        batch = read_batch(self.store, rows, self.present, self.domain)
        return self.augment(batch, progress.random(f"augment/{self.domain}", rows.tolist()))


def image_batches(
    store: ImageStore, rows: np.ndarray, present: Mapping[str, np.ndarray], batch_size: int = 32
) -> Iterator[Batch]:
    """The images of ``rows`` in order with their labels, unaugmented, in chunks."""
    for start in range(0, len(rows), batch_size):
        yield read_batch(store, rows[start : start + batch_size], present, "")
