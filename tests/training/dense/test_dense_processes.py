"""Two gloo processes equal one process with twice the batch, where labels are few and unequally spread."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dense_testing import changed, tiny
from isthmus.data.randomness import Progress
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import train
from isthmus.training.run import Run

NEEDS = {"cagrad": "torchjd", "pcgrad": "torchjd"}
NAMES = (
    "uniform", "uncertainty", "gradnorm", "dwa", "mgda", "pcgrad", "cagrad", "single-task", "semi-supervised",
    "mtpsl", "mtpsl-released", "mtpsl-mgda", "direct-map",
)  # fmt: skip


def recipe(name: str) -> DenseRecipe:
    """The conditions under which the design promises equality: BatchNorm in eval mode. SGD, since Adam turns rounding
    in a gradient near zero into a whole step. Two of 24 images carry depth and two normals, so that a
    task is at times on one process only and at times nowhere."""
    row = "multi-task" if name == "uniform" else name.removesuffix("-mgda")
    changes: dict[str, object] = {
        "source__labels": {"setting": "ratio", "ratio": [10, 1, 1]}, "batch_size": 8,
        "evaluate_every": 6,
        "stages__0": {"steps": 6, "optimizer": "sgd", "learning_rate": 0.03, "batch_norm": "frozen",
                      "schedule": "constant", "weight_decay": 1e-4},
    }  # fmt: skip
    if name == "dwa":
        changes["weighting__interval"] = 2
    if name == "gradnorm":
        changes["weighting__learning_rate"] = 0.1
    if name.endswith("-mgda"):
        changes["weighting"] = "mgda"
    return changed(tiny(f"{row}/rooms-onelabel"), **changes)


@dataclass
class Pair:
    single: Run
    double: Run


@pytest.fixture(scope="module")
def pairs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Every recipe, trained by one process here, and by two that do all of them in a row."""
    folder = tmp_path_factory.mktemp("pairs")
    names = [name for name in NAMES if find_spec(NEEDS.get(name, "torch"))]
    single = {name: train(recipe(name), folder / f"{name}-single") for name in names}
    (folder / "double").mkdir()
    for name in names:
        half = changed(recipe(name), batch_size=4, engine__devices=2, engine__strategy="ddp", engine__accelerator="cpu")
        (folder / "double" / f"{name}.yaml").write_text(half.dump())
    execute(folder / "double")
    return {name: Pair(single[name], Run.open(folder / "double" / name)) for name in names}


def execute(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("train_all.py")), str(folder)]
    started = []
    for rank in ("0", "1"):
        with (folder / f"{rank}.log").open("w") as log:
            environment = {**os.environ, **group, "LOCAL_RANK": rank}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], "\n".join((folder / f"{rank}.log").read_text()[-3000:] for rank in (0, 1))


def test_labels_are_spread_unequally() -> None:
    """Of this the other tests live: tasks that one process alone sees, and tasks that nobody sees."""
    problem = DenseProblem(recipe("uniform"))
    stream = problem.streams(problem.build_method())["source"]
    on_one, nowhere = 0, 0
    for step in range(6):
        batch = stream.batch(Progress(0, 0, step, 6), step)
        for name in problem.tasks:
            halves = [int(half.sum()) for half in batch.present[name].split(4)]
            on_one += (0 in halves) and sum(halves) > 0
            nowhere += sum(halves) == 0
    assert on_one >= 3 and nowhere >= 2


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name: str, pairs: dict[str, Pair]) -> None:
    if name not in pairs:
        pytest.skip(f"weighting {name!r} needs TorchJD, an optional extra: pip install 'isthmus[mtl]'")
    single, double = pairs[name].single, pairs[name].double
    assert double.state["stores"] == single.state["stores"] and double.recipe.batch_size == 4
    fresh = DenseProblem(single.recipe).build_method().state_dict()
    one, two = single.weights("last"), double.weights("last")
    moved = [key for key in one if not torch.equal(one[key], fresh[key])]
    assert any("encoder" in key for key in moved) and any("heads" in key for key in moved)
    assert any(key.startswith("mapping.film") for key in moved) or not name.startswith("mtpsl")
    for key, value in one.items():
        torch.testing.assert_close(
            two[key], value, rtol=1e-3, atol=1e-5, equal_nan=True, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_log_as_one(name: str, pairs: dict[str, Pair]) -> None:
    """Also which losses are there at all: a task that no process has a label of is not in that step's row."""
    if name not in pairs:
        pytest.skip(f"weighting {name!r} needs TorchJD, an optional extra: pip install 'isthmus[mtl]'")
    single, double = (list(run.rows("metrics")) for run in (pairs[name].single, pairs[name].double))
    assert len(single) == 7
    for one, two in zip(single, double, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), (key, one["global_step"])
    assert len({frozenset(row) for row in single if "learning_rate" in row}) > 1


def test_weightings_moved_and_agree(pairs: dict[str, Pair]) -> None:
    """Their state is part of the weights above; here, that it is not what it started as."""
    weights = {name: pair.double.weights("last") for name, pair in pairs.items()}
    assert weights["gradnorm"]["weighting.weights"].unique().numel() == 3
    assert weights["gradnorm"]["weighting.initial"].isfinite().all()
    assert weights["dwa"]["weighting.windows"].isfinite().any()
    assert all(float(v) != -0.5 for key, v in weights["uncertainty"].items() if "log_variance" in key)
