from pathlib import Path

import numpy as np
import pytest
import torch
from frame_testing import CLASSES, Frames, frame

from isthmus.data.frame_augment import FrameAugment
from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frame_stream import LABEL, FrameStream, frame_batches, read_frames
from isthmus.data.frames import NO_LABEL
from isthmus.data.randomness import Progress
from isthmus.errors import DataError

COUNTS = (12, 5, 9, 1, 7, 3)
PLAIN = FrameAugment()
STRONG = FrameAugment(matrix_noise=0.1, mirror="y", rotation=3.0, shift=1.0, crop=(6, 5), flip=0.5, colour=0.4)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """Frames of different lengths; the fourth one's only point has no label, the last is without labels."""
    frames = [frame(index, points) for index, points in enumerate(COUNTS)]
    frames[5] = frames[5]._replace(labels=None)
    return prepare_frames(Frames(tuple(frames)), tmp_path, None)


def stream(store: FrameStore, labels: bool = True, augment: FrameAugment = PLAIN, size: int = 4) -> FrameStream:
    found = {LABEL: store.labels} if labels else {}
    return FrameStream("target", store, store.indices("train"), size, augment, found)


def test_frames_are_padded_to_the_longest_of_the_batch(store: FrameStore) -> None:
    batch = read_frames(store, np.array([1, 4, 3]), {LABEL: store.labels}, "source")
    assert batch.domain == "source" and batch.sample_id.tolist() == [1, 4, 3]
    assert batch.inputs["points"].shape == (3, 7, 3) and batch.inputs["points"].dtype == torch.float32
    for index, row in enumerate((1, 4, 3)):
        given, count = frame(row, COUNTS[row]), COUNTS[row]
        assert batch.inputs["present_points"][index].tolist() == [True] * count + [False] * (7 - count)
        assert np.array_equal(batch.inputs["points"][index, :count], given.points)
        assert np.array_equal(batch.inputs["pixels"][index, :count], given.pixels)
        assert not batch.inputs["points"][index, count:].any() and not batch.inputs["pixels"][index, count:].any()
        torch.testing.assert_close(batch.inputs["image"][index], torch.from_numpy(given.image).permute(2, 0, 1) / 255)
        known = given.labels != NO_LABEL
        assert np.array_equal(batch.valid[LABEL][index, 0, :count], known)
        assert np.array_equal(batch.labels[LABEL][index, 0, :count][known], given.labels[known])
        assert not batch.valid[LABEL][index, 0, count:].any()
        assert bool(batch.present[LABEL][index]) == known.any()
    assert batch.present[LABEL].tolist() == [True, True, False]
    assert int(batch.labels[LABEL].max()) < len(CLASSES)  # what is not valid is no impossible class


def test_a_frame_without_labels_carries_none(store: FrameStore) -> None:
    batch = read_frames(store, np.array([5]), {LABEL: store.labels}, "source")
    assert batch.labelled(LABEL).tolist() == [False] and len(batch) == 1
    assert read_frames(store, np.array([0]), {}, "target").labels == {}


def test_sweeps_without_images_have_no_pixels(tmp_path: Path) -> None:
    store = prepare_frames(Frames((frame(0, size=None), frame(1, 5, size=None))), tmp_path, None)
    batch = read_frames(store, np.array([0, 1]), {LABEL: store.labels}, "source")
    assert batch.inputs.keys() == {"points", "present_points"}
    changed = stream(store, augment=STRONG, size=2).batch(Progress(0, 0, 0, 4), 0)
    assert changed.inputs.keys() == {"points", "present_points"}


def test_all_labels_of_the_given_names_travel(store: FrameStore) -> None:
    other = np.full(len(store.labels), NO_LABEL, np.uint8)
    other[: COUNTS[0]] = 2
    batch = read_frames(store, np.array([0, 1]), {LABEL: store.labels, "pseudo_2D": other}, "target")
    assert batch.labels.keys() == {LABEL, "pseudo_2D"}
    assert batch.present["pseudo_2D"].tolist() == [True, False] and batch.labels["pseudo_2D"][0].unique().tolist() == [
        2
    ]


