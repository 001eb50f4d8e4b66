import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.class_protocol import check_one_space
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.lidar_sweeps import SENSORS, LidarSweeps
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="real LiDAR sweeps: set ISTHMUS_DATA to the data directory")

NAMES = ["road", "sidewalk", "building", "pole", "vegetation", "person", "two-wheeler", "car", "truck", "bus", "none"]


def arrays() -> dict[str, Any]:
    """Ten sweeps of 5, 6, ... points."""
    g = np.random.default_rng(0)
    offset = np.concatenate([[0], np.cumsum(np.arange(5, 15))])
    return {
        "points": g.normal(size=(offset[-1], 3)).astype(np.float16),
        "intensity": g.uniform(0, 99, offset[-1]).astype(np.float16),
        "label": g.integers(0, 11, offset[-1]).astype(np.int8),
        "offset": offset,
        "frame": np.array([str(100 + i) for i in range(10)]),
        "class_names": np.array(NAMES),
    }


def write(folder: Path, **changed: Any) -> Path:
    np.savez(
        folder / "sweeps.npz", **{name: array for name, array in (arrays() | changed).items() if array is not None}
    )
    return folder / "sweeps.npz"


def test_sweeps_are_dealt_in_the_order_of_time(tmp_path: Path) -> None:
    raw = arrays()
    frames = list(every_frame(LidarSweeps("ika", write(tmp_path))))
    assert [f.part for f in frames] == ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    assert [f.name for f in frames] == [f"ika/{100 + i}" for i in range(10)]
    assert [f.group for f in frames][4:8] == ["train/run 1", "train/run 1", "val/run 1", "val/run 1"]
    for number, frame in enumerate(frames):
        rows = slice(raw["offset"][number], raw["offset"][number + 1])
        assert len(frame.points) == 5 + number and frame.image is None and frame.pixels is None
        np.testing.assert_array_equal(frame.points, raw["points"][rows])
        np.testing.assert_array_equal(frame.intensity, raw["intensity"][rows])
        assert frame.labels.tolist() == [protocol("sweeps-ika").label(NAMES[n]) for n in raw["label"][rows]]


def test_poles_are_manmade_only_where_they_are_poles(tmp_path: Path) -> None:
    path = write(tmp_path, label=np.full(95, 3, np.int8))
    for sensor, expected in (("ika", 2), ("nuscenes", 255)):
        assert {int(n) for f in every_frame(LidarSweeps(sensor, path)) for n in f.labels} == {expected}


def test_the_front_is_a_quarter_of_the_circle(tmp_path: Path) -> None:
    path = write(tmp_path)
    for sensor, ahead, aside in (("ika", 0, 1), ("nuscenes", 1, 0)):
        every, front = (list(every_frame(LidarSweeps(sensor, path, front=f))) for f in (False, True))
        kept = [[p.tolist() for p in f.points if abs(np.arctan2(p[aside], p[ahead])) < np.pi / 4] for f in every]
        assert [f.points.tolist() for f in front] == kept
        assert 5 < sum(map(len, kept)) < 60
    assert LidarSweeps("ika", path).fingerprint() != LidarSweeps("ika", path, front=True).fingerprint()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": None}, r"sweeps\.npz: expected the arrays points, .*label"),
        ({"points": np.zeros((95, 2), np.float16)}, r"points: .*shape \(95, 3\), found float16 \(95, 2\)"),
        ({"label": np.zeros(94, np.int8)}, r"label: .*shape \(95,\), found int8 \(94,\)"),
        ({"label": np.full(95, 11, np.int8)}, r"labels: .*found 11 \(of 5 points\)"),
        ({"offset": np.zeros(11, np.int64)}, "offset: expected rising numbers from 0 to 95, found 0 to 0"),
        ({"offset": np.zeros(5, np.int64)}, r"offset: .*shape \(11,\)"),
        ({"class_names": np.array([*NAMES[:-1], "sky"])}, "expected a class of sweeps-ika, found 'sky'"),
        ({"points": np.full((95, 3), np.inf, np.float16)}, "points of sweep 0: expected finite numbers"),
    ],
)
def test_a_file_that_is_not_one_of_sweeps_is_an_error(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(every_frame(LidarSweeps("ika", write(tmp_path, **changed))))


def test_no_file_and_no_such_sensor_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="sensor: expected one of nuscenes, ika, semantickitti, found 'velodyne'"):
        LidarSweeps("velodyne")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected the sweeps of 'ika', found no file"):
        LidarSweeps("ika", tmp_path / "none").fingerprint()
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        LidarSweeps("ika").fingerprint()


@needs_data
def test_the_three_real_sets_share_classes_and_look_alike() -> None:
    assert check_one_space(protocol(f"sweeps-{sensor}") for sensor in SENSORS) == "lidar-sweeps-7"
    counts = {}
    for sensor, sweeps in (("nuscenes", 32), ("ika", 32), ("semantickitti", 21)):
        reader = LidarSweeps(sensor)  # type: ignore[arg-type]
        frames = list(every_frame(reader))
        assert len(frames) == sweeps and {f.part for f in frames} == {"train", "val", "test"}
        labels = np.concatenate([f.labels for f in frames])
        heights = np.concatenate([f.points[:, 2] for f in frames])
        road = labels == reader.classes.index("road")
        # Roads lie below every sensor, what is built reaches above them.
        assert np.median(heights[road]) < -1.4
        assert np.quantile(heights[labels == reader.classes.index("manmade")], 0.9) > -0.5
        counts[sensor] = len(labels), int((labels == 255).sum())
    assert counts == {"nuscenes": (834099, 74102), "ika": (100374, 6182), "semantickitti": (1064911, 32095)}


def test_sweeps_do_not_depend_on_what_was_read_before_and_the_file_stays_at_home(tmp_path: Path) -> None:
    check_frames_by_themselves(LidarSweeps("ika", write(tmp_path)), most=600)
