"""The page of a run that labels points, and the pictures of shapes on it."""

from pathlib import Path

import numpy as np
import pytest

from isthmus.evaluation.points.accuracy import overall_gain
from isthmus.evaluation.points.evaluate import part_predictions_on
from isthmus.evaluation.points.part_gallery import Labelled, chosen_shapes, mistakes, most_lost, pictures, side_view
from isthmus.evaluation.report import write_report
from isthmus.training.run import Run
from page_reader import Page, read


@pytest.fixture(scope="module")
def page(part_runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """``smdsb/defrec`` beside ``defrec``."""
    return read(write_report(part_runs[::-1], tmp_path_factory.mktemp("page") / "page.html", rule="last"))


def test_the_page_has_what_a_run_on_parts_has(page: Page) -> None:
    assert page.sections == [
        "results", "classes", "gallery", "confusion", "training", "gate", "selection", "data", "recipe",
    ]  # fmt: skip
    assert "Mean intersection over union of shapes" in page.text and "shapes with labelled points" in page.text
    assert "ccuracy" not in page.text.replace("accuracy/", "")


def test_scores_and_gains_of_parts_are_those_of_the_predictions(page: Page, part_runs: list[Run]) -> None:
    base, ours = (part_predictions_on(run, "target", "last") for run in part_runs)
    rows = {row[0]: row for row in page.tables["classes"]}
    assert rows["part"][1:4] == ["shapes", "IoU", "its IoU"]
    for index, name in enumerate(ours.classes):
        if not np.isnan(ours.class_scores[index]):
            assert rows[name][1:3] == [str(ours.shapes_with[index]), f"{100 * ours.class_scores[index]:.1f}"]
            assert rows[name][3] == f"{100 * base.class_scores[index]:.1f}"
    gain = 100 * overall_gain(ours, base).estimate
    assert float(rows["all"][4].replace("−", "-")) == pytest.approx(gain, abs=0.051)
    worst = [row for row in page.tables["gallery"] if row[0] != "shape"]
    scores = sorted(zip(ours.correct, ours.names))[:5]
    assert [row[1] for row in worst] == [f"{100 * score:.1f}" for score, _ in scores]


def test_the_data_is_counted_in_points_and_shapes(page: Page) -> None:
    rows = page.tables["data"]
    totals = [row for row in rows if row[0] == "shapes"]
    assert [row[1:] for row in totals] == [["8", "8", "8"]] * 2
    shares = [row[1:] for row in rows if row[0] in ("head", "torso", "upperarm", "lowerarm", "hand", "upperleg",
                                                    "lowerleg", "foot")]  # fmt: skip
    table = np.array(shares, dtype=float).reshape(2, 8, 3)
    np.testing.assert_allclose(table.sum(axis=1), 100, atol=0.5)


def test_a_run_alone_has_a_page(part_runs: list[Run], tmp_path: Path) -> None:
    text = read(write_report(part_runs[:1], tmp_path / "page.html")).text
    assert "lost most" not in text and "No\nother run is shown beside it" in text


def shape(name: str, *scores: float, points: int = 30) -> Labelled:
    drawn = np.random.default_rng(len(name)).normal(size=(points, 3)).astype(np.float32) * 0.3
    truth = (np.arange(points) % 3).astype(np.uint8)
    return Labelled(name, drawn, truth, np.zeros((len(scores), points), dtype=np.int64), scores)


def test_shown_are_the_extremes_the_middle_and_the_greatest_loss() -> None:
    shapes = [shape(n, a, b) for n, a, b in (("a", 0.5, 0.5), ("b", 0.1, 0.1), ("c", 0.9, 0.9), ("d", 0.6, 0.8))]
    assert [each.name for each in chosen_shapes(shapes)] == ["b", "d", "c"]
    shapes.append(shape("e", 0.2, 0.6))
    assert [each.name for each in chosen_shapes(shapes)] == ["b", "a", "c", "e"]
    assert most_lost([shape("a", 0.5, 0.4)]) is None and most_lost([shape("a", 0.5)]) is None
    assert [each.name for each in chosen_shapes([shape("a", 0.5)])] == ["a"]


def test_mistakes_count_points_with_a_label() -> None:
    one = shape("a", 0.5, points=10)
    one.truth[:] = [0, 0, 1, 1, 1, 1, 2, 2, 255, 255]
    one.said[0] = [0, 0, 2, 2, 2, 1, 0, 2, 1, 1]
    found = mistakes(one, ("x", "y", "z"))
    assert found == {"wrong": "50", "mistakes": "y as z (38 %), z as x (12 %)"}
    one.said[0, :8] = one.truth[:8]
    assert mistakes(one, ("x", "y", "z")) == {"wrong": "0", "mistakes": "none"}


def test_pictures_show_each_point_in_its_colour_and_what_is_wrong() -> None:
    one = shape("<b>", 0.5, 0.4)
    figure = pictures([one], ["ours", "theirs"], ("x", "y", "z"))
    truth, ours, _, errors = (trace for trace in figure.data if trace.x is not None and len(trace.x) == 30)
    assert len(set(truth.marker.color)) == 3 and len(set(ours.marker.color)) == 1
    assert sum(colour == "#D55E00" for colour in errors.marker.color) == (one.truth != 0).sum()
    assert "&lt;b&gt;" in figure.layout.xaxis.title.text and "mIoU 40.0 %" in figure.layout.xaxis3.title.text


def test_a_shape_is_seen_from_where_it_is_widest_nearest_last() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3)) * (0.05, 0.5, 0.3)
    flat, order = side_view(points)
    assert abs(np.corrcoef(flat[:, 0], points[:, 1])[0, 1]) > 0.99
    assert np.ptp(flat[:, 1] - points[:, 2]) < 1e-12
    assert abs(np.corrcoef(np.argsort(order), points[:, 0])[0, 1]) > 0.9
