"""Runs that label points: their scores, evaluate, compare, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from isthmus.errors import RunError
from isthmus.evaluation.compare import comparison
from isthmus.evaluation.evaluate import evaluation
from isthmus.evaluation.points.evaluate import part_predictions_on
from isthmus.evaluation.points.parts import part_gains
from isthmus.evaluation.points.predict import predict_files
from isthmus.evaluation.points.predict_parts import predict_shapes
from isthmus.evaluation.points.report import write_report
from isthmus.training.points.build import open_domains, part_rows
from isthmus.training.run import Run, read_arrays


@pytest.fixture
def runs(part_runs: list[Run]) -> list[Run]:
    return part_runs


def test_a_shape_scores_its_mean_intersection_over_union(runs: list[Run]) -> None:
    run = runs[0]
    found = part_predictions_on(run, "target", "last")
    store = open_domains(run.recipe).target
    rows = part_rows(store, ("test",))
    predicted = read_arrays(run.evaluations("stage1")[-1])["logits"].argmax(axis=1)[:, 0]
    expected = []
    for row, guess in zip(rows, predicted, strict=True):
        truth = store.point_labels[row, :48]
        assert (truth != 255).all()
        expected.append(jaccard_score(truth, guess, average="macro", labels=np.union1d(truth, guess)))
    np.testing.assert_allclose(found.correct, expected)
    assert found.accuracy == pytest.approx(np.mean(expected)) and found.names == tuple(store.names[r] for r in rows)


def test_evaluate_shows_parts_and_what_was_gained(runs: list[Run]) -> None:
    found = evaluation(runs[1], runs[0], "target", "last")
    assert found.values["shapes"] == 8 and 0 <= found.values["mean_iou"] <= 1
    gain = (
        part_predictions_on(runs[1], "target", "last").accuracy
        - part_predictions_on(runs[0], "target", "last").accuracy
    )
    assert found.values["gain"]["gain"] == pytest.approx(gain)
    assert found.parts[0] == "8 shapes, checkpoint: last" and len(found.parts[3].rows) == 8  # type: ignore[union-attr]
    assert evaluation(runs[0], None, "source", "last").values["shapes"] == 8


def test_compare_has_a_row_for_the_host_and_one_for_its_gate(runs: list[Run]) -> None:
    table = comparison(runs, "defrec")["table"]
    assert [row[1] for row in table.rows] == ["defrec", "smdsb/defrec"]
    assert {row[0] for row in table.rows} == {"bodies-standing→bodies-scan"}
    assert "detectable" in table.rows[1][-1] and table.rows[0][4] == "8"


def test_runs_of_both_kinds_are_not_mixed(runs: list[Run], finished: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="all classify clouds or all label their points, found both"):
        write_report([finished, runs[0]])
    with pytest.raises(RunError, match="expected a run that classifies clouds, found one that labels their points"):
        predict_files(runs[0], [tmp_path])
    with pytest.raises(RunError, match="expected a run that labels points, found one that classifies clouds"):
        predict_shapes(finished, [tmp_path], tmp_path / "out")
    for ours, theirs in ((finished, runs[0]), (runs[0], finished)):
        with pytest.raises(RunError, match="--against: expected"):
            evaluation(ours, theirs, "target", "last")


def test_gains_of_parts_are_differences_of_their_scores_over_the_same_shapes(runs: list[Run]) -> None:
    ours, theirs = (part_predictions_on(run, "target", "last") for run in runs)
    for (before, gain), name in zip(part_gains(ours, theirs), ours.classes, strict=True):
        index = ours.classes.index(name)
        iou, counted = (each.statistics[:, 4 + index].numpy() for each in (ours, theirs)), []
        for each in (ours, theirs):
            counted.append(float(each.statistics[:, 4 + len(ours.classes) + index].sum()))
        score, base = (values.sum() / count for values, count in zip(iou, counted))
        assert (before, gain.estimate) == pytest.approx((base, score - base), nan_ok=True)
    with pytest.raises(RunError, match="expected the same 8 shapes"):
        part_gains(ours, dataclasses.replace(theirs, names=theirs.names[:-1]))


def test_confusion_counts_every_labelled_point(runs: list[Run]) -> None:
    found = part_predictions_on(runs[0], "target", "last")
    store = open_domains(runs[0].recipe).target
    truth = store.point_labels[part_rows(store, ("test",)), :48].ravel()
    said = read_arrays(runs[0].evaluations("stage1")[-1])["logits"].argmax(axis=1)[:, 0].ravel()
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, said, labels=range(8)))
