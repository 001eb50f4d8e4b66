"""Labels of points, from a reader through the store to a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.augment import Augment
from isthmus.data.clouds import NO_POINT_LABEL, Sample
from isthmus.data.randomness import Progress
from isthmus.data.store import MIN_POINTS, REDUCE, CloudStore, check, prepare
from isthmus.data.stream import KnownLabels, KnownPointLabels, Stream
from isthmus.errors import DataError
from isthmus.geometry.transforms import unit_sphere


@dataclass(frozen=True)
class Labelled:
    """A reader of the samples it was given."""

    entries: tuple[Sample, ...]
    classes: tuple[str, ...] = ("low", "high", "right")

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "labelled", "names": [entry.name for entry in self.entries]}

    def samples(self) -> Iterator[Sample]:
        yield from self.entries


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def of_height(points: np.ndarray) -> np.ndarray:
    """A label that a point's place tells: above or below the mean, or far to the right of it."""
    x, _, z = unit_sphere(points).T
    return np.where(x > 0.4, 2, z > 0).astype(np.uint8)


def labelled(count: int, seed: int = 0, name: str = "", part: str = "train") -> Sample:
    points = cloud(count, seed)
    return Sample(points, -1, name or f"n{seed}", part, "", of_height(points))  # type: ignore[arg-type]


def expected(stored: np.ndarray) -> np.ndarray:
    return np.where(stored[..., 0] > 0.4, 2, stored[..., 2] > 0)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(MIN_POINTS, 5 * REDUCE * 24), copies=st.integers(0, 20), size=st.sampled_from([1, 24, 100]))
