"""Whole commands on images, as a user runs them, in this process so that they are quick."""

import json
import re
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
from isthmus.data.simulators.rooms import SimulatedRooms
from isthmus.evaluation.dense.scores import NOT_USABLE, mean_relative_gain, select
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.presets import named
from isthmus.training.recipe import parse
from isthmus.training.run import Run
from page_reader import read

SMALL = {
    "source.data": "{kind: rooms, train: 12, val: 4, test: 8, size: [24, 32]}", "size": "[24, 32]",
    "network.width": "0.125", "network.stages": "2", "batch_size": "4", "stages.0.steps": "4", "log_every": "1",
    "evaluate_every": "2", "checkpoint_every": "2",
}  # fmt: skip
"""Fields that make a recipe for rooms train within a second."""


class Done(NamedTuple):
    """What a command left: exit status, and what it wrote."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


def options(fields: dict[str, str], **changes: object) -> list[str]:
    return [
        word for name, value in {**fields, **{k.replace("__", "."): str(v) for k, v in changes.items()}}.items()
        for word in (f"--{name}", value)
    ]  # fmt: skip


@pytest.fixture
def isthmus(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command as the shell would; ``ok`` (the default) expects status 0."""

    def run(*words: object, ok: bool = True) -> Done:
        monkeypatch.setattr(sys, "argv", ["isthmus", *map(str, words)])
        monkeypatch.setattr(console, "width", 200)  # as in a pipe, whatever the terminal of the tests is
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        done = Done(int(stop.value.code or 0), *capfd.readouterr())
        assert not ok or done.status == 0, done
        return done

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this module find each other's runs; :func:`trained` makes them once."""
    return tmp_path_factory.mktemp("dense-cli")


@pytest.fixture
def trained(isthmus: Command, folder: Path) -> dict[str, Path]:
    """Runs of the README's commands, shrunk: multi-task and single-task learning of one label per image, two seeds."""
    found = {}
    for method, seed in (("multi-task", 0), ("single-task", 0), ("multi-task", 1), ("single-task", 1)):
        path = folder / "runs" / f"{method}-{seed}"
        if not path.exists():
            shown = isthmus("train", f"{method}/rooms-onelabel", "--out", path, *options(SMALL, seed=seed)).out
            assert f"Next: isthmus evaluate {path}" in shown
        found[f"{method}-{seed}"] = path
    return found


def table(shown: str) -> list[list[str]]:
    """The rows of the tables that a terminal shows."""
    return [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown.splitlines() if re.match("[│┃]", line)
    ]


