"""Whole commands on a main task that is carried across domains, as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dense import Command, folder, isthmus, options, table

from page_reader import read

__all__ = ["folder", "isthmus"]  # fixtures

SMALL = {"network.width": "0.125", "batch_size": "4", "stages.0.steps": "4", "log_every": "1", "evaluate_every": "2"}
for domain in ("source", "target"):
    counts = {f"{domain}.data.{part}": count for part, count in (("train", "8"), ("val", "4"), ("test", "4"))}
    SMALL |= counts | {f"{domain}.data.size": "[24, 32]", f"{domain}.size": "[24, 32]"}


@pytest.fixture
def trained(isthmus: Command, folder: Path) -> dict[str, Path]:
    found = {}
    for method, stages in (("headfreeze", {"stages__1__steps": 4}), ("baseline", {})):
        path = folder / "anchored" / method
        if not path.exists():
            isthmus("train", f"{method}/rooms", "--out", path, *options(SMALL, **stages))
        found[method] = path
    return found


def test_evaluate_shows_all_scores_of_the_main_task(isthmus: Command, trained: dict[str, Path]) -> None:
    shown = isthmus("evaluate", trained["headfreeze"], "--against", trained["baseline"]).out
    rows = {row[1].split()[0]: row for row in table(shown) if len(row) == 3}
    assert rows.keys() >= {"mean_error", "median_error", "rmse", "within_11.25", "within_30"}
    assert all(row[0] == "normals" for name, row in rows.items() if name != "score")
    (file,) = trained["headfreeze"].glob("evaluation.target.source-val*.json")
    written = json.loads(file.read_text())
    assert written["scores"].keys() == {"normals"} and written["images"] == 4


def test_compare_has_a_column_for_each_score(isthmus: Command, trained: dict[str, Path]) -> None:
    shown = isthmus("compare", *trained.values(), "--baseline", "baseline").out
    assert all(name in shown for name in ("headfreeze", "baseline", "rmse", "within"))


def test_report(isthmus: Command, trained: dict[str, Path], tmp_path: Path) -> None:
    isthmus("report", *trained.values(), "--out", tmp_path / "page.html")
    assert "features" in read(tmp_path / "page.html").sections


def test_predict_photographs(isthmus: Command, trained: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    Image.fromarray(np.full((50, 70, 3), 90, dtype=np.uint8)).save(tmp_path / "photographs/a.jpg")
    isthmus("predict", trained["headfreeze"], tmp_path / "photographs", "--out", tmp_path / "out")
    assert np.load(tmp_path / "out/a.normals.npy").shape == (50, 70, 3)


class TestDataCheck:
    @pytest.mark.parametrize(
        ("recipe", "root", "anchor"),
        [
            ("headfreeze/sfs-facewarehouse", "sfs-facewarehouse", "keypoints"),
            ("headfreeze/suncg-nyud", "suncg-nyud", "segmentation"),
            ("headfreeze/folder", "domains", "segmentation"),
        ],
    )
    def test_absent_folders_are_told_in_one_line(
        self, isthmus: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, root: str, anchor: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = isthmus("data", "check", recipe, ok=False)
        assert done.status != 0
        (line,) = done.err.splitlines()
        source, target = line.split("; target: ")
        assert f"source: {root}/source: expected a folder with 'images'" in source
        assert f"labels of normals, labels of {anchor}" in source
        assert f"{root}/target: expected" in target and "labels of normals for its test part" in target
        assert ("keypoints.txt" in line) == (anchor == "keypoints")
        assert "--source.data.root DIR --target.data.root DIR" in target

    def test_labels_that_are_missing_in_folders_that_are_there(self, isthmus: Command, tmp_path: Path) -> None:
        for domain, tasks in (("source", ("normals", "keypoints")), ("target", ("keypoints",))):
            root = tmp_path / domain
            for name in ("images", *tasks):
                (root / name).mkdir(parents=True)
            (root / "keypoints.txt").write_text("left_eye\nright_eye\nchin\n")
            for number in range(10):
                image = np.full((20, 30, 3), 20 * number, dtype=np.uint8)
                Image.fromarray(image).save(root / f"images/{number}.png")
                if "normals" in tasks:
                    np.save(root / f"normals/{number}.npy", np.full((20, 30, 3), [0, 0, 1], dtype=np.float32))
                points = np.full((3, 3), 0.5, dtype=np.float32)
                if number == 0 and domain == "target":
                    points[2] = np.nan
                np.save(root / f"keypoints/{number}.npy", points)
        roots = [word for d in ("source", "target") for word in (f"--{d}.data.root", tmp_path / d)]
        done = isthmus("data", "check", "headfreeze/sfs-facewarehouse", *roots)
        rows = table(done.out)
        assert ["each of 3", "7", "1", "2"] in rows
        assert ["left_eye", "7", "1", "2"] in rows and ["chin", "6", "1", "2"] in rows
        assert "share of labelled pixels" not in done.out
        assert "target: missing: no test image has a label of normals to measure with" in done.out
        assert "source: missing" not in done.out and done.out.rstrip().endswith("0 left out")

    def test_both_simulated_domains_are_read(self, isthmus: Command) -> None:
        done = isthmus("data", "check", "headfreeze/rooms", *options(SMALL))
        for domain in ("source", "target"):
            assert f"{domain}: sizes: 16 of 24 x 32" in done.out
        assert "missing" not in done.out
