"""The recipes of PointDA-10, unchanged but for their length, on a tiny tree in its exact layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from isthmus.data.readers.pointda import POINTDA_CLASSES
from isthmus.training.engine import train
from isthmus.training.points.rows import GATED, HOSTS
from isthmus.training.presets import RECIPES, named
from isthmus.training.recipe import override, parse

DIRECTIONS = [
    f"{a}2{b}" for a in ("modelnet", "shapenet", "scannet") for b in ("modelnet", "shapenet", "scannet") if a != b
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ModelNet files of 2,048 points, ShapeNet's of 1,024, ScanNet in HDF5 with colours, lists beside them."""
    root, random = tmp_path_factory.mktemp("pointda") / "PointDA_data", np.random.default_rng(0)
    for domain, points in (("modelnet", 2048), ("shapenet", 1024)):
        for name in POINTDA_CLASSES:
            for part, count in (("train", 3), ("test", 1)):
                for number in range(count):
                    file = root / domain / name / part / f"{name}_{number:04}.npy"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    np.save(file, random.normal(size=(points, 3)).astype(np.float32))
    (root / "scannet").mkdir()
    for name, count in (("train_0", 20), ("test_0", 10)):
        with h5py.File(root / "scannet" / f"{name}.h5", "w") as file:
            file["data"] = random.normal(size=(count, 2048, 6))
            file["label"] = (np.arange(count) % 10).astype(np.int32)
        (root / "scannet" / f"{name[:-2]}_files.txt").write_text(f"./data/scannet/{name}.h5\n")
    return root


def test_every_host_has_a_recipe_for_every_direction_and_both_networks() -> None:
    for direction in DIRECTIONS:
        for host in HOSTS:
            for prefix in ("", GATED):
                deep, plain = (named(f"{n}/{direction}/{prefix}{host}") for n in ("pointda", "pointda-pointnet"))
                first = [recipe.stages[0].steps for recipe in (deep, plain)]
                assert first == [40_000, 10_000] and (deep.batch_size, plain.batch_size) == (32, 64)
                assert (deep.network.kind, plain.network.kind) == ("dgcnn", "pointnet")
                assert sum(s.steps for s in plain.stages) == 20_000 and deep.points == plain.points == 1024
    assert sum(name.startswith("pointda-pointnet/modelnet2scannet/") for name in RECIPES) == sum(
        name.startswith("pointda/modelnet2scannet/") for name in RECIPES
    )


@pytest.mark.parametrize(
    ("network", "direction", "host"),
    [
        *(("pointda-pointnet", DIRECTIONS[index % 6], host) for index, host in enumerate(HOSTS)),
        *(("pointda", direction, "selfdist-gcn") for direction in DIRECTIONS),
    ],
)
def test_a_recipe_runs_when_pointed_at_the_data(
    network: str, direction: str, host: str, tree: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = named(f"{network}/{direction}/{GATED}{host}")
    values = recipe.model_dump(mode="json")
    values["stages"] = values["stages"][:2]
    changes = [("source.data.root", str(tree)), ("target.data.root", str(tree))]
    short = [(f"stages.{index}.steps", "1") for index in range(2)] + [("network.width", "0.125"), ("batch_size", "4")]
    if values["stages"][1]["pseudo_labels"]["graph"] is not None:
        short += [("stages.1.pseudo_labels.graph.steps", "1"), ("stages.1.pseudo_labels.refresh_every", "1")]
    run = train(parse(override(values, changes + short)), tmp_path / "run")
    assert run.finished and run.recipe.points == 1024