class TestTrainingAndScores:
    def test_a_run_is_what_the_fields_say(self, trained: dict[str, Path]) -> None:
        run = Run.open(trained["multi-task-1"])
        assert run.finished and run.recipe.seed == 1 and run.recipe.stages[0].steps == 4
        problem = DenseProblem(run.recipe)
        assert problem.source.size == (24, 32) and len(problem.source) == 24
        kept = np.stack(list(problem.present.values()), axis=1)
        assert (kept[problem.source.indices("train")].sum(axis=1) == 1).all()

    def test_evaluate_shows_scores_and_writes_them(self, isthmus: Command, trained: dict[str, Path]) -> None:
        ours, theirs = trained["multi-task-0"], trained["single-task-0"]
        shown = isthmus("evaluate", ours, "--against", theirs).out
        assert "8 images of 2 groups (rooms, streets...), checkpoint: source-val" in shown
        assert f"mean relative gain over {theirs}" in shown and "classes hurt: " in shown
        rows = table(shown)
        measured = select(Run.open(ours))["source-val"]
        assert len(rows[0]) == 3 and rows[0][0] == "mIoU [%] ↑"
        values = [measured.tasks[name].display_factor * measured.headline(name) for name in measured.tasks]
        np.testing.assert_allclose(list(map(float, rows[1])), values, rtol=6e-3)
        file = ours / "evaluation.target.source-val.against-single-task-0.json"
        written = json.loads(file.read_text())
        assert written["images"] == 8 and written["select"] == "source-val" and written["against"] == str(theirs)
        assert written["scores"]["normals"]["mean_error"] == pytest.approx(measured.headline("normals"))
        gain = mean_relative_gain([measured], [select(Run.open(theirs))["source-val"]])
        assert written["mean_relative_gain"]["gain"] == pytest.approx(gain.estimate)

    def test_evaluate_on_other_rooms(self, isthmus: Command, trained: dict[str, Path]) -> None:
        other = "{kind: rooms, style: camera, train: 0, val: 0, test: 4, size: [24, 32]}"
        shown = isthmus("evaluate", trained["multi-task-0"], "--data", other, "--select", "last").out
        assert "4 images of 1 groups" in shown and "checkpoint: last" in shown

    def test_compare_gives_mean_and_spread_over_seeds_and_gains(
        self, isthmus: Command, trained: dict[str, Path], tmp_path: Path
    ) -> None:
        runs = trained["multi-task-0"].parent
        shown = isthmus("compare", runs, "--baseline", "single-task", "--out", tmp_path / "tables").out
        assert {file.name for file in (tmp_path / "tables").iterdir()} == {"table.md", "table.csv", "table.tex"}
        head, _, *rows = [
            line.strip("| ").split(" | ") for line in (tmp_path / "tables" / "table.md").read_text().splitlines()
        ]
        assert head[:4] == ["setting", "method", "seeds", "images"] and f"gain, {NOT_USABLE} [%]" in head
        cells = {row[1]: dict(zip(head, row)) for row in rows}
        assert set(cells) == {"multi-task", "single-task"} and cells["multi-task"]["seeds"] == "2"
        errors = [select(Run.open(trained[f"multi-task-{seed}"]))["source-val"].headline("depth") for seed in (0, 1)]
        mean, spread = map(float, cells["multi-task"]["aErr [m] ↓"].split(" ± "))
        assert mean == pytest.approx(np.mean(errors), rel=6e-3)
        assert spread == pytest.approx(np.std(errors, ddof=1), abs=6e-3)
        assert re.match(r"[+-]?[\d.]+ \[", cells["multi-task"]["gain over single-task [%]"])
        assert "rooms, one" in shown
        again = isthmus("compare", runs, "--out", tmp_path / "tables", ok=False)
        assert again.status == 2 and "--overwrite" in again.err

    def test_report_is_one_page_of_all_runs(self, isthmus: Command, trained: dict[str, Path], tmp_path: Path) -> None:
        page = tmp_path / "page.html"
        words = ("report", trained["multi-task-0"], trained["single-task-0"], "--out", page)
        assert str(page) in isthmus(*words).out
        found = read(page)
        assert found.sections[0] == "results" and "multi-task" in found.text and "single-task" in found.text
        again = isthmus(*words, ok=False)
        assert again.status == 2 and "--overwrite" in again.err
        isthmus(*words, "--overwrite")
        text = found.text
        assert "isthmus report multi-task-0 single-task-0" in text

    def test_a_stopped_run_goes_on_and_a_finished_one_says_so(self, isthmus: Command, trained: dict[str, Path]) -> None:
        assert "finished already" in isthmus("train", "--resume", trained["multi-task-0"]).out

    def test_fields_of_a_run_that_goes_on(self, isthmus: Command, trained: dict[str, Path]) -> None:
        isthmus("train", "--resume", trained["multi-task-0"], "--precision", "32-true")
        refused = isthmus("train", "--resume", trained["multi-task-0"], "--batch_size", "2", ok=False)
        assert refused.status == 2 and "only engine fields" in refused.err

    def test_units_in_brackets_reach_the_terminal(self, isthmus: Command, trained: dict[str, Path]) -> None:
        assert "aErr [m] ↓" in isthmus("evaluate", trained["multi-task-0"]).out