def test_a_target_stream_never_opens_labels(store: FrameStore) -> None:
    (store.path / "labels.npy").unlink()
    fresh = FrameStore(store.path)
    batch = stream(fresh, labels=False, augment=STRONG).batch(Progress(0, 0, 0, 4), 0)
    assert batch.labels == {} and len(batch) == 4


@pytest.mark.parametrize("augment", [PLAIN, STRONG])
def test_a_batch_depends_on_the_seed_and_its_number_alone(store: FrameStore, augment: FrameAugment) -> None:
    first, again = stream(store, augment=augment), stream(store, augment=augment)
    for position in (3, 0, 1):
        one = first.batch(Progress(5, 0, position, 9), position)
        torch.manual_seed(position)
        other = again.batch(Progress(5, 0, position, 9), position)
        assert torch.equal(one.sample_id, other.sample_id)
        for kind in ("inputs", "labels", "valid", "present"):
            assert all(torch.equal(value, getattr(other, kind)[name]) for name, value in getattr(one, kind).items())
    seeds = {tuple(first.batch(Progress(seed, 0, 0, 9), 0).sample_id.tolist()) for seed in range(8)}
    assert len(seeds) > 1


def test_processes_share_a_batch_and_an_epoch_visits_every_frame_once(store: FrameStore) -> None:
    halves, whole = stream(store, size=3, augment=STRONG), stream(store, size=6, augment=STRONG)
    for position in range(3):
        progress = Progress(1, 0, position, 9)
        parts = [halves.batch(progress, position, rank=rank, world=2) for rank in (0, 1)]
        together = whole.batch(progress, position)
        assert [*parts[0].sample_id.tolist(), *parts[1].sample_id.tolist()] == together.sample_id.tolist()
        assert sorted(together.sample_id.tolist()) == list(range(6))
        longest = parts[1].inputs["points"].shape[1]
        assert torch.equal(together.inputs["points"][3:, :longest], parts[1].inputs["points"])
        assert torch.equal(together.inputs["image"][:3], parts[0].inputs["image"])


def test_points_outside_of_a_crop_are_absent_and_their_labels_too(store: FrameStore) -> None:
    crop = FrameAugment(crop=(2, 3))
    gone = 0
    for position in range(6):
        batch = stream(store, augment=crop).batch(Progress(0, 0, position, 9), position)
        there = batch.inputs["present_points"]
        assert batch.inputs["image"].shape == (4, 3, 2, 3)
        assert (batch.inputs["pixels"][there] < torch.tensor([2, 3])).all() and (batch.inputs["pixels"] >= 0).all()
        assert not batch.inputs["points"][~there].any()
        assert not (batch.valid[LABEL][:, 0] & ~there).any()
        assert torch.equal(batch.present[LABEL], batch.valid[LABEL].flatten(1).any(dim=1))
        gone += int((~there.any(dim=1)).sum())
    assert gone, "no frame lost all of its points, so the test shows nothing about that"


def test_chunks_go_through_the_rows_in_order(store: FrameStore) -> None:
    rows = np.array([4, 0, 2, 5, 1])
    found = list(frame_batches(store, rows, {LABEL: store.labels}, batch_size=2))
    assert [batch.sample_id.tolist() for batch in found] == [[4, 0], [2, 5], [1]]
    assert list(frame_batches(store, np.array([], dtype=np.int64), {})) == []
    assert np.array_equal(found[2].inputs["points"][0], frame(1, 5).points)


def test_a_domain_without_a_training_frame_is_refused(store: FrameStore) -> None:
    with pytest.raises(DataError, match="the target domain has no frame to train on"):
        FrameStream("target", store, np.array([], dtype=np.int64), 4, FrameAugment(), {})
