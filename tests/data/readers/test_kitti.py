import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.kitti import KittiFrames, read_calibration, read_frame
from isthmus.data.safe_pickle import load_pickle
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="a real KITTI frame: set ISTHMUS_DATA to the data directory")


def object_tree(root: Path) -> Path:
    g = np.random.default_rng(0)
    for kind in ("velodyne", "image_2", "calib"):
        (root / "training" / kind).mkdir(parents=True)
    for name in ("000007", "000008"):
        g.uniform(-20, 20, (100, 4)).astype(np.float32).tofile(root / "training" / "velodyne" / f"{name}.bin")
        Image.fromarray(g.integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(
            root / "training" / "image_2" / f"{name}.png"
        )
        (root / "training" / "calib" / f"{name}.txt").write_text(
            "P2: 7 0 20 4 0 7 10 0.5 0 0 1 0.003\nR0_rect: 1 0 0 0 0.8 -0.6 0 0.6 0.8\n"
            "Tr_velo_to_cam: 0 -1 0 -0.01 0 0 -1 -0.05 1 0 0 -0.29\n"
        )
    return root


def test_kittis_frames_go_through_the_rectification(tmp_path: Path) -> None:
    frames = list(every_frame(KittiFrames(object_tree(tmp_path))))
    assert [f.name for f in frames] == ["000007", "000008"]
    frame = frames[0]
    assert isinstance(frame, Frame) and frame.labels is None and frame.part == "test" and len(frame.points)
    for point, (row, column) in zip(frame.points.astype(float), frame.pixels):
        x, y, z = -point[1] - 0.01, -point[2] - 0.05, point[0] - 0.29
        y, z = 0.8 * y - 0.6 * z, 0.6 * y + 0.8 * z
        depth = z + 0.003
        np.testing.assert_allclose(
            [row, column], [(7 * y + 10 * z + 0.5) / depth, (7 * x + 20 * z + 4) / depth], atol=1e-3
        )


def test_kittis_broken_frames_are_listed(tmp_path: Path) -> None:
    root = object_tree(tmp_path)
    (root / "training" / "calib" / "000007.txt").write_text("P2: 7 0 20 4 0 7 10 0.5 0 0 1 0.003\n")
    (root / "training" / "velodyne" / "000008.bin").write_bytes(b"123")
    first, second = every_frame(KittiFrames(root))
    assert isinstance(first, Unreadable) and "000007.txt: expected a line 'R0_rect', found P2" in first.reason
    assert isinstance(second, Unreadable) and "000008.bin: expected points of 4 float32" in second.reason
    with pytest.raises(DataError, match=r"testing.velodyne: expected sweeps"):
        KittiFrames(root, "testing").fingerprint()
    with pytest.raises(DataError, match="expected a calibration with the image, found none"):
        read_frame(root / "training" / "velodyne" / "000007.bin", root / "training" / "image_2" / "000007.png")


@needs_data
def test_a_real_frames_points_in_the_field_of_view_lie_in_its_image(tmp_path: Path) -> None:
    folder = Path(DATA or "") / "lidar_camera" / "kitti_000008"
    info = load_pickle(folder / "000008.pkl")["data_list"][0]
    camera, lidar = info["images"]["CAM2"], info["lidar_points"]
    rows = {
        "P2": np.array(camera["cam2img"])[:3],
        "R0_rect": np.array(info["images"]["R0_rect"])[:3, :3],
        "Tr_velo_to_cam": np.array(lidar["Tr_velo_to_cam"])[:3],
    }
    path = tmp_path / "000008.txt"
    path.write_text("".join(f"{name}: {' '.join(map(repr, m.ravel().tolist()))}\n" for name, m in rows.items()))
    np.testing.assert_allclose(read_calibration(path), np.array(camera["lidar2img"])[:3], rtol=1e-4, atol=1e-3)
    frame = read_frame(folder / "000008.bin", folder / "000008.png", path)
    # The file was cut to the field of view, which a border of rounding may belong to.
    assert frame.image.shape == (375, 1242, 3)
    assert len(frame.points) >= 17238 - 20


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    check_frames_by_themselves(KittiFrames(object_tree(tmp_path)))
