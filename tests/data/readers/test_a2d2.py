import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import A2D2_10
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.a2d2 import A2D2, class_list, undistorted
from isthmus.errors import DataError
from isthmus.geometry.projection import distort, undistortion_map
from reader_testing import check_frames_by_themselves

# "unknown" is nobody's colour.
NAMES = [name for group in (*A2D2_10.merge.values(), A2D2_10.ignored[:-1]) for name in group]
COLOURS = {
    f"#{7 * i + 1:02x}{255 - 4 * i:02x}{40 + 3 * i:02x}".replace("#1", "#1"): n for i, n in enumerate(NAMES[:30])
}
COLOURS |= {f"#{3 * i:02x}{2 * i + 5:02x}{200 - i:02x}": n for i, n in enumerate(NAMES[30:])}

CAMERA: dict[str, Any] = {
    "CamMatrix": [[50.0, 0, 19], [0, 52, 11], [0, 0, 1]],
    "CamMatrixOriginal": [[54.0, 0, 20], [0, 54, 12], [0, 0, 1]],
    "Distortion": [[-0.3, 0.1, 0.002, -0.001, 0.01]],
    "Lens": "Telecam",
}
SCENES = ("20180807_145028", "20180810_142822", "20180925_101535")


def files(root: Path, scene: str, number: int) -> dict[str, Path]:
    date = scene.replace("_", "")
    return {
        kind: root / scene / kind / "cam_front_center" / f"{date}_{kind}_frontcenter_{number:09d}.{suffix}"
        for kind, suffix in (("camera", "png"), ("lidar", "npz"), ("label", "png"))
    }


def tree(root: Path, camera: dict[str, Any] = CAMERA) -> Path:
    g = np.random.default_rng(0)
    (root / "cams_lidars.json").write_text(json.dumps({"cameras": {"front_center": camera}}))
    (root / "class_list.json").write_text(json.dumps(COLOURS))
    codes = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS], np.uint8)
    for scene in SCENES:
        for number in (91, 135):
            paths = files(root, scene, number)
            for path in paths.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(g.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(paths["camera"])
            Image.fromarray(codes[g.integers(0, len(codes), (24, 40))]).save(paths["label"])
            np.savez(
                paths["lidar"],
                points=g.normal(size=(60, 3)) * 10,
                row=g.uniform(0, 23.9, 60),
                col=g.uniform(0, 39.9, 60),
                reflectance=g.integers(0, 99, 60),
                distance=g.uniform(0, 99, 60),
            )
    return root


def test_colours_are_those_of_all_classes() -> None:
    assert len(COLOURS) == len(NAMES) == 55


def test_frames_follow_the_files_point_by_point(tmp_path: Path) -> None:
    reader = A2D2(tree(tmp_path))
    frames = list(every_frame(reader))
    assert [f.name for f in frames] == [f"{scene}/{number:09d}" for scene in SCENES for number in (91, 135)]
    assert {f.group: f.part for f in frames} == dict(zip(SCENES, ("test", "train", "train")))
    names = list(COLOURS.values())
    codes = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)): n for c, n in COLOURS.items()}
    assert len(codes) == len(names)
    original, wanted = np.array(CAMERA["CamMatrixOriginal"]), np.array(CAMERA["CamMatrix"])
    for frame in frames:
        assert isinstance(frame, Frame)
        paths = files(tmp_path, frame.group, int(frame.name[-9:]))
        stored = np.load(paths["lidar"])
        np.testing.assert_allclose(frame.points, stored["points"], rtol=1e-6)
        np.testing.assert_allclose(frame.pixels, np.stack([stored["row"], stored["col"]], axis=1), rtol=1e-6)
        np.testing.assert_array_equal(frame.intensity, stored["reflectance"])
        label = np.asarray(Image.open(paths["label"]))
        for (row, column), found in zip(frame.pixels.astype(int), frame.labels):
            ray = np.linalg.solve(wanted, [column, row, 1])
            u, v, _ = original @ [*distort(ray[:2], CAMERA["Distortion"][0]), 1]
            expected = 255
            if -0.5 <= v < 23.5 and -0.5 <= u < 39.5:
                expected = A2D2_10.label(codes[tuple(label[round(v), round(u)].tolist())])
            assert found == expected
    assert len({int(label) for f in frames for label in f.labels}) == 11


def test_the_image_is_undistorted_as_a_slow_loop_does_it() -> None:
    g = np.random.default_rng(1)
    image = g.integers(0, 256, (24, 40, 3), dtype=np.uint8)
    places = undistortion_map(
        (24, 40),
        *(np.array(CAMERA[k]) for k in ("CamMatrixOriginal",)),
        CAMERA["Distortion"],
        np.array(CAMERA["CamMatrix"]),
    )
    found = undistorted(image, places)
    for row, column in ((0, 0), (3, 30), (12, 20), (23, 39), (20, 5)):
        v, u = places[:, row, column]
        top, left = int(np.floor(v)), int(np.floor(u))
        if not (0 <= v <= 23 and 0 <= u <= 39):
            continue
        value = np.zeros(3)
        for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            weight = (1 - abs(v - r)) * (1 - abs(u - c))
            if weight > 0:
                value += weight * image[r, c]
        assert np.abs(found[row, column] - value).max() <= 0.5 + 1e-3


