import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import DataError, IsthmusError, RunError
from isthmus.evaluation.points.accuracy import select
from isthmus.evaluation.points.audit_files import conclude, draw_sheet, plan_file, verdict_file
from isthmus.evaluation.points.outputs import outputs_on
from isthmus.evaluation.tables import Table
from isthmus.training.run import Run

RULES = ("last", "last")


def fill(sheet: Path, run: Run, rows: int | None = None) -> None:
    """What a person does: the true label of each name."""
    target = outputs_on(run, "target", "last")
    truth = {name: run.recipe.classes[label] for name, label in zip(target.names, target.labels())}
    lines = list(csv.reader(sheet.open()))
    filled = [[name, truth[name] if rows is None or index < rows else ""] for index, (name, _) in enumerate(lines[1:])]
    with sheet.open("w", newline="") as out:
        csv.writer(out).writerows([lines[0], *filled])


def differing(first: Run, second: Run) -> int:
    guesses = [outputs_on(run, "target", "last").logits.argmax(axis=1) for run in (first, second)]
    return int((guesses[0] != guesses[1]).sum())


def true_gain(first: Run, second: Run) -> float:
    return float(np.subtract(*(select(run)["last"].predictions.accuracy for run in (first, second))))


def test_with_all_labels_the_verdict_is_the_true_difference(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    sheet, count = tmp_path / "deeper" / "sheet.csv", differing(tiny_run, other_seed)
    assert count > 1
    told = draw_sheet(tiny_run, other_seed, 1000, sheet, rules=RULES)
    assert f"differ on {count} of 24 clouds; all of these" in told[0] and "--sheet" in told[-1]
    assert told[2] == "Expected: the exact difference on these 24 clouds"
    fill(sheet, tiny_run)
    parts = conclude(tiny_run, other_seed, sheet)
    values = json.loads(verdict_file(sheet).read_text())
    gain = true_gain(tiny_run, other_seed)
    assert values["difference"] == pytest.approx(gain) == values["low"] == values["high"]
    assert values["labelled"] == values["differing"] == count and values["samples"] == 24
    assert {each["half_width"] for each in values["labels_needed"]} == {0.1, 0.05, 0.02, 0.01}
    expected = {1: str(tiny_run.path), -1: str(other_seed.path), 0: None}[int(np.sign(gain))]
    assert values["better"] == expected
    assert any(isinstance(part, Table) for part in parts)
    assert any(isinstance(part, str) and "certain of these 24 clouds" in part for part in parts)
    conclude(other_seed, tiny_run, sheet)  # either order
    assert json.loads(verdict_file(sheet).read_text())["difference"] == pytest.approx(-gain)


def test_few_labels_give_an_interval_and_what_a_width_needs(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    draw_sheet(tiny_run, other_seed, 2, sheet, draw="decisive", seed=3, rules=RULES)
    assert len(sheet.read_text().splitlines()) == 3
    fill(sheet, tiny_run)
    conclude(tiny_run, other_seed, sheet, width=1.0)
    values = json.loads(verdict_file(sheet).read_text())
    assert values["labelled"] == 2 and values["low"] < values["high"]
    assert values["low"] <= true_gain(tiny_run, other_seed) <= values["high"]
    assert [each["half_width"] for each in values["labels_needed"]] == [0.01]
    with pytest.raises(IsthmusError, match="--width: expected more than 0"):
        conclude(tiny_run, other_seed, sheet, width=0.0)


def test_a_sheet_that_a_person_filled_in_is_never_replaced(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    draw_sheet(tiny_run, other_seed, 3, sheet, rules=RULES)
    fill(sheet, tiny_run, rows=1)
    before = sheet.read_bytes(), plan_file(sheet).read_bytes()
    with pytest.raises(IsthmusError, match="labels may be in it"):
        draw_sheet(tiny_run, other_seed, 2, sheet, seed=1, rules=RULES)
    assert before == (sheet.read_bytes(), plan_file(sheet).read_bytes())
    with pytest.raises(DataError, match="2 without"):
        conclude(tiny_run, other_seed, sheet)
    assert before[0] == sheet.read_bytes() and not verdict_file(sheet).exists()


def test_runs_that_agree_leave_nothing_to_label(tiny_run: Run, tmp_path: Path) -> None:
    (told,) = draw_sheet(tiny_run, tiny_run, 3, tmp_path / "sheet.csv", rules=RULES)
    assert "predict the same on all 24 clouds" in told and not list(tmp_path.iterdir())


def test_what_does_not_belong_together_is_refused(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    with pytest.raises(DataError, match=r"expected a file \.csv"):
        draw_sheet(tiny_run, other_seed, 3, tmp_path / "sheet.txt", rules=RULES)
    with pytest.raises(DataError, match=r"sheet\.plan\.json: expected the plan"):
        conclude(tiny_run, other_seed, sheet)
    draw_sheet(tiny_run, other_seed, 3, sheet, rules=RULES)
    fill(sheet, tiny_run)
    shutil.copytree(other_seed.path, tmp_path / "own")
    later = Run.open(tmp_path / "own")
    conclude(tiny_run, later, sheet)  # a run may move
    file = later.weights_file("stage2", "last")
    shutil.copy(later.weights_file("stage1", "last"), file)
    with pytest.raises(RunError, match="checkpoints: expected the runs that the sheet was drawn for"):
        conclude(tiny_run, later, sheet)
    later.update(status="training")
    with pytest.raises(RunError, match="expected a finished run"):
        conclude(tiny_run, later, sheet)
    saved = json.loads(plan_file(sheet).read_text())
    for broken, problem in (
        ({**saved, "draw": "lots"}, r"sheet\.plan\.json: draw: "),
        ({**saved, "rows": saved["rows"][1:]}, "fit together"),
        ({**saved, "probability": [0.0] * 3}, "fit together"),
    ):
        plan_file(sheet).write_text(json.dumps(broken))
        with pytest.raises(DataError, match=problem):
            conclude(tiny_run, other_seed, sheet)


def test_other_target_clouds_are_refused(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    class Fewer(Run):
        def evaluations(self, stage: str | None = None) -> list[Path]:
            return [tmp_path / "stage2-00000004.npz"]

    from isthmus.training.run import read_arrays, write_arrays

    arrays = read_arrays(other_seed.evaluations("stage2")[-1])
    write_arrays(
        tmp_path / "stage2-00000004.npz", **{**arrays, "rows": arrays["rows"][1:], "logits": arrays["logits"][1:]}
    )
    with pytest.raises(RunError, match=r"target data: expected that of .* 24 clouds .* found 23"):
        draw_sheet(tiny_run, Fewer(other_seed.path, other_seed.recipe), 3, tmp_path / "sheet.csv", rules=RULES)
    assert not (tmp_path / "sheet.csv").exists()
