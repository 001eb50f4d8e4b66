"""Whole commands on LiDAR and camera frames, as a user runs them, in this process so that they are quick."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from isthmus.cli.console import console
from isthmus.cli.main import main
from isthmus.data.frame_store import FrameStore
from isthmus.data.frames import frames as every_frame
from isthmus.data.simulators.lidar_streets import SimulatedLidarStreets
from page_reader import read

SMALL = {
    "image_network.width": 0.125, "point_network.levels": 2, "batch_size": 2, "stages.0.steps": 2, "evaluate_every": 2,
    "log_every": 1,
}  # fmt: skip
DATA = {
    f"{domain}.data.{field}": value
    for domain in ("source", "target")
    for field, value in {"train": 4, "val": 2, "test": 4, "size": [32, 56]}.items()
}
"""Fields that make a recipe on simulated streets train within a second."""


class Done(NamedTuple):
    """What a command left: exit status, and what it wrote."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


def options(**changes: object) -> list[str]:
    fields = {**SMALL, **DATA, **changes}
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def isthmus(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command as the shell would; ``ok`` (the default) expects status 0."""

    def run(*words: object, ok: bool = True) -> Done:
        monkeypatch.setattr(sys, "argv", ["isthmus", *map(str, words)])
        monkeypatch.setattr(console, "width", 200)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        done = Done(int(stop.value.code or 0), *capfd.readouterr())
        assert not ok or done.status == 0, done
        return done

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames-cli")


@pytest.fixture
def trained(isthmus: Command, folder: Path) -> Path:
    """A benchmark of two methods, shrunk; the folder of its runs and tables."""
    out = folder / "runs"
    if not out.exists():
        suite = {
            "name": "tiny", "recipes": ["source-only/streets-light", "dscml/streets-light"], "seeds": [0],
            "baseline": "source-only", "set": {**SMALL, **DATA},
        }  # fmt: skip
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        isthmus("benchmark", folder / "suite.yaml", "--out", out)
        assert "gain average over source-only [points]" in (out / "table.md").read_text()
    return out


def run_of(trained: Path, method: str) -> Path:
    return trained / method / "streets-light" / "seed0"


def test_evaluate_compare_and_report(isthmus: Command, trained: Path, tmp_path: Path) -> None:
    ours, theirs = run_of(trained, "dscml"), run_of(trained, "source-only")
    shown = isthmus("evaluate", ours).out
    assert "4 frames of 1 groups" in shown and "IoU average [%]" in shown and "mIoU 2D [%] ↑" in shown
    shown = isthmus("evaluate", ours, "--against", theirs, "--data", "source").out
    assert f"gain in mIoU average over {theirs}: " in shown and "classes hurt: " in shown
    written = json.loads((ours / "evaluation.source.source-val.against-seed0.json").read_text())
    assert written["frames"] == 4 and set(written["mean_iou_gains"]) == {"2D", "3D", "average"}
    shown = isthmus("compare", trained, "--baseline", "source-only", "--out", tmp_path / "tables").out
    assert "day→night" in shown and (tmp_path / "tables" / "table.tex").is_file()
    page = tmp_path / "page.html"
    assert str(page) in isthmus("report", ours, theirs, "--out", page).out
    found = read(page)
    assert found.sections[:3] == ["results", "classes", "gallery"] and "isthmus report" in found.text


def test_refusals_are_one_line(isthmus: Command, trained: Path, tmp_path: Path) -> None:
    ours = run_of(trained, "dscml")
    for words, complaint in (
        (("evaluate", ours, "--data", tmp_path), "--data: expected 'target', 'source'"),
        (("evaluate", ours, "--stage", "second"), "second"),
        (("predict", ours, tmp_path, "--out", tmp_path / "out"), "expected a folder outside"),
        (("export", ours), "found kind 'frames'"),
        (("data", "prepare", "nuscenes"), "expected --root DIR and --out DIR"),
        (("data", "prepare", "sim/sm-dsb", "--workers", "2"), "--workers goes with LiDAR and camera"),
        (("data", "prepare", "dscml/streets-light", "--root", tmp_path), "--root and --out go with one of nuscenes"),
        (("data", "prepare", "nuscenes", "--root", tmp_path, "--out", tmp_path / "s"), "log.json"),
        (("data", "prepare", "a2d2", "--root", ".", "--out", tmp_path / "s", "--domain", "day"), "domain"),
        (("data", "check", "dscml/a2d2-semantickitti"), "source: "),
    ):
        done = isthmus(*words, ok=False)
        assert done.status == 2 and complaint in done.err and "Traceback" not in done.err, (words, done)
        assert len(done.err.strip().splitlines()) == 1, done.err


def test_predict(isthmus: Command, trained: Path, tmp_path: Path) -> None:
    one = next(iter(every_frame(SimulatedLidarStreets(domain="night", train=0, val=0, test=1, size=(32, 56)))))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", one.points)
    Image.fromarray(one.image).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "a.json").write_text(json.dumps({"projection": one.projection.tolist()}))
    (tmp_path / "in" / "b.bin").write_bytes(b"broken")
    out = tmp_path / "out"
    done = isthmus("predict", run_of(trained, "dscml"), tmp_path / "in", "--out", out, ok=False)
    assert done.status == 1 and f"1 predicted, 1 broken: {out}" in done.out
    assert len(done.err.strip().splitlines()) == 1 and "b.bin" in done.err
    assert sorted(file.name for file in out.iterdir()) == ["a.json", "a.label", "a.png", "classes.csv"]
    assert (out / "a.label").stat().st_size == 4 * len(one.points)


def test_data_check_counts_frames_and_points(isthmus: Command) -> None:
    shown = isthmus(
        "data", "check", "xmuda/streets-light", *options(**{"source.data.val": 0, "target.data.test": 0})
    ).out
    frames = list(every_frame(SimulatedLidarStreets(domain="day", train=4, val=0, test=4, size=(32, 56))))
    counts = {part: sum(len(f.points) for f in frames if f.part == part) for part in ("train", "test")}
    assert f"{counts['train']} " in shown and f"{counts['test']} " in shown and "8 of 32 x 56" in shown
    assert "source: missing: no labelled frame to choose checkpoints by in part 'val'" in shown
    assert "target: missing: no labelled frame to measure with in part 'test'" in shown
    road = np.mean(np.concatenate([f.labels for f in frames if f.part == "train"]) == 0)
    assert f"{100 * road:.1f}" in shown and "0 left out" in shown


def semantickitti(root: Path) -> None:
    """All eleven labelled sequences, of one scan each, with one that is broken."""
    projection = "7 0 20 0 0 7 10 0 0 0 1 0"
    for sequence in range(11):
        folder = root / "sequences" / f"{sequence:02d}"
        for name in ("velodyne", "labels", "image_2"):
            (folder / name).mkdir(parents=True)
        # Camera's x right, y down, z forward from LiDAR's x forward, y left, z up.
        (folder / "calib.txt").write_text(f"P2: {projection}\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
        points = np.array([[5, 0.5, 0.2, 1], [6, -0.5, -0.2, 1], [-5, 0, 0, 1]], dtype="<f4")
        (folder / "velodyne" / "000000.bin").write_bytes(b"bad" if sequence == 3 else points.tobytes())
        (folder / "labels" / "000000.label").write_bytes(np.array([40, 10, 50], dtype="<u4").tobytes())
        Image.fromarray(np.full((20, 40, 3), sequence, np.uint8)).save(folder / "image_2" / "000000.png")


def test_a_raw_data_set_is_prepared_once(isthmus: Command, tmp_path: Path) -> None:
    semantickitti(tmp_path / "raw")
    out = tmp_path / "store"
    words = ("data", "prepare", "semantickitti", "--root", tmp_path / "raw", "--out", out, "--size", "[10, 20]")
    done = isthmus(*words, "--workers", "2")
    assert "10 frames" in done.out and "20 points, 1 left out" in done.out and f"ISTHMUS_CACHE={out}" in done.out
    assert "03/000000: " in done.err
    (folder,) = out.iterdir()
    store = FrameStore(folder)
    assert store.size == (10, 20) and store.classes[:2] == ("car", "truck")
    assert {store.classes[label] for label in store.labels.tolist()} == {"road", "car"}
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    isthmus(*words)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_data_list_names_frames(isthmus: Command) -> None:
    shown = isthmus("data", "list").out
    assert "LiDAR and camera" in shown and "lidar-streets" in shown and "semantickitti" in shown
