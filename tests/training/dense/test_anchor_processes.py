"""Two gloo processes equal one with twice the batch: anchors on both domains, HeadFreeze, adversaries."""

from pathlib import Path

import pytest
import torch
from anchor_runs import small, split_state
from test_dense_processes import Pair, execute

from dense_testing import changed
from isthmus.data.randomness import Progress
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import AdversarialSpec, DenseRecipe
from isthmus.training.engine import train
from isthmus.training.run import Run

NAMES = ("mtl-both", "headfreeze", "mtl-both-dann", "mtl-both-output")


def recipe(name: str) -> DenseRecipe:
    """SGD and BatchNorm in eval mode, as in test_dense_processes.py; a third of the anchor labels, unequally spread.

    Noise is drawn per sample, so it is left on in one of them. Its discriminator has BatchNorm (frozen too).
    """
    steps = (3, 4) if name.startswith("headfreeze") else (6,)
    result = small(f"{name}/rooms", steps, batch_size=8, evaluate_every=3)
    changes: dict[str, object] = {
        "source__labels": {"setting": "ratio", "ratio": [2, 1], "tasks": ["main", "anchor"]},
        "target__labels": {"setting": "ratio", "ratio": [2, 1], "tasks": ["anchor"]},
    }
    for index, _ in enumerate(result.stages):
        fixed = {"optimizer": "sgd", "learning_rate": 0.01, "batch_norm": "frozen", "schedule": "constant"}
        changes |= {f"stages__{index}__{field}": value for field, value in fixed.items()}
    if isinstance(result.method, AdversarialSpec):
        noisy = name == "mtl-both-output"
        changes["method__adversaries__0__batch_norm"] = noisy
        if not noisy:
            changes |= {f"method__adversaries__0__{part}_noise": 0.0 for part in ("input", "activation", "label")}
    return changed(result, **changes)


@pytest.fixture(scope="module")
def pairs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Every recipe, trained by one process here, and by two that do all of them in a row."""
    folder = tmp_path_factory.mktemp("anchors")
    single = {name: train(recipe(name), folder / f"{name}-single") for name in NAMES}
    (folder / "double").mkdir()
    for name in NAMES:
        half = changed(recipe(name), batch_size=4, engine__devices=2, engine__strategy="ddp", engine__accelerator="cpu")
        (folder / "double" / f"{name}.yaml").write_text(half.dump())
    execute(folder / "double")
    return {name: Pair(single[name], Run.open(folder / "double" / name)) for name in NAMES}


def test_anchor_labels_are_spread_unequally() -> None:
    problem = DenseProblem(recipe("mtl-both"))
    streams = problem.streams(problem.build_method())
    unequal = 0
    for step in range(6):
        for stream in streams.values():
            present = stream.batch(Progress(0, 0, step, 6), step).present["segmentation"]
            halves = [int(half.sum()) for half in present.split(4)]
            unequal += halves[0] != halves[1]
    assert unequal >= 4


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name: str, pairs: dict[str, Pair]) -> None:
    """Every stage's weights; the discriminators' too, and their running accuracy over all processes."""
    single, double = pairs[name].single, pairs[name].double
    fresh = DenseProblem(single.recipe).build_method().state_dict()
    for stage in single.recipe.stages:
        one, two = (run.weights("last", stage.name) for run in (single, double))
        assert not torch.equal(one["network.layer1.0.conv1.weight"], fresh["network.layer1.0.conv1.weight"])
        for key, value in one.items():
            torch.testing.assert_close(
                two[key], value, rtol=1e-3, atol=1e-5, equal_nan=True, msg=lambda text, key=key: f"{key}: {text}"
            )
    last = single.weights("last")
    judges = [key for key in last if key.startswith("adversaries.") and key.endswith("convolutions.0.weight")]
    assert bool(judges) == isinstance(single.recipe.method, AdversarialSpec)
    assert not any(torch.equal(last[key], fresh[key]) for key in judges)
    if name.startswith("headfreeze"):
        for run in (single, double):
            frozen, _ = split_state(run.weights_before_overfit("source")[0])
            after = run.weights("last", "frozen")
            assert all(torch.equal(after[key], value) for key, value in frozen.items())


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_log_and_choose_as_one(name: str, pairs: dict[str, Pair]) -> None:
    single, double = (list(run.rows("metrics")) for run in (pairs[name].single, pairs[name].double))
    for one, two in zip(single, double, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), (key, one["global_step"])
    logged = {key for row in single for key in row}
    assert any(key.startswith("accuracy/") for key in logged) == ("dann" in name or "output" in name)
    assert {"loss/segmentation/source", "loss/segmentation/target", "loss/normals/source"} <= logged
