import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.image_store import prepare_images
from isthmus.data.images import valid_pixels
from isthmus.data.readers.class_names import NYU13
from isthmus.data.readers.scannet_views import ScanNetViews, scannet_rooms
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="ScanNet views: set ISTHMUS_DATA to the data directory")

SCANS = ["scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00", "scene0002_01"]


def arrays() -> dict[str, Any]:
    """Five views of 4 x 10 pixels; the width is no multiple of eight."""
    g = np.random.default_rng(0)
    mask = g.random((5, 4, 10)) < 0.8
    return {
        "rgb": g.integers(0, 256, (5, 4, 10, 3), dtype=np.uint8),
        "depth": g.uniform(0.5, 4, (5, 4, 10)).astype(np.float16),
        "normal": g.integers(-73, 74, (5, 4, 10, 3), dtype=np.int8) | 1,
        "seg": g.integers(0, 14, (5, 4, 10), dtype=np.uint8),
        "classes13": np.array(["ignore", *NYU13]),
        "mask": np.packbits(mask, axis=-1),
        "scan": np.array(SCANS),
    }


def write(folder: Path, **changed: Any) -> Path:
    np.savez(folder / "views.npz", **{name: array for name, array in (arrays() | changed).items() if array is not None})
    return folder / "views.npz"


def views(path: Path) -> ScanNetViews:
    return ScanNetViews(path, test_rooms=("scene0002",), val_rooms=("scene0001",))


def test_scans_of_one_room_stay_together(tmp_path: Path) -> None:
    samples = list(views(write(tmp_path)).samples())
    assert [s.name for s in samples] == [f"{scan}/{row}" for row, scan in enumerate(SCANS)]
    assert [s.group for s in samples] == ["scene0000", "scene0000", "scene0001", "scene0002", "scene0002"]
    assert [s.part for s in samples] == ["train", "train", "val", "test", "test"]
    assert scannet_rooms(tmp_path / "views.npz") == ("scene0000", "scene0001", "scene0002")


def test_labels_follow_the_file_pixel_by_pixel(tmp_path: Path) -> None:
    raw = arrays()
    for row, sample in enumerate(views(write(tmp_path)).samples()):
        np.testing.assert_array_equal(sample.image, raw["rgb"][row])
        for y in range(4):
            for x in range(10):
                covered = raw["mask"][row, y, x // 8] >> (7 - x % 8) & 1
                seg = raw["seg"][row, y, x]
                assert sample.labels["segmentation"][y, x] == (seg - 1 if covered and seg else 255)
                assert sample.labels["depth"][y, x] == (raw["depth"][row, y, x] if covered else 0)
                vector = raw["normal"][row, y, x].astype(float)
                expected = vector / np.sqrt(vector @ vector) if covered else np.zeros(3)
                np.testing.assert_allclose(sample.labels["normals"][y, x], expected, atol=1e-3)


def test_another_order_of_class_names_in_the_file_is_followed(tmp_path: Path) -> None:
    order = ["wall", *reversed(NYU13[:11]), "ignore", "window"]
    before = next(iter(views(write(tmp_path)).samples())).labels["segmentation"]
    seg = arrays()["seg"]
    renumbered = np.array([order.index(name) for name in ("ignore", *NYU13)], np.uint8)[seg]
    path = write(tmp_path, seg=renumbered, classes13=np.array(order))
    np.testing.assert_array_equal(next(iter(views(path).samples())).labels["segmentation"], before)


def test_rooms_by_class_counts_rooms_not_views(tmp_path: Path) -> None:
    seg = np.zeros((5, 4, 10), np.uint8)
    seg[0], seg[1], seg[3], seg[4, 0, 0] = 1, 1, 1, 13
    path = write(tmp_path, seg=seg, mask=np.packbits(np.ones((5, 4, 10), bool), axis=-1))
    counts = views(path).rooms_by_class()
    assert counts["train"] == {name: int(name == "bed") for name in NYU13}
    assert not any(counts["val"].values())
    assert counts["test"] == {name: int(name in ("bed", "window")) for name in NYU13}
    everything = ScanNetViews(path, test_rooms=(), val_rooms=()).rooms_by_class()["train"]
    assert (everything["bed"], everything["window"]) == (2, 1)


def test_rooms_that_are_not_there_or_in_two_parts_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError, match=r"test_rooms and val_rooms: .* found 'scene0001' in both"):
        ScanNetViews(path, test_rooms=("scene0001",), val_rooms=("scene0001",))
    reader = ScanNetViews(path, test_rooms=("scene0001",), val_rooms=("scene000",))
    with pytest.raises(
        DataError, match=r"val_rooms: expected some of the rooms scene0000, .* found 'scene000'; did you"
    ):
        list(reader.samples())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": None}, r"views\.npz: expected the arrays rgb, .*mask"),
        ({"rgb": np.zeros((5, 4, 10, 3), np.float32)}, r"rgb: expected uint8 \(5, 4, 10, 3\), found float32"),
        ({"depth": np.zeros((5, 4, 9), np.float16)}, r"depth: .* found float16 \(5, 4, 9\)"),
        ({"mask": np.zeros((5, 4, 1), np.uint8)}, r"mask: expected uint8 \(5, 4, 2\), found uint8 \(5, 4, 1\)"),
        ({"scan": np.array(SCANS[:4])}, "scan: expected 5 names"),
        ({"scan": np.array(["kitchen", *SCANS[1:]])}, "scan: expected the name of a ScanNet scan .* found 'kitchen'"),
        ({"seg": np.full((5, 4, 10), 14, np.uint8)}, r"seg\[0\]: expected 0 to 13, found 14"),
        ({"classes13": np.array(["ignore", *NYU13[:-1], "windw"])}, "found 'windw'; did you mean 'window'"),
        ({"rgb": np.array([{}], dtype=object)}, "allow_pickle"),
        ({"seg": np.zeros((4, 10), np.uint8)}, "expected uint8"),
    ],
)
def test_a_file_that_is_not_the_views_is_an_error(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        list(views(path).samples())


def test_a_cut_off_file_and_no_file_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"views\.npz: expected the arrays"):
        list(views(path).samples())
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(DataError, match=r"views\.npz: expected the arrays"):
        list(views(path).samples())
    with pytest.raises(DataError, match="none: expected the file of ScanNet views, found no file"):
        views(tmp_path / "none").fingerprint()
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        scannet_rooms()


