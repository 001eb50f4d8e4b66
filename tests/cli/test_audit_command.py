"""``audit``, ``estimates`` and what ``evaluate`` says without labels, as a user runs them (in this process)."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import app
from isthmus.errors import IsthmusError
from isthmus.training.engine import train
from isthmus.training.recipe import parse
from isthmus.training.run import Run


def isthmus(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def runs(finished: Run, tiny_values: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    shutil.copytree(finished.path, folder / "seed0")
    train(parse({**tiny_values, "seed": 1}), folder / "seed1")
    return folder


def test_a_sheet_is_drawn_filled_and_judged(runs: Path, tmp_path: Path) -> None:
    sheet, pair = tmp_path / "sheet.csv", (runs / "seed0", runs / "seed1")
    told = isthmus("audit", *pair, "--labels", 4, "--out", sheet, "--select", "last")
    assert "runs differ on" in told and f"--sheet {sheet}" in told
    with pytest.raises(IsthmusError, match="labels may be in it"):
        isthmus("audit", *pair, "--labels", 4, "--out", sheet)
    with pytest.raises(IsthmusError, match=r"sheet.csv: expected a label for each of the 4 names"):
        isthmus("audit", *pair, "--sheet", sheet)
    rows = list(csv.reader(sheet.open()))
    with sheet.open("w", newline="") as out:
        csv.writer(out).writerows([rows[0], *([name, "chair"] for name, _ in rows[1:])])
    shown = isthmus("audit", *pair, "--sheet", sheet, "--width", 20)
    assert "95 % interval" in shown and "± 20" in shown
    assert json.loads((tmp_path / "sheet.verdict.json").read_text())["labelled"] == 4
    for wrong in ((), ("--labels", 3), ("--sheet", sheet, "--labels", 3)):
        with pytest.raises(IsthmusError, match="audit: "):
            isthmus("audit", *pair, *wrong)


def test_estimates_of_one_run_and_their_errors_over_many(runs: Path, tmp_path: Path) -> None:
    shown = isthmus("evaluate", runs / "seed0", "--seeds", runs, "--against", runs / "seed1")
    assert "predict the same on" in shown
    written = json.loads((runs / "seed0" / "evaluation.target.label-free.against-seed1.json").read_text())
    assert len(written["seeds"]) == 2 and "agreement" in written["estimates"]
    isthmus("estimates", runs, "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 6
    with (tmp_path / "out" / "table.csv").open() as file:
        assert {row["runs"] for row in csv.DictReader(file)} == {"2"}
    with pytest.raises(IsthmusError, match="--overwrite"):
        isthmus("estimates", runs, "--out", tmp_path / "out")
    with pytest.raises(IsthmusError, match="--baseline: expected one of sm-dsb, found 'nothing'"):
        isthmus("estimates", runs, "--baseline", "nothing")
    with pytest.raises(IsthmusError, match="expected finished runs that classify clouds"):
        isthmus("estimates", tmp_path)
    with pytest.raises(IsthmusError, match="--seeds: expected runs in"):
        isthmus("evaluate", runs / "seed0", "--seeds", tmp_path)
