import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.nuscenes import BOX_CLASSES, NuScenes
from isthmus.data.safe_pickle import load_pickle
from isthmus.errors import DataError
from isthmus.geometry.projection import in_box, rigid
from reader_testing import check_frames_by_themselves

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="a real nuScenes frame: set ISTHMUS_DATA to the data directory")

K = [[60.0, 0, 40], [0, 60, 25], [0, 0, 1]]
# Right, forward, up to right, down, forward.
LENS = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
CATEGORIES = ["vehicle.car", "human.pedestrian.adult", "animal", "movable_object.barrier", "flat.sidewalk"]
NUMBERS = [17, 2, 1, 9, 26]

# Name, description, place: two by day in Boston, one by night and one by day in Singapore.
SCENES = [
    ("scene-0001", "Parked cars", "boston-seaport"),
    ("scene-0002", "Bus", "boston-seaport"),
    ("scene-1045", "Night, rain", "singapore-hollandvillage"),
    ("scene-0003", "Turn left", "singapore-onenorth"),
]
SPLITS = {"val": ["scene-0002"], "val_singapore": ["scene-0003"], "train": ["scene-0001"]}


def quaternion(matrix: np.ndarray) -> list[float]:
    return Rotation.from_matrix(matrix).as_quat(scalar_first=True).tolist()


def pose(token: str, motion: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"token": token, "rotation": quaternion(motion[:3, :3]), "translation": motion[:3, 3].tolist(), **more}


def dump(folder: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))


def tables(root: Path) -> dict[str, list[dict[str, Any]]]:
    """One scene after the other with two key frames each and a sweep between them that is none."""
    g = np.random.default_rng(0)
    lidar = rigid(g.normal(size=4), g.normal(size=3))
    camera = rigid(lidar[:3, :3] @ np.linalg.inv(LENS), lidar[:3, 3] + [0.1, 0.2, -0.3])
    made: dict[str, list[dict[str, Any]]] = {
        "sensor": [{"token": f"s{c}", "channel": c, "modality": ""} for c in ("LIDAR_TOP", "CAM_FRONT", "CAM_BACK")],
        "calibrated_sensor": [
            pose("cl", lidar, sensor_token="sLIDAR_TOP", camera_intrinsic=[]),
            pose("cf", camera, sensor_token="sCAM_FRONT", camera_intrinsic=K),
            pose("cb", camera, sensor_token="sCAM_BACK", camera_intrinsic=K),
        ],
        "log": [{"token": f"log{i}", "location": place} for i, (_, _, place) in enumerate(SCENES)],
        "scene": [
            {"token": name, "name": name, "description": text, "log_token": f"log{i}"}
            for i, (name, text, _) in enumerate(SCENES)
        ],
        "category": [{"token": c, "name": c, "index": n} for c, n in zip(CATEGORIES, NUMBERS)],
        "instance": [{"token": f"i{c}", "category_token": c} for c in CATEGORIES],
        **{name: [] for name in ("sample", "sample_data", "ego_pose", "sample_annotation", "lidarseg")},
    }
    for scene, (name, _, _) in enumerate(SCENES):
        # The later sample comes first in the table.
        for number in (1, 0):
            token = f"{name}/{number}"
            made["sample"].append({"token": token, "scene_token": name, "timestamp": 1000 * scene + number})
            for channel, sensor in (("LIDAR_TOP", "cl"), ("CAM_FRONT", "cf"), ("CAM_BACK", "cb")):
                suffix = "pcd.bin" if channel == "LIDAR_TOP" else "jpg"
                for key in (False, True):
                    made["ego_pose"].append(
                        pose(
                            f"{token}/{channel}/{key}",
                            rigid([1, *g.normal(0, 0.02, 3)], g.normal([400, 900, 0], 0.2)),
                        )
                    )
                    made["sample_data"].append(
                        {
                            "token": f"{token}/{channel}/{key}",
                            "sample_token": token,
                            "ego_pose_token": f"{token}/{channel}/{key}",
                            "calibrated_sensor_token": sensor,
                            "filename": f"{'samples' if key else 'sweeps'}/{channel}/{name}_{number}.{suffix}",
                            "is_key_frame": key,
                        }
                    )
            made["lidarseg"].append(
                {
                    "sample_data_token": f"{token}/LIDAR_TOP/True",
                    "filename": f"lidarseg/v1.0-trainval/{name}_{number}.bin",
                }
            )
            for index, category in enumerate(CATEGORIES[:4]):
                world = np.array(place(made, token)) @ np.array([g.uniform(-3, 3), 8 + 3 * index, 0, 1])
                made["sample_annotation"].append(
                    pose(
                        f"{token}/{category}",
                        rigid(g.normal(size=4), world[:3]),
                        sample_token=token,
                        instance_token=f"i{category}",
                        size=[3.0, 5.0, 4.0],
                    )
                )
            points = np.concatenate([g.uniform([-15, -5, -4, 0, 0], [15, 25, 4, 255, 31], (400, 5))]).astype(np.float32)
            for path, write in (
                (f"samples/LIDAR_TOP/{name}_{number}.pcd.bin", points.tofile),
                (
                    f"samples/CAM_FRONT/{name}_{number}.jpg",
                    Image.fromarray(g.integers(0, 256, (50, 80, 3), dtype=np.uint8)).save,
                ),
                (f"lidarseg/v1.0-trainval/{name}_{number}.bin", g.choice(np.array(NUMBERS, np.uint8), 400).tofile),
            ):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                write(root / path)
    return made