def test_the_fingerprint_follows_file_and_parts(tmp_path: Path) -> None:
    path = write(tmp_path)
    first = views(path).fingerprint()
    assert views(path).fingerprint() == first
    assert ScanNetViews(path, test_rooms=("scene0002",), val_rooms=()).fingerprint() != first
    os.utime(path, (1, 1))
    assert views(path).fingerprint() != first


@needs_data
def test_the_real_views_are_prepared_without_a_skip(tmp_path: Path) -> None:
    rooms = scannet_rooms()
    assert len(rooms) == 8
    reader = ScanNetViews(test_rooms=rooms[5:], val_rooms=rooms[4:5])
    store = prepare_images(reader, tmp_path, None)
    assert len(store) == 300 and store.size == (60, 80) and store.skipped == () and store.present.all()
    assert len({(group, part) for group, part in zip(store.groups, store.parts.tolist())}) == 8
    # Scans per room as the file names them.
    assert Counter(store.groups)["scene0000"] == 60
    normals, depth = store.labels("normals"), store.labels("depth")
    covered = valid_pixels("normals", normals)
    np.testing.assert_array_equal(covered, valid_pixels("depth", depth))
    lengths = np.linalg.norm(normals[covered].astype(np.float32), axis=-1)
    assert np.abs(lengths - 1).max() < 2e-3
    # Views from inside a room look at surfaces that face the camera.
    assert (normals[covered][:, 2] < 0).mean() > 0.95
    assert depth[covered].min() > 0.1 and depth.max() < 10


@needs_data
def test_real_floors_point_up_and_walls_do_not() -> None:
    reader = ScanNetViews(test_rooms=(), val_rooms=())
    up: dict[str, list[float]] = {"floor": [], "wall": []}
    for sample in reader.samples():
        for name, collected in up.items():
            here = sample.labels["segmentation"] == NYU13.index(name)
            if here.sum() > 50:
                collected.append(float(-sample.labels["normals"][here][:, 1].astype(float).mean()))
    # The camera's y axis points down, so a floor seen by an upright camera has a strongly negative y.
    assert np.median(up["floor"]) > 0.6
    assert abs(np.median(up["wall"])) < 0.5
