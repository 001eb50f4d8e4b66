"""Whole commands, as a user runs them."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isthmus.training.run import Run


def isthmus(*arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "isthmus.cli.main", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    if ok:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_help_is_quick_and_names_every_command() -> None:
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        text = isthmus("--help").stdout
        fastest = min(fastest, time.perf_counter() - start)
    for command in ("demo", "train", "evaluate", "predict", "report", "compare", "benchmark", "export", "doctor"):
        assert command in text
    assert "recipes" in text and "data" in text
    imported = isthmus_modules("--help")
    assert "torch" not in imported and "lightning_fabric" not in imported
    assert fastest < 5  # the promise is one second on an idle machine; what must not happen is importing torch


def isthmus_modules(*arguments: str) -> set[str]:
    code = (
        "import sys; sys.argv = ['isthmus', *sys.argv[1:]]\n"
        "from isthmus.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("train", "sim/smdsb", "--out", "x"), "did you mean 'sim/sm-dsb'"),
        (("train", "sim/sm-dsb"), "--out DIR"),
        (("train", "sim/sm-dsb", "--out", "x", "--pionts", "64"), "did you mean 'points'"),
        (("train", "sim/sm-dsb", "--out", "x", "--gate", "skew"), "'skewness'"),
        (("train", "sim/sm-dsb", "--out", "x", "--keep"), "expected a value after it"),
        (("train", "--resume", "nowhere"), "expected a run folder with recipe.yaml"),
        (("train", "sim/sm-dsb", "--resume", "nowhere"), "leave out RECIPE"),
        (("evaluate", "nowhere"), "expected a run folder"),
        (("compare", "nowhere"), "expected run folders"),
        (("benchmark", "sin", "--out", "x"), "did you mean 'sim'"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(arguments: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    done = isthmus(*arguments, ok=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert complaint in done.stderr


def test_train_evaluate_compare_predict_from_the_command_line(tiny_values: dict, tmp_path: Path) -> None:
    import yaml

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny_values))
    for name, options in (("gated", ()), ("host", ("--gate", "none"))):
        isthmus("train", tmp_path / "mine.yaml", "--out", tmp_path / name, "--stages.0.steps", 4, *options)
    assert Run.open(tmp_path / "host").recipe.method.gate is None
    assert Run.open(tmp_path / "gated").recipe.stages[0].steps == 4
    again = isthmus("train", tmp_path / "mine.yaml", "--out", tmp_path / "host", ok=False)
    assert again.returncode == 2 and "expected a new or empty folder" in again.stderr
    assert "finished already" in isthmus("train", "--resume", tmp_path / "host").stdout

    shown = isthmus("evaluate", tmp_path / "gated", "--against", tmp_path / "host").stdout
    assert "overall accuracy" in shown and "classes hurt" in shown and "mean-class accuracy" in shown
    written = json.loads((tmp_path / "gated" / "evaluation.target.label-free.against-host.json").read_text())
    assert written["clouds"] == 24 and np.sum(written["confusion"]) == 24 and len(written["gains"]) == 10
    isthmus("evaluate", tmp_path / "gated", "--data", "source")
    isthmus("evaluate", tmp_path / "gated", "--data", "{kind: simulated, domain: web, train: 4, val: 0, test: 4}")
    wrong = isthmus("evaluate", tmp_path / "gated", "--data", "{kind: simulatd}", ok=False)
    assert wrong.returncode == 2 and "--data: expected" in wrong.stderr
    nowhere = isthmus("evaluate", tmp_path / "gated", "--data", "nosuch", ok=False).stderr
    assert "a folder that exists" in nowhere and "pydantic" not in nowhere

    table = isthmus("compare", tmp_path / "gated", tmp_path / "host", "--out", tmp_path / "tables").stdout
    assert "target-selected (not usable)" in table
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {"table.md", "table.csv", "table.tex"}
    unknown = isthmus("compare", tmp_path / "gated", "--baseline", "nosuch", ok=False)
    assert unknown.returncode == 2 and "--baseline: expected one of sm-dsb, found 'nosuch'" in unknown.stderr
    shutil.copytree(tmp_path / "gated", tmp_path / "suite" / "gated")
    shutil.copytree(tmp_path / "gated", tmp_path / "suite" / "again")
    once = isthmus("compare", tmp_path / "suite")
    assert "left out, a run of the same recipe and seed is there" in once.stderr and "gated" in once.stderr
    named = isthmus("compare", tmp_path / "suite" / "gated", tmp_path / "suite" / "again", ok=False)
    assert named.returncode == 2 and "expected different seeds, found 0 twice" in named.stderr
    twice = isthmus("compare", tmp_path / "gated", "--out", tmp_path / "tables", ok=False)
    assert twice.returncode == 2 and "--overwrite" in twice.stderr

    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.normal(size=(300, 3)))
    (tmp_path / "b.xyz").write_text("not a cloud")
    done = isthmus(
        "predict", tmp_path / "gated", tmp_path / "a.npy", tmp_path / "b.xyz", "--out", tmp_path / "p.csv", ok=False
    )
    assert done.returncode == 1 and "b.xyz" in done.stderr
    good = next(row for row in csv.DictReader((tmp_path / "p.csv").open()) if row["file"].endswith("a.npy"))
    assert 0 < float(good["probability"]) <= 1 and good["class"]
    none = isthmus("predict", tmp_path / "gated", tmp_path / "nosuch", "--out", tmp_path / "q.csv", ok=False)
    assert none.returncode == 1 and "nothing written" in none.stdout and not (tmp_path / "q.csv").exists()


def test_a_benchmark_goes_on_where_it_stopped_and_ends_in_tables(tiny_values: dict, tmp_path: Path) -> None:
    import yaml

    values = {**tiny_values, "name": "tiny/host", "method": {**tiny_values["method"], "gate": None}}
    (tmp_path / "gated.yaml").write_text(yaml.safe_dump(tiny_values))
    (tmp_path / "host.yaml").write_text(yaml.safe_dump(values))
    suite = {
        "name": "tiny", "recipes": [str(tmp_path / "host.yaml"), str(tmp_path / "gated.yaml")], "seeds": [0, 1],
        "set": {"stages.0.steps": 2, "stages.1.steps": 2}, "baseline": "host",
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    isthmus("benchmark", tmp_path / "suite.yaml", "--out", tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("last.pt")}
    assert len(times) == 4
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("| 2 | 24 |") == 4 and "±" in table and "gain over host" in table
    done = tmp_path / "out" / "tiny" / "host" / "seed1"
    assert done.is_dir()
    isthmus("benchmark", tmp_path / "suite.yaml", "--out", tmp_path / "out")
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("last.pt")}
    assert table == (tmp_path / "out" / "table.md").read_text()
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**suite, "seeds": [5]}))
    other = isthmus("benchmark", tmp_path / "suite.yaml", "--out", tmp_path / "out", ok=False)
    assert other.returncode == 2 and "expected the suite that this folder was started with" in other.stderr


def test_recipes_are_listed_and_shown_as_files_of_ones_own(tmp_path: Path) -> None:
    assert "sim/sm-dsb" in isthmus("recipes", "list", "sim/").stdout.split()
    families = isthmus("recipes", "list").stdout.splitlines()
    assert any(line.startswith("sim/*: ") and ", sm-dsb," in line for line in families)
    assert any(line.startswith("  also ") and "real/m2r/*" in line for line in families)
    assert any(line.startswith("*/rooms-onelabel: ") and ", mtpsl," in line for line in families)
    shown = isthmus("recipes", "show", "sim/sm-dsb", "--seed", 3).stdout
    (tmp_path / "mine.yaml").write_text(shown)
    assert isthmus("recipes", "show", tmp_path / "mine.yaml").stdout == shown


def test_data_sets_are_listed_and_checked(tmp_path: Path) -> None:
    assert "pointda" in isthmus("data", "list").stdout
    cloud = np.random.default_rng(0).normal(size=(64, 3))
    for name in ("bed", "chair"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            np.save(tmp_path / "set" / name / f"{i}.npy", cloud + i)
    np.save(tmp_path / "set" / "bed" / "bad.npy", np.full((64, 3), np.nan))
    folder = f"{{data: {{kind: folder, root: {tmp_path / 'set'}}}}}"
    options = ("--source", folder, "--target", folder, "--classes", "[bed, chair]")
    done = isthmus("data", "check", "sim/sm-dsb", *options)
    assert "bad.npy" in done.stderr and "2 left out" in done.stdout  # once per domain
    unknown = isthmus("data", "check", "sim/sm-dsb", *options[:-1], "[bed, chiar]", ok=False)
    assert unknown.returncode == 2 and "chair" in unknown.stderr and "chiar" in unknown.stderr


def test_doctor_says_what_is_there() -> None:
    text = isthmus("doctor", ok=False).stdout
    assert "torch" in text and "python" in text.lower()
