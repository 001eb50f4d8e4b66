import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import DataError, RunError
from isthmus.evaluation.points.estimate_errors import (
    SHIPPED,
    Case,
    cases,
    cases_table,
    errors,
    shipped,
    table,
    usable,
)
from isthmus.evaluation.points.estimates import NAMES, Estimates
from isthmus.evaluation.points.outputs import outputs_on
from isthmus.training.recipe import parse
from isthmus.training.run import Run


def case(
    method: str, accuracy: float, confidence: float, direction: str = "a→b", agreement: float | None = None
) -> Case:
    found = Estimates(0.9, confidence, 0.5, 0.5, 0.5, 0.5, agreement)
    return Case(f"runs/{method}", direction, method, 0, accuracy, found)


FOUR = [
    case("host", 0.50, 0.60),
    case("gated", 0.60, 0.58),
    case("other", 0.40, 0.30),
    case("host", 0.80, 0.90, "b→a"),
    case("gated", 0.70, 0.75, "b→a", agreement=0.8),
]


def test_errors_are_those_of_a_hand_calculation() -> None:
    found = errors(FOUR, "host")
    sure = found["average_confidence"]
    assert (sure.runs, sure.gains) == (5, 3)
    assert sure.error == pytest.approx((10 + 2 + 10 + 10 + 5) / 5)
    assert sure.bias == pytest.approx((10 - 2 - 10 + 10 + 5) / 5)
    # Ranks of accuracies 2 3 1 5 4 and of estimates 3 2 1 5 4: the sum of squared differences is 2.
    assert sure.rank == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert sure.rank_within == pytest.approx(0.5)  # 2 3 1 against 3 2 1; the other direction has two runs only
    # True gains +10, -10, -10 and estimated ones -2, -30, -15.
    assert sure.gain_error == pytest.approx((12 + 20 + 5) / 3)
    assert sure.right_sign == pytest.approx(100 * 2 / 3)
    assert found["agreement"].runs == 1 and math.isnan(found["agreement"].rank)
    assert math.isnan(found["source_accuracy"].rank)  # it does not vary
    assert errors(FOUR)["average_confidence"].gains == 0 and math.isnan(errors(FOUR)["agreement"].gain_error)


def test_the_table_has_all_runs_first_and_comes_back_from_its_csv(tmp_path: Path) -> None:
    result = table(FOUR, "host")
    assert [row[0] for row in result.rows[:7]] == ["all"] * 7
    assert {row[0] for row in result.rows} == {"all", "a→b", "b→a"}
    assert {row[0] for row in table(FOUR[:3]).rows} == {"all"}
    (tmp_path / "table.csv").write_text(result.csv(), encoding="utf-8")
    back, expected = shipped(tmp_path / "table.csv"), errors(FOUR, "host")
    assert back.keys() == expected.keys() == NAMES.keys()
    for field, measured in expected.items():
        wanted = np.array(dataclasses.astuple(measured))
        np.testing.assert_allclose(np.array(dataclasses.astuple(back[field])), wanted, atol=0.5)
    runs = list(csv.DictReader(cases_table(FOUR).csv().splitlines()))
    assert [row["accuracy"] for row in runs] == ["50.00", "60.00", "40.00", "80.00", "70.00"]
    assert [row["agreement of seeds"] for row in runs] == ["–"] * 4 + ["80.00"]


def test_the_errors_that_come_with_the_package_can_be_read() -> None:
    for field, measured in shipped().items():
        assert field in NAMES and measured.runs > 0 and 0 <= measured.error <= 100
    assert SHIPPED.is_file()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("bias", "bais", 1), "line 1: expected direction,estimate"),
        (lambda text: "", "line 1: expected"),
        (
            lambda text: text.replace("average confidence,5", "average confidence,five", 1),
            "line 3: expected an estimate",
        ),
        (lambda text: text.replace("all,accuracy on the source", "all,luck", 1), "line 2: expected an estimate"),
    ],
)
def test_another_table_is_refused_by_line(tmp_path: Path, change, problem: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(change(table(FOUR, "host").csv()), encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        shipped(file)
    with pytest.raises(DataError, match="readable CSV"):
        shipped(tmp_path / "none.csv")


def test_truth_and_agreement_of_runs(tiny_run: Run, other_seed: Run) -> None:
    ticks: list[int] = []
    found = cases([tiny_run, other_seed], "last", lambda: ticks.append(1))
    assert len(ticks) == 2 and [each.seed for each in found] == [0, 1]
    both = [outputs_on(run, "target", "last") for run in (tiny_run, other_seed)]
    predicted = [each.logits.argmax(axis=1) for each in both]
    for each, guess in zip(found, predicted):
        assert each.accuracy == pytest.approx((guess == both[0].labels()).mean())
        assert each.estimates.agreement == pytest.approx((predicted[0] == predicted[1]).mean())
    assert cases([tiny_run])[0].estimates.agreement is None


def test_runs_that_estimates_are_not_for_are_left_out_and_counted(tiny_run: Run, tmp_path: Path) -> None:
    values = tiny_run.recipe.model_dump(mode="json")

    def other(name: str, **changes: object) -> Run:
        run = Run.create(tmp_path / name, parse({**values, **changes}))
        run.update(status="finished")
        return run

    oracle = other("oracle", method={"kind": "oracle"}, stages=values["stages"][:1])
    blind = other("blind", target={"data": {"kind": "unlabelled", "root": "x"}})
    begun = other("begun")
    begun.update(status="training")
    again, seed = other("again", log_every=7), other("seed", seed=5)
    kept, reasons = usable([tiny_run, oracle, blind, begun, again, seed])
    assert kept == [tiny_run, seed]
    assert [reason.split(" that ")[0] for reason in reasons] == ["left out: 1"] * 4
    assert "left out: 1 that have the recipe and seed of another" in reasons
    assert any("--with-oracles" in reason for reason in reasons)
    assert usable([oracle], with_target_labels=True) == ([oracle], [])
    with pytest.raises(RunError, match="expected a finished run"):
        cases([begun])
