import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.kitti import read_calibration, read_frame
from isthmus.data.readers.semantickitti import LABELS, SemanticKITTI, label_table, read_labels
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="real LiDAR frames: set ISTHMUS_DATA to the data directory")

CALIBRATION = """P0: 7 0 20 0 0 7 10 0 0 0 1 0
P2: 7 0 20 4 0 7 10 0.5 0 0 1 0.003
Tr: 0 -1 0 -0.01 0 0 -1 -0.05 1 0 0 -0.29
"""


def write_scan(folder: Path, name: str, seed: int, count: int = 200) -> np.ndarray:
    g = np.random.default_rng(seed)
    values = g.uniform(-20, 20, (count, 4)).astype(np.float32)
    for kind in ("velodyne", "image_2", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    values.tofile(folder / "velodyne" / f"{name}.bin")
    classes = g.choice(list(LABELS), count).astype(np.uint32)
    (classes | (g.integers(0, 9, count).astype(np.uint32) << 16)).tofile(folder / "labels" / f"{name}.label")
    Image.fromarray(g.integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(folder / "image_2" / f"{name}.png")
    (folder / "calib.txt").write_text(CALIBRATION)
    return values


def tree(root: Path) -> Path:
    for sequence, names in (
        ("00", ("000000", "000001")),
        ("07", ("000000",)),
        ("08", ("000004",)),
        ("11", ("000000",)),
    ):
        for name in names:
            write_scan(root / "dataset" / "sequences" / sequence, name, seed=int(sequence) + int(name))
    return root


def test_frames_follow_the_files_point_by_point(tmp_path: Path) -> None:
    reader = SemanticKITTI(tree(tmp_path), sequences=("00", "07", "08"))
    frames = list(every_frame(reader))
    assert [f.name for f in frames] == ["00/000000", "00/000001", "07/000000", "08/000004"]
    assert [f.part for f in frames] == ["train", "train", "val", "test"]
    assert [f.group for f in frames] == ["00", "00", "07", "08"]
    names = reader.classes
    for frame in frames:
        assert isinstance(frame, Frame)
        folder = tmp_path / "dataset" / "sequences" / frame.group
        stem = frame.name[3:]
        values = np.fromfile(folder / "velodyne" / f"{stem}.bin", np.float32).reshape(-1, 4)
        classes = np.fromfile(folder / "labels" / f"{stem}.label", np.uint32) & 0xFFFF
        image = np.asarray(Image.open(folder / "image_2" / f"{stem}.png"))
        np.testing.assert_array_equal(frame.image, image)
        expected = []
        for (x, y, z, remission), number in zip(values.astype(float), classes):
            # Tr by hand: right = -y, down = -z, ahead = x, and the shift.
            depth = x - 0.29 + 0.003
            column, row = (
                (7 * (-y - 0.01) + 20 * (x - 0.29) + 4) / depth,
                (7 * (-z - 0.05) + 10 * (x - 0.29) + 0.5) / depth,
            )
            if depth > 0 and 0 <= row < 20 and 0 <= column < 40:
                merged = protocol("semantickitti-10").label(LABELS[int(number)])
                expected.append((x, y, z, remission, row, column, merged))
        table = np.array(expected)
        assert 5 < len(table) < 150
        np.testing.assert_allclose(frame.points, table[:, :3])
        np.testing.assert_allclose(frame.intensity, table[:, 3])
        np.testing.assert_allclose(frame.pixels, table[:, 4:6], atol=1e-3)
        np.testing.assert_array_equal(frame.labels, table[:, 6])
        assert frame.labels.dtype == np.uint8 and set(frame.labels.tolist()) <= {*range(len(names)), 255}
        # The projection handed out is the one that made the pixels.
        homogeneous = np.append(frame.points, np.ones((len(table), 1)), axis=1) @ frame.projection.T
        np.testing.assert_allclose(homogeneous[:, 1::-1] / homogeneous[:, 2:], frame.pixels, atol=1e-3)


def test_scans_alone_keep_all_points_and_need_no_image(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for path in root.rglob("image_2/*.png"):
        path.unlink()
    for path in root.rglob("calib.txt"):
        path.unlink()
    for frame in every_frame(SemanticKITTI(root, sequences=("00",), images=False)):
        assert isinstance(frame, Frame)
        assert frame.image is None and frame.pixels is None and frame.projection is None
        assert len(frame.points) == len(frame.labels) == 200


def test_hidden_sequences_have_no_labels(tmp_path: Path) -> None:
    frame = next(iter(every_frame(SemanticKITTI(tree(tmp_path), sequences=("11",)))))
    assert isinstance(frame, Frame) and frame.labels is None and frame.part == "train"


def test_broken_frames_are_listed_and_the_others_read(tmp_path: Path) -> None:
    folder = tree(tmp_path) / "dataset" / "sequences" / "00"
    np.zeros(3, np.uint32).tofile(folder / "labels" / "000000.label")
    (folder / "image_2" / "000001.png").unlink()
    found = list(every_frame(SemanticKITTI(tmp_path, sequences=("00",))))
    assert all(isinstance(entry, Unreadable) for entry in found)
    assert "000000.label: expected labels of 200 points" in found[0].reason
    assert "000001.png: expected an image, found no file" in found[1].reason
    np.full(200, 12, np.uint32).tofile(folder / "labels" / "000000.label")
    found = list(every_frame(SemanticKITTI(tmp_path, sequences=("00",))))
    assert (
        "000000.label: labels: expected numbers of the data set's classes, found 12 (of 200 points)" in found[0].reason
    )


def test_what_is_wrong_with_the_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder 'sequences' or 'dataset/sequences', found none"):
        list(every_frame(SemanticKITTI(tmp_path)))
    root = tree(tmp_path)
    with pytest.raises(DataError, match=r"01.velodyne: expected scans \*\.bin, found none; name the sequences"):
        SemanticKITTI(root).fingerprint()
    with pytest.raises(DataError, match="sequences: expected some of 00 to 21, found '0'"):
        SemanticKITTI(root, sequences=("0",))
    with pytest.raises(DataError, match=r"protocol: expected one of .*semantickitti-10.*found 'a2d2-10'"):
        SemanticKITTI(root, protocol="a2d2-10")
    path = root / "dataset" / "sequences" / "00" / "calib.txt"
    path.write_text("P2: 1 2 3\n")
    with pytest.raises(DataError, match=r"calib\.txt: P2: expected 12 numbers, found 3"):
        list(every_frame(SemanticKITTI(root, sequences=("00",))))


def test_the_fingerprint_follows_files_protocol_and_images(tmp_path: Path) -> None:
    root = tree(tmp_path)
    reader = SemanticKITTI(root, sequences=("00",))
    first = reader.fingerprint()
    assert reader.fingerprint() == first and first["protocol"] == "semantickitti-10"
    assert SemanticKITTI(root, "semantickitti-seg6", ("00",)).fingerprint() != first
    assert SemanticKITTI(root, sequences=("00",), images=False).fingerprint() != first
    os.utime(root / "dataset" / "sequences" / "00" / "labels" / "000001.label", (1, 1))
    assert reader.fingerprint() != first


@needs_data
def test_the_names_of_classes_are_those_of_the_official_configuration() -> None:
    path = Path(DATA or "") / "lidar_camera" / "semantickitti_seq00" / "semantic-kitti.yaml"
    assert yaml.safe_load(path.read_text())["labels"] == LABELS


@needs_data
def test_the_labels_of_a_real_scan_are_counted() -> None:
    folder = Path(DATA or "") / "lidar_camera" / "semantickitti_seq00"
    frame = read_frame(folder / "000000.bin")
    given = protocol("semantickitti-10")
    labels = read_labels(folder / "000000.label", len(frame.points), label_table(given))
    raw = np.fromfile(folder / "000000.label", "<u4") & 0xFFFF
    assert len(labels) == len(raw) == 124668
    for index, fine in enumerate(given.merge.values()):
        numbers = [number for number, name in LABELS.items() if name in fine]
        assert (labels == index).sum() == sum(int((raw == number).sum()) for number in numbers)
    # A street: roads lie below the sensor, buildings reach above it.
    z = frame.points[:, 2]
    assert np.median(z[labels == given.classes.index("road")]) < -1.5
    assert np.quantile(z[labels == given.classes.index("building")], 0.9) > 0


@needs_data
def test_a_real_calibration_puts_points_ahead_into_the_image() -> None:
    folder = Path(DATA or "") / "lidar_camera" / "semantickitti_seq00"
    projection = read_calibration(folder / "calib.txt")
    # A point ten metres ahead at the camera's height lies near the principal point.
    column, row, depth = projection @ [10.0, 0, 0, 1]
    assert 9.5 < depth < 10 and abs(column / depth - 607) < 25 and abs(row / depth - 185) < 25


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    check_frames_by_themselves(SemanticKITTI(tree(tmp_path), sequences=("00", "11")))
