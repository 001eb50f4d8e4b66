import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import store as store_module
from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.publish import known_as
from isthmus.data.store import MIN_POINTS, REDUCE, CloudStore, check, prepare
from isthmus.errors import DataError
from isthmus.geometry.farthest_point import farthest_point_order


@dataclass(frozen=True)
class Given:
    """A reader of the samples it was given."""

    entries: tuple[Sample | Unreadable, ...]
    classes: tuple[str, ...] = ("bed", "sofa")
    key: str = ""

    def fingerprint(self) -> dict[str, Any]:
        return {"key": self.key, "names": [entry.name for entry in self.entries]}

    def samples(self) -> Iterator[Sample | Unreadable]:
        yield from self.entries


@dataclass(frozen=True)
class Slow:
    """A reader that takes its time, so that two processes certainly overlap."""

    started: Path
    classes: tuple[str, ...] = ("bed",)

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "slow"}

    def samples(self) -> Iterator[Sample]:
        (self.started / str(os.getpid())).touch()
        deadline = time.monotonic() + 30
        while len(list(self.started.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        for index in range(5):
            yield Sample(cloud(seed=index), 0, f"bed_{index}", "train")


def cloud(count: int = 50, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 3)) * scale).astype(np.float32)


def sample(points: np.ndarray, name: str = "a", label: int = 0) -> Sample:
    return Sample(points, label, name, "train")


def stored(points: np.ndarray, folder: Path, size: int) -> np.ndarray:
    key = str(len(list(folder.iterdir())))
    return np.array(prepare(Given((sample(points),), key=key), folder, size).points[0])


def expected_unit(points: np.ndarray) -> np.ndarray:
    centred = points.astype(np.float64) - points.astype(np.float64).mean(0)
    return centred / max(float(np.dot(point, point)) ** 0.5 for point in centred)