def test_labels_stay_with_their_points(
    count: int, copies: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sample = labelled(count)
    again = np.random.default_rng(1).integers(0, count, copies)
    assert sample.point_labels is not None
    points = np.concatenate([sample.points, sample.points[again]])
    sample = sample._replace(points=points, point_labels=of_height(points))
    store = prepare(Labelled((sample,)), tmp_path_factory.mktemp("cache"), size)
    assert store.point_labels.dtype == np.uint8 and store.point_labels.shape == (1, size)
    np.testing.assert_array_equal(store.point_labels, expected(store.points))


def test_labels_keep_their_places_over_batches_of_mixed_sizes(tmp_path: Path) -> None:
    samples = [labelled(20 + seed % 9, seed) for seed in range(150)]
    samples[7] = samples[7]._replace(point_labels=None)
    samples[9] = samples[9]._replace(points=samples[9].points[:4], point_labels=samples[9].point_labels[:4])
    store = prepare(Labelled(tuple(samples)), tmp_path, 16)
    assert len(store) == 149 and [entry.name for entry in store.skipped] == ["n9"]
    unlabelled = np.arange(149) == 7
    assert (store.point_labels[unlabelled] == NO_POINT_LABEL).all()
    np.testing.assert_array_equal(store.point_labels[~unlabelled], expected(store.points[~unlabelled]))


def test_a_store_without_labels_of_points_has_no_file_for_them(tmp_path: Path) -> None:
    store = prepare(Labelled((Sample(cloud(30), 1, "a", "train"),)), tmp_path, 16)
    files = ["contents.sha256", "labels.npy", "meta.json", "parts.npy", "points.npy"]
    assert sorted(file.name for file in store.path.iterdir()) == files
    with pytest.raises(
        DataError, match=r"point_labels\.npy: expected a label for each point, found a data set without"
    ):
        store.point_labels  # noqa: B018


def test_label_files_are_opened_when_asked_for_and_not_before(tmp_path: Path) -> None:
    path = prepare(Labelled((labelled(30),)), tmp_path, 16).path
    (path / "point_labels.npy").rename(path / "elsewhere.npy")
    store = CloudStore(path)
    assert store.points.shape == (1, 16, 3)
    (path / "elsewhere.npy").rename(path / "point_labels.npy")
    assert store.point_labels.shape == (1, 16)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(29, np.uint8), r"n0: point_labels: expected uint8 of shape \(30,\), .* found uint8 of shape \(29,\)"),
        (np.zeros(30, np.int64), "found int64 of shape"),
        (np.full(30, 3, np.uint8), "n0: point_labels: expected 0 to 2, or 255 for none, found 3"),
    ],
)
def test_labels_that_cannot_be_are_named(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare(Labelled((labelled(30)._replace(point_labels=labels),)), tmp_path, 16)


def test_check_counts_the_clouds_that_have_a_class() -> None:
    low = np.zeros(30, np.uint8)
    mixed = np.r_[low[:10], low[:10] + 2, np.full(10, NO_POINT_LABEL, np.uint8)].astype(np.uint8)
    nothing = np.full(30, NO_POINT_LABEL, np.uint8)
    samples = tuple(
        Sample(cloud(30, seed), -1, f"{seed}", "val", "", labels) for seed, labels in enumerate((low, mixed, nothing))
    )
    report = check(Labelled(samples))
    assert report.counts["val"] == [2, 0, 1] and report.unlabelled == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CloudStore:
    samples = [labelled(60, seed) for seed in range(6)]
    return prepare(Labelled(tuple(samples)), tmp_path_factory.mktemp("cache"), 48)


def batch_of(store: CloudStore, known: dict[str, Any], augment: Augment) -> Any:
    stream = Stream("source", store, store.indices("train"), 4, 32, augment, known)
    return stream.batch(Progress(0, 0, 0, 10), 0)


def test_a_batch_has_a_label_for_each_of_its_points(store: CloudStore) -> None:
    batch = batch_of(store, {"parts": KnownPointLabels(store.point_labels)}, Augment(rotate=False, jitter=0.0))
    label, valid = batch.labels["parts"], batch.valid["parts"]
    assert label.shape == valid.shape == (4, 1, 32) and label.dtype == torch.int64 and valid.all()
    assert batch.present["parts"].tolist() == [True] * 4
    np.testing.assert_array_equal(label[:, 0].numpy(), expected(batch.inputs["points"].numpy()))


def test_augmented_points_keep_their_labels(store: CloudStore) -> None:
    known = {"parts": KnownPointLabels(store.point_labels)}
    plain, moved = batch_of(store, known, Augment(rotate=False, jitter=0.0)), batch_of(store, known, Augment())
    assert torch.equal(plain.labels["parts"], moved.labels["parts"])
    # Heights are left alone but for jitter: the same points in the same places of the batch.
    height = moved.inputs["points"][..., 2] - plain.inputs["points"][..., 2]
    assert height.abs().max() < 0.021


def test_points_and_samples_without_a_label_are_masked(store: CloudStore) -> None:
    labels = np.array(store.point_labels)
    labels[:, 3] = NO_POINT_LABEL
    labels[2, :32] = NO_POINT_LABEL  # its labelled points are beyond those of the batch
    stream = Stream("target", store, np.arange(6), 6, 32, Augment(), {"parts": KnownPointLabels(labels)})
    batch = stream.batch(Progress(0, 0, 0, 10), 0)
    assert batch.present["parts"].tolist() == [row != 2 for row in batch.sample_id.tolist()]
    assert not batch.valid["parts"][:, 0, 3].any() and batch.labels["parts"].max() <= 2
    assert batch.valid["parts"].sum() == 5 * 31


def test_both_kinds_of_label_go_side_by_side(store: CloudStore) -> None:
    known = {
        "class": KnownLabels(np.arange(6), np.arange(6) > 2),
        "parts": KnownPointLabels(store.point_labels),
    }
    batch = batch_of(store, known, Augment())
    assert torch.equal(batch.labels["class"], batch.sample_id) and set(batch.valid) == {"parts"}
    assert torch.equal(batch.present["class"], batch.sample_id > 2)


def test_without_an_entry_the_file_of_labels_may_be_gone(store: CloudStore, tmp_path: Path) -> None:
    path = prepare(Labelled((labelled(30),)), tmp_path, 16).path
    (path / "point_labels.npy").unlink()
    stream = Stream("target", CloudStore(path), np.arange(1), 2, 16, Augment())
    assert stream.batch(Progress(0, 0, 0, 10), 0).labels == {}
