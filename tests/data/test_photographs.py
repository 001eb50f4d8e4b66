from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_store import prepare_frames
from isthmus.data.frame_stream import LABEL, read_frames
from isthmus.data.images import ImageSample
from isthmus.data.photographs import Photographs
from isthmus.errors import DataError
from isthmus.geometry.pixels import sample_pixels

CLASSES = ("sky", "road", "car")


@dataclass
class Images:
    """Two photographs of 3 x 5 pixels, of which one has no labels, and a third that cannot be read."""

    tasks: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"segmentation": CLASSES})

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "images"}

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        random = np.random.default_rng(0)
        image = random.integers(0, 256, (3, 5, 3), dtype=np.uint8)
        labels = np.array([[0, 1, 2, 255, 0], [1, 1, 1, 2, 2], [255, 0, 1, 2, 0]], np.uint8)
        yield ImageSample(image, {"segmentation": labels}, "a", "train", "street")
        yield Unreadable("b", "broken")
        yield ImageSample(image[::-1].copy(), {}, "c", "test")


def test_every_pixel_is_a_point_with_its_own_colour_and_class(tmp_path: Path) -> None:
    reader = Photographs(Images(), "streets-3")
    store = prepare_frames(reader, tmp_path, None)
    assert store.classes == CLASSES and store.names == ("a", "c") and store.groups == ("street", "")
    assert [each.name for each in store.skipped] == ["b"] and not store.has_sweeps
    assert store.fingerprint["space"] == "streets-3" and store.present.tolist() == [True, False]
    batch = read_frames(store, np.array([0, 1]), {LABEL: store.labels}, "source")
    sample = next(iter(Images().samples()))
    assert isinstance(sample, ImageSample)
    # the colours found at the points are the image, read row by row
    colours = sample_pixels(batch.inputs["image"], batch.inputs["pixels"], batch.inputs["present_points"])
    expected = torch.from_numpy(sample.image.reshape(-1, 3) / 255.0).float()
    assert torch.allclose(colours[0], expected, atol=1e-6)
    flat = torch.from_numpy(sample.labels["segmentation"].reshape(-1).astype(np.int64))
    known = flat != 255
    assert torch.equal(batch.valid[LABEL][0, 0], known)
    assert torch.equal(batch.labels[LABEL][0, 0][known], flat[known])
    assert not batch.valid[LABEL][1].any()


def test_images_without_classes_are_refused() -> None:
    with pytest.raises(DataError, match="expected images with segmentation, found depth"):
        Photographs(Images({"depth": ()}), "depths")
