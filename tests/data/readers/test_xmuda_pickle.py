import json
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.a2d2 import class_list
from isthmus.data.readers.semantickitti import LABELS
from isthmus.data.readers.xmuda_pickle import BOX_NUMBERS, LIDARSEG_NUMBERS, XmudaPickles
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves


def entries(root: Path, classes: int, kind: str, count: int = 3) -> list[dict[str, Any]]:
    g = np.random.default_rng(len(kind))
    made = []
    for number in range(count):
        image = f"samples/CAM_FRONT/{kind}_{number}.png"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(g.integers(0, 256, (9, 16, 3), dtype=np.uint8)).save(root / image)
        made.append(
            {
                "points": g.normal(size=(50, 3)).astype(np.float32),
                "seg_labels": g.integers(0, classes, 50).astype(np.uint8),
                "points_img": g.uniform(0, [8.9, 15.9], (50, 2)),
                "lidar_path": f"samples/LIDAR_TOP/{kind}_{number}.pcd.bin",
                "camera_path": image,
            }
        )
    return made


def write(root: Path, name: str, content: Any) -> None:
    (root / "preprocess").mkdir(exist_ok=True)
    (root / "preprocess" / f"{name}.pkl").write_bytes(pickle.dumps(content))


def reader(root: Path, name: str, **splits: tuple[str, ...]) -> XmudaPickles:
    return XmudaPickles(root / "preprocess", root, name, splits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("nuscenes-box5", BOX_NUMBERS),
        ("nuscenes-seg5", BOX_NUMBERS),
        ("nuscenes-seg6", LIDARSEG_NUMBERS),
    ],
)
def test_nuscenes_pickles_follow_their_classes(name: str, numbers: tuple[str, ...], tmp_path: Path) -> None:
    made = entries(tmp_path, len(numbers), name)
    for number, entry in enumerate(made):
        entry |= {"sample_token": f"token{number}", "scene_name": f"scene-000{number // 2}", "calib": {"cam": [1, 2]}}
    write(tmp_path, "train_usa", made[:2])
    write(tmp_path, "test_usa", made[2:])
    frames = list(every_frame(reader(tmp_path, name, train=("train_usa",), test=("test_usa",))))
    assert [(f.name, f.part, f.group) for f in frames] == [
        ("token0", "train", "scene-0000"),
        ("token1", "train", "scene-0000"),
        ("token2", "test", "scene-0001"),
    ]
    for frame, entry in zip(frames, made):
        assert isinstance(frame, Frame)
        np.testing.assert_array_equal(frame.points, entry["points"])
        np.testing.assert_allclose(frame.pixels, entry["points_img"], rtol=1e-6)
        np.testing.assert_array_equal(frame.image, np.asarray(Image.open(tmp_path / entry["camera_path"])))
        assert frame.labels.tolist() == [protocol(name).label(numbers[n]) for n in entry["seg_labels"]]


def test_semantickittis_pickles_have_raw_numbers_and_a_projection(tmp_path: Path) -> None:
    made = entries(tmp_path, 1, "kitti", 1)
    raw = np.random.default_rng(0).choice(list(LABELS), 50).astype(np.int16)
    made[0] |= {
        "seg_labels": raw,
        "lidar_path": "dataset/sequences/04/velodyne/000007.bin",
        "proj_matrix": np.arange(12.0).reshape(3, 4),
        "image_size": (16, 9),
    }
    write(tmp_path, "train", made)
    (frame,) = every_frame(reader(tmp_path, "semantickitti-10", train=("train",)))
    assert isinstance(frame, Frame) and frame.group == "04" and frame.name.endswith("velodyne/000007")
    np.testing.assert_array_equal(frame.projection, made[0]["proj_matrix"])
    assert frame.labels.tolist() == [protocol("semantickitti-10").label(LABELS[int(n)]) for n in raw]


def test_a2d2s_pickles_go_by_the_class_list(tmp_path: Path) -> None:
    names = ["Sky", "Car 1", "Pedestrian 2"]
    (tmp_path / "class_list.json").write_text(json.dumps({f"#0000{i:02d}": n for i, n in enumerate(names)}))
    assert list(class_list(tmp_path / "class_list.json").values()) == names
    made = entries(tmp_path, 4, "a2d2", 1)
    made[0]["lidar_path"] = "20180807_145028/lidar/cam_front_center/20180807145028_lidar_frontcenter_000000091.npz"
    write(tmp_path, "test", made)
    (frame,) = every_frame(reader(tmp_path, "a2d2-10", test=("test",)))
    assert isinstance(frame, Frame) and frame.group == "20180807_145028"
    assert frame.labels.tolist() == [[255, 0, 3, 255][n] for n in made[0]["seg_labels"]]


