from dataclasses import dataclass
from pathlib import Path

import pytest

from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.recipe import Recipe, override, parse
from isthmus.training.run import Run


def tiny(row: str, **changes: object) -> Recipe:
    """A named recipe on simulated streets that trains within a second."""
    values: dict[str, object] = {
        "evaluate_every": 2, "image_network.width": 0.125, "point_network.levels": 2, "batch_size": 2,
        "stages.0.steps": 4, "log_every": 1,
    }  # fmt: skip
    for domain in ("source", "target"):
        values |= {f"{domain}.data.{part}": count for part, count in (("train", 4), ("val", 2), ("test", 6))}
        values |= {f"{domain}.data.size": [32, 56]}
    fresh = named(f"{row}/streets-light").model_dump(mode="json")
    values |= {field.replace("__", "."): value for field, value in changes.items()}
    return parse(override(fresh, [(field, str(value)) for field, value in values.items()]))


@dataclass
class FrameRuns:
    cmal: Run
    plain: Run
    sweeps: Run


@pytest.fixture(scope="session")
def frame_runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> FrameRuns:
    """Finished runs on the same streets, the last on sweeps alone; tests read them and must not change them."""
    folder = tmp_path_factory.mktemp("frame-runs")
    recipes = (tiny("cmal"), tiny("source-only"), tiny("source-only", streams="[3D]", name="points-only/streets-light"))
    return FrameRuns(*(train(each, folder / f"run{index}") for index, each in enumerate(recipes)))
