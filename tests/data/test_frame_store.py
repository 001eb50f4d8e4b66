import pickle
from pathlib import Path

import numpy as np
import pytest
from frame_testing import CLASSES, Frames, frame

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_reading import frame_problem, resized_frame
from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frames import NO_LABEL
from isthmus.errors import DataError

GIVEN = (frame(0, 5), frame(1, 9, part="val"), frame(2, 1, part="test"), frame(3, 7))


def test_frames_of_different_lengths_come_back_as_they_were(tmp_path: Path) -> None:
    store = prepare_frames(Frames(GIVEN), tmp_path, None)
    assert store.names == ("000", "001", "002", "003") and store.classes == CLASSES and store.size == (8, 12)
    assert store.offsets.tolist() == [0, 5, 14, 15, 22] and store.groups == ("street0",) * 2 + ("street1",) * 2
    for index, each in enumerate(GIVEN):
        span = slice(store.offsets[index], store.offsets[index + 1])
        np.testing.assert_array_equal(store.points[span], each.points)
        np.testing.assert_array_equal(store.pixels[span], each.pixels)
        np.testing.assert_array_equal(store.labels[span], each.labels)
        np.testing.assert_array_equal(store.images[index], each.image)
        np.testing.assert_array_equal(store.projections[index], each.projection)
    assert store.indices("train").tolist() == [0, 3] and store.indices("val").tolist() == [1]
    # frame 2 has one point, and that one has no label
    assert store.present.tolist() == [True, True, False, True]
    assert pickle.loads(pickle.dumps(store)).names == store.names


def test_sweeps_without_images_are_kept_without(tmp_path: Path) -> None:
    store = prepare_frames(Frames(tuple(frame(i, size=None) for i in range(3))), tmp_path, (16, 16))
    assert store.size == (0, 0) and store.images.shape == (3, 0, 0, 3) and np.isnan(store.projections).all()
    assert (store.intensity == 0).all() and len(store.points) == 36


def test_a_smaller_image_keeps_every_point_in_the_part_of_the_image_where_it_was() -> None:
    before = frame(4, 50, (32, 48))
    after = resized_frame(before, (8, 16))
    assert before.pixels is not None and after.pixels is not None and after.image is not None
    assert after.image.shape == (8, 16, 3)
    np.testing.assert_allclose(after.pixels / (8, 16), before.pixels / (32, 48), atol=1e-6)
    assert (after.pixels < (8, 16)).all()
    assert before.projection is not None and after.projection is not None
    point = np.array([1.0, 2.0, 3.0, 1.0])
    (x, y, w), (u, v, z) = before.projection @ point, after.projection @ point
    np.testing.assert_allclose([u / z, v / z], [x / w * 16 / 48, y / w * 8 / 32])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"points": np.zeros((0, 3), np.float32)}, "points: expected at least one"),
        ({"points": np.zeros((12, 2), np.float32)}, r"points: expected float32 \(12, 3\), found float32 \(12, 2\)"),
        ({"points": np.zeros((12, 3))}, r"points: expected float32 \(12, 3\), found float64"),
        ({"points": np.full((12, 3), np.nan, np.float32)}, "points: expected finite numbers, found 36 others"),
        ({"labels": np.full(12, 3, np.uint8)}, "labels: expected 0 to 2 or 255, found 3 among 12 points"),
        ({"labels": np.zeros(11, np.uint8)}, r"labels: expected uint8 \(12,\), found uint8 \(11,\)"),
        ({"pixels": np.full((12, 2), 8.0, np.float32)}, "pixels: expected them inside 8 x 12, found 12 outside"),
        ({"pixels": None}, "pixels: expected them with image, found none"),
        ({"image": None}, "image: expected them with pixels, found none"),
        ({"image": np.zeros((8, 12), np.uint8)}, r"image: expected uint8 \(H, W, 3\), found uint8 \(8, 12\)"),
        ({"projection": np.eye(3)}, r"projection: expected shape \(3, 4\), found \(3, 3\)"),
    ],
)
def test_a_frame_that_is_not_one_is_left_out_with_the_reason(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    broken = frame(0)._replace(**change)
    with pytest.raises(DataError, match=complaint):
        prepare_frames(Frames((broken,)), tmp_path, None)
    store = prepare_frames(Frames((broken, frame(1), Unreadable("x", "gone"))), tmp_path / "two", None)
    assert [each.name for each in store.skipped] == ["000", "x"] and store.names == ("001",)
    assert frame_problem(frame(1), 3) == ""


def test_images_of_two_sizes_need_a_size(tmp_path: Path) -> None:
    given = Frames((frame(0), frame(1, size=(10, 12))))
    with pytest.raises(DataError, match=r"001: image: expected 8 x 12 pixels .* as in 000, found 10 x 12"):
        prepare_frames(given, tmp_path, None)
    assert prepare_frames(given, tmp_path, (9, 9)).size == (9, 9)
    with pytest.raises(DataError, match="found none"):
        prepare_frames(Frames((frame(0), frame(1, size=None))), tmp_path, None)
    assert list(tmp_path.glob(".preparing-*")) == []


def test_a_store_depends_on_reader_classes_and_size_and_is_checked_when_opened(tmp_path: Path) -> None:
    first = prepare_frames(Frames(GIVEN), tmp_path, None)
    others = [
        prepare_frames(Frames(GIVEN, version=1), tmp_path, None),
        prepare_frames(Frames(GIVEN, classes=(*CLASSES, "sky")), tmp_path, None),
        prepare_frames(Frames(GIVEN), tmp_path, (16, 16)),
    ]
    assert len({each.path for each in (first, *others)}) == 4
    assert prepare_frames(Frames(GIVEN), tmp_path, None).path == first.path
    file = first.path / "points.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"points\.npy: expected an array float32 \(22, 3\)"):
        FrameStore(first.path)


def test_labels_are_read_when_somebody_asks(tmp_path: Path) -> None:
    store = prepare_frames(Frames(GIVEN), tmp_path, None)
    assert (store.labels == NO_LABEL).sum() == 4
    (store.path / "labels.npy").unlink()
    opened = FrameStore(store.path)
    assert opened.points.shape == (22, 3)
    with pytest.raises(DataError, match=r"labels\.npy: .*found no file"):
        _ = opened.labels