def test_boxes_are_inert_and_other_objects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = entries(tmp_path, 11, "box", 1)
    for full in ("nuscenes.utils.data_classes.Box", "pyquaternion.quaternion.Quaternion", "nuscenes.other.Thing"):
        place, _, name = full.rpartition(".")
        module = types.ModuleType(place)
        kind = type(name, (), {"__module__": place, "__qualname__": name})
        setattr(module, name, kind)
        with monkeypatch.context() as patched:
            for depth in range(1, place.count(".") + 1):
                parent = ".".join(place.split(".")[:depth])
                patched.setitem(sys.modules, parent, types.ModuleType(parent))
            patched.setitem(sys.modules, place, module)
            box = kind()
            box.q = np.zeros(4)
            write(tmp_path, "train", [made[0] | {"boxes": [box]}])
        source = reader(tmp_path, "nuscenes-box5", train=("train",))
        if name == "Thing":
            with pytest.raises(DataError, match=r"train\.pkl: .*nuscenes\.other\.Thing, which is not loaded"):
                list(every_frame(source))
        else:
            assert isinstance(next(iter(every_frame(source))), Frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"points": np.zeros((50, 2), np.float32)},
            r"points: expected numbers of shape \(50, 3\), found float32 \(50, 2\)",
        ),
        ({"points": [1, 2]}, r"points: expected numbers of shape \(0, 3\), found list"),
        ({"seg_labels": np.zeros(49, np.uint8)}, r"seg_labels: expected numbers of shape \(50,\), found uint8 \(49,\)"),
        ({"seg_labels": np.full(50, 11, np.uint8)}, r"labels: .*found 11 \(of 50 points\)"),
        ({"seg_labels": np.full(50, -1, np.int16)}, r"labels: .*found -1"),
        ({"points_img": np.full((50, 2), 9.5)}, r"points_img: .*image of \(9, 16\), found \[9\.5, 9\.5\]"),
        ({"points": np.full((50, 3), np.inf, np.float32)}, "points: expected finite numbers"),
        ({"camera_path": "none.png"}, r"none\.png: expected an image, found no file"),
    ],
)
def test_a_frame_that_cannot_be_used_is_listed(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = entries(tmp_path, 11, "bad", 2)
    made[0] |= change
    write(tmp_path, "train", made)
    first, second = every_frame(reader(tmp_path, "nuscenes-box5", train=("train",)))
    assert isinstance(first, Unreadable) and isinstance(second, Frame)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(first.reason)


def test_a_pickle_that_is_not_one_of_frames_is_an_error(tmp_path: Path) -> None:
    source = reader(tmp_path, "nuscenes-box5", train=("train",))
    with pytest.raises(DataError, match=r"train\.pkl: expected a pickle of xMUDA's preprocessing, found no file"):
        source.fingerprint()
    for content, message in (
        ({"a": 1}, "expected a list of dicts, found dict"),
        ([1], "expected a list of dicts, found list"),
        ([{"points": np.zeros((1, 3))}], r"train\.pkl\[0\]: expected the keys points, .*found points$"),
    ):
        write(tmp_path, "train", content)
        with pytest.raises(DataError, match=message):
            list(every_frame(source))
    with pytest.raises(DataError, match="splits: expected pickles for some of train, val, test"):
        reader(tmp_path, "nuscenes-box5")
    with pytest.raises(DataError, match="expected one of nuScenes, A2D2 or SemanticKITTI, found 'virtualkitti-6'"):
        list(every_frame(reader(tmp_path, "virtualkitti-6", train=("train",))))


def test_the_fingerprint_follows_pickles_and_protocol(tmp_path: Path) -> None:
    write(tmp_path, "train", entries(tmp_path, 11, "print", 1))
    first = reader(tmp_path, "nuscenes-box5", train=("train",)).fingerprint()
    assert reader(tmp_path, "nuscenes-box5", train=("train",)).fingerprint() == first
    assert reader(tmp_path, "nuscenes-seg5", train=("train",)).fingerprint() != first
    assert reader(tmp_path, "nuscenes-box5", val=("train",)).fingerprint() != first
    os.utime(tmp_path / "preprocess" / "train.pkl", (1, 1))
    assert reader(tmp_path, "nuscenes-box5", train=("train",)).fingerprint() != first


def test_frames_do_not_depend_on_what_was_read_before_and_pickles_stay_at_home(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, name, entries(tmp_path, len(BOX_NUMBERS), name))
    check_frames_by_themselves(reader(tmp_path, "nuscenes-box5", train=("one",), test=("two",)), most=1000)
