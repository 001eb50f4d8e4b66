"""Runs that label points: evaluate, compare, and the evaluations that do not know them."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from isthmus.errors import RunError
from isthmus.evaluation.compare import comparison
from isthmus.evaluation.evaluate import evaluation
from isthmus.evaluation.points.evaluate import part_predictions_on
from isthmus.evaluation.points.export import export_run
from isthmus.evaluation.points.predict import predict_files
from isthmus.evaluation.points.report import write_report
from isthmus.training.engine import train
from isthmus.training.points.build import open_domains, part_rows
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, read_arrays


@pytest.fixture(scope="module")
def runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """``defrec`` with and without the gate on the same bodies."""
    changes = {"points": 48, "batch_size": 6, "network.width": 0.125, "network.k": 6, "log_every": 1,
               "source": "standing", "target": "scan", "stages": "[{steps: 3}]", "evaluate_every": 2}  # fmt: skip
    changes |= {f"{d}.data.{part}": 8 for d in ("source", "target") for part in ("train", "val", "test")}
    folder = tmp_path_factory.mktemp("parts")
    return [
        train(parse(override(named(f"segda/{row}").model_dump(mode="json"), [(k, str(v)) for k, v in changes.items()])),
              folder / row.replace("/", "-"))
        for row in ("defrec", "smdsb/defrec")
    ]  # fmt: skip


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
    table = comparison(runs, "defrec")
    assert [row[1] for row in table.rows] == ["defrec", "smdsb/defrec"]
    assert {row[0] for row in table.rows} == {"bodies-standing→bodies-scan"}
    assert "detectable" in table.rows[1][-1] and table.rows[0][4] == "8"


def test_evaluations_of_classes_refuse_a_run_that_labels_points(runs: list[Run], finished: Run, tmp_path: Path) -> None:
    for ask in (
        lambda: write_report(runs),
        lambda: export_run(runs[0], tmp_path / "export"),
        lambda: predict_files(runs[0], [tmp_path]),
    ):
        with pytest.raises(RunError, match="expected a run that classifies clouds, found one that labels their points"):
            ask()
    for ours, theirs in ((finished, runs[0]), (runs[0], finished)):
        with pytest.raises(RunError, match="--against: expected"):
            evaluation(ours, theirs, "target", "last")
