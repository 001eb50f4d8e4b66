import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.recipe import Recipe, override, parse
from isthmus.training.run import Run


def recipe(name: str, method: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe on a few simulated rooms that trains within a second."""
    values: dict[str, Any] = {
        "kind": "dense",
        "name": name,
        "source": {
            "data": {"kind": "rooms", "train": 12, "val": 4, "test": 10, "size": [32, 48]},
            "labels": {"setting": "one"},
        },
        "network": {"kind": "segnet", "width": 0.125, "stages": 2},
        "method": method,
        "batch_size": 4,
        "stages": [{"steps": 4, "learning_rate": 1e-3}],
        "log_every": 1,
        "evaluate_every": 2,
    }
    return parse(values | changes)


@dataclass
class Runs:
    mtpsl: Run
    multi: Run
    single: Run


@pytest.fixture(scope="session")
def runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Finished runs on the same rooms; tests read them and must not change them."""
    folder = tmp_path_factory.mktemp("dense-runs")
    mtpsl = recipe("<img src=x>mtpsl/rooms", {"kind": "mtpsl"})
    multi = recipe("multi-task/rooms", {"kind": "multi-task"})
    single = recipe("single-task/rooms", {"kind": "single-task"})
    return Runs(*(train(each, folder / f"run{index}") for index, each in enumerate((mtpsl, multi, single))))


@pytest.fixture(scope="session")
def elsewhere(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose test images have the names of the others' but show other rooms."""
    rooms = {"kind": "rooms", "train": 4, "val": 2, "test": 10, "size": [32, 48], "seed": 1}
    labels = {"data": rooms, "labels": {"setting": "one"}}
    found = recipe("single-task/rooms", {"kind": "single-task"}, source=labels, stages=[{"steps": 2}])
    return train(found, tmp_path_factory.mktemp("elsewhere") / "run")


def copied(run: Run, path: Path, **changes: Any) -> Run:
    """A copy of a finished run that a test may change, under a recipe with other fields (``seed=1``)."""
    shutil.copytree(run.path, path)
    values = run.recipe.model_dump(mode="json") | changes
    (path / "recipe.yaml").write_text(parse(values).dump())
    return Run.open(path)


def anchored(name: str, size: tuple[int, int], **changes: object) -> Recipe:
    """A named recipe of two domains that trains within a second or two."""
    values: dict[str, object] = {"network.width": 0.125, "batch_size": 4, "evaluate_every": 2, "log_every": 1}
    for domain in ("source", "target"):
        values |= {f"{domain}.data.{part}": count for part, count in (("train", 8), ("val", 4), ("test", 6))}
        values |= {f"{domain}.data.size": list(size), f"{domain}.size": list(size)}
    fresh = named(name).model_dump(mode="json")
    values |= {f"stages.{index}.steps": 4 for index in range(len(fresh["stages"]))}
    return parse(override(fresh, [(k.replace("__", "."), str(v)) for k, v in {**values, **changes}.items()]))


@dataclass
class AnchoredRuns:
    dann: Run
    base: Run
    faces: Run


@pytest.fixture(scope="session")
def anchors(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> AnchoredRuns:
    """Finished runs of two domains: two on rooms, one on faces with keypoints as the anchor."""
    folder = tmp_path_factory.mktemp("anchored-runs")
    recipes = [anchored(f"{method}/rooms", (32, 40)) for method in ("headfreeze-dann", "baseline")]
    recipes.append(anchored("headfreeze/faces", (40, 36)))
    return AnchoredRuns(*(train(each, folder / f"run{index}") for index, each in enumerate(recipes)))