def test_without_distortion_the_image_stays(tmp_path: Path) -> None:
    camera = CAMERA | {"CamMatrix": CAMERA["CamMatrixOriginal"], "Distortion": [[0.0] * 5]}
    frame = next(iter(every_frame(A2D2(tree(tmp_path, camera)))))
    assert isinstance(frame, Frame)
    np.testing.assert_array_equal(frame.image, np.asarray(Image.open(files(tmp_path, SCENES[0], 91)["camera"])))


def test_a_colour_of_no_class_is_unknown(tmp_path: Path) -> None:
    path = files(tree(tmp_path), SCENES[0], 91)["label"]
    Image.fromarray(np.full((24, 40, 3), 250, np.uint8)).save(path)
    frame = next(iter(every_frame(A2D2(tmp_path))))
    assert isinstance(frame, Frame) and set(frame.labels.tolist()) == {255}


def test_broken_frames_are_listed_and_the_others_read(tmp_path: Path) -> None:
    tree(tmp_path)
    first, second = files(tmp_path, SCENES[0], 91), files(tmp_path, SCENES[0], 135)
    np.savez(first["lidar"], points=np.zeros((3, 3)))
    second["label"].unlink()
    third = files(tmp_path, SCENES[1], 91)
    np.savez(third["lidar"], points=np.zeros((1, 3)), row=np.array([24.0]), col=np.array([1.0]))
    fourth = files(tmp_path, SCENES[1], 135)
    Image.fromarray(np.zeros((24, 41, 3), np.uint8)).save(fourth["label"])
    found = list(every_frame(A2D2(tmp_path)))
    assert [isinstance(entry, Unreadable) for entry in found] == [True] * 4 + [False] * 2
    for entry, message in zip(
        found,
        (
            "expected the arrays points, row, col, found",
            "expected an image, found no file",
            "row, col: expected places in the image of (24, 40), found [24.0, 1.0]",
            "expected the image's size (24, 40), found (24, 41)",
        ),
    ):
        assert message in entry.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Lens": "Fisheye"}, r"cams_lidars\.json: cameras\.front_center\.Lens: expected 'Telecam', found 'Fisheye'"),
        ({"Distortion": [[1, 2, 3]]}, r"cams_lidars\.json: .*found \(3, 3\), \(3, 3\) and 3"),
        ({"CamMatrix": [[1]]}, r"cams_lidars\.json: .*found \(3, 3\), \(1, 1\) and 5"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tree(tmp_path, CAMERA | change)
    with pytest.raises(DataError, match=message):
        A2D2(tmp_path).fingerprint()


def test_what_is_wrong_with_the_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cams_lidars\.json: expected a JSON file, found no file"):
        A2D2(tmp_path).fingerprint()
    tree(tmp_path)
    (tmp_path / "cams_lidars.json").write_text("{}")
    with pytest.raises(DataError, match=r"cams_lidars\.json: expected cameras\.front_center .*found no 'cameras'"):
        A2D2(tmp_path).fingerprint()
    for content in ("[]", "{}", '{"red": "Car 1"}'):
        (tmp_path / "class_list.json").write_text(content)
        with pytest.raises(DataError, match=r"class_list\.json: expected classes by colours"):
            class_list(tmp_path / "class_list.json")
    (tmp_path / "class_list.json").write_text('{"#ff0000": "Cart 1"}')
    with pytest.raises(DataError, match="a2d2-10: expected a class of a2d2, found 'Cart 1'; did you mean 'Car 1'"):
        list(every_frame(A2D2(tmp_path)))
    tree(tmp_path)
    path = files(tmp_path, SCENES[0], 91)["camera"]
    path.rename(path.with_name("image.png"))
    with pytest.raises(DataError, match=r"image\.png: expected a name <14 digits>_camera"):
        list(every_frame(A2D2(tmp_path)))


def test_the_fingerprint_follows_files_and_share(tmp_path: Path) -> None:
    reader = A2D2(tree(tmp_path))
    first = reader.fingerprint()
    assert A2D2(tmp_path).fingerprint() == first
    shared = A2D2(tmp_path, validation_share=0.5)
    assert shared.fingerprint() != first
    assert {f.group: f.part for f in every_frame(shared)} == dict(zip(SCENES, ("test", "train", "val")))
    os.utime(files(tmp_path, SCENES[2], 135)["label"], (1, 1))
    assert A2D2(tmp_path).fingerprint() != first


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    check_frames_by_themselves(A2D2(tree(tmp_path)))
