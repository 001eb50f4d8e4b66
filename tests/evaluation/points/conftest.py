from pathlib import Path

import pytest

from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run


@pytest.fixture(scope="session")
def tiny_run(tiny_values: dict, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of both stages with the skewness gate; tests read it and must not change it."""
    return train(parse(tiny_values), tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="session")
def other_seed(tiny_values: dict, tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``tiny_run`` with another seed; tests must not change it either."""
    return train(parse({**tiny_values, "seed": 1}), tmp_path_factory.mktemp("other") / "run")


@pytest.fixture(scope="session")
def part_runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """``defrec`` with and without the gate on the same bodies."""
    changes = {"points": 48, "batch_size": 6, "network.width": 0.125, "network.k": 6, "log_every": 1,
               "source": "standing", "target": "scan", "stages": "[{steps: 3}]", "evaluate_every": 2}  # fmt: skip
    changes |= {f"{d}.data.{part}": 8 for d in ("source", "target") for part in ("train", "val", "test")}
    folder = tmp_path_factory.mktemp("parts")
    return [
        train(parse(override(named(f"segda/{row}").model_dump(mode="json"), [(k, str(v)) for k, v in changes.items()])),
              folder / row.replace("/", "-"))
        for row in ("defrec", "smdsb/defrec")
    ]  # fmt: skip
