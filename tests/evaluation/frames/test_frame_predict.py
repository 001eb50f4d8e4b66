"""Files of LiDAR, image and calibration, and the labels that are written for them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.data.frames import frames
from isthmus.data.safe_pickle import load_pickle
from isthmus.data.simulators.lidar_streets import SimulatedLidarStreets
from isthmus.errors import DataError
from isthmus.evaluation.frames.frame_files import files_of, read_points, read_projection
from isthmus.evaluation.frames.pictures import NO_CLASS, class_colours, from_above, over_image, point_colours
from isthmus.evaluation.frames.predict import predict_frames
from isthmus.evaluation.load import load_method

DATA = os.environ.get("ISTHMUS_DATA")


def frame():
    return next(iter(frames(SimulatedLidarStreets(domain="night", train=0, val=0, test=1, seed=5, size=(32, 56)))))


def write(folder: Path, stem: str, *, behind: int = 7) -> np.ndarray:
    """A sweep with points behind the camera among the others, its image and its calibration; returns the points."""
    folder.mkdir(parents=True, exist_ok=True)
    one = frame()
    points = np.concatenate([one.points, -np.abs(one.points[:behind]) - 1]).astype(np.float32)
    points[-behind:, 1:] = one.points[:behind, 1:]
    values = np.concatenate([points, np.full((len(points), 1), 0.37, np.float32)], axis=1)
    (folder / f"{stem}.bin").write_bytes(values.astype("<f4").tobytes())
    Image.fromarray(one.image).save(folder / f"{stem}.png")
    (folder / f"{stem}.json").write_text(json.dumps({"projection": one.projection.tolist()}))
    return points


def test_labels_are_the_runs_own_and_zero_where_the_camera_sees_nothing(frame_runs, tmp_path: Path) -> None:
    points = write(tmp_path / "in", "a")
    found = predict_frames(frame_runs.cmal, [tmp_path / "in"], tmp_path / "out")
    assert [file.name for file in found.frames[0].files] == ["a.label", "a.png", "a.json"] and not found.broken
    labels = np.fromfile(tmp_path / "out" / "a.label", "<u4")
    assert len(labels) == len(points) and (labels[-7:] == 0).all()
    seen = labels > 0
    one = frame()
    assert abs(int(seen.sum()) - len(one.points)) <= 2  # rounding at the border
    classes = frame_runs.cmal.state["classes"]
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ one.projection.T
    pixels = (homogeneous[:, 1::-1] / homogeneous[:, 2:])[seen].astype(np.float32)
    inputs = {
        "points": torch.from_numpy(points[seen])[None],
        "present_points": torch.ones(1, int(seen.sum()), dtype=torch.bool),
        "pixels": torch.from_numpy(pixels)[None],
        "image": torch.from_numpy(one.image.copy()).permute(2, 0, 1)[None].float() / 255,
    }
    with torch.no_grad():
        logits = load_method(frame_runs.cmal).predict(inputs)
    mean = torch.stack([logits[name].softmax(dim=1) for name in ("2D", "3D")]).mean(dim=0)[0, :, 0]
    assert (mean.argmax(dim=0).numpy() + 1 == labels[seen]).mean() > 0.99
    table = (tmp_path / "out" / "classes.csv").read_text().splitlines()
    assert table[0] == "label,class,red,green,blue" and table[1].startswith(f"1,{classes[0]},")
    about = json.loads((tmp_path / "out" / "a.json").read_text())
    assert about["points"] == len(points) and about["predicted_points"] == seen.sum()
    assert sum(about["points_by_class"].values()) == seen.sum()


def test_broken_items_are_listed_and_the_others_predicted(frame_runs, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "drive", "good")
    write(folder, "no-image")
    (folder / "no-image.png").unlink()
    write(folder, "no-calibration")
    (folder / "no-calibration.json").unlink()
    write(folder, "short")
    (folder / "short.bin").write_bytes(b"12345")
    write(folder, "aside")
    away = np.array(json.loads((folder / "aside.json").read_text())["projection"])
    away[2, 3] -= 1e6
    (folder / "aside.json").write_text(json.dumps({"projection": away.tolist()}))
    found = predict_frames(frame_runs.cmal, [folder, tmp_path / "nowhere"], tmp_path / "out")
    assert [each.files[0].relative_to(tmp_path / "out").as_posix() for each in found.frames] == ["drive/good.label"]
    reasons = {each.file.name: each.reason for each in found.broken}
    assert "expected an image no-image.png or .jpg beside it" in reasons["no-image.bin"]
    assert "expected a calibration no-calibration.txt or .json" in reasons["no-calibration.bin"]
    assert "expected points of 4 float32" in reasons["short.bin"]
    assert "expected points inside the image, found none" in reasons["aside.bin"]
    assert "found no file" in reasons["nowhere"] and len(reasons) == 5


def test_sweeps_alone_need_no_image_and_label_every_point(frame_runs, tmp_path: Path) -> None:
    points = frame().points
    np.savez(tmp_path / "a.npz", points=points.astype(np.float64))
    np.save(tmp_path / "b.npy", points[:50])
    found = predict_frames(frame_runs.sweeps, [tmp_path / "a.npz", tmp_path / "b.npy"], tmp_path / "out")
    assert len(found.frames) == 2 and not found.broken
    for stem, count in (("a", len(points)), ("b", 50)):
        labels = np.fromfile(tmp_path / "out" / f"{stem}.label", "<u4")
        assert len(labels) == count and labels.min() >= 1 and labels.max() <= 8


def test_nothing_is_overwritten_or_written_among_what_is_read(frame_runs, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", frame().points[:20])
    predict_frames(frame_runs.sweeps, [tmp_path / "b.npy"], tmp_path / "out")
    with pytest.raises(DataError, match="expected a new file"):
        predict_frames(frame_runs.sweeps, [tmp_path / "b.npy"], tmp_path / "out")
    predict_frames(frame_runs.sweeps, [tmp_path / "b.npy"], tmp_path / "out", overwrite=True)
    with pytest.raises(DataError, match="expected a folder outside"):
        predict_frames(frame_runs.sweeps, [tmp_path / "b.npy"], tmp_path, overwrite=True)
    with pytest.raises(DataError, match="expected a folder outside"):
        predict_frames(frame_runs.sweeps, [tmp_path], tmp_path / "new")


@pytest.mark.parametrize("count", [20, 21])
@pytest.mark.parametrize("columns", [4, 5])
def test_numbers_of_a_point_are_told_by_size_and_rings(tmp_path: Path, count: int, columns: int) -> None:
    random = np.random.default_rng(count)
    values = random.normal(size=(count, columns)).astype("<f4")
    if columns == 5:
        values[:, 4] = random.integers(0, 32, count)
    (tmp_path / "a.bin").write_bytes(values.tobytes())
    np.testing.assert_array_equal(read_points(tmp_path / "a.bin"), values[:, :3])


def test_belonging_files(tmp_path: Path) -> None:
    for name in ("a.pcd.bin", "a.jpg", "calib.txt", "b.bin", "b.json", "c.bin", "c.png", "c.jpg"):
        (tmp_path / name).touch()
    first = files_of(tmp_path / "a.pcd.bin")
    assert first.image == tmp_path / "a.jpg" and first.calibration == tmp_path / "calib.txt"
    second = files_of(tmp_path / "b.bin")
    assert second.image is None and second.calibration == tmp_path / "b.json"
    with pytest.raises(DataError, match=r"expected one image beside it, found c\.png, c\.jpg"):
        files_of(tmp_path / "c.bin")
    (tmp_path / "b.json").write_text('{"projection": [[1, 2], [3, 4]]}')
    with pytest.raises(DataError, match="projection: expected 3 x 4"):
        read_projection(tmp_path / "b.json")
    for content in (np.zeros((3, 2)), np.zeros(6), np.array([["a", "b", "c"]])):
        np.save(tmp_path / "d.npy", content)
        with pytest.raises(DataError, match="expected numbers of shape"):
            read_points(tmp_path / "d.npy")


def test_discs_lie_on_their_points_and_classes_keep_their_colours() -> None:
    colours = class_colours(("road", "vehicle", "person"))
    assert len(np.unique(colours, axis=0)) == 3
    np.testing.assert_array_equal(point_colours(("road", "vehicle"), np.array([1, 255]))[1], NO_CLASS)
    image = np.full((20, 30, 3), 90, np.uint8)
    picture = over_image(image, np.array([[5.5, 20.5]]), colours[:1], 300)
    drawn = np.argwhere((picture == colours[0]).all(axis=2))
    assert len(drawn) >= 4 and np.abs(drawn.mean(axis=0) - (54.5, 204.5)).max() <= 1
    assert (picture[150, 50] < 90).all() and picture.shape == (200, 300, 3)
    above = from_above(
        np.array([[10.0, 0, 0], [-10.0, 0, 0], [0, 10.0, 0], [0, -10.0, 0]]), (np.eye(4, 3) * 255).astype(np.uint8), 101
    )
    assert above.shape == (101, 101, 3)
    rows, columns = np.nonzero(above[..., 0] > 200)  # the first point lies ahead, so at the top
    assert rows.mean() < 15 and abs(columns.mean() - 50) < 2


@pytest.mark.skipif(not DATA, reason="ISTHMUS_DATA does not name the data directory")
def test_a_real_kitti_frame(frame_runs, tmp_path: Path) -> None:
    folder = Path(DATA or "") / "lidar_camera" / "kitti_000008"
    camera = load_pickle(folder / "000008.pkl")["data_list"][0]["images"]["CAM2"]
    (tmp_path / "in").mkdir()
    for name in ("000008.bin", "000008.png"):
        (tmp_path / "in" / name).symlink_to(folder / name)
    (tmp_path / "in" / "000008.json").write_text(json.dumps({"projection": np.array(camera["lidar2img"])[:3].tolist()}))
    found = predict_frames(frame_runs.cmal, [tmp_path / "in"], tmp_path / "out")
    assert not found.broken
    labels = np.fromfile(tmp_path / "out" / "000008.label", "<u4")
    assert len(labels) == 17238 and (labels > 0).sum() >= 17238 - 20
    assert Image.open(tmp_path / "out" / "000008.png").width == 1200