def place(made: dict[str, list[dict[str, Any]]], token: str) -> np.ndarray:
    """From the LiDAR of a sample into the world, by hand."""
    ego = next(row for row in made["ego_pose"] if row["token"] == f"{token}/LIDAR_TOP/True")
    return matrix(ego) @ matrix(made["calibrated_sensor"][0])


def matrix(row: dict[str, Any]) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_quat(row["rotation"], scalar_first=True).as_matrix()
    out[:3, 3] = row["translation"]
    return out


def tree(root: Path, splits: Any = SPLITS) -> dict[str, list[dict[str, Any]]]:
    made = tables(root)
    dump(root / "v1.0-trainval", made)
    if splits is not None:
        (root / "splits.json").write_text(json.dumps(splits))
    return made


def test_domains_and_parts(tmp_path: Path) -> None:
    tree(tmp_path)
    expected = {
        "usa": {"scene-0001": "train", "scene-0002": "test"},
        "singapore": {"scene-1045": "train", "scene-0003": "val"},
        "day": {"scene-0001": "train", "scene-0002": "test", "scene-0003": "train"},
        "night": {"scene-1045": "val"},
        "all": {"scene-0001": "train", "scene-0002": "test", "scene-1045": "train", "scene-0003": "train"},
    }
    for domain, parts in expected.items():
        frames = list(every_frame(NuScenes(tmp_path, domain)))
        assert [f.name for f in frames] == [f"{scene}/{number}" for scene in parts for number in (0, 1)]
        assert {f.group: f.part for f in frames} == parts
    shared = list(every_frame(NuScenes(tmp_path, "all", validation_share=0.34)))
    assert {f.group: f.part for f in shared} == expected["all"] | {"scene-0003": "val"}


def test_points_go_through_both_poses_into_the_image(tmp_path: Path) -> None:
    made = tree(tmp_path)
    by_token = {row["token"]: row for name in ("ego_pose", "calibrated_sensor") for row in made[name]}
    for frame in every_frame(NuScenes(tmp_path, "usa")):
        assert isinstance(frame, Frame)
        world = place(made, frame.name)
        seen = matrix(by_token[f"{frame.name}/CAM_FRONT/True"]) @ matrix(by_token["cf"])
        values = np.fromfile(
            next((tmp_path / "samples" / "LIDAR_TOP").glob(frame.name.replace("/", "_") + "*")), np.float32
        )
        expected = []
        for x, y, z, intensity, _ in values.reshape(-1, 5).astype(float):
            own = np.linalg.inv(seen) @ world @ [x, y, z, 1]
            row, column = 60 * own[1] / own[2] + 25, 60 * own[0] / own[2] + 40
            if own[2] > 0 and 0 <= row < 50 and 0 <= column < 80:
                expected.append((x, y, z, row, column, intensity))
        table = np.array(expected)
        assert 30 < len(table) < 300
        np.testing.assert_allclose(frame.points, table[:, :3], rtol=1e-6)
        np.testing.assert_allclose(frame.pixels, table[:, 3:5], atol=1e-2)
        np.testing.assert_allclose(frame.intensity, table[:, 5], rtol=1e-6)
        assert frame.image.shape == (50, 80, 3)


