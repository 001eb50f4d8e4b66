from pathlib import Path

import numpy as np
import pytest
import torch

from dense_testing import NAMES, Few
from isthmus.data.image_augment import ImageAugment
from isthmus.data.image_store import ImageStore, prepare_images
from isthmus.data.image_stream import ImageStream, image_batches, read_batch
from isthmus.data.order import Order
from isthmus.data.randomness import Progress
from isthmus.errors import DataError

PLAIN = ImageAugment(scales=(1.0,), flip=0.0)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return prepare_images(Few(), tmp_path, None)


def everything(store: ImageStore) -> dict[str, np.ndarray]:
    return {name: store.present[:, column].copy() for column, name in enumerate(store.tasks)}


def some(store: ImageStore) -> dict[str, np.ndarray]:
    """Every image keeps one label, in turns."""
    number = np.arange(len(store))
    return {name: number % 3 == column for column, name in enumerate(store.tasks)}


def at(step: int, seed: int = 0) -> Progress:
    return Progress(seed, 0, step, 100)


def stream(store: ImageStore, size: int = 4, augment: ImageAugment = PLAIN) -> ImageStream:
    return ImageStream("source", store, store.indices("train"), size, augment, some(store))


def test_a_batch_holds_images_in_0_to_1_and_labels_as_tasks_take_them(store: ImageStore) -> None:
    rows = np.array([4, 0, 7])
    found = read_batch(store, rows, everything(store), "source")
    assert found.domain == "source" and found.sample_id.tolist() == [4, 0, 7]
    image = found.inputs["image"]
    assert image.shape == (3, 3, 8, 12) and image.dtype == torch.float32
    torch.testing.assert_close(image[:, 0, 0, 0], torch.tensor([4, 0, 7]) / 255)
    for index, row in enumerate(rows):
        classes = store.labels("segmentation")[row]
        assert torch.equal(found.valid["segmentation"][index], torch.from_numpy(classes != 255))
        mask = classes != 255
        assert np.array_equal(found.labels["segmentation"][index].numpy()[mask], classes[mask])
        assert not found.labels["segmentation"][index].numpy()[~mask].any()
        assert np.array_equal(found.labels["depth"][index, 0], store.labels("depth")[row])
        normals = np.moveaxis(store.labels("normals")[row].astype(np.float32), -1, 0)
        assert np.array_equal(found.labels["normals"][index], normals)
        assert np.array_equal(found.valid["normals"][index], (normals != 0).any(0))
    assert found.labels["segmentation"].dtype == torch.int64 and found.labels["depth"].dtype == torch.float32
    assert all(found.present[name].all() for name in NAMES)


def test_labels_that_are_not_let_through_are_absent_and_never_read(store: ImageStore) -> None:
    present = some(store)
    before = read_batch(store, np.arange(len(store)), present, "source")
    for name in NAMES:
        file = np.load(store.path / f"label_{name}.npy", mmap_mode="r+")
        file[~present[name]] = 77
        file.flush()
    after = read_batch(ImageStore(store.path), np.arange(len(store)), present, "source")
    for name in NAMES:
        assert torch.equal(before.present[name], torch.from_numpy(present[name]))
        assert torch.equal(before.labels[name], after.labels[name]) and before.labels[name].isfinite().all()
        assert torch.equal(before.valid[name], after.valid[name])
        assert not before.valid[name][~before.present[name]].any()


def test_a_task_that_nobody_asks_for_is_not_opened(store: ImageStore) -> None:
    (store.path / "label_normals.npy").unlink()
    found = read_batch(store, np.arange(4), {"depth": everything(store)["depth"]}, "source")
    assert list(found.labels) == ["depth"]


def test_a_label_without_a_valid_pixel_is_absent(store: ImageStore) -> None:
    file = np.load(store.path / "label_depth.npy", mmap_mode="r+")
    file[2] = 0
    file.flush()
    found = read_batch(ImageStore(store.path), np.array([1, 2]), everything(store), "source")
    assert found.present["depth"].tolist() == [True, False]


def test_every_image_comes_once_per_epoch_in_the_order_of_clouds(store: ImageStore) -> None:
    train = store.indices("train")
    ids = torch.cat([stream(store).batch(at(step), step).sample_id for step in range(5)])
    assert all(sorted(epoch.tolist()) == train.tolist() for epoch in ids.split(10))
    order = Order(len(train), "source")
    assert ids.tolist() == np.concatenate([train[order.at(step, 4, 0)] for step in range(5)]).tolist()


def test_processes_share_one_global_batch_in_order(store: ImageStore) -> None:
    augment = ImageAugment()
    whole = stream(store, 6, augment).batch(at(5), 5)
    halves = [stream(store, 3, augment).batch(at(5), 5, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(whole.sample_id, torch.cat([half.sample_id for half in halves]))
    assert torch.equal(whole.inputs["image"], torch.cat([half.inputs["image"] for half in halves]))
    for name in NAMES:
        for kind in ("labels", "valid", "present"):
            parts = torch.cat([getattr(half, kind)[name] for half in halves])
            assert torch.equal(getattr(whole, kind)[name], parts)


def test_a_batch_is_a_function_of_seed_and_step(store: ImageStore) -> None:
    one, same, other = (stream(store, 4, ImageAugment()).batch(at(3, seed), 3) for seed in (0, 0, 1))
    assert torch.equal(one.inputs["image"], same.inputs["image"])
    assert one.sample_id.tolist() != other.sample_id.tolist()


def test_images_in_order_are_unaugmented_and_complete(store: ImageStore) -> None:
    rows = store.indices("val")
    chunks = list(image_batches(store, rows, everything(store), batch_size=2))
    assert [len(chunk) for chunk in chunks] == [2, 1]
    assert torch.cat([chunk.sample_id for chunk in chunks]).tolist() == rows.tolist()
    first = chunks[0].inputs["image"][:, 0, 0, 0]
    torch.testing.assert_close(first, torch.from_numpy(rows[:2]) / 255.0, check_dtype=False)
    assert not list(image_batches(store, rows[:0], everything(store)))


def test_a_stream_without_images_is_an_error(store: ImageStore) -> None:
    with pytest.raises(DataError, match="the source domain has no image to train on"):
        ImageStream("source", store, np.array([], dtype=np.int64), 4, PLAIN, everything(store))