def slow_farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Plain greedy sampling in float64 from the point farthest from the origin."""
    chosen = [int(np.argmax([np.dot(point, point) for point in points]))]
    while len(chosen) < count:
        gaps = [min(np.dot(p - points[i], p - points[i]) for i in chosen) for p in points]
        chosen.append(int(np.argmax(gaps)))
    return points[chosen]


def test_a_cloud_is_normalised_and_ordered_as_the_slow_reference_does_it(tmp_path: Path) -> None:
    points = cloud(40, scale=7) + np.float32([100, -3, 5])
    reference = slow_farthest_points(expected_unit(points), 20)
    np.testing.assert_allclose(stored(points, tmp_path, 20), reference, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(MIN_POINTS, 200),
    size=st.integers(1, 128),
    scale=st.sampled_from([1e-6, 1.0, 1e12]),
)
def test_any_prefix_is_the_farthest_point_sample_of_that_size(
    seed: int, count: int, size: int, scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    points = stored(cloud(count, seed, scale), tmp_path_factory.mktemp("cache"), size)
    assert points.shape == (size, 3)
    assert np.linalg.norm(points[0]) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-6
    distinct = min(count, size)
    start = torch.zeros(1, dtype=torch.int64)
    for prefix in {1, (distinct + 1) // 2, distinct}:
        order = farthest_point_order(torch.from_numpy(points[None, :distinct]), prefix, start)[0]
        assert order.tolist() == list(range(prefix))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), distinct=st.integers(MIN_POINTS, 40), copies=st.integers(0, 30))
def test_padding_repeats_only_the_clouds_own_points_in_order(
    seed: int, distinct: int, copies: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = cloud(distinct, seed)
    extra = own[np.random.default_rng(seed).integers(0, distinct, copies)]
    given_points = np.concatenate([own, extra])
    points = stored(given_points, tmp_path_factory.mktemp("cache"), 100)
    np.testing.assert_array_equal(points, points[np.arange(100) % distinct])
    assert len(np.unique(points, axis=0)) == distinct
    unit = expected_unit(given_points)
    assert max(np.abs(unit - point).max(axis=1).min() for point in points) < 1e-6


def test_a_large_cloud_is_thinned_alike_each_time_and_keeps_its_farthest_point(tmp_path: Path) -> None:
    points = cloud(REDUCE * 32 * 10)
    first, second = stored(points, tmp_path, 32), stored(points, tmp_path, 32)
    np.testing.assert_array_equal(first, second)
    unit = expected_unit(points)
    farthest = unit[np.linalg.norm(unit, axis=1).argmax()]
    np.testing.assert_allclose(first[0], farthest, atol=1e-6)
    assert max(np.abs(unit - point).max(axis=1).min() for point in first) < 1e-6


def test_clouds_of_mixed_sizes_keep_their_places_over_several_batches(tmp_path: Path) -> None:
    clouds = [cloud(20 + index % 7, seed=index) for index in range(300)]
    entries = tuple(
        Sample(points, index % 2, f"n{index}", ("train", "val", "test")[index % 3], f"room{index}")
        for index, points in enumerate(clouds)
    )
    prepared = prepare(Given(entries), tmp_path, 24)
    assert prepared.names == tuple(f"n{index}" for index in range(300))
    assert prepared.groups == tuple(f"room{index}" for index in range(300))
    assert prepared.labels.tolist() == [index % 2 for index in range(300)]
    assert prepared.parts.tolist() == [index % 3 for index in range(300)]
    assert prepared.indices("val").tolist() == list(range(1, 300, 3))
    for index in (0, 127, 128, 299):
        unit = expected_unit(clouds[index])
        reference = slow_farthest_points(unit, min(24, len(unit)))
        np.testing.assert_allclose(prepared.points[index][: len(reference)], reference, atol=1e-6)


BAD = {
    "nan": (np.where(np.arange(150).reshape(50, 3) == 7, np.nan, cloud()), "NaN or infinity in 1 points"),
    "infinite": (np.full((50, 3), np.inf, np.float32), "NaN or infinity in 50 points"),
    "empty": (np.empty((0, 3), np.float32), "at least 16 points, found 0"),
    "one point": (np.ones((1, 3), np.float32), "at least 16 points, found 1"),
    "all equal": (np.full((2048, 3), 0.1, np.float32), "16 distinct points, found 1 among 2048"),
    "too few distinct": (np.tile(cloud(MIN_POINTS - 1), (9, 1)), "distinct points, found 15 among 135"),
    "two columns": (np.ones((50, 2), np.float32), r"shape \(n, 3\), found \(50, 2\)"),
    "flat": (np.ones(50, np.float32), r"found \(50,\)"),
    "text": (np.full((50, 3), "1.0"), "floating-point coordinates, found <U3"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_unusable_cloud_is_skipped_with_its_reason_and_the_rest_is_kept(kind: str, tmp_path: Path) -> None:
    points, reason = BAD[kind]
    reader = Given((sample(cloud(), "good"), sample(points, "bad"), sample(cloud(seed=1), "late", 1)))
    prepared = prepare(reader, tmp_path, 16)
    assert prepared.names == ("good", "late")
    assert prepared.labels.tolist() == [0, 1]
    ((name, found),) = prepared.skipped
    assert name == "bad"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)
    assert check(reader).problems == [(name, found)]


def test_exactly_the_least_number_of_distinct_points_is_enough(tmp_path: Path) -> None:
    assert stored(cloud(MIN_POINTS), tmp_path, 16).shape == (16, 3)


def test_what_a_reader_could_not_read_is_listed(tmp_path: Path) -> None:
    reader = Given((Unreadable("broken.off", "no header"), sample(cloud())))
    assert prepare(reader, tmp_path, 16).skipped == (("broken.off", "no header"),)


def test_a_data_set_with_nothing_usable_says_why(tmp_path: Path) -> None:
    reader = Given((Unreadable("a", "no header"), Unreadable("b", "no header")))
    with pytest.raises(DataError, match=r"2 unusable ones, the first 'a': no header \(2x\)"):
        prepare(reader, tmp_path, 16)
    with pytest.raises(DataError, match="at least one sample, found none"):
        prepare(Given(()), tmp_path, 16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (sample(cloud(), label=2), "a: label: expected -1 to 1, found 2"),
        (sample(cloud(), label=-2), "found -2"),
        (sample(cloud())._replace(part="dev"), "part: expected one of train, val, test, found 'dev'"),  # type: ignore[arg-type]
    ],
)
def test_a_label_or_part_out_of_range_is_an_error(entry: Sample, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare(Given((entry,)), tmp_path, 16)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a: expected every name once"):
        prepare(Given((sample(cloud()), Unreadable("a", "x"))), tmp_path, 16)


def test_a_size_below_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="size: expected at least 1"):
        prepare(Given((sample(cloud()),)), tmp_path, 0)


def test_the_second_call_reads_nothing_and_another_fingerprint_or_size_reads_again(tmp_path: Path) -> None:
    first = prepare(Given((sample(cloud()),)), tmp_path, 16)
    other_points = Given((sample(cloud(seed=9)),))
    assert prepare(other_points, tmp_path, 16).path == first.path
    assert prepare(other_points, tmp_path, 17).path != first.path
    changed = prepare(Given(other_points.entries, key="changed"), tmp_path, 16)
    assert changed.path != first.path
    assert not np.array_equal(changed.points, first.points)


def test_labels_are_not_touched_until_somebody_asks(tmp_path: Path) -> None:
    path = prepare(Given((sample(cloud()),)), tmp_path, 16).path
    (path / "labels.npy").unlink()
    opened = CloudStore(path)
    assert opened.points.shape == (1, 16, 3)
    assert opened.indices("train").tolist() == [0]
    assert pickle.loads(pickle.dumps(opened)).names == ("a",)
    with pytest.raises(DataError, match=r"labels\.npy: expected an array int64 \(1,\), found no file"):
        _ = opened.labels


def test_points_are_mapped_and_a_pickled_store_carries_only_its_path(tmp_path: Path) -> None:
    prepared = prepare(Given((sample(cloud()),)), tmp_path, 4096)
    assert isinstance(prepared.points, np.memmap)
    assert not prepared.points.flags.writeable
    assert len(pickle.dumps(prepared)) < 1000


@pytest.mark.parametrize("name", ["points.npy", "labels.npy", "parts.npy"])
def test_a_truncated_array_is_reported_with_both_sizes(name: str, tmp_path: Path) -> None:
    path = prepare(Given((sample(cloud()), sample(cloud(seed=1), "b"))), tmp_path, 16).path
    file = path / name
    shorter = file.stat().st_size - 1
    os.truncate(file, shorter)
    with pytest.raises(DataError, match=rf"{name}: expected an array .* found a file of {shorter} bytes"):
        _ = CloudStore(path).labels
    os.truncate(file, 0)
    with pytest.raises(DataError, match=rf"{name}: expected .* found a file of 0 bytes"):
        _ = CloudStore(path).labels


def test_an_array_of_another_shape_or_type_is_reported(tmp_path: Path) -> None:
    path = prepare(Given((sample(cloud()),)), tmp_path, 16).path
    np.save(path / "points.npy", np.zeros((2, 16, 3), np.float32))
    with pytest.raises(DataError, match=r"expected an array float32 \(1, 16, 3\), found float32 \(2, 16, 3\)"):
        CloudStore(path)
    np.save(path / "points.npy", np.zeros((1, 16, 3), np.float64))
    with pytest.raises(DataError, match="found float64"):
        CloudStore(path)


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["points.npy", "labels.npy", "parts.npy"])
def test_a_pickle_in_the_cache_is_refused_and_runs_no_code(name: str, tmp_path: Path) -> None:
    path = prepare(Given((sample(cloud()),)), tmp_path / "cache", 16).path
    trace = tmp_path / "trace"
    np.save(path / name, np.array([Trap(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=name):
        _ = CloudStore(path).labels
    (path / name).write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(DataError, match=name):
        _ = CloudStore(path).labels
    assert not trace.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"classes": "bed"})])
def test_a_damaged_description_is_reported(text: str, tmp_path: Path) -> None:
    path = prepare(Given((sample(cloud()),)), tmp_path, 16).path
    (path / "meta.json").write_text(text)
    with pytest.raises(DataError, match=r"meta\.json.*delete"):
        CloudStore(path)
    (path / "meta.json").unlink()
    with pytest.raises(DataError, match=r"meta\.json: expected .* No such file"):
        CloudStore(path)


def _prepare_slowly(cache: Path, started: Path, results: Any) -> None:
    prepared = prepare(Slow(started), cache, 16)
    results.put((str(prepared.path), prepared.names, prepared.points.sum().item()))


def test_two_processes_preparing_at_once_share_one_store(tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.mkdir()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_prepare_slowly, args=(tmp_path / "cache", started, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    first, second = results.get(timeout=60), results.get(timeout=60)
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert len(list(started.iterdir())) == 2, "both processes must have been reading"
    assert first == second
    assert [str(path) for path in (tmp_path / "cache").iterdir()] == [first[0]]


def _die_while_preparing(cache: Path) -> None:
    def killed(_: object) -> Iterator[Sample]:
        for index in range(200):
            yield sample(cloud(seed=index), f"n{index}")
        os._exit(9)

    Given.samples = killed  # type: ignore[method-assign, assignment]
    prepare(Given((sample(cloud()),)), cache, 16)


def test_a_killed_process_leaves_no_store_and_its_rest_is_removed_once_stale(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_die_while_preparing, args=(tmp_path,))
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == 9
    (left,) = tmp_path.iterdir()
    assert (left / "points.npy").stat().st_size > 0

    reader = Given((sample(cloud()),))
    prepared = prepare(reader, tmp_path, 16)
    assert prepared.names == ("a",)
    assert left.exists(), "a young folder may belong to a process at work"

    old = time.time() - 2 * store_module._STALE_SECONDS
    for path in (*left.iterdir(), left):
        os.utime(path, (old, old))
    prepare(reader, tmp_path, 17)
    assert not left.exists()


def test_check_counts_per_class_and_part_and_writes_nothing(tmp_path: Path) -> None:
    entries = (
        Sample(cloud(seed=0), 0, "a", "train"),
        Sample(cloud(seed=1), 1, "b", "train"),
        Sample(cloud(seed=2), 1, "c", "train"),
        Sample(cloud(seed=3), 1, "d", "test"),
        Sample(cloud(seed=4), -1, "e", "val"),
        Unreadable("f", "broken"),
    )
    report = check(Given(entries))
    assert report.counts == {"train": [1, 2], "val": [0, 0], "test": [0, 1]}
    assert report.unlabelled == 1
    assert report.problems == [("f", "broken")]
    assert check(Given(())).counts == {"train": [0, 0], "val": [0, 0], "test": [0, 0]}


def test_progress_goes_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(Given((sample(cloud()), Unreadable("b", "broken"))), tmp_path, 16, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "preparing 1 clouds, 1 skipped" in err


def test_a_copy_of_a_data_set_is_known_to_hold_the_same_samples(tmp_path: Path) -> None:
    entries = (sample(cloud(seed=1), "a"), sample(cloud(seed=2), "b", label=1), Unreadable("c", "/here/c: broken"))
    first = prepare(Given(entries, key="first"), tmp_path, 16).path
    moved = (*entries[:2], Unreadable("c", "/there/c: broken"))
    copy = prepare(Given(moved, key="copy"), tmp_path, 16).path
    assert copy != first
    assert known_as(copy)[0] == known_as(first)[0]


@pytest.mark.parametrize(
    "other",
    [
        sample(cloud(seed=3), "a"),
        sample(cloud(seed=1), "other"),
        sample(cloud(seed=1), "a", label=1),
        sample(cloud(seed=1), "a")._replace(part="test"),
        sample(cloud(seed=1), "a")._replace(group="room"),
    ],
)
def test_a_data_set_with_another_sample_is_not_the_same(tmp_path: Path, other: Sample) -> None:
    rest = sample(cloud(seed=2), "b", label=1)
    first = prepare(Given((sample(cloud(seed=1), "a"), rest), key="first"), tmp_path, 16).path
    second = prepare(Given((other, rest), key="second"), tmp_path, 16).path
    assert known_as(second)[0] != known_as(first)[0]


def test_a_store_of_an_earlier_version_is_known_by_its_name_only(tmp_path: Path) -> None:
    store = prepare(Given((sample(cloud()),)), tmp_path, 16)
    (store.path / "contents.sha256").unlink()
    assert known_as(store.path) == (store.path.name,)
