import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import RunError
from isthmus.evaluation.points import analysis
from isthmus.evaluation.points.accuracy import select
from isthmus.evaluation.points.analysis import analyse
from isthmus.evaluation.points.analysis_sweep import read_sweep, summary
from isthmus.evaluation.points.causality import AdditiveNoise, additive_noise
from isthmus.training.engine import Silent, train
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run
from page_reader import read


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def quick(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None, **_: int) -> AdditiveNoise:
    return additive_noise(first, second, groups=groups, permutations=9, refits=2)


@pytest.fixture(scope="module")
def sweep(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two seeds of another beta, one run without a gate, one of another kind."""
    folder = tmp_path_factory.mktemp("sweep")
    values = finished.recipe.model_dump(mode="json")
    short = {
        "half0": [("method.gate.keep", "0.5")],
        "half1": [("method.gate.keep", "0.5"), ("seed", "1")],
        "none": [("method.gate", "none")],
        "other": [("method.gate.keep", "0.5"), ("batch_size", "4")],
    }
    for name, changes in short.items():
        train(parse(override(values, changes)), folder / name)
    yield folder


@pytest.fixture(scope="module")
def written(finished: Run, sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said = Said()
    out = tmp_path_factory.mktemp("analysis") / "out"
    plain: Run = Run.open(sweep / "none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "additive_noise", quick)
        page = analyse(finished, out, against=plain, sweep=sweep, every=2, reporter=said)
    return page, said.lines


def test_the_page_has_every_figure_and_says_what_it_used(written: tuple[Path, list[str]]) -> None:
    page, said = written
    text = read(page)
    assert text.sections == [
        "replay", "skewness", "confusion", "conflicts", "shapes", "losses", "pseudo", "alpha", "sweep", "embedding",
        "causality",
    ]  # fmt: skip
    for number in ("1:", "3:", "s 4 and 9:", "5:", "6:", "7:", "8, left", "s 8 and 10:", "11:"):
        assert f"Figure{number}" in text.text or f"Figure {number}" in text.text
    assert "Analysis: uses target labels" in text.text and any("target labels" in line for line in said)
    assert text.text.count("What it shows:") == text.text.count("What it does not show:") == 12
    assert text.text.count("the same to the last bit") == 4 == sum("same to the last bit" in line for line in said)
    assert not [a for a in text.attributes if a[1] in ("src", "href") and not a[2].startswith("#")]


def test_numbers_on_the_page_are_those_of_the_files(written: tuple[Path, list[str]], finished: Run) -> None:
    page, _ = written
    found = json.loads((page.parent / "analysis.json").read_text())
    assert found["uses_target_labels"] is True
    tested = [row for row in found["causality"] if "verdict" in row]
    assert {row["between"] for row in tested} == {"samples within steps"} and tested[0]["pairs"] == 24
    assert "expected 20 pairs or more, found 3" in read(page).text  # three steps of stage1
    line = next(row for row in read(page).tables["causality"] if row[2] == "samples within steps")
    assert line[4] == "24" and line[5].replace("−", "-") == f"{tested[0]['forward']['hsic']:+.3f}"
    with (page.parent / "samples.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == next(iter(found["figure_1"]))]
    assert len(rows) == 5 * 16 and {row["global_step"] for row in rows} == {"2", "4", "6", "8", "10"}
    target = [row for row in rows if row["domain"] == "target" and row["stage"] == "stage2"]
    right = np.mean([row["label"] == row["truth"] for row in target])
    (seventh,) = found["figure_7"][next(iter(found["figure_7"]))]
    assert seventh["right"]["estimate"] == pytest.approx(right)
    table = read(page).tables["pseudo"]
    assert table[1][3].startswith(f"{100 * right:.1f}")
    negative = np.mean(
        [float(r["cosine_class"]) < 0 for r in rows if (r["stage"], r["domain"]) == ("stage1", "source")]
    )
    line = next(r for r in read(page).tables["conflicts"] if r[1:4] == ["stage1", "source", "with classification"])
    assert line[5].startswith(f"{100 * negative:.1f}")


def test_the_sweep_reads_runs_and_leaves_out_others(finished: Run, sweep: Path) -> None:
    found = read_sweep(finished, sweep)
    assert found.settings() == [(0.5, 1.0), (1.0, None)]
    assert len(found.left_out) == 1 and "other: differs in batch_size" in found.left_out[0]
    half, plain = summary(found)
    expected = [select(Run.open(sweep / name))["last"].predictions.accuracy for name in ("half0", "half1")]
    assert half["last"]["values"] == expected and half["seeds"] == [0, 1]
    assert half["last"]["spread"] == pytest.approx(np.std(expected, ddof=1)) and np.isnan(plain["last"]["spread"])
    with pytest.raises(RunError, match=r"--sweep: expected finished runs.*isthmus train .*--method\.gate\.keep 0\.5"):
        read_sweep(finished, sweep / "other")


def test_nothing_is_overwritten_unasked_and_measurements_are_kept(
    written: tuple[Path, list[str]], finished: Run, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(written[0].parent, out)
    with pytest.raises(RunError, match="expected no analysis, found one; --overwrite replaces it"):
        analyse(finished, out, every=2)
    measured = out / "measured" / "run" / "stage1-00000002.npz"
    before = measured.stat().st_mtime_ns
    (out / "analysis.html").write_text("old")
    analyse(finished, out, every=2, causality=False, overwrite=True)
    assert measured.stat().st_mtime_ns == before
    page = read(out / "analysis.html")
    assert "isthmus analyse" in page.text and "--sweep" in page.text  # how to get the sweep that was not given
    analyse(finished, out, every=3, stages=("stage1",), causality=False, overwrite=True)
    assert not measured.exists() and "No measured stage has pseudo-labels" in read(out / "analysis.html").text
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"expected a new folder or one of an analysis, found thesis\.tex"):
        analyse(finished, strange)
