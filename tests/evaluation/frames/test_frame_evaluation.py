"""Scores, tables and the page of runs on frames, against numbers worked out from the confusion matrices."""

import re
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import RecipeError
from isthmus.evaluation.compare import comparison
from isthmus.evaluation.dense.evaluate import class_scores
from isthmus.evaluation.dense.scores import NOT_USABLE, Measured, select
from isthmus.evaluation.evaluate import evaluation
from isthmus.evaluation.frames.evaluate import class_columns, mean_row, measured_frames, prediction_gains
from isthmus.evaluation.frames.pictures import as_map
from isthmus.evaluation.report import write_report
from isthmus.evaluation.tables import Table
from page_reader import read

NAMES = ("2D", "3D", "average")


def ious(measured: Measured, name: str) -> np.ndarray:
    """IoU of every class by a plain loop over the summed confusion matrix."""
    classes = len(measured.tasks[name].classes)
    confusion = measured.statistics[name].sum(axis=0).reshape(classes, classes)
    found = np.full(classes, np.nan)
    for index in range(classes):
        union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
        if union:
            found[index] = confusion[index, index] / union
    return found


def test_tables_are_the_confusion_matrices(frame_runs) -> None:
    measured = measured_frames(frame_runs.cmal, "target", "source-val")
    row, table = mean_row(measured), class_columns(measured)
    assert row.headings == tuple(f"mIoU {name} [%] ↑" for name in NAMES)
    for column, name in enumerate(NAMES):
        expected = ious(measured, name)
        assert float(row.rows[0][column]) == pytest.approx(100 * np.nanmean(expected), abs=0.051)
        for index, line in enumerate(table.rows[:-1]):
            shown = line[1 + column]
            assert np.isnan(expected[index]) if shown == "–" else abs(float(shown) - 100 * expected[index]) < 0.051


def test_against_itself_nothing_is_gained_or_hurt(frame_runs) -> None:
    found = evaluation(frame_runs.cmal, frame_runs.cmal, "target", "source-val")
    assert "classes hurt: none beyond noise" in found.parts
    assert found.values["mean_iou_gains"]["2D"]["gain"] == 0 and found.values["frames"] == 6


def test_a_class_that_loses_all_of_its_points_is_hurt(frame_runs) -> None:
    """Of six frames with groups of their own, ours calls every road a person and the other is always right."""
    template = measured_frames(frame_runs.plain, "target", "source-val")
    classes = template.tasks["2D"].classes
    right = np.zeros((6, len(classes), len(classes)))
    right[:, np.arange(len(classes)), np.arange(len(classes))] = 50 + np.arange(6)[:, None]
    wrong = right.copy()
    wrong[:, 0] = 0
    wrong[:, 0, classes.index("person")] = 50
    groups = np.array([f"street{index}" for index in range(6)])

    def measured(confusion: np.ndarray) -> Measured:
        return Measured(1, template.tasks, dict.fromkeys(NAMES, confusion.reshape(6, -1)), groups, "same")

    gains = prediction_gains(measured(wrong), measured(right))
    assert gains["average"].high < 0 and gains["2D"].estimate == pytest.approx(gains["3D"].estimate)
    verdicts = {(each.task, each.name): each.verdict for each in class_scores(measured(wrong), measured(right))}
    assert verdicts["2D", "road"] == verdicts["average", "person"] == "hurt"
    assert verdicts["3D", "vehicle"] == "same"


def test_other_data(frame_runs) -> None:
    source = measured_frames(frame_runs.cmal, "source", "last")
    assert len(source.groups) == 6 and source.images != measured_frames(frame_runs.cmal, "target", "last").images
    text = "{kind: lidar-streets, domain: lidar16, train: 0, val: 1, test: 2, size: [32, 56]}"
    assert len(measured_frames(frame_runs.sweeps, text, "last").groups) == 3
    for wrong in ("nothing", "{kind: blub}", "{kind: lidar-streets, domain: dusk}", "{"):
        with pytest.raises(RecipeError, match="--data: expected 'target', 'source'"):
            measured_frames(frame_runs.cmal, wrong, "last")


def test_sweeps_alone_are_compared_by_their_own_prediction(frame_runs) -> None:
    found = evaluation(frame_runs.cmal, frame_runs.sweeps, "target", "source-val")
    assert [part for part in found.parts if isinstance(part, str) and part.startswith("gain in mIoU 3D")]
    assert not [part for part in found.parts if isinstance(part, str) and "mIoU 2D over" in part]


