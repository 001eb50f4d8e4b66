"""The page of runs that carry a main task from one domain to another."""

import re
from pathlib import Path

import numpy as np
import pytest

from isthmus.evaluation.dense.figures import CONFUSED, Shown, accuracy_curves
from isthmus.evaluation.dense.report import write_report
from isthmus.evaluation.dense.scores import Measured, select
from page_reader import Page, read

from .conftest import AnchoredRuns, copied

SECTIONS = ["results", "scores", "gallery", "training", "features", "labels", "recipe"]


@pytest.fixture(scope="module")
def written(anchors: AnchoredRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    return write_report([anchors.dann, anchors.base], out, rule="last")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return read(written)


@pytest.fixture(scope="module")
def measured(anchors: AnchoredRuns) -> list[Measured]:
    return [select(run)["last"] for run in (anchors.dann, anchors.base)]


def sentences(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


class TestTwoDomains:
    def test_sections(self, page: Page) -> None:
        assert page.sections == SECTIONS

    def test_what_the_run_is(self, page: Page) -> None:
        text = sentences(page)
        assert "headfreeze-dann, simulated rooms → simulated camera rooms" in text
        assert "an adversary between the domains at layer4 (gradient reversal, weight 0.1)" in text
        assert "normals with segmentation as the anchor" in text
        assert "4 steps (frozen: everything behind up2 is frozen)" in text
        assert "measured on 6 test images of the target" in text and "oracle:" not in text

    def test_results_have_all_scores_of_the_main_task(self, page: Page, measured: list[Measured]) -> None:
        heading, *rows = page.tables["results"]
        assert heading == [
            "run", "checkpoint", "step", "normalsmErr [°] ↓", "median ↓", "RMSE ↓", "< 11.25° ↑", "< 22.5° ↑",
            "< 30° ↑", "relativegain, %",
        ]  # fmt: skip
        last = [row for row in rows if row[1] == "last"]
        names = ["mean_error", "median_error", "rmse", "within_11.25", "within_22.5", "within_30"]
        for row, one in zip(last, measured, strict=True):
            expected = [one.scores("normals")[name] for name in names]
            np.testing.assert_allclose([float(cell) for cell in row[3:9]], expected, rtol=6e-3, atol=1e-4)
        assert "confusion" in {row[1] for row in rows}
        assert "told the domains apart least" in sentences(page)

    def test_gallery_shows_the_main_task_of_the_target_with_errors(self, page: Page) -> None:
        alternatives = [value for tag, name, value in page.attributes if tag == "img" and name == "alt"]
        assert sum(each.startswith("error of") for each in alternatives) == 6 * 2
        assert alternatives.count("truth") == 6  # one task

    def test_labels_of_both_domains(self, page: Page) -> None:
        tables = [row for row in page.tables["labels"] if row[0] in ("train", "val", "test")]
        source, target = tables[:3], tables[3:]
        assert [row[3:] for row in source] == [["8of 8"] * 2, ["4of 4"] * 2, ["0of 6"] * 2]
        # Normals, the main task, are read in the target's test part alone, to measure with.
        assert [row[3:] for row in target] == [["0of 8", "8of 8"], ["0of 4", "0of 4"], ["6of 6", "0of 6"]]
        assert "not read in the target's training and validation parts" in sentences(page)

    def test_freezing_is_told_and_marked(self, written: Path, page: Page) -> None:
        text = sentences(page)
        assert "everything behind up2 (up3, heads) is frozen in stage “frozen”" in text
        assert re.search(r"starts from the weights of step [24] of source, before either task overfits", text)
        assert written.read_text().count('"text":"frozen behind up2"') >= 4

    def test_discriminators_are_held_against_55_percent(self, written: Path, page: Page) -> None:
        assert "newPlot(" in written.read_text() and '"accuracies-figure"' in written.read_text()
        assert re.search(r"headfreeze-dann, layer4: below 55 % at \d+ of \d+ logged steps", sentences(page))

    def test_features_at_fixed_places(self, written: Path, page: Page) -> None:
        text = sentences(page)
        assert "Features of 6 source and 6 target images at fixed places of the image" in text
        assert (
            "at the taps layer4, up2 of headfreeze-dann and baseline" in text
            and '"features-figure"' in written.read_text()
        )

    def test_same_runs_give_the_same_page(self, anchors: AnchoredRuns, written: Path, tmp_path: Path) -> None:
        again = write_report([anchors.dann, anchors.base], tmp_path / "again.html", rule="last")
        assert again.read_bytes() == written.read_bytes()


def test_rule_confusion_may_stand_for_a_run(anchors: AnchoredRuns, tmp_path: Path) -> None:
    page = read(write_report([anchors.dann], tmp_path / "page.html", rule="confusion"))
    assert "it is that of the rule confusion" in sentences(page)


def test_baseline_alone_freezes_nothing_and_has_no_discriminator(anchors: AnchoredRuns, tmp_path: Path) -> None:
    page = read(write_report([anchors.base], tmp_path / "page.html"))
    text = sentences(page)
    assert "One network, trained on the labels there are; normals on simulated rooms" in text
    assert "is frozen" not in text and "55 %" not in text and "told the domains apart" not in text
    rows = [row for row in page.tables["labels"] if row[0] in ("train", "val", "test")]
    assert [row[3:] for row in rows] == [["8of 8"], ["4of 4"], ["0of 6"], ["0of 8"], ["0of 4"], ["6of 6"]]


def test_oracle_is_called_so(anchors: AnchoredRuns, tmp_path: Path) -> None:
    target = anchors.base.recipe.model_dump(mode="json")["target"]
    target["labels"]["tasks"] = ["main"]
    run = copied(anchors.base, tmp_path / "oracle", target=target)
    stores = {name: key for name, key in run.state["stores"].items() if name != "target_labels"}
    run.update(stores=stores)
    text = sentences(read(write_report([run], tmp_path / "page.html")))
    assert "It learns from the target's labels of normals: an oracle." in text
    assert "as an oracle does" in text


def test_faces_have_their_features_at_keypoints(anchors: AnchoredRuns, tmp_path: Path) -> None:
    path = write_report([anchors.faces], tmp_path / "page.html")
    text = sentences(read(path))
    assert "normals with keypoints as the anchor" in text
    assert "target images at labelled keypoints" in text
    assert "(up3, heads, vectors) is frozen" in text and "validation NME" in path.read_text()


def test_curves_of_accuracies_have_the_line_and_leave_out_what_has_not_begun() -> None:
    rows = tuple(
        {"global_step": step, "stage": "a", "loss/x": 1.0, "accuracy/up3": v} for step, v in ((1, np.nan), (2, 0.6))
    )
    dann = Shown("dann", "#0072B2", (("a", 2),), rows, (), 2)
    base = Shown("base", "#E69F00", (("a", 2),), ({"global_step": 1, "stage": "a", "loss/x": 1.0},), (), 2)
    figure = accuracy_curves([dann, base])
    assert figure is not None
    np.testing.assert_allclose(figure.data[0].y, [np.nan, 60])
    assert [shape.y0 for shape in figure.layout.shapes] == [100 * CONFUSED]
    assert [trace.name for trace in figure.data if trace.name] == ["dann"]
    assert accuracy_curves([base]) is None
