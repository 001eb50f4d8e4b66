"""Labelled points on their way from a reader to a training batch: store, stream and augmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keypoint_testing import PARTNERS, POINTS, Faces, points_batch

from dense_testing import PROGRESS
from isthmus.data.image_augment import ImageAugment, Window, resampled
from isthmus.data.image_store import ImageStore, check_images, prepare_images
from isthmus.data.image_stream import ImageStream, image_batches, read_batch
from isthmus.data.images import ImageSample
from isthmus.errors import DataError
from isthmus.tasks.keypoints import Keypoints

HEIGHT, WIDTH = 16, 24
AUGMENT = ImageAugment(keypoints=POINTS)


class One(Faces):
    """A single image with a label that is given."""

    def __init__(self, label: Any, points: tuple[str, ...] = POINTS, key: str = "") -> None:
        super().__init__()
        self.label, self.key, self.tasks = label, key, {"keypoints": points}

    def fingerprint(self) -> dict[str, Any]:
        return {"label": np.asarray(self.label).tolist(), "key": self.key}

    def samples(self):
        blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        yield ImageSample(blank, {}, "plain", "train")
        yield ImageSample(blank, {"keypoints": self.label}, "a", "train")


def window(top: float = 0, left: float = 0, scale: float = 1, flipped: bool = False, size: int = 1) -> Window:
    return Window(*(torch.full((size,), float(v)) for v in (top, left, scale)), torch.full((size,), flipped))


def mirrored(size: int = 1) -> Window:
    return window(flipped=True, size=size)


# --- store -----------------------------------------------------------------------------------------------------------


def test_points_come_back_exactly_from_the_store(tmp_path: Path) -> None:
    reader = Faces()
    store = prepare_images(reader, tmp_path, None)
    assert store.tasks == reader.tasks and store.skipped == ()
    found = store.labels("keypoints")
    assert found.shape == (12, 4, 3) and found.dtype == np.float32 and isinstance(found, np.memmap)
    for row, sample in enumerate(reader.samples()):
        expected = sample.labels.get("keypoints", np.full((4, 3), np.nan, np.float32))
        np.testing.assert_array_equal(found[row], expected)
        assert store.present[row].tolist() == ["keypoints" in sample.labels, True]
    np.testing.assert_array_equal(ImageStore(store.path).labels("keypoints"), found)


@pytest.mark.parametrize("size", [(8, 12), (31, 9), (64, 96)])
def test_resizing_images_does_not_touch_points(size: tuple[int, int], tmp_path: Path) -> None:
    small, own = prepare_images(Faces(), tmp_path, size), prepare_images(Faces(), tmp_path, None)
    assert small.images.shape[1:3] == size
    np.testing.assert_array_equal(small.labels("keypoints"), own.labels("keypoints"))


def test_points_outside_or_not_finite_lose_their_label_and_depths_are_centred(tmp_path: Path) -> None:
    label = np.float32([[0, 1, 5], [0.5, 0.5, 3], [1.001, 0.5, 100], [0.5, np.nan, 2]])[:, [0, 1, 2]]
    label[2, 2] = 9
    found = prepare_images(One(label), tmp_path, None).labels("keypoints")[1]
    np.testing.assert_array_equal(found, np.float32([[0, 1, 1], [0.5, 0.5, -1], [np.nan] * 3, [np.nan] * 3]))
    store = prepare_images(One(np.full((4, 3), np.nan, np.float32)), tmp_path, None)
    assert not store.present.any() and len(store) == 2


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (np.zeros((3, 3), np.float32), r"keypoints: expected shape \(4, 3\) a row for each point, found \(3, 3\)"),
        (np.zeros((16, 24), np.float32), r"keypoints: expected shape \(4, 3\)"),
        (np.zeros((4, 3)), "keypoints: expected float32, found float64"),
        (np.float32([[12, 7, 0]] * 4), "keypoints: expected shares of the image's width and height, found 12"),
    ],
)
def test_a_label_that_is_none_is_skipped_with_its_reason(label: Any, reason: str, tmp_path: Path) -> None:
    reader = One(label)
    ((name, found),) = prepare_images(reader, tmp_path, None).skipped
    assert name == "a"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)
    assert check_images(reader).problems == [(name, found)]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), "keypoints: expected 1 to 1000 classes, found 0"),
        (("left_eye", "nose"), "keypoints: expected a partner 'right_eye' of 'left_eye'"),
    ],
)
def test_names_that_cannot_be_are_an_error(points: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare_images(One(np.zeros((4, 3), np.float32), points), tmp_path, None)


def test_check_counts_how_often_a_point_is_labelled() -> None:
    reader = Faces()
    report = check_images(reader)
    labels = [s.labels["keypoints"] for s in reader.samples() if "keypoints" in s.labels and s.part == "train"]
    assert report.pixels["train"]["keypoints"] == np.isfinite(labels)[..., 0].sum(axis=0).tolist()
    assert report.labelled["train"]["keypoints"] == len(labels)


# --- batches ---------------------------------------------------------------------------------------------------------


def everything(store: ImageStore) -> dict[str, np.ndarray]:
    return {name: store.present[:, column].copy() for column, name in enumerate(store.tasks)}


def test_a_batch_holds_points_with_zeros_where_there_is_no_label(tmp_path: Path) -> None:
    store = prepare_images(Faces(), tmp_path, None)
    rows = np.array([5, 0, 7, 2])
    batch = read_batch(store, rows, everything(store), "source")
    kept = torch.from_numpy(np.array(store.labels("keypoints")[rows]))
    assert batch.labels["keypoints"].shape == (4, 4, 3) and batch.labels["keypoints"].dtype == torch.float32
    assert torch.equal(batch.valid["keypoints"], kept.isfinite().all(dim=2))
    assert torch.equal(batch.labels["keypoints"], kept.nan_to_num(0.0))
    assert batch.present["keypoints"].tolist() == [True, False, True, True]
    assert [len(each) for each in image_batches(store, rows, everything(store), 3)] == [3, 1]


def test_points_that_are_not_let_through_are_never_read(tmp_path: Path) -> None:
    store = prepare_images(Faces(), tmp_path, None)
    present = everything(store)
    present["keypoints"][7] = False
    file = np.load(store.path / "label_keypoints.npy", mmap_mode="r+")
    file[7] = 0.25
    file.flush()
    batch = read_batch(ImageStore(store.path), np.array([7]), present, "source")
    assert not batch.present["keypoints"].any() and not batch.valid["keypoints"].any()
    assert not batch.labels["keypoints"].any()


def test_a_stream_tells_the_augmentation_the_names_of_the_points(tmp_path: Path) -> None:
    store = prepare_images(Faces(), tmp_path, None)
    stream = ImageStream(
        "source", store, store.indices("train"), 8, ImageAugment(scales=(1.0,), flip=1.0), everything(store)
    )
    batch = stream.batch(PROGRESS, 4)
    original = read_batch(store, batch.sample_id.numpy(), everything(store), "source")
    label, valid = (kind["keypoints"][:, list(PARTNERS)] for kind in (original.labels, original.valid))
    expected = torch.where(
        valid[..., None], torch.stack([1 - label[..., 0], label[..., 1], label[..., 2]], dim=-1), 0.0
    )
    assert torch.equal(batch.valid["keypoints"], valid) and batch.present["keypoints"].any()
    torch.testing.assert_close(batch.labels["keypoints"], expected)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_looking_at_everything_changes_no_point() -> None:
    batch = points_batch(torch.rand(5, 4, 3), torch.rand(5, 4) > 0.3)
    seen = AUGMENT.through(batch, window(size=5))
    torch.testing.assert_close(seen.labels["keypoints"], batch.labels["keypoints"])
    assert torch.equal(seen.valid["keypoints"], batch.valid["keypoints"])


coordinate = st.floats(0, 1, width=32)


@given(
    points=st.lists(st.tuples(coordinate, coordinate, st.floats(-1, 1, width=32)), min_size=4, max_size=4),
    valid=st.lists(st.booleans(), min_size=4, max_size=4),
    height=st.integers(2, 300),
    width=st.integers(2, 300),
)
@settings(max_examples=60, deadline=None)
def test_mirroring_twice_is_nothing(points: list, valid: list[bool], height: int, width: int) -> None:
    batch = points_batch([points], [valid], height, width)
    once = AUGMENT.through(batch, mirrored())
    assert once.valid["keypoints"][0].tolist() == [valid[partner] for partner in PARTNERS]
    for index, partner in enumerate(PARTNERS):
        if valid[partner]:
            u, v, z = points[partner]
            expected = torch.tensor([1 - u, v, z])
            torch.testing.assert_close(once.labels["keypoints"][0, index], expected, rtol=0, atol=1e-5)
    twice = AUGMENT.through(once, mirrored())
    torch.testing.assert_close(twice.labels["keypoints"], batch.labels["keypoints"], rtol=0, atol=1e-5)
    assert torch.equal(twice.valid["keypoints"], batch.valid["keypoints"])


@given(
    row=st.integers(0, HEIGHT - 1), column=st.integers(0, WIDTH - 1), scale=st.sampled_from([1.0, 1.2, 1.5, 2.0]),
    flipped=st.booleans(), place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_point_stays_on_the_pixel_that_it_marks(
    row: int, column: int, scale: float, flipped: bool, place: tuple[float, float]
) -> None:
    """A white pixel, and a point in its middle: seen through the window, the point lies where the white is."""
    rows, columns = int(HEIGHT / scale + 1e-6), int(WIDTH / scale + 1e-6)
    seen = window(round(place[0] * (HEIGHT - rows)), round(place[1] * (WIDTH - columns)), scale, flipped)
    u, v = (column + 0.5) / WIDTH, (row + 0.5) / HEIGHT
    batch = points_batch([[(u, v, 0.25)] * 4])
    batch.inputs["image"][..., row, column] = 1.0
    found = AUGMENT.through(batch, seen)
    top, left = int(seen.top), int(seen.left)
    if not (top <= row < top + rows and left <= column < left + columns):
        assert found.inputs["image"].max() < 1e-4 and not found.valid["keypoints"].any()
        return
    assert found.valid["keypoints"].all()
    heat = found.inputs["image"][0, 0].double()
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    at_u, at_v, z = found.labels["keypoints"][0, 0].tolist()
    inside = top < row < top + rows - 1 and left < column < left + columns - 1
    if inside:  # at the window's edge a part of the white is cut off
        centre_x, centre_y = ((heat * axis).sum() / heat.sum() for axis in (x, y))
        assert at_u * WIDTH - 0.5 == pytest.approx(float(centre_x), abs=0.35)
        assert at_v * HEIGHT - 0.5 == pytest.approx(float(centre_y), abs=0.35)
    assert heat[min(int(at_v * HEIGHT), HEIGHT - 1), min(int(at_u * WIDTH), WIDTH - 1)] > 0
    assert z == pytest.approx(0.25 * (WIDTH - 1) / (columns - 1), rel=1e-5)


def test_moving_points_inverts_the_sampling_grid() -> None:
    seen = Window(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([2.0, 5.0, 0.0]), torch.tensor([1.2, 1.5, 2.0]),
                  torch.tensor([False, True, True]))  # fmt: skip
    grid = seen.grid(HEIGHT, WIDTH)
    i, j = 5, 9
    x, y = ((grid[:, i, j, axis] + 1) / 2 * (side - 1) for axis, side in ((0, WIDTH), (1, HEIGHT)))
    points = torch.stack([(x + 0.5) / WIDTH, (y + 0.5) / HEIGHT, torch.zeros(3)], dim=1)[:, None]
    moved = seen.moved(points, HEIGHT, WIDTH)[:, 0]
    expected = torch.tensor([(j + 0.5) / WIDTH, (i + 0.5) / HEIGHT, 0.0]).expand(3, 3)
    torch.testing.assert_close(moved, expected)


def test_heat_maps_of_moved_points_are_moved_heat_maps() -> None:
    task = Keypoints(POINTS, sigma=4.0, size=(48, 72))
    label = torch.tensor([[[0.4, 0.5, 0.0], [0.5, 0.4, 0.0], [0.55, 0.55, 0.0], [0.45, 0.6, 0.0]]])
    batch, seen = points_batch(label, height=48, width=72), window(10, 12, 1.5, True)
    moved = AUGMENT.through(batch, seen)
    wider = Keypoints(POINTS, sigma=4.0 * 71 / 47, size=(48, 72))
    expected = wider.label_map(moved.labels["keypoints"], moved.valid["keypoints"])
    found = resampled(task.label_map(label, batch.valid["keypoints"]), seen.grid(48, 72), "bilinear")[:, list(PARTNERS)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


def test_what_leaves_the_window_loses_its_label_and_an_empty_label_is_absent() -> None:
    label = [[(0.1, 0.1, 0.0)] * 4, [(0.9, 0.9, 0.0)] * 3 + [(0.1, 0.9, 0.0)]]
    found = AUGMENT.through(points_batch(label), window(8, 12, 2.0, size=2))
    assert found.valid["keypoints"].tolist() == [[False] * 4, [True, True, True, False]]
    assert found.present["keypoints"].tolist() == [False, True]
    assert not found.labels["keypoints"][~found.valid["keypoints"]].any()


def test_points_on_the_border_keep_their_label() -> None:
    label = [[(0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]]
    for height, width in ((16, 24), (97, 65), (256, 255)):
        for seen in (window(), mirrored()):
            found = AUGMENT.through(points_batch(label, height=height, width=width), seen)
            assert found.valid["keypoints"].all()
            assert found.labels["keypoints"].min() >= 0 and found.labels["keypoints"].max() <= 1


def test_an_absent_label_of_garbage_stays_absent() -> None:
    batch = points_batch(torch.rand(2, 4, 3))
    batch.labels["keypoints"][1] = torch.nan
    batch.present["keypoints"][1] = False
    found = AUGMENT(batch, PROGRESS.random("augment/source", [0, 1]))
    assert found.present["keypoints"].tolist()[1] is False and found.labels["keypoints"][0].isfinite().all()


def test_points_cannot_be_mirrored_without_their_names() -> None:
    batch = points_batch(torch.rand(1, 4, 3))
    with pytest.raises(ValueError, match=r"expected the names of 4 points, .* found none"):
        ImageAugment().through(batch, window())
    with pytest.raises(ValueError, match=r"expected the names of 4 points, .* found none"):
        ImageAugment(flip=0.0).through(batch, mirrored())
    with pytest.raises(ValueError, match=r"expected the names of 4 points, .* found nose"):
        ImageAugment(keypoints=("nose",)).through(batch, window())
    assert ImageAugment(flip=0.0).through(batch, window(scale=1.2)).labels["keypoints"].isfinite().all()


def test_predicted_points_are_seen_through_a_window_too() -> None:
    points, seen = torch.rand(2, 4, 3), window(2, 3, 1.5, True, size=2)
    grid = seen.grid(HEIGHT, WIDTH)
    found = AUGMENT.map_through("keypoints", points, grid, seen)
    torch.testing.assert_close(found, seen.moved(points, HEIGHT, WIDTH)[:, list(PARTNERS)])
