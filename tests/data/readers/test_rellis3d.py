import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.rellis3d import DISTORTION, LABELS, Rellis3D, distorted_visible, read_camera
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="a real RELLIS-3D frame: set ISTHMUS_DATA to the data directory")

LIDAR, POINT_LABELS = "os1_cloud_node_kitti_bin", "os1_cloud_node_semantickitti_label_id"


def write_camera(folder: Path, intrinsics: np.ndarray, camera_from_lidar: np.ndarray) -> None:
    """The two files of a sequence; the second holds the way from the camera to the LiDAR."""
    folder.mkdir(parents=True, exist_ok=True)
    back = np.linalg.inv(camera_from_lidar)
    w, x, y, z = Rotation.from_matrix(back[:3, :3]).as_quat(scalar_first=True).tolist()
    tx, ty, tz = back[:3, 3].tolist()
    (folder / "camera_info.txt").write_text(" ".join(map(repr, intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())) + "\n")
    (folder / "transforms.yaml").write_text(
        f"os1_cloud_node-pylon_camera_node:\n  q:\n    w: {w!r}\n    x: {x!r}\n    y: {y!r}\n    z: {z!r}\n"
        f"  t:\n    x: {tx!r}\n    y: {ty!r}\n    z: {tz!r}\n"
    )


CAMERA = np.array([[0, 1.0, 0, 0.1], [0, 0, -1, -0.2], [-1, 0, 0, -0.3], [0, 0, 0, 1]])
K = np.array([[60.0, 0, 40], [0, 62, 25], [0, 0, 1]])


def tree(root: Path) -> Path:
    g = np.random.default_rng(0)
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for sequence, name, part in (
        ("00000", "000104", "train"),
        ("00000", "000105", "test"),
        ("00001", "000007", "val"),
        ("00001", "000008", "train"),
    ):
        folder = root / sequence
        for kind in (LIDAR, POINT_LABELS, "pylon_camera_node"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        write_camera(folder, K, CAMERA)
        g.uniform([-20, -8, -5, 0], [2, 8, 5, 1], (300, 4)).astype(np.float32).tofile(folder / LIDAR / f"{name}.bin")
        g.choice(list(LABELS), 300).astype(np.uint32).tofile(folder / POINT_LABELS / f"{name}.label")
        if name != "000008":
            image = Image.fromarray(g.integers(0, 256, (50, 80, 3), dtype=np.uint8))
            image.save(folder / "pylon_camera_node" / f"frame{name}-1581624663_149.jpg")
        lines[part].append(f"{sequence}/{LIDAR}/{name}.bin {sequence}/{POINT_LABELS}/{name}.label\n")
    for part, rows in lines.items():
        (root / f"pt_{part}.lst").write_text("".join(rows))
    return root


def test_frames_follow_the_files_and_lists(tmp_path: Path) -> None:
    frames = list(every_frame(Rellis3D(tree(tmp_path))))
    assert [(f.name, f.part, f.group) for f in frames] == [
        ("00000/000104", "train", "00000"),
        ("00001/000007", "val", "00001"),
        ("00000/000105", "test", "00000"),
    ]
    k1, k2, p1, p2, k3 = DISTORTION
    for frame in frames:
        assert isinstance(frame, Frame) and frame.projection is None
        folder, name = tmp_path / frame.group, frame.name[6:]
        values = np.fromfile(folder / LIDAR / f"{name}.bin", np.float32).reshape(-1, 4).astype(float)
        numbers = np.fromfile(folder / POINT_LABELS / f"{name}.label", np.uint32)
        expected = []
        for (x, y, z, intensity), number in zip(values, numbers):
            right, down, ahead = y + 0.1, -z - 0.2, -x - 0.3
            if ahead <= 0:
                continue
            a, b = right / ahead, down / ahead
            r2 = a * a + b * b
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            column = 60 * (a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a)) + 40
            row = 62 * (b * radial + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b) + 25
            # A quarter of the image is more than the lens moves a point by.
            near = -20 <= 60 * a + 40 < 100 and -12.5 <= 62 * b + 25 < 62.5
            if near and 0 <= row < 50 and 0 <= column < 80:
                expected.append((x, y, z, intensity, row, column, protocol("rellis3d-19").label(LABELS[int(number)])))
        table = np.array(expected)
        assert 30 < len(table) < 290
        np.testing.assert_allclose(frame.points, table[:, :3], rtol=1e-6)
        np.testing.assert_allclose(frame.intensity, table[:, 3], rtol=1e-6)
        np.testing.assert_allclose(frame.pixels, table[:, 4:6], atol=1e-2)
        assert frame.labels.tolist() == table[:, 6].tolist()


def test_points_far_outside_are_not_folded_back() -> None:
    # With these coefficients the polynomial turns around: a ray at 80 degrees would land near the middle.
    points = np.array([[-1.0, 5.67, 0], [-10.0, 1, 0]])
    kept, pixels = distorted_visible(points, K, np.array(CAMERA), (50, 80))
    assert kept.tolist() == [False, True] and len(pixels) == 1