def test_points_in_boxes_have_the_boxes_class_and_others_are_background(tmp_path: Path) -> None:
    made = tree(tmp_path)
    classes = protocol("nuscenes-box5").classes
    counts = np.zeros(5, int)
    for frame in every_frame(NuScenes(tmp_path, "all")):
        assert isinstance(frame, Frame)
        world = place(made, frame.name)
        for point, label in zip(frame.points.astype(float), frame.labels):
            expected = "background"
            for row in made["sample_annotation"]:
                if row["sample_token"] == frame.name and row["instance_token"] != "ianimal":
                    own = np.linalg.inv(matrix(row)) @ world @ [*point, 1]
                    width, length, height = row["size"]
                    if abs(own[0]) <= length / 2 and abs(own[1]) <= width / 2 and abs(own[2]) <= height / 2:
                        category = row["instance_token"].removeprefix("i")
                        expected = {"vehicle.car": "vehicle", "human.pedestrian.adult": "pedestrian"}.get(
                            category, "traffic_boundary"
                        )
            assert classes[label] == expected
        counts += np.bincount(frame.labels, minlength=5)
    assert (counts[[0, 1, 3]] > 3).all() and counts[4] > 300 and counts[2] == 0


def test_lidarsegs_labels_follow_the_points_that_are_kept(tmp_path: Path) -> None:
    tree(tmp_path)
    merged = {
        "nuscenes-seg5": {17: 0, 2: 1, 1: 4, 9: 3, 26: 4},
        "nuscenes-seg6": {17: 0, 2: 255, 1: 255, 9: 255, 26: 2},
    }
    for name, of in merged.items():
        for frame in every_frame(NuScenes(tmp_path, "usa", name)):
            assert isinstance(frame, Frame)
            stem = frame.name.replace("/", "_")
            every = np.fromfile(tmp_path / "samples" / "LIDAR_TOP" / f"{stem}.pcd.bin", np.float32).reshape(-1, 5)[
                :, :3
            ]
            numbers = np.fromfile(tmp_path / "lidarseg" / "v1.0-trainval" / f"{stem}.bin", np.uint8)
            by_point = {tuple(point): of[int(number)] for point, number in zip(every.tolist(), numbers)}
            assert [by_point[tuple(point)] for point in frame.points.tolist()] == frame.labels.tolist()
            assert frame.labels.dtype == np.uint8


def test_protocols_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    tree(tmp_path)
    prints = [
        NuScenes(tmp_path, "usa", name).fingerprint() for name in ("nuscenes-box5", "nuscenes-seg5", "nuscenes-seg6")
    ]
    assert len({json.dumps(found, sort_keys=True) for found in prints}) == 3
    assert NuScenes(tmp_path, "usa").fingerprint() == prints[0]
    assert NuScenes(tmp_path, "day").fingerprint() != prints[0]
    (tmp_path / "splits.json").write_text(json.dumps(SPLITS | {"val": ["scene-0001"]}))
    assert NuScenes(tmp_path, "usa").fingerprint() != prints[0]
    tree(tmp_path)
    os.utime(tmp_path / "samples" / "CAM_FRONT" / "scene-0001_0.jpg", (1, 1))
    assert NuScenes(tmp_path, "usa").fingerprint() != prints[0]


