import subprocess
import sys
from pathlib import Path

from isthmus.training.run import Run

COMMAND = [sys.executable, "-c", "from isthmus.cli.main import main; main()"]


def test_a_person_analyses_a_run(own_run: Run) -> None:
    asked = [*COMMAND, "analyse", str(own_run.path), "--every", "5", "--stages", "stage1", "--no-causality"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "uses target labels" in done.stdout and (own_run.path / "analysis" / "analysis.html").is_file()
    again = subprocess.run(asked, capture_output=True, text=True)
    assert again.returncode == 2 and "--overwrite replaces it" in again.stderr


def test_what_cannot_be_analysed_is_one_message(own_run: Run, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "analyse", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "expected a run folder with recipe.yaml" in done.stderr
    done = subprocess.run([*COMMAND, "analyse", str(own_run.path), "--stages", "first"], capture_output=True, text=True)
    assert done.returncode == 2 and "expected some of stage1, stage2, found first" in done.stderr.replace("\n", " ")
