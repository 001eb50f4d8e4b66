from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.data.augment import Augment
from isthmus.data.class_map import ClassMap
from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.mapped import Mapped
from isthmus.data.randomness import Progress
from isthmus.data.simulators.objects import SimulatedObjects
from isthmus.data.store import CloudStore, prepare
from isthmus.data.stream import KnownLabels, Stream, clouds
from isthmus.errors import DataError

PLAIN = Augment(rotate=False, jitter=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CloudStore:
    return prepare(SimulatedObjects("cad", train=11, val=2, test=2), tmp_path_factory.mktemp("cache"), 64)


def stream(store: CloudStore, size: int = 4, augment: Augment = PLAIN, **options: object) -> Stream:
    return Stream("source", store, store.indices("train"), size, 32, augment, **options)  # type: ignore[arg-type]


def at(step: int, seed: int = 0) -> Progress:
    return Progress(seed, 0, step, 100)


def test_every_sample_is_visited_once_per_epoch_even_across_batches(store: CloudStore) -> None:
    ids = torch.cat([stream(store).batch(at(step), step).sample_id for step in range(11)])  # 44 = 4 epochs of 11
    for epoch in ids.split(11):
        assert sorted(epoch.tolist()) == list(range(11))
    assert len({tuple(epoch.tolist()) for epoch in ids.split(11)}) == 4


def test_processes_share_one_global_batch_in_order(store: CloudStore) -> None:
    whole = stream(store, 8, Augment()).batch(at(5), 5)
    halves = [stream(store, 4, Augment()).batch(at(5), 5, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(whole.sample_id, torch.cat([half.sample_id for half in halves]))
    assert torch.equal(whole.inputs["points"], torch.cat([half.inputs["points"] for half in halves]))


def test_points_are_a_prefix_of_the_stored_order(store: CloudStore) -> None:
    batch = stream(store).batch(at(0), 0)
    assert np.array_equal(batch.inputs["points"].numpy(), store.points[batch.sample_id.numpy(), :32])
    chunks = list(clouds(store, store.indices("train"), 16, batch_size=5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 1] and chunks[0].shape[1:] == (16, 3)


def test_augmentation_changes_with_the_step_and_stays_within_its_bounds(store: CloudStore) -> None:
    one = stream(store, 11, Augment()).batch(at(0), 0)
    same = stream(store, 11, Augment()).batch(at(0), 0)
    other = stream(store, 11, Augment()).batch(at(1), 0)
    assert torch.equal(one.inputs["points"], same.inputs["points"])
    assert not torch.equal(one.inputs["points"], other.inputs["points"])
    raw = torch.from_numpy(store.points[one.sample_id.numpy(), :32])
    height = one.inputs["points"][..., 2] - raw[..., 2]  # rotation about z leaves heights alone
    assert height.abs().max() <= 0.02 + 1e-6 and height.std() == pytest.approx(0.0095, abs=0.0015)
    radius = one.inputs["points"][..., :2].norm(dim=-1) - raw[..., :2].norm(dim=-1)
    assert radius.abs().max() <= 0.03


def test_scale_is_one_factor_per_cloud(store: CloudStore) -> None:
    batch = stream(store, 11, Augment(rotate=False, jitter=0, scale=(0.5, 2.0))).batch(at(0), 0)
    raw = torch.from_numpy(store.points[batch.sample_id.numpy(), :32])
    factor = batch.inputs["points"].norm(dim=(1, 2)) / raw.norm(dim=(1, 2))
    torch.testing.assert_close(batch.inputs["points"], raw * factor[:, None, None])
    assert factor.min() >= 0.5 and factor.max() <= 2.0 and factor.std() > 0.1


def test_labels_travel_with_their_samples_and_missing_ones_are_marked(store: CloudStore) -> None:
    present = np.arange(len(store)) % 2 == 0
    batch = stream(store, known={"class": KnownLabels(store.labels, present)}).batch(at(2), 2)
    ids = batch.sample_id.numpy()
    assert np.array_equal(batch.labels["class"].numpy(), store.labels[ids])
    assert np.array_equal(batch.labelled("class").numpy(), present[ids])
    assert not batch.labelled("depth").any()


def test_an_empty_domain_and_too_many_points_are_found_at_once(store: CloudStore) -> None:
    with pytest.raises(DataError, match="has no sample to train on"):
        Stream("target", store, np.zeros(0, dtype=np.int64), 4, 32, PLAIN)
    with pytest.raises(DataError, match="points: expected at most 64 as prepared, found 65"):
        Stream("target", store, store.indices("train"), 4, 65, PLAIN)


class Listed:
    """A reader of given samples."""

    classes = ("couch", "toilet", "bed")

    def __init__(self, *samples: Sample | Unreadable) -> None:
        self._samples = samples

    def fingerprint(self) -> dict:
        return {"listed": len(self._samples)}

    def samples(self):
        return iter(self._samples)


def test_a_class_map_renames_and_leaves_out_before_anything_is_stored(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    samples = [Sample(points, label, f"s{label}", "train") for label in (0, 1, 2)]
    reader = Listed(*samples, Unreadable("s9", "truncated"))
    mapped = Mapped(reader, ClassMap(("bed", "sofa"), {"couch": "sofa"}, ("toilet",)))
    stored = prepare(mapped, tmp_path, 32)
    assert stored.classes == ("bed", "sofa") and stored.names == ("s0", "s2") and stored.labels.tolist() == [1, 0]
    assert [skipped.name for skipped in stored.skipped] == ["s9"]
    other = Mapped(reader, ClassMap(("bed", "sofa"), {"couch": "bed"}, ("toilet",)))
    assert other.fingerprint() != mapped.fingerprint()


def test_a_target_keeps_clouds_without_a_label_and_a_source_does_not(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    reader = Listed(Sample(points, -1, "nameless", "train"), Sample(points, 0, "known", "train"))
    class_map = ClassMap(("sofa",), {"couch": "sofa"}, "*")
    assert prepare(Mapped(reader, class_map), tmp_path / "t", 32).labels.tolist() == [-1, 0]
    assert prepare(Mapped(reader, class_map, source=True), tmp_path / "s", 32).names == ("known",)
    with pytest.raises(DataError, match="odd"):
        prepare(Mapped(Listed(Sample(points, -2, "odd", "train")), class_map), tmp_path / "o", 32)


def test_a_label_out_of_range_is_named_also_behind_a_class_map(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    reader = Listed(Sample(points, 0, "good", "train"), Sample(points, 7, "odd", "train"))
    with pytest.raises(DataError, match="odd"):
        prepare(Mapped(reader, ClassMap(("sofa",), {"couch": "sofa"}, "*")), tmp_path, 32)