def test_comparison_has_the_triple_and_gains_in_points(frame_runs) -> None:
    table = comparison([frame_runs.cmal, frame_runs.plain, frame_runs.sweeps], "source-only")["table"]
    assert isinstance(table, Table) and f"average, {NOT_USABLE} [%]" in table.headings
    cells = {row[1]: dict(zip(table.headings, row)) for row in table.rows}
    assert set(cells) == {"cmal", "source-only", "points-only"}
    ours, theirs = (select(run)["source-val"] for run in (frame_runs.cmal, frame_runs.plain))
    for name in NAMES:
        assert float(cells["cmal"][f"mIoU {name} [%] ↑"]) == pytest.approx(100 * ours.headline(name), abs=0.051)
        gain = float(cells["cmal"][f"gain {name} over source-only [points]"].split(" ")[0])
        assert gain == pytest.approx(100 * (ours.headline(name) - theirs.headline(name)), abs=0.051)
    assert cells["points-only"]["mIoU 2D [%] ↑"] == "" and cells["points-only"]["mIoU 3D [%] ↑"]


SECTIONS = ["results", "classes", "gallery", "turnable", "patches", "training", "data", "recipe"]


@pytest.fixture(scope="module")
def written(frame_runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([frame_runs.cmal, frame_runs.plain], tmp_path_factory.mktemp("page") / "page.html")


class TestReport:
    def test_one_file_that_loads_nothing(self, written: Path) -> None:
        page, source = read(written), written.read_text()
        loads = [value for tag, name, value in page.attributes if name in ("src", "href") and tag != "a"]
        assert loads and all(value.startswith("data:image/png;base64,") for value in loads)
        assert source.count("* plotly.js v") == 1 and "cdn.plot.ly/plotly" not in source
        assert page.sections == SECTIONS
        for name in ("turnable", "losses", "scores", "accuracies", "gains-2D", "gains-average"):
            assert re.search(rf'Plotly\.newPlot\(\s*"{name}-figure"', source), name

    def test_results_have_every_rule_and_its_gains(self, frame_runs, written: Path) -> None:
        rows = [row for row in read(written).tables["results"] if len(row) == 9 and row[2].isdigit()]
        ours, theirs = select(frame_runs.cmal), select(frame_runs.plain)
        assert len(rows) == len(ours) + len(theirs)
        for cells, (rule, one) in zip(rows, ours.items()):
            assert cells[1].startswith(rule) and cells[2] == str(one.step)
            for column, name in enumerate(NAMES):
                assert float(cells[3 + column]) == pytest.approx(100 * one.headline(name), abs=0.051)
                gain = re.match(r"[+−]?[\d.]+", cells[6 + column])
                expected = 100 * (one.headline(name) - theirs[rule].headline(name))
                assert gain is not None and float(gain[0].replace("−", "-")) == pytest.approx(expected, abs=0.051)

    def test_pictures_of_frames_and_patches(self, written: Path) -> None:
        alternatives = [value for tag, name, value in read(written).attributes if tag == "img" and name == "alt"]
        assert alternatives.count("truth") == 4 and alternatives.count("patch of a point") == 6
        for name in NAMES:
            assert alternatives.count(f"{name} prediction of cmal") == 4

    def test_sweeps_alone_are_seen_from_above(self, frame_runs, tmp_path: Path) -> None:
        page = read(write_report([frame_runs.sweeps], tmp_path / "page.html"))
        assert page.sections == [name for name in SECTIONS if name != "patches"]


def test_a_photograph_of_which_every_pixel_has_a_class_is_drawn_as_a_map() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [40, 50, 60], [7, 7, 7]], dtype=np.uint8)
    pixels = np.array([[0.5, 0.5], [0.5, 1.5], [0.5, 2.5], [1.5, 0.5], [1.5, 1.5], [1.5, 2.5]], dtype=np.float32)
    order = [3, 1, 0, 5, 4, 2]
    drawn = as_map((2, 3), pixels[order], colours[order], 12)
    assert np.array_equal(drawn, np.repeat(np.repeat(colours.reshape(2, 3, 3), 4, axis=0), 4, axis=1))
