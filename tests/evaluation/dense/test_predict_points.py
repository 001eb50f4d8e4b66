"""Keypoints of photographs, and folders of them that a run is measured on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.errors import DataError, RunError
from isthmus.evaluation.dense.evaluate import measured_on
from isthmus.evaluation.dense.points import SIDES
from isthmus.evaluation.dense.predict import predict_images
from isthmus.evaluation.load import load_method
from isthmus.training.dense.problem import DenseProblem

from .conftest import AnchoredRuns

SIZE = (40, 36)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photographs") / "a.png"
    Image.fromarray(coarse).resize((150, 120), Image.Resampling.BICUBIC).save(path)
    return path


class TestPrediction:
    def test_points_are_in_pixels_of_the_photograph(
        self, anchors: AnchoredRuns, photograph: Path, tmp_path: Path
    ) -> None:
        found = predict_images(anchors.faces, [photograph], tmp_path / "out")
        names = sorted(file.name for file in found.images[0].files)
        assert names == [
            f"a.{kind}" for kind in ("json", "keypoints.json", "normals.npy", "normals.png", "preview.png")
        ]
        assert found.shared == ()  # points have no legend of classes
        said = json.loads((tmp_path / "out/a.keypoints.json").read_text())
        assert (said["height"], said["width"]) == (120, 150)

        method = load_method(anchors.faces)
        small = Image.open(photograph).resize(SIZE[::-1], Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            points = method.tasks["keypoints"].activate(method.predict({"image": image})["keypoints"])[0]  # type: ignore[attr-defined]
        assert [point["name"] for point in said["points"]] == list(method.tasks["keypoints"].classes)  # type: ignore[attr-defined]
        listed = np.array([[point[axis] for axis in "uvz"] for point in said["points"]])
        np.testing.assert_allclose(listed, points.numpy() * [150, 120, 150], atol=1e-3)

        about = json.loads((tmp_path / "out/a.json").read_text())
        assert "pixels of the image" in about["tasks"]["keypoints"]["json"]
        preview = np.asarray(Image.open(tmp_path / "out/a.preview.png").convert("RGB"))
        assert all((preview == colour).all(axis=2).any() for colour in SIDES.values())

    def test_a_file_of_points_is_not_overwritten(self, anchors: AnchoredRuns, photograph: Path, tmp_path: Path) -> None:
        (tmp_path / "a.keypoints.json").write_text("mine")
        with pytest.raises(DataError, match=r"a\.keypoints\.json: expected a new file"):
            predict_images(anchors.faces, [photograph], tmp_path)


@pytest.fixture
def folder(anchors: AnchoredRuns, tmp_path: Path) -> Path:
    """The source's test images as a folder, with labels of keypoints and normals."""
    store, root = DenseProblem(anchors.faces.recipe).source, tmp_path / "mine"
    for name in ("images", "keypoints", "normals"):
        (root / name).mkdir(parents=True)
    (root / "keypoints.txt").write_text("\n".join(store.tasks["keypoints"]))
    for number, row in enumerate(store.indices("test")):
        Image.fromarray(np.array(store.images[row])).save(root / f"images/{number}.png")
        for task in ("keypoints", "normals"):
            np.save(root / task / f"{number}.npy", np.array(store.labels(task)[row], dtype=np.float32))
    return root


class TestFolders:
    def test_main_task_is_measured_where_it_is_labelled(self, anchors: AnchoredRuns, folder: Path) -> None:
        ours = measured_on(anchors.faces, str(folder), "source-val")
        source = measured_on(anchors.faces, "source", "source-val")
        assert list(ours.tasks) == ["normals"] and len(ours.groups) == 6
        assert ours.headline("normals") == pytest.approx(source.headline("normals"), rel=1e-3)

    def test_source_is_not_the_target(self, anchors: AnchoredRuns) -> None:
        source, target = (measured_on(anchors.faces, data, "source-val") for data in ("source", "target"))
        assert source.images != target.images
        assert source.headline("normals") != target.headline("normals")

    def test_anchor_task_is_measured_where_only_it_is_labelled(self, anchors: AnchoredRuns, folder: Path) -> None:
        (folder / "normals").rename(folder.parent / "normals")
        ours = measured_on(anchors.faces, str(folder), "source-val")
        assert list(ours.tasks) == ["keypoints"] and ours.headline("keypoints") > 0
        (folder / "keypoints.txt").unlink()  # then the run's names are taken
        assert measured_on(anchors.faces, str(folder), "source-val").scores("keypoints") == ours.scores("keypoints")

    def test_points_in_another_order_are_refused(self, anchors: AnchoredRuns, folder: Path) -> None:
        (folder / "normals").rename(folder.parent / "normals")
        names = (folder / "keypoints.txt").read_text().splitlines()
        (folder / "keypoints.txt").write_text("\n".join(names[::-1]))
        with pytest.raises(RunError, match="keypoints: expected the classes left_brow_outer"):
            measured_on(anchors.faces, str(folder), "source-val")

    def test_nothing_that_was_learnt(self, anchors: AnchoredRuns, folder: Path) -> None:
        (folder / "normals").rename(folder.parent / "normals")
        with pytest.raises(RunError, match="expected labels of normals, found keypoints"):
            measured_on(anchors.base, str(folder), "source-val")
