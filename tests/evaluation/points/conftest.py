from pathlib import Path

import pytest

from isthmus.training.engine import train
from isthmus.training.recipe import parse
from isthmus.training.run import Run


@pytest.fixture(scope="session")
def tiny_run(tiny_values: dict, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of both stages with the skewness gate; tests read it and must not change it."""
    return train(parse(tiny_values), tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="session")
def other_seed(tiny_values: dict, tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``tiny_run`` with another seed; tests must not change it either."""
    return train(parse({**tiny_values, "seed": 1}), tmp_path_factory.mktemp("other") / "run")
