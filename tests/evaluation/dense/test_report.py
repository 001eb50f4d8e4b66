import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.partial_labels import partial_labels
from isthmus.errors import RunError
from isthmus.evaluation.dense.figures import Evaluation, Shown, score_curves
from isthmus.evaluation.dense.gallery import image_scores, picks, score_text
from isthmus.evaluation.dense.report import write_report
from isthmus.evaluation.dense.scores import Measured, mean_relative_gain, score_gain, select
from isthmus.evaluation.page import _folders as folders
from isthmus.evaluation.report import write_report as write_any_report
from isthmus.tasks.build_dense import dense_task
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.engine import train
from isthmus.training.run import Run
from page_reader import Page, read

from .conftest import Runs, copied, recipe

TASKS = ("segmentation", "depth", "normals", "edges")
SECTIONS = ["results", "scores", "classes", "gallery", "joint", "training", "labels", "recipe"]


@pytest.fixture(scope="module")
def written(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    return write_report([runs.mtpsl, runs.single, runs.multi], out, rule="last")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return read(written)


@pytest.fixture(scope="module")
def measured(runs: Runs) -> list[Measured]:
    return [select(run)["last"] for run in (runs.mtpsl, runs.single, runs.multi)]


def number(text: str) -> float:
    return float(text.replace("−", "-").rstrip("%").strip())


class TestPage:
    def test_nothing_is_loaded_from_anywhere(self, written: Path, page: Page) -> None:
        source = written.read_text()
        for tag, name, value in page.attributes:
            assert tag not in ("link", "iframe", "object", "base", "embed"), (tag, name, value)
            assert name not in ("srcset", "data", "action", "background"), (tag, name, value)
            if name == "src":
                assert tag == "img" and value.startswith("data:image/png;base64,"), (tag, value[:60])
            if name == "href":
                assert value.startswith("#"), value
        style = source[source.index("<style>") : source.index("</style>")]
        assert "url(" not in style and "@import" not in style
        assert source.count("* plotly.js v") == 1 and "cdn.plot.ly/plotly" not in source

    def test_all_sections_and_their_figures_are_there_in_order(self, written: Path, page: Page) -> None:
        assert page.sections == SECTIONS
        source = written.read_text()
        for name in ("gains-segmentation", "losses", "scores"):
            assert re.search(rf'Plotly\.newPlot\(\s*"{name}-figure"', source), name
        for index, section in enumerate(SECTIONS, start=1):
            assert ("a", "href", f"#{section}") in page.attributes, index

    def test_every_run_is_named_and_names_are_text(self, written: Path, page: Page) -> None:
        for label in ("<img src=x>mtpsl", "single-task", "multi-task"):
            assert label in page.text
        assert "<img src=x>" not in written.read_text()
        assert "simulated rooms, one label" in page.text and "32 × 48 pixels" in page.text

    def test_pictures_are_as_many_as_images_tasks_and_runs(self, page: Page) -> None:
        images = [(name, value) for tag, name, value in page.attributes if tag == "img" and name == "src"]
        shown, tasks, runs, with_errors = 6, 4, 3, 2
        gallery = shown * (tasks * (2 + runs) + with_errors * runs)
        bars = 2 + 1 + 1  # depth and its error, the error of normals, probability of edges
        joint = 2 * (1 + tasks + tasks + 2 * tasks * (tasks - 1))
        assert len(images) == gallery + bars + joint
        alternatives = [value for tag, name, value in page.attributes if tag == "img" and name == "alt"]
        assert len(alternatives) == len(images) and all(alternatives)

    def test_same_runs_give_the_same_page(self, runs: Runs, written: Path, tmp_path: Path) -> None:
        again = write_report([runs.mtpsl, runs.single, runs.multi], tmp_path / "again.html", rule="last")
        assert again.read_bytes() == written.read_bytes()

    def test_run_folder_gains_the_page_only(self, runs: Runs) -> None:
        folder = runs.multi.path
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        page = write_any_report([runs.multi])
        after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert page == folder / "report.html"
        assert after.pop(page) and after == before
        page.unlink()


class TestNumbers:
    def test_results_are_the_scores_of_every_rule(self, runs: Runs, page: Page) -> None:
        heading, *rows = page.tables["results"]
        expected = ["run", "checkpoint", "step", "segmentationmIoU [%] ↑", "depthaErr [m] ↓", "normalsmErr [°] ↓"]
        assert heading == [*expected, "edgesodsF [%] ↑", "mean relativegain, %"]
        found = iter(rows)
        for run in (runs.mtpsl, runs.single, runs.multi):
            for rule, one in select(run).items():
                cells = next(found)
                assert cells[1].startswith(rule) and cells[2] == str(one.step)
                for cell, name in zip(cells[3:7], TASKS):
                    value = one.tasks[name].display_factor * one.headline(name)
                    shown = re.match(r"–|\d+(\.\d+)?", cell)
                    assert shown is not None
                    assert (
                        np.isnan(value)
                        if shown[0] == "–"
                        else number(shown[0]) == pytest.approx(value, rel=5e-3, abs=0.051)
                    )
        assert next(found, None) is None

    def test_gains_are_those_over_the_single_tasks(self, page: Page, measured: list[Measured]) -> None:
        rows = [row for row in page.tables["results"] if row[1] == "last"]
        gain = mean_relative_gain([measured[2]], [measured[1]])
        if np.isfinite(gain.estimate):
            shown = re.match(r"[+−]?[\d.]+", rows[2][-1])
            assert shown is not None and number(shown[0]) == pytest.approx(100 * gain.estimate, abs=0.06)
        assert rows[1][-1] == "–"
        depth = 100 * (1 - measured[2].headline("depth") / measured[1].headline("depth"))
        shown = re.search(r"([+−]?[\d.]+) %", rows[2][4])
        assert shown is not None and number(shown[1]) == pytest.approx(depth, abs=0.06)

    def test_class_table_equals_the_confusion_matrices(self, page: Page, measured: list[Measured]) -> None:
        rows = {row[0]: row for row in page.tables["classes"] if len(row) == 11}
        ours, single, _ = measured
        confusion = ours.statistics["segmentation"].reshape(-1, 13, 13)
        for index, name in enumerate(ours.tasks["segmentation"].classes):
            row, total = rows[name], confusion.sum(axis=0)
            assert row[1] == str(int((confusion[:, index].sum(axis=1) > 0).sum()))
            union = total[index].sum() + total[:, index].sum() - total[index, index]
            if not union:
                assert row[2] == "–"
                continue
            assert row[2] == f"{100 * total[index, index] / union:.1f}"
            gain = score_gain([ours], [single], "segmentation", f"iou/{name}")
            if np.isfinite(gain.estimate):
                assert number(row[4]) == pytest.approx(100 * gain.estimate, abs=0.051)
        assert rows["mean"][1] == "10" and number(rows["mean"][2]) == pytest.approx(
            100 * ours.headline("segmentation"), abs=0.051
        )

    def test_all_scores_of_all_runs(self, page: Page, measured: list[Measured]) -> None:
        rows = {row[0]: row[1:] for row in page.tables["scores"] if len(row) == 4}
        for value, one in zip(rows["median angle to the truth"], measured):
            assert float(value) == pytest.approx(one.scores("normals")["median_error"], rel=5e-3)
        for value, one in zip(rows["aErr: mean absolute error(headline)"], measured):
            assert float(value) == pytest.approx(one.headline("depth"), rel=5e-3)

    def test_captions_are_scores_of_the_picked_images(self, page: Page, measured: list[Measured]) -> None:
        text = " ".join(" ".join(row) for row in page.tables["gallery"])
        chosen = picks(measured[0])
        assert "best of this run" in text and "worst of this run" in text
        for one in measured:
            for name in ("segmentation", "depth", "normals"):
                for pick in chosen:
                    value = float(image_scores(one, name)[pick.position])
                    assert np.isnan(value) or score_text(one.tasks[name], value) in text

    def test_labels_are_counted_as_training_may_read_them(self, runs: Runs, page: Page) -> None:
        problem = DenseProblem(runs.mtpsl.recipe)
        store, rows = problem.source, {row[0]: row for row in page.tables["labels"]}
        for part in ("train", "val"):
            members = store.indices(part)
            kept = partial_labels("one", TASKS, np.ones((len(members), 4), dtype=bool), seed=0).sum(axis=0)
            assert rows[part][3:] == [f"{count}of {len(members)}" for count in kept]
            assert kept.sum() == len(members)
        assert rows["test"][1:] == ["10", "3", *["10of 10"] * 4]
        together = {label: int(rows[label][1]) for label in TASKS}
        assert sum(together.values()) == 12

    def test_recipes_differ_in_their_methods_only(self, page: Page) -> None:
        rows = [row for row in page.tables["recipe"] if row[0] != "field"]
        assert rows == [["method", "mtpsl", "single-task"], ["method", "mtpsl", "multi-task"]]


class TestJointSpaces:
    def test_only_where_a_run_has_them(self, runs: Runs, tmp_path: Path) -> None:
        page = read(write_report([runs.multi, runs.single], tmp_path / "page.html"))
        assert page.sections == [name for name in SECTIONS if name != "joint"]

    def test_of_a_run_shown_beside_the_subject(self, runs: Runs, tmp_path: Path) -> None:
        page = read(write_report([runs.multi, runs.mtpsl], tmp_path / "page.html"))
        assert "joint" in page.sections and "img src=x" in page.text

    def test_every_ordered_pair_has_a_cosine_of_its_own_image_and_of_others(self, page: Page) -> None:
        cells = [cell for row in page.tables["joint"] for cell in row if cell.startswith("cosine")]
        assert len(cells) == 2 * 12
        for cell in cells:
            assert re.fullmatch(r"cosine -?\d\.\d{3}\(-?\d\.\d{3}\)", cell), cell


class TestOtherRuns:
    def test_one_run_alone_has_no_gains(self, runs: Runs, tmp_path: Path) -> None:
        page = read(write_report([runs.single], tmp_path / "page.html"))
        assert page.tables["results"][0][-1] == "edgesodsF [%] ↑"
        assert page.tables["classes"][0] == ["class", "images", "IoU"] and "hurt" not in page.text

    def test_runs_of_the_same_name_are_told_apart(self, runs: Runs, tmp_path: Path) -> None:
        second = copied(runs.multi, tmp_path / "again")
        page = read(write_report([runs.multi, second], tmp_path / "page.html"))
        assert (
            f"multi-task (seed 0) ({runs.multi.path.name})" in page.text and "multi-task (seed 0) (again)" in page.text
        )

    def test_fewer_tasks_beside_more(self, runs: Runs, tmp_path: Path) -> None:
        rooms = runs.multi.recipe.source.model_dump(mode="json")
        small = recipe("depth/rooms", {"kind": "multi-task"}, source=rooms, tasks=["depth"], stages=[{"steps": 2}])
        run = train(small, tmp_path / "depth")
        page = read(write_report([runs.multi, run], tmp_path / "page.html"))
        row = next(row for row in page.tables["results"] if row[0].startswith("depth"))
        assert row[3] == row[5] == "–" and number(re.match(r"[\d.]+", row[4])[0]) > 0  # type: ignore[index]
        gain = next(row for row in page.tables["results"] if row[0].startswith("multi"))[-1]
        ours, theirs = (select(each)["source-val"].headline("depth") for each in (runs.multi, run))
        shown = re.match(r"[+−]?[\d.]+", gain)
        assert shown is not None and number(shown[0]) == pytest.approx(100 * (1 - ours / theirs), abs=0.06)
        alone = read(write_report([run, runs.multi], tmp_path / "alone.html"))
        assert "classes" not in alone.sections


class TestRefusals:
    def test_no_run(self) -> None:
        with pytest.raises(RunError, match="expected at least one run"):
            write_report([])
        with pytest.raises(RunError, match="expected at least one run"):
            write_any_report([])

    def test_run_that_is_not_finished(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        run.update(status="training")
        with pytest.raises(RunError, match="expected a finished run, found status 'training'"):
            write_report([runs.multi, run], tmp_path / "page.html")

    def test_runs_on_other_images_of_the_same_names(self, runs: Runs, elsewhere: Run, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"expected the 10 test images of .*run1 at 32 x 48, found 10 at 32 x 48"):
            write_report([runs.multi, elsewhere], tmp_path / "page.html")
        assert not (tmp_path / "page.html").exists()

    def test_rule_that_chose_nothing(self, runs: Runs, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="found 'label-free'"):
            write_report([runs.multi], tmp_path / "page.html", rule="label-free")


def test_command_of_a_page_names_folders_as_long_as_needed(runs: Runs, tmp_path: Path) -> None:
    def opened(path: str) -> Any:
        return Run(tmp_path / path, runs.multi.recipe)

    assert folders([opened("a/seed0"), opened("b/seed1")]) == ["seed0", "seed1"]
    assert folders([opened("a/rooms/seed0"), opened("b/rooms/seed0")]) == ["a/rooms/seed0", "b/rooms/seed0"]
    assert folders([opened("a"), opened("a")]) == ["a", "a"]


def test_curves_of_scores_are_in_the_unit_of_the_table() -> None:
    known = {"segmentation": dense_task("segmentation", ("a", "b")), "depth": dense_task("depth")}
    evaluations = tuple(
        Evaluation(
            step,
            0.0,
            {"segmentation": 0.1 * step, "depth": 1 / step},
            {"segmentation": 0.05 * step} if step < 3 else {},
        )
        for step in (1, 2, 3)
    )
    run = Shown("run", "#0072B2", (("stage1", 3),), (), evaluations, 2)
    figure = score_curves([run], known)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[:2] == ["validation mIoU [%] ↑", "validation aErr [m] ↓"]
    assert all("not used for selection" in title for title in titles[2:4])
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    np.testing.assert_allclose(lines[0].y, [10, 20, 30])
    np.testing.assert_allclose(lines[1].y, [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(lines[2].y, [5, 10, np.nan])
    assert lines[2].line.dash == "dash" and lines[0].line.dash == "solid"
    assert list(lines[0].marker.line.width) == [0, 2, 0]  # the second was chosen
