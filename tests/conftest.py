import os
import shutil
from pathlib import Path

import pytest

from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.recipe import Recipe, override, parse
from isthmus.training.run import Run

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of the tests lies in a folder of its own, never in the user's cache."""
    folder = tmp_path_factory.getbasetemp() / "isthmus-cache"
    os.environ["ISTHMUS_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_values() -> dict:
    """A two-stage SM-DSB recipe that trains in seconds."""
    changes = {
        "name": "tiny/sm-dsb", "points": 48, "batch_size": 8, "network.width": 0.125,
        "network.dropout": 0.3, "stages.0.steps": 6, "stages.1.steps": 4, "log_every": 1, "evaluate_every": 3,
        "checkpoint_every": 2, "method.mixup": "false",
    }  # fmt: skip
    for domain in ("source", "target"):
        changes |= {f"{domain}.data.{part}": 24 for part in ("train", "val", "test")}
    return override(named("sim/sm-dsb").model_dump(mode="json"), [(k, str(v)) for k, v in changes.items()])


@pytest.fixture
def tiny(tiny_values: dict) -> Recipe:
    return parse(tiny_values)


@pytest.fixture(scope="session")
def finished(tiny_values: dict, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of both stages with the skewness gate; tests read it and must not change it."""
    return train(parse(tiny_values), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def own_run(finished: Run, tmp_path: Path) -> Run:
    """A copy of a finished run that a test may change."""
    shutil.copytree(finished.path, tmp_path / "own")
    return Run.open(tmp_path / "own")