def test_predict_a_folder_of_pictures_with_a_broken_one(
    isthmus: Command, trained: dict[str, Path], tmp_path: Path
) -> None:
    reader = SimulatedRooms(train=0, val=0, test=2, size=(48, 64))
    (tmp_path / "photos" / "attic").mkdir(parents=True)
    Image.fromarray(reader.sample("test", 0).image).save(tmp_path / "photos" / "a.png")
    Image.fromarray(reader.sample("test", 1).image).save(tmp_path / "photos" / "attic" / "b.jpg")
    (tmp_path / "photos" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    out = tmp_path / "predicted"
    done = isthmus("predict", trained["multi-task-0"], tmp_path / "photos", "--out", out, ok=False)
    assert done.status == 1 and f"2 predicted, 1 broken: {out}" in done.out
    (line,) = done.err.strip().splitlines()
    assert "c.png" in line and "expected a whole image" in line
    for stem in ("a", "attic/b"):
        for kind in ("segmentation.png", "depth.png", "depth.npy", "normals.npy", "json", "preview.png"):
            assert (out / f"{stem}.{kind}").is_file(), (stem, kind)
        assert Image.open(out / f"{stem}.segmentation.png").size == (64, 48)
        assert np.load(out / f"{stem}.depth.npy").shape == (48, 64)
    assert not list(out.glob("c.*")) and (out / "classes.csv").is_file()
    again = isthmus("predict", trained["multi-task-0"], tmp_path / "photos", "--out", out, ok=False)
    assert again.status == 2 and "expected a new file" in again.err and len(again.err.strip().splitlines()) == 1


class TestLabels:
    NAMED = ("multi-task/rooms-full",)

    @pytest.mark.parametrize(
        ("setting", "counts"), [("one", None), ("random", None), ("ratio=9:1:0", (14, 2, 0)), ("full", (16, 16, 16))]
    )
    def test_a_file_says_who_keeps_which_label(
        self, isthmus: Command, tmp_path: Path, setting: str, counts: tuple[int, ...] | None
    ) -> None:
        file = tmp_path / "labels.json"
        words = ("data", "labels", *self.NAMED, "--setting", setting, "--seed", 3, "--out", file, *options(SMALL))
        shown = isthmus(*words).out
        assert "--labels.setting file" in shown
        rows = dict(row for row in table(shown) if len(row) == 2)
        total = [int(rows[name]) for name in ("segmentation", "depth", "normals")]
        assert rows["images"] == "16"
        if setting == "one":
            assert sum(total) == 16 and max(total) - min(total) <= 2
        elif setting == "random":
            assert 16 < sum(total) < 32
        else:
            assert counts is not None and max(abs(a - b) for a, b in zip(total, counts)) <= 1
        again = isthmus(*words, ok=False)
        assert again.status == 2 and "labels.json" in again.err

    def test_a_recipe_trains_with_the_file_and_another_seed_is_another_file(
        self, isthmus: Command, tmp_path: Path
    ) -> None:
        for seed in (0, 1):
            isthmus(
                "data",
                "labels",
                *self.NAMED,
                "--setting",
                "one",
                "--seed",
                seed,
                "--out",
                tmp_path / f"{seed}.json",
                *options(SMALL),
            )
        first, second = (json.loads((tmp_path / f"{seed}.json").read_text()) for seed in (0, 1))
        assert first != second
        isthmus(
            "train", *self.NAMED, "--out", tmp_path / "run", *options(SMALL, stages__0__steps=2),
            "--labels.setting", "file", "--labels.file", tmp_path / "1.json",
        )  # fmt: skip
        run = Run.open(tmp_path / "run")
        assert run.finished and run.recipe.source.labels.setting == "file"
        kept = DenseProblem(run.recipe).present
        direct = isthmus("recipes", "show", *self.NAMED, *options(SMALL), "--labels", "{setting: one, seed: 1}").out
        drawn = DenseProblem(parse(yaml.safe_load(direct))).present  # type: ignore[arg-type]
        for name in kept:
            np.testing.assert_array_equal(kept[name], drawn[name])

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("--setting", "two"), "setting"),
            (("--setting", "ratio=9:1"), "ratio"),
            (("--setting", "ratio=a:b"), "ratio"),
            (("--setting", "one", "--seed", "x"), "seed"),
        ],
    )
    def test_settings_that_do_not_fit(
        self, isthmus: Command, tmp_path: Path, words: tuple[str, ...], complaint: str
    ) -> None:
        done = isthmus("data", "labels", *self.NAMED, *words, "--out", tmp_path / "x.json", *options(SMALL), ok=False)
        assert done.status == 2 and complaint in done.err and "Traceback" not in done.err
        assert not (tmp_path / "x.json").exists()

    def test_recipe_of_clouds_has_none(self, isthmus: Command, tmp_path: Path) -> None:
        done = isthmus("data", "labels", "sim/sm-dsb", "--out", tmp_path / "x.json", ok=False)
        assert done.status == 2 and "Traceback" not in done.err and len(done.err.strip().splitlines()) == 1