def test_broken_frames_are_listed_and_the_others_read(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "samples" / "CAM_FRONT" / "scene-0001_0.jpg").unlink()
    (tmp_path / "samples" / "LIDAR_TOP" / "scene-0002_1.pcd.bin").write_bytes(bytes(19))
    found = list(every_frame(NuScenes(tmp_path, "usa")))
    assert [isinstance(entry, Unreadable) for entry in found] == [True, False, False, True]
    assert "scene-0001_0.jpg: expected an image, found no file" in found[0].reason
    assert "scene-0002_1.pcd.bin: expected points of 5 float32 (20 bytes each), found 19 bytes" in found[3].reason
    (tmp_path / "lidarseg" / "v1.0-trainval" / "scene-0001_1.bin").write_bytes(bytes(3))
    assert "expected labels of 400 points" in list(every_frame(NuScenes(tmp_path, "usa", "nuscenes-seg5")))[1].reason


@pytest.mark.parametrize(
    ("splits", "domain", "message"),
    [
        (None, "usa", r"splits\.json: expected .*needed: val\), found no file; the lists are"),
        ({"train": []}, "usa", r"splits\.json: expected .*needed: val\), found \['train'\]"),
        ({"val": []}, "singapore", r"needed: val, val_singapore\), found \['val'\]"),
        ({"val": ["0001"]}, "usa", r"splits\.json: val: expected names such as scene-0003, found '0001'"),
        ({"val": ["scene-0003"], "val_singapore": ["scene-0003"]}, "usa", "found scene-0003 in val and val_singapore"),
        ([], "usa", "found <class 'list'>"),
    ],
)
def test_the_official_lists_are_asked_for_in_one_error(splits: Any, domain: Any, message: str, tmp_path: Path) -> None:
    tree(tmp_path, splits)
    with pytest.raises(DataError, match=message):
        list(every_frame(NuScenes(tmp_path, domain)))


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("scene", None, r"scene\.json: expected a table, found no file"),
        ("scene", lambda rows: rows[0].pop("log_token"), r"scene\.json: expected the field 'log_token'"),
        ("log", lambda rows: rows.pop(), r"scene\.json: log_token: expected a token of log\.json"),
        (
            "sensor",
            lambda rows: rows.pop(1),
            r"sensor\.json: expected the channel CAM_FRONT, found CAM_BACK, LIDAR_TOP",
        ),
        ("sample_data", lambda rows: rows.clear(), r"sample_data\.json: expected a key frame of LIDAR_TOP for sample"),
        ("ego_pose", lambda rows: rows.clear(), r"ego_pose\.json: expected a row 'scene-0001/0/LIDAR_TOP/True'"),
        ("ego_pose", lambda rows: [r.update(rotation=[0] * 4) for r in rows], r"ego_pose\.json: row .*quaternion"),
        ("calibrated_sensor", lambda rows: rows[1].update(camera_intrinsic=[[1]]), r"camera_intrinsic: expected 3 x 3"),
    ],
)
def test_broken_tables_are_errors_that_name_them(table: str, change: Any, message: str, tmp_path: Path) -> None:
    made = tree(tmp_path)
    if change is None:
        (tmp_path / "v1.0-trainval" / f"{table}.json").unlink()
    else:
        change(made[table])
        dump(tmp_path / "v1.0-trainval", made)
    with pytest.raises(DataError, match=message):
        list(every_frame(NuScenes(tmp_path, "usa")))


def test_lidarseg_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    made = tree(tmp_path)
    for row in made["category"]:
        del row["index"]
    dump(tmp_path / "v1.0-trainval", made)
    with pytest.raises(DataError, match=r"category\.json: index: expected a number for each category"):
        list(every_frame(NuScenes(tmp_path, "usa", "nuscenes-seg5")))
    made = tree(tmp_path)
    made["lidarseg"].clear()
    dump(tmp_path / "v1.0-trainval", made)
    with pytest.raises(DataError, match=r"lidarseg\.json: expected labels of samples/LIDAR_TOP"):
        list(every_frame(NuScenes(tmp_path, "usa", "nuscenes-seg6")))