def test_broken_frames_are_listed_and_the_whole_is_checked(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "00000" / POINT_LABELS / "000104.label").write_bytes(bytes(8))
    np.full(300, 2, np.uint32).tofile(root / "00000" / POINT_LABELS / "000105.label")
    found = list(every_frame(Rellis3D(root)))
    assert isinstance(found[0], Unreadable) and "000104.label: expected labels of 300 points" in found[0].reason
    assert isinstance(found[1], Frame) and isinstance(found[2], Unreadable)
    assert "000105.label: labels: expected numbers of the data set's classes, found 2" in found[2].reason
    (root / "pt_val.lst").write_text("one\n")
    with pytest.raises(DataError, match=r"pt_val\.lst:1: expected a \.bin and a \.label, found 'one'"):
        Rellis3D(root).fingerprint()
    (root / "pt_val.lst").unlink()
    with pytest.raises(DataError, match=r"pt_val\.lst: expected a list of sweeps and labels"):
        list(every_frame(Rellis3D(root)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("camera_info.txt", "1 2 3", "expected the four numbers fx fy cx cy, found 3"),
        ("camera_info.txt", "1 2 3 x", "expected the four numbers fx fy cx cy, found could not"),
        ("camera_info.txt", "1 2 3 nan", "expected finite numbers"),
        ("transforms.yaml", "a: 1", "expected os1_cloud_node-pylon_camera_node with q .*KeyError"),
        (
            "transforms.yaml",
            "os1_cloud_node-pylon_camera_node: {q: {w: 0, x: 0, y: 0, z: 0}, t: {x: 0, y: 0, z: 0}}",
            ".*quaternion",
        ),
        ("transforms.yaml", "a: [", "expected os1_cloud"),
    ],
)
def test_a_broken_calibration_is_an_error(name: str, content: str, message: str, tmp_path: Path) -> None:
    write_camera(tmp_path, K, CAMERA)
    intrinsics, camera = read_camera(tmp_path)
    np.testing.assert_allclose(intrinsics, K)
    np.testing.assert_allclose(camera, CAMERA, atol=1e-12)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read_camera(tmp_path)


def test_the_fingerprint_follows_lists_and_files(tmp_path: Path) -> None:
    root = tree(tmp_path)
    first = Rellis3D(root).fingerprint()
    assert Rellis3D(root).fingerprint() == first
    os.utime(root / "00001" / "transforms.yaml", (1, 1))
    second = Rellis3D(root).fingerprint()
    assert second != first
    (root / "pt_test.lst").write_text("")
    assert Rellis3D(root).fingerprint() != second


@needs_data
def test_the_real_frames_point_to_pixel_map_is_reproduced_within_a_pixel(tmp_path: Path) -> None:
    stored = Path(DATA or "") / "lidar_camera" / "rellis3d_000104"
    with np.load(stored / "frame.npz") as archive:
        real = {name: archive[name] for name in archive.files}
    folder = tmp_path / "00000"
    for kind in (LIDAR, POINT_LABELS, "pylon_camera_node"):
        (folder / kind).mkdir(parents=True)
    write_camera(folder, real["K"], real["T_cam_from_lidar"])
    values = np.concatenate([real["points"], real["intensity"][:, None]], axis=1)
    values.astype(np.float32).tofile(folder / LIDAR / "000104.bin")
    real["label"].astype(np.uint32).tofile(folder / POINT_LABELS / "000104.label")
    (folder / "pylon_camera_node" / "frame000104-1581624663_149.jpg").symlink_to(stored / "camera_1920x1200.jpg")
    for part in ("train", "val", "test"):
        line = f"00000/{LIDAR}/000104.bin 00000/{POINT_LABELS}/000104.label\n"
        (tmp_path / f"pt_{part}.lst").write_text(line if part == "test" else "")
    (frame,) = every_frame(Rellis3D(tmp_path))
    assert isinstance(frame, Frame) and frame.image.shape == (1200, 1920, 3) and frame.part == "test"
    seen = real["visible"]
    assert len(frame.points) == seen.sum() == 7616
    np.testing.assert_array_equal(frame.points, real["points"][seen])
    # The stored map is for the image at a quarter of its size, columns first.
    distance = np.abs(frame.pixels[:, ::-1] - real["uv"][seen] / float(real["image_scale"]))
    assert distance.max() < 1
    # Labels of points and of the pixels they lie on agree for most points.
    rows, columns = (frame.pixels * float(real["image_scale"])).astype(int).T
    names = protocol("rellis3d-19")
    of_pixels = names.table(LABELS)[real["image_label"][rows, columns]]
    assert (of_pixels == frame.labels).mean() > 0.6


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    check_frames_by_themselves(Rellis3D(tree(tmp_path)))