def test_data_check_counts_images_labels_and_pixels(isthmus: Command) -> None:
    shown = isthmus("data", "check", "multi-task/rooms-onelabel", *options(SMALL)).out
    rows = {row[0]: row[1:] for row in table(shown)}
    assert rows["images"] == ["12", "4", "8"] and rows["with depth"] == ["12", "4", "8"]
    assert "0 left out" in shown and "24 of 24 x 32" in shown
    shares = [list(map(float, row[2:])) for row in table(shown) if len(row) == 5 and row[0] == "segmentation"]
    assert len(shares) == 13 and np.allclose(np.sum(shares, axis=0), 100, atol=0.7)


def test_data_list_names_images_and_clouds(isthmus: Command) -> None:
    shown = isthmus("data", "list").out
    for kind in ("rooms", "streets", "mtan", "nyuv2-parquet", "pascal-context", "scannet-views", "images", "pointda"):
        assert kind in shown, kind


def test_data_prepare_says_what_may_be_learnt_from(isthmus: Command) -> None:
    shown = isthmus("data", "prepare", "multi-task/rooms-onelabel", *options(SMALL)).out
    assert "24 images, 0 left out, labels to learn from: " in shown


def test_recipes_are_listed_by_what_they_hold_and_shown(isthmus: Command, tmp_path: Path) -> None:
    found = isthmus("recipes", "list", "rooms-onelabel").out.split()
    assert {"mtpsl/rooms-onelabel", "mtpsl-released/rooms-onelabel", "uncertainty/rooms-onelabel"} <= set(found)
    assert all("rooms-onelabel" in name for name in found)
    shown = isthmus("recipes", "show", "mtpsl/rooms-onelabel", "--seed", 3, "--method.weight", 2).out
    assert yaml.safe_load(shown)["method"]["weight"] == 2 and yaml.safe_load(shown)["seed"] == 3
    (tmp_path / "mine.yaml").write_text(shown)
    assert isthmus("recipes", "show", tmp_path / "mine.yaml").out == shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("train", "mtpls/rooms-onelabel", "--out", "x"), "did you mean 'mtpsl/rooms-onelabel'"),
        (("train", "mtpsl/rooms-onelabl", "--out", "x"), "did you mean 'mtpsl/rooms-onelabel'"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--batchsize", "2"), "did you mean 'batch_size'"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--method.wieght", "2"), "did you mean 'weight'"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--labels.setting", "two"), "'one'"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--weighting", "gradnrm"), "gradnorm"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--labels", "{setting: file}"), "expected a file"),
        (("train", "mtpsl/rooms-onelabel", "--out", "x", "--source.data", "{kind: images, root: nowhere}"), "nowhere"),
        (("train", "mtpsl/nyuv2-onelabel", "--out", "x", "--data.root", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    isthmus: Command, words: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = isthmus(*words, ok=False)
    assert done.status == 2 and complaint in done.err and "Traceback" not in done.err, done
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert not (tmp_path / "x" / "checkpoints" / "last.pt").exists()


class TestRunsThatDoNotFit:
    def test_tasks_that_the_data_lacks(self, isthmus: Command, tmp_path: Path) -> None:
        words = (
            "train",
            "multi-task/rooms-onelabel",
            "--out",
            tmp_path / "x",
            *options(SMALL),
            "--tasks",
            "[saliency]",
        )
        done = isthmus(*words, ok=False)
        assert (
            done.status == 2
            and "tasks: expected some of segmentation, depth, normals, edges, found saliency" in done.err
        )

    def test_rules_of_clouds(self, isthmus: Command, trained: dict[str, Path], tmp_path: Path) -> None:
        run = trained["multi-task-0"]
        for words in (("evaluate", run), ("report", run), ("predict", run, tmp_path, "--out", tmp_path / "out")):
            done = isthmus(*words, "--select", "label-free", ok=False)
            assert done.status == 2 and "--select: expected one of source-val, last, found 'label-free'" in done.err

    def test_export_is_for_clouds(self, isthmus: Command, trained: dict[str, Path]) -> None:
        done = isthmus("export", trained["multi-task-0"], ok=False)
        assert done.status == 2 and "found kind 'dense'" in done.err

    def test_runs_of_two_kinds(self, isthmus: Command, trained: dict[str, Path], tmp_path: Path) -> None:
        run, clouds = trained["multi-task-0"], Run.create(tmp_path / "clouds", named("sim/sm-dsb")).path
        for words in (("report", run, clouds), ("compare", run, clouds), ("evaluate", run, "--against", clouds)):
            done = isthmus(*words, ok=False)
            assert done.status == 2 and "kind" in done.err and len(done.err.strip().splitlines()) == 1, words
