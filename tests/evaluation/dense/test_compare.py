import csv
import io
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import RunError
from isthmus.evaluation.compare import comparison
from isthmus.evaluation.dense.compare import collect, folds_together, significant, table
from isthmus.evaluation.dense.scores import NOT_USABLE, mean_relative_gain, select
from isthmus.evaluation.tables import Table
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.run import Run, read_arrays, write_arrays

from .conftest import Runs, copied


@pytest.fixture(scope="module")
def seeds(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two seeds of two methods; the second seed of either is worse by a known factor in depth."""
    folder, found = tmp_path_factory.mktemp("seeds"), [runs.single, runs.multi]
    for run, factor in ((runs.single, 1.5), (runs.multi, 1.25)):
        second = copied(run, folder / run.recipe.method.kind, seed=1)
        for file in second.evaluations():
            arrays = read_arrays(file)
            arrays["test/depth"] = arrays["test/depth"] * np.array([factor, 1, 1, 1, 1])
            write_arrays(file, **arrays)
        found.append(second)
    return found


def depth_error(run: Run) -> float:
    """Mean absolute error at the end, from the file alone: sums of errors over numbers of pixels."""
    sums = read_arrays(run.evaluations()[-1])["test/depth"].sum(axis=0)
    return float(sums[0] / sums[3])


def cells(result: Table, method: str) -> dict[str, str]:
    return next(dict(zip(result.headings, row)) for row in result.rows if row[1] == method)


class TestTable:
    def test_mean_and_spread_over_seeds(self, runs: Runs, seeds: list[Run]) -> None:
        found = cells(table(collect(seeds)), "multi-task")
        error = depth_error(select_last(runs.multi))
        values = [error, 1.25 * error]
        mean, spread = found["aErr [m] ↓"].split(" ± ")
        assert float(mean) == pytest.approx(np.mean(values), rel=2e-3)
        assert float(spread) == pytest.approx(np.std(values, ddof=1), rel=1e-2)
        assert found["seeds"] == "2" and found["images"] == "10" and found["setting"] == "rooms, one label"
        assert "±" in found["mIoU [%] ↑"] and "±" in found["mErr [°] ↓"] and "±" in found["odsF [%] ↑"]

    def test_one_seed_has_no_spread(self, runs: Runs) -> None:
        found = cells(table(collect([runs.multi])), "multi-task")
        assert float(found["aErr [m] ↓"]) == pytest.approx(depth_error(runs.multi), rel=1e-3)
        assert "gain" not in " ".join(found)

    def test_gains_over_the_baseline_seed_by_seed(self, seeds: list[Run]) -> None:
        found = table(collect(seeds), "single-task")
        ours = [select(seeds[1])["source-val"], select(seeds[3])["source-val"]]
        theirs = [select(seeds[0])["source-val"], select(seeds[2])["source-val"]]
        gain = mean_relative_gain(ours, theirs)
        row = cells(found, "multi-task")
        assert row["gain over single-task [%]"] == (
            f"{100 * gain.estimate:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        )
        last = mean_relative_gain(
            [select(seeds[1])["last"], select(seeds[3])["last"]], [select(seeds[0])["last"], select(seeds[2])["last"]]
        )
        assert row["gain, last [%]"] == f"{100 * last.estimate:+.1f}"
        assert row[f"gain, {NOT_USABLE} [%]"].startswith(("+", "-"))
        assert [cells(found, "single-task")[heading] for heading in found.headings[-3:]] == ["", "", ""]

    def test_every_format_holds_the_same_cells(self, seeds: list[Run]) -> None:
        found = table(collect(seeds), "single-task")
        rows = list(csv.reader(io.StringIO(found.csv())))
        assert rows == [list(found.headings), *map(list, found.rows)]
        lines = found.markdown().splitlines()
        assert [cell.strip() for cell in lines[2].strip("|").split("|")] == list(found.rows[0])
        assert len(lines) == 4 and lines[1].count("---") == len(found.headings)
        latex = found.latex()
        assert latex.count(r"\\") == 3 and r"$\pm$" in latex and "[%]" not in latex

    @pytest.mark.parametrize(
        ("value", "text"),
        [(31.4159, "31.4"), (0.75493, "0.7549"), (7.8361, "7.84"), (123.4, "123"), (0.0123456, "0.01235")],
    )
    def test_digits(self, value: float, text: str) -> None:
        assert f"{value:.{significant(value)}f}" == text


def select_last(run: Run) -> Run:
    """The run, after making sure that its validation chose the last evaluation, whose file a test reads."""
    assert select(run)["source-val"].headline("depth") == pytest.approx(depth_error(run))
    return run


def test_folds_are_put_together_for_the_choices_that_all_of_them_have(runs: Runs) -> None:
    first, second = select(runs.multi), select(runs.multi)
    del second["test-selected"]  # not every evaluation of that fold measured its test part
    found = folds_together([first, second])
    assert set(found) == {"source-val", "last"}
    assert len(found["last"].groups) == 2 * len(first["last"].groups)
    np.testing.assert_array_equal(found["last"].statistics["depth"][10:], second["last"].statistics["depth"])


class TestRows:
    def test_a_seed_that_comes_twice_is_an_error(self, runs: Runs, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="expected different seeds, found 0 twice"):
            collect([runs.multi, copied(runs.multi, tmp_path / "again")])

    def test_unfinished_run_is_an_error(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        run.update(status="training")
        with pytest.raises(RunError, match="expected a finished run, found status 'training'"):
            collect([runs.single, run])

    def test_baseline_on_other_rooms_of_the_same_names_gives_no_gain(self, runs: Runs, elsewhere: Run) -> None:
        found = table(collect([runs.multi, elsewhere]), "single-task")
        assert [cells(found, "multi-task")[heading] for heading in found.headings[-3:]] == ["", "", ""]
        assert DenseProblem(elsewhere.recipe).recipe.setting == runs.multi.recipe.setting

    def test_two_recipes_of_the_baseline_s_name_are_an_error(self, runs: Runs, tmp_path: Path) -> None:
        other = copied(runs.single, tmp_path / "run", batch_size=2)
        with pytest.raises(RunError, match=r"baseline single-task: expected one recipe .* found 2"):
            comparison([runs.multi, runs.single, other], "single-task")

    def test_no_common_seed_is_an_error(self, runs: Runs, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="expected a common seed"):
            comparison([runs.multi, copied(runs.single, tmp_path / "run", seed=7)], "single-task")