def test_options_that_are_not_are_errors(tmp_path: Path) -> None:
    for options, message in (
        ({"domain": "boston"}, "domain: expected one of usa, singapore, day, night, all, found 'boston'"),
        ({"domain": "usa", "protocol": "a2d2-10"}, "protocol: expected one of nuscenes-box5, .*found 'a2d2-10'"),
        ({"domain": "usa", "validation_share": 1.0}, "validation_share"),
    ):
        with pytest.raises(DataError, match=message):
            NuScenes(tmp_path, **options)
    tree(tmp_path)
    dump(tmp_path / "v1.0-trainval", {"scene": [], "sample": []})
    with pytest.raises(DataError, match=r"scene\.json: expected scenes of the domain 'usa', found none"):
        list(every_frame(NuScenes(tmp_path, "usa")))


def real_tree(root: Path) -> tuple[dict[str, Any], Path]:
    """The raw data set's layout around the real frame, whose calibration and boxes come from its description."""
    folder = Path(DATA or "") / "lidar_camera" / "nuscenes_scene0061_first"
    info = load_pickle(next(folder.glob("*.pkl")))
    names = {number: name for name, number in info["metainfo"]["categories"].items()}
    category = {own: fine for fine, own in reversed(BOX_CLASSES.items())}
    entry = info["data_list"][0]
    front, lidar = entry["images"]["CAM_FRONT"], np.array(entry["lidar_points"]["lidar2ego"])
    world = np.array(entry["ego2global"])
    camera = np.array(front["cam2ego"])
    # The vehicle's pose when the camera fired follows from the way around.
    later = world @ lidar @ np.linalg.inv(np.array(front["lidar2cam"])) @ np.linalg.inv(camera)
    made: dict[str, list[dict[str, Any]]] = {
        "sensor": [{"token": c, "channel": c} for c in ("LIDAR_TOP", "CAM_FRONT")],
        "calibrated_sensor": [
            pose("cl", lidar, sensor_token="LIDAR_TOP", camera_intrinsic=[]),
            pose("cf", camera, sensor_token="CAM_FRONT", camera_intrinsic=front["cam2img"]),
        ],
        "log": [{"token": "log", "location": "singapore-onenorth"}],
        "scene": [{"token": "scene", "name": "scene-0061", "description": "Parked truck", "log_token": "log"}],
        "sample": [{"token": entry["token"], "scene_token": "scene", "timestamp": 1}],
        "ego_pose": [pose("l", world), pose("f", later)],
        "category": [{"token": name, "name": name} for name in BOX_CLASSES],
        "instance": [{"token": name, "category_token": name} for name in BOX_CLASSES],
        "sample_data": [],
        "sample_annotation": [],
    }
    for channel, sensor, moment, name in (
        ("LIDAR_TOP", "cl", "l", entry["lidar_points"]["lidar_path"]),
        ("CAM_FRONT", "cf", "f", front["img_path"]),
    ):
        filename = f"samples/{channel}/{name}"
        (root / "samples" / channel).mkdir(parents=True)
        (root / filename).symlink_to(folder / name)
        made["sample_data"].append(
            {
                "token": channel,
                "sample_token": entry["token"],
                "ego_pose_token": moment,
                "calibrated_sensor_token": sensor,
                "filename": filename,
                "is_key_frame": True,
            }
        )
    for number, box in enumerate(entry["instances"]):
        if box["bbox_label_3d"] < 0:
            # A category that is none of the ten.
            continue
        x, y, z, length, width, height, yaw = box["bbox_3d"]
        turn = Rotation.from_euler("z", yaw).as_matrix()
        made["sample_annotation"].append(
            pose(
                str(number),
                world @ lidar @ rigid(turn, [x, y, z]),
                sample_token=entry["token"],
                instance_token=category[names[box["bbox_label_3d"]]],
                size=[width, length, height],
            )
        )
    dump(root / "v1.0-mini", made)
    (root / "splits.json").write_text(json.dumps({"val": [], "val_singapore": []}))
    return entry, folder


