import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isthmus.data import publish
from isthmus.data.clouds import PARTS, Unreadable
from isthmus.data.image_store import ImageStore, check_images, prepare_images
from isthmus.data.images import ENCODINGS, ImageSample, valid_pixels
from isthmus.data.publish import known_as
from isthmus.errors import DataError

ALL_TASKS: dict[str, tuple[str, ...]] = {
    "segmentation": ("bed", "sofa", "wall"),
    "parts": ("background", "head"),
    "depth": (),
    "inverse_depth": (),
    "normals": (),
    "saliency": (),
    "edges": (),
}


@dataclass(frozen=True)
class Given:
    """A reader of the samples it was given."""

    entries: tuple[ImageSample | Unreadable, ...]
    tasks: dict[str, tuple[str, ...]] = field(default_factory=lambda: ALL_TASKS)
    key: str = ""

    def fingerprint(self) -> dict[str, Any]:
        return {"key": self.key, "names": [entry.name for entry in self.entries]}

    def samples(self) -> Iterator[ImageSample | Unreadable]:
        yield from self.entries


@dataclass(frozen=True)
class Slow:
    """A reader that takes its time, so that two processes certainly overlap."""

    started: Path
    tasks: dict[str, tuple[str, ...]] = field(default_factory=lambda: ALL_TASKS)

    def fingerprint(self) -> dict[str, Any]:
        return {"reader": "slow"}

    def samples(self) -> Iterator[ImageSample]:
        (self.started / str(os.getpid())).touch()
        deadline = time.monotonic() + 30
        while len(list(self.started.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        for index in range(5):
            yield picture(f"n{index}", index)


def unit_vectors(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    vectors = generator.normal(size=(*shape, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


def picture(
    name: str = "a",
    seed: int = 0,
    size: tuple[int, int] = (6, 8),
    tasks: tuple[str, ...] = tuple(ALL_TASKS),
    part: Any = "train",
    group: str = "",
) -> ImageSample:
    """Random pixels with labels of the given tasks, about a fifth of their pixels without a label."""
    g = np.random.default_rng(seed)
    depth = (g.random(size) + 0.5).astype(np.float32)
    everything = {
        "segmentation": g.integers(0, 3, size, dtype=np.uint8),
        "parts": g.integers(0, 2, size, dtype=np.uint8),
        "depth": depth,
        "inverse_depth": (1 / depth).astype(np.float32),
        "normals": unit_vectors(g, size),
        "saliency": g.integers(0, 2, size, dtype=np.uint8),
        "edges": g.integers(0, 2, size, dtype=np.uint8),
    }
    labels = {task: everything[task] for task in tasks}
    for task, label in labels.items():
        label[g.random(size) < 0.2] = ENCODINGS[task].invalid
    return ImageSample(g.integers(0, 256, (*size, 3), dtype=np.uint8), labels, name, part, group)


def with_label(task: str, label: Any) -> ImageSample:
    sample = picture("bad", 7)
    return sample._replace(labels=sample.labels | {task: label})


def stored(sample: ImageSample, folder: Path, size: tuple[int, int] | None = None) -> ImageStore:
    return prepare_images(Given((sample,), key=str(len(list(folder.iterdir())))), folder, size)


def test_images_and_labels_come_back_exactly_in_their_places(tmp_path: Path) -> None:
    carried = [("segmentation", "normals"), ("depth",), (), tuple(ALL_TASKS), ("edges", "parts", "saliency")]
    entries = tuple(
        picture(f"n{index}", index, tasks=carried[index % 5], part=PARTS[index % 3], group=f"room{index % 2}")
        for index in range(20)
    )
    store = prepare_images(Given(entries), tmp_path, None)
    assert store.size == (6, 8) and len(store) == 20
    assert store.tasks == ALL_TASKS and list(store.tasks) == list(ALL_TASKS)
    assert store.names == tuple(f"n{index}" for index in range(20))
    assert store.groups == tuple(f"room{index % 2}" for index in range(20))
    assert store.indices("val").tolist() == list(range(1, 20, 3))
    assert store.present.tolist() == [[task in entry.labels for task in ALL_TASKS] for entry in entries]
    np.testing.assert_array_equal(store.images, np.stack([entry.image for entry in entries]))
    for task in ALL_TASKS:
        maps = store.labels(task)
        assert maps.dtype == ENCODINGS[task].dtype and isinstance(maps, np.memmap)
        for row, entry in enumerate(entries):
            if task not in entry.labels:
                assert not valid_pixels(task, maps[row]).any()
            elif task == "normals":
                np.testing.assert_allclose(maps[row], entry.labels[task], atol=1e-3)
            else:
                np.testing.assert_array_equal(maps[row], entry.labels[task])


def slow_nearest(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each new pixel takes the old one that its centre falls into."""
    out = np.empty((height, width, *label.shape[2:]), label.dtype)
    for y in range(height):
        for x in range(width):
            out[y, x] = label[(2 * y + 1) * label.shape[0] // (2 * height), (2 * x + 1) * label.shape[1] // (2 * width)]
    return out


def slow_edges(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """An edge wherever one lies in the cell of a pixel, "no label" only where nothing else does."""
    if height > label.shape[0] or width > label.shape[1]:
        return slow_nearest(label, height, width)
    out = np.zeros((height, width), label.dtype)
    for y in range(height):
        for x in range(width):
            rows = slice(y * label.shape[0] // height, (y + 1) * label.shape[0] // height)
            columns = slice(x * label.shape[1] // width, (x + 1) * label.shape[1] // width)
            found = set(label[rows, columns].ravel().tolist())
            out[y, x] = 1 if 1 in found else 0 if 0 in found else 255
    return out


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    old=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new=st.tuples(st.integers(1, 15), st.integers(1, 15)),
)
def test_resizing_takes_the_nearest_label_and_never_invents_one(
    seed: int, old: tuple[int, int], new: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sample = picture("a", seed, old)
    store = stored(sample, tmp_path_factory.mktemp("cache"), new)
    assert store.size == new
    for column, (task, label) in enumerate(sample.labels.items()):
        expected = slow_edges(label, *new) if task == "edges" else slow_nearest(label, *new)
        assert store.present[0, column] == valid_pixels(task, expected).any()
        tolerance = 1e-3 if task == "normals" else 0
        np.testing.assert_allclose(store.labels(task)[0].astype(float), expected.astype(float), atol=tolerance)


def test_nearest_is_the_nearest_of_pillow(tmp_path: Path) -> None:
    sample = picture("a", 1, (30, 44), ("segmentation",))
    # Sizes for which no centre falls on a border between pixels, where either neighbour is right.
    for size in ((14, 16), (60, 88), (46, 32)):
        store = stored(sample, tmp_path, size)
        other = Image.fromarray(sample.labels["segmentation"]).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(store.labels("segmentation")[0], np.asarray(other))


def test_a_shrunk_image_is_averaged_not_picked(tmp_path: Path) -> None:
    # A checkerboard of single pixels: picking gives black and white, averaging gives grey.
    board = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    store = stored(ImageSample(image, {}, "a", "train"), tmp_path, (16, 16))
    assert np.abs(store.images[0].astype(int) - 127).max() <= 2
    # A ramp stays a ramp: rows 4k..4k+3 average to 4k + 1.5 in the middle.
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3))
    shrunk = stored(ImageSample(ramp, {}, "a", "train"), tmp_path, (16, 16)).images[0]
    np.testing.assert_allclose(
        shrunk[2:-2, :, 0], np.broadcast_to((4 * np.arange(2, 14) + 1.5)[:, None], (12, 16)), atol=1
    )


def test_all_images_must_have_one_size_unless_a_size_is_given(tmp_path: Path) -> None:
    reader = Given((picture("a"), picture("b", size=(8, 6))))
    with pytest.raises(DataError, match=r"b: expected 6 x 8 pixels .* as in a, found 8 x 6; give a size"):
        prepare_images(reader, tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    assert prepare_images(reader, tmp_path, (6, 8)).images.shape == (2, 6, 8, 3)
    assert check_images(reader).sizes == {(6, 8): 1, (8, 6): 1}


def test_a_label_without_a_valid_pixel_is_absent_also_if_resizing_lost_them_all(tmp_path: Path) -> None:
    sample = picture("a", tasks=())
    depth = np.zeros((6, 8), np.float32)
    edges = np.full((6, 8), 255, np.uint8)
    edges[0, 0] = 1
    sample = sample._replace(labels={"depth": depth, "edges": edges})
    columns = list(ALL_TASKS)
    assert [columns[i] for i in np.flatnonzero(stored(sample, tmp_path).present[0])] == ["edges"]
    assert [columns[i] for i in np.flatnonzero(stored(sample, tmp_path, (3, 4)).present[0])] == ["edges"]
    depth[0, 0] = 1
    assert not stored(sample._replace(labels={"depth": depth}), tmp_path, (3, 4)).present.any()
    depth[0, 0] = 0
    depth[2, 3] = np.nan
    assert not stored(sample, tmp_path).present[0, columns.index("depth")]


def test_numbers_that_are_not_finite_are_no_label_and_normals_become_unit_vectors(tmp_path: Path) -> None:
    sample = picture("a", tasks=())
    depth = np.full((6, 8), 2, np.float32)
    depth[0, 0], depth[1, 1] = np.nan, np.inf
    normals = np.zeros((6, 8, 3), np.float16)
    normals[0] = [0, 0, -0.5]
    normals[1] = [0.6, 0.8, 0]
    normals[2] = [0, 0.05, 0]
    normals[3] = [1, np.nan, 0]
    store = stored(sample._replace(labels={"depth": depth, "normals": normals}), tmp_path)
    assert valid_pixels("depth", store.labels("depth")[0]).sum() == 46
    assert np.isfinite(store.labels("depth")).all()
    found = store.labels("normals")[0]
    np.testing.assert_array_equal(found[0], np.broadcast_to(np.float16([0, 0, -1]), (8, 3)))
    np.testing.assert_allclose(found[1], np.broadcast_to([0.6, 0.8, 0], (8, 3)), atol=1e-3)
    assert not found[2:].any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.15, 1.4))
def test_stored_normals_have_length_one_or_zero_and_keep_their_direction(
    seed: int, scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sample = picture("a", seed, tasks=("normals",))
    original = sample.labels["normals"].astype(float)
    shorter = sample._replace(labels={"normals": (original * scale).astype(np.float16)})
    found = stored(shorter, tmp_path_factory.mktemp("cache")).labels("normals")[0].astype(float)
    lengths = np.linalg.norm(found, axis=-1)
    assert (np.abs(lengths - (original != 0).any(-1)) < 2e-3).all()
    np.testing.assert_allclose(found, original, atol=5e-3)


SIZE = (6, 8)
BAD = {
    "class too large": ("segmentation", np.full(SIZE, 3, np.uint8), "expected 0 to 2 or 255, found 3 .*48"),
    "unsigned -1 cast": ("parts", np.full(SIZE, 254, np.uint8), "parts: expected 0 to 1 or 255, found 254"),
    "saliency as 0..254": ("saliency", np.full(SIZE, 2, np.uint8), "saliency: expected 0 to 1 or 255, found 2"),
    "wrong dtype": ("segmentation", np.zeros(SIZE, np.int64), "segmentation: expected uint8, found int64"),
    "big-endian": ("depth", np.ones(SIZE, ">f4"), "depth: expected float32, found >f4"),
    "wrong size": ("depth", np.ones((8, 6), np.float32), r"depth: expected shape \(6, 8\) .*, found \(8, 6\)"),
    "channel too many": ("depth", np.ones((6, 8, 1), np.float32), r"depth: .* found \(6, 8, 1\)"),
    "channel first": ("normals", np.ones((3, 6, 8), np.float16), r"normals: .*\(6, 8, 3\).* found \(3, 6, 8\)"),
    "negative depth": ("depth", np.full(SIZE, -1, np.float32), "depth: expected at least 0, found -1, 48 negative"),
    "normals of 0..255": ("normals", np.full((6, 8, 3), 200, np.float16), "expected unit vectors, found .*346"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_sample_with_an_unusable_label_is_skipped_with_its_reason_and_the_rest_is_kept(
    kind: str, tmp_path: Path
) -> None:
    task, label, reason = BAD[kind]
    reader = Given((picture("good"), with_label(task, label), picture("late", 3)))
    store = prepare_images(reader, tmp_path, None)
    assert store.names == ("good", "late")
    np.testing.assert_array_equal(store.images[1], picture("late", 3).image)
    np.testing.assert_array_equal(store.labels("parts")[1], picture("late", 3).labels["parts"])
    ((name, found),) = store.skipped
    assert name == "bad"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)
    assert check_images(reader).problems == [(name, found)]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((6, 8, 3), np.nan, np.float32), "image: expected uint8, found float32"),
        (np.zeros((6, 8), np.uint8), r"image: expected shape \(H, W, 3\), found \(6, 8\)"),
        (np.zeros((6, 8, 4), np.uint8), r"found \(6, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"found \(0, 8, 3\)"),
    ],
)
def test_an_image_that_is_none_is_skipped_with_its_reason(image: np.ndarray, reason: str, tmp_path: Path) -> None:
    store = prepare_images(Given((picture("bad")._replace(image=image), picture("good"))), tmp_path, None)
    assert store.names == ("good",)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(store.skipped[0].reason)


def test_what_a_reader_could_not_read_is_listed(tmp_path: Path) -> None:
    store = prepare_images(Given((Unreadable("broken.png", "cut off"), picture())), tmp_path, None)
    assert store.skipped == (("broken.png", "cut off"),)


def test_a_data_set_with_nothing_usable_says_why(tmp_path: Path) -> None:
    reader = Given((Unreadable("a", "cut off"), Unreadable("b", "cut off")))
    with pytest.raises(DataError, match=r"2 unusable ones, the first 'a': cut off \(2x\)"):
        prepare_images(reader, tmp_path, None)
    with pytest.raises(DataError, match="at least one sample, found none"):
        prepare_images(Given(()), tmp_path, (4, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (picture(part="dev"), "a: part: expected one of train, val, test, found 'dev'"),
        (
            with_label("flow", np.zeros(SIZE, np.uint8)),
            "bad: expected labels of the tasks segmentation.*, found 'flow'",
        ),
    ],
)
def test_an_unknown_part_or_task_is_an_error(entry: ImageSample, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare_images(Given((entry,)), tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"segmentaton": ("a",)}, "found 'segmentaton'; did you mean 'segmentation'"),
        ({"segmentation": ()}, "segmentation: expected 1 to 255 classes, found 0"),
        ({"parts": ("x",) * 256}, "parts: expected 1 to 255 classes, found 256"),
        ({"depth": ("near", "far")}, "depth: expected 0 to 0 classes, found 2"),
    ],
)
def test_tasks_that_cannot_be_are_an_error(tasks: dict[str, Any], message: str, tmp_path: Path) -> None:
    for action in (lambda reader: prepare_images(reader, tmp_path, None), check_images):
        with pytest.raises(DataError, match=message):
            action(Given((picture(tasks=()),), tasks))


def test_a_name_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a: expected every name once"):
        prepare_images(Given((picture(), Unreadable("a", "x"))), tmp_path, None)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,)])
def test_a_size_that_is_none_is_an_error(size: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="size: expected a height and a width"):
        prepare_images(Given((picture(),)), tmp_path, size)


def test_images_without_any_task_can_be_stored(tmp_path: Path) -> None:
    store = prepare_images(Given((picture(tasks=()),), {}), tmp_path, None)
    assert store.present.shape == (1, 0) and store.tasks == {}
    with pytest.raises(DataError, match=r"expected one of the tasks \(none\), found 'depth'"):
        store.labels("depth")


def test_the_second_call_reads_nothing_and_another_fingerprint_task_or_size_reads_again(tmp_path: Path) -> None:
    first = prepare_images(Given((picture(),)), tmp_path, None)
    other = Given((picture(seed=9),))
    assert prepare_images(other, tmp_path, None).path == first.path
    paths = {
        first.path,
        prepare_images(other, tmp_path, (6, 8)).path,
        prepare_images(other, tmp_path, (8, 6)).path,
        prepare_images(Given(other.entries, key="changed"), tmp_path, None).path,
        prepare_images(Given(other.entries, ALL_TASKS | {"parts": ("bg", "head")}), tmp_path, None).path,
    }
    assert len(paths) == 5


def test_labels_are_not_touched_until_somebody_asks(tmp_path: Path) -> None:
    path = prepare_images(Given((picture(),)), tmp_path, None).path
    (path / "label_depth.npy").unlink()
    opened = ImageStore(path)
    assert opened.images.shape == (1, 6, 8, 3) and opened.present.all()
    assert opened.labels("normals").shape == (1, 6, 8, 3)
    with pytest.raises(DataError, match=r"label_depth\.npy: expected an array float32 \(1, 6, 8\), found no file"):
        opened.labels("depth")
    with pytest.raises(DataError, match="found 'dept'; did you mean 'depth'"):
        opened.labels("dept")


def test_images_are_mapped_and_a_pickled_store_carries_only_its_path(tmp_path: Path) -> None:
    store = prepare_images(Given((picture(size=(64, 64)),)), tmp_path, None)
    store.labels("depth")
    assert isinstance(store.images, np.memmap) and not store.images.flags.writeable
    carried = pickle.dumps(store)
    assert len(carried) < 1000
    np.testing.assert_array_equal(pickle.loads(carried).labels("depth"), store.labels("depth"))


def everything_opened(path: Path) -> None:
    store = ImageStore(path)
    for task in store.tasks:
        store.labels(task)


FILES = ["images.npy", "parts.npy", "present.npy", *(f"label_{task}.npy" for task in ALL_TASKS)]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_array_is_reported_with_both_sizes(name: str, tmp_path: Path) -> None:
    path = prepare_images(Given((picture(), picture("b", 1))), tmp_path, None).path
    assert sorted(file.name for file in path.iterdir()) == sorted([*FILES, "meta.json", "contents.sha256"])
    shorter = (path / name).stat().st_size - 1
    os.truncate(path / name, shorter)
    with pytest.raises(DataError, match=rf"{name}: expected an array .* found a file of {shorter} bytes"):
        everything_opened(path)


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_the_cache_is_refused_and_runs_no_code(name: str, tmp_path: Path) -> None:
    path = prepare_images(Given((picture(),)), tmp_path / "cache", None).path
    trace = tmp_path / "trace"
    np.save(path / name, np.array([Trap(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=name):
        everything_opened(path)
    (path / name).write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(DataError, match=name):
        everything_opened(path)
    assert not trace.exists()


def test_a_damaged_description_is_reported(tmp_path: Path) -> None:
    path = prepare_images(Given((picture(),)), tmp_path, None).path
    good = json.loads((path / "meta.json").read_text())
    for text in ("", "{", "[]", json.dumps(good | {"groups": []}), json.dumps(good | {"size": [6]})):
        (path / "meta.json").write_text(text)
        with pytest.raises(DataError, match=r"meta\.json.*delete"):
            ImageStore(path)
    (path / "meta.json").unlink()
    with pytest.raises(DataError, match=r"meta\.json: expected .* No such file"):
        ImageStore(path)


def _prepare_slowly(cache: Path, started: Path, results: Any) -> None:
    store = prepare_images(Slow(started), cache, None)
    results.put((str(store.path), store.names, int(store.images.sum())))


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
    def killed(_: object) -> Iterator[ImageSample]:
        for index in range(20):
            yield picture(f"n{index}", index, (64, 64))
        os._exit(9)

    Given.samples = killed  # type: ignore[method-assign, assignment]
    prepare_images(Given((picture(),)), cache, None)


def test_a_killed_process_leaves_no_store_and_its_rest_is_removed_once_stale(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_die_while_preparing, args=(tmp_path,))
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == 9
    (left,) = tmp_path.iterdir()
    assert (left / "images.npy").stat().st_size > 0, "images must be on disk before the last one was read"

    reader = Given((picture(),))
    assert prepare_images(reader, tmp_path, None).names == ("a",)
    assert left.exists(), "a young folder may belong to a process at work"
    old = time.time() - 2 * publish.STALE_SECONDS
    for path in (*left.iterdir(), left):
        os.utime(path, (old, old))
    prepare_images(reader, tmp_path, (3, 4))
    assert not left.exists()


def test_check_counts_per_class_and_part_and_writes_nothing() -> None:
    first = picture("a", tasks=())._replace(
        labels={"segmentation": np.uint8([[0, 0, 1], [2, 255, 255]]), "depth": np.float32([[0, 0, 1], [2, 3, 0]])},
        image=np.zeros((2, 3, 3), np.uint8),
    )
    second = first._replace(name="b", part="test", labels={"depth": np.zeros((2, 3), np.float32)})
    report = check_images(Given((first, first._replace(name="c"), second, Unreadable("d", "cut off"))))
    assert report.images == {"train": 2, "val": 0, "test": 1}
    assert report.labelled["train"] == {task: 2 * (task in ("segmentation", "depth")) for task in ALL_TASKS}
    assert not any(report.labelled["test"].values())
    assert report.pixels["train"]["segmentation"] == [4, 2, 2]
    assert report.pixels["train"]["depth"] == [6]
    assert report.sizes == {(2, 3): 3}
    assert report.problems == [("d", "cut off")]
    assert check_images(Given(())).images == {"train": 0, "val": 0, "test": 0}


def test_progress_goes_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare_images(Given((picture(), Unreadable("b", "broken"))), tmp_path, None, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "preparing 1 images, 1 skipped" in err
    prepare_images(Given((picture(),), key="quiet"), tmp_path, None)
    assert capfd.readouterr() == ("", "")


def test_a_copy_of_images_is_known_to_be_the_same_data_and_another_label_is_not(tmp_path: Path) -> None:
    sample = picture()
    other = sample._replace(labels={**sample.labels, "depth": sample.labels["depth"] + np.float32(1)})
    first, copy, changed = (
        known_as(prepare_images(Given((each,), key=key), tmp_path, None).path)
        for each, key in ((sample, "first"), (sample, "copy"), (other, "changed"))
    )
    assert first[0] == copy[0] and first[1] != copy[1]
    assert changed[0] != first[0]