@needs_data
def test_the_real_frame_is_read_with_its_calibration(tmp_path: Path) -> None:
    entry, _ = real_tree(tmp_path)
    (frame,) = every_frame(NuScenes(tmp_path, "singapore", version="v1.0-mini"))
    assert isinstance(frame, Frame) and frame.image.shape == (900, 1600, 3) and frame.group == "scene-0061"
    front = entry["images"]["CAM_FRONT"]
    np.testing.assert_allclose(
        frame.projection, np.array(front["cam2img"]) @ np.array(front["lidar2cam"])[:3], atol=0.05, rtol=1e-4
    )
    # About a tenth of the sweep lies in the front camera's 65 degrees.
    assert 2500 < len(frame.points) < 4500


@needs_data
def test_real_labels_from_boxes_are_those_stored_with_the_frame(tmp_path: Path) -> None:
    entry, folder = real_tree(tmp_path)
    (frame,) = every_frame(NuScenes(tmp_path, "singapore", version="v1.0-mini"))
    assert isinstance(frame, Frame)
    every = np.fromfile(next(folder.glob("*.pcd.bin")), np.float32).reshape(-1, 5)[:, :3]
    stored = np.load(folder / "points_label_from_boxes_int8.npy")
    # -1, then car, truck, trailer, bus, construction_vehicle, bicycle, motorcycle, pedestrian, traffic_cone, barrier.
    merged = {-1: 4, 0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 2, 6: 2, 7: 1, 8: 3, 9: 3}
    of = {tuple(point): merged[int(label)] for point, label in zip(every.tolist(), stored)}
    expected = np.array([of[tuple(point)] for point in frame.points.tolist()])
    # The stored labels let boxes of other categories (here something that a person pushes) take points away.
    other = np.zeros(len(frame.points), bool)
    for box in entry["instances"]:
        if box["bbox_label_3d"] < 0:
            x, y, z, *extent, yaw = box["bbox_3d"]
            other |= in_box(frame.points, rigid(Rotation.from_euler("z", yaw).as_matrix(), [x, y, z]), extent)
    np.testing.assert_array_equal(frame.labels[~other], expected[~other])
    assert other.sum() < 20
    assert np.bincount(expected, minlength=5)[:4].sum() > 100


@needs_data
def test_real_points_in_boxes_land_inside_the_boxes_image(tmp_path: Path) -> None:
    entry, _ = real_tree(tmp_path)
    (frame,) = every_frame(NuScenes(tmp_path, "singapore", version="v1.0-mini"))
    assert isinstance(frame, Frame)
    front = entry["images"]["CAM_FRONT"]
    to_image = np.array(front["cam2img"]) @ np.array(front["lidar2cam"])[:3]
    boxes, landed = 0, 0
    for box in entry["instances"]:
        x, y, z, length, width, height, yaw = box["bbox_3d"]
        turn = Rotation.from_euler("z", yaw).as_matrix()
        own = (frame.points - np.array([x, y, z])) @ turn
        within = (np.abs(own) <= np.array([length, width, height]) / 2).all(axis=1)
        corners = np.array(list(product(*([-s / 2, s / 2] for s in (length, width, height))))) @ turn.T + [x, y, z]
        seen = np.append(corners, np.ones((8, 1)), axis=1) @ to_image.T
        if not within.any() or (seen[:, 2] <= 0.1).any():
            continue
        outline = ConvexHull(seen[:, :2] / seen[:, 2:])
        sides = outline.equations[:, :2] @ frame.pixels[within][:, ::-1].T + outline.equations[:, 2:]
        assert (sides <= 1.0).all(), "a point of the box lies more than a pixel outside of its image"
        boxes, landed = boxes + 1, landed + int(within.sum())
    assert boxes >= 10 and landed > 100


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    tree(tmp_path)
    for name in ("nuscenes-box5", "nuscenes-seg5"):
        check_frames_by_themselves(NuScenes(tmp_path, "all", name), most=1000)
