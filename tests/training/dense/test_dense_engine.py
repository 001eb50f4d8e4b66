"""A run of dense predictions that is killed resumes to the same result, bit for bit, under deterministic algorithms."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dense_runs import (
    Stopping,
    StoppingAtEvaluation,
    another_process,
    assert_same,
    assert_same_values,
    recipes,
    torchjd_recipe,
)

from dense_testing import changed
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import train
from isthmus.training.run import Run, read_checkpoint

RECIPES = recipes()
ALL_STEPS = {"multi-task": range(1, 7), "mtpsl-released": range(1, 7), "x-task": range(1, 8)}


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """PyTorch raises where an operation has no deterministic form."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def killed_and_resumed(recipe: DenseRecipe, out: Path, after: int) -> Run:
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, out, reporter=Stopping(after))
    assert not Run.open(out).finished
    another_process()
    return train(recipe, out, resume=True)


@pytest.mark.parametrize("name", RECIPES)
def test_a_crash_at_any_step_resumes_to_the_same_result(name: str, tmp_path: Path) -> None:
    """Before the first checkpoint, between two, at the end of a stage; evaluations are after steps 3 and 6."""
    whole = train(RECIPES[name], tmp_path / "whole")
    for after in ALL_STEPS.get(name, (3, 5)):
        assert_same(whole, killed_and_resumed(RECIPES[name], tmp_path / f"cut{after}", after))


def test_the_best_weights_so_far_survive_a_crash(tmp_path: Path) -> None:
    """A resumed run that forgot its best score would choose what comes next, however bad."""
    run = killed_and_resumed(RECIPES["choosing"], tmp_path / "run", 5)
    scores = [row["score/source-val"] for row in run.rows("metrics") if "score/source-val" in row]
    assert len(scores) == 6 and scores[0] > max(scores[1:]) + 0.1
    assert read_checkpoint(run.weights_file("stage1", "source-val"))["step"] == 1


@pytest.mark.parametrize("rule", ["pcgrad", "nash-mtl"])
def test_so_do_the_rules_of_torchjd(rule: str, tmp_path: Path) -> None:
    pytest.importorskip("torchjd", reason="TorchJD is an optional extra: pip install 'isthmus[mtl]'")
    if rule == "nash-mtl":
        pytest.importorskip("ecos", reason="Nash-MTL's solver is an optional extra: pip install 'isthmus[mtl-gpl]'")
    recipe = torchjd_recipe(rule)
    whole = train(recipe, tmp_path / "whole")
    assert_same(whole, killed_and_resumed(recipe, tmp_path / "cut", 5))


def test_a_crash_after_an_evaluation_forgets_it(tmp_path: Path) -> None:
    """The weights that it chose are on disk already, the checkpoint is older; the choice is made again."""
    recipe = RECIPES["multi-task"]
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "cut", reporter=StoppingAtEvaluation())
    assert (tmp_path / "cut" / "checkpoints" / "stage1.source-val.pt").is_file()
    assert read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.pt")["step"] == 2
    another_process()
    assert_same(whole, train(recipe, tmp_path / "cut", resume=True))


def test_a_checkpoint_holds_mapping_network_and_weighting(tmp_path: Path) -> None:
    """What resumes is in the file: a released-style checkpoint without the mapping network would start it afresh."""
    saved = read_checkpoint(train(RECIPES["mtpsl-released"], tmp_path / "mtpsl").path / "checkpoints" / "last.pt")
    assert any(name.startswith("mapping.film") for name in saved["weights"])
    assert saved["optimizer"].keys() >= {name for name in saved["weights"] if name.startswith("mapping.film")}
    saved = read_checkpoint(train(RECIPES["dwa"], tmp_path / "dwa").path / "checkpoints" / "last.pt")
    assert saved["weights"]["weighting.windows"][1].isfinite().all()
    saved = read_checkpoint(train(RECIPES["gradnorm"], tmp_path / "gradnorm").path / "checkpoints" / "last.pt")
    assert saved["weights"]["weighting.weights"].unique().numel() > 1
    saved = read_checkpoint(train(RECIPES["uncertainty"], tmp_path / "uncertainty").path / "checkpoints" / "last.pt")
    assert all(float(saved["weights"][f"weighting.log_variance.{task}"]) != -0.5 for task in ("segmentation", "depth"))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("step", [4e-3 * factor for factor in (1, 1, 0.5, 0.5, 0.25, 0.25)]),
        ("poly", [4e-3 * (1 - step / 6) ** 0.9 for step in range(6)]),
    ],
)
def test_schedules_go_on_where_they_were(name: str, rates: list[float], tmp_path: Path) -> None:
    run = killed_and_resumed(RECIPES[name], tmp_path / "run", 4)
    logged = [row["learning_rate"] for row in run.rows("metrics") if "learning_rate" in row]
    assert logged == pytest.approx(rates, rel=1e-12)


def test_the_maps_of_x_task_are_learnt_first_and_fixed_afterwards(tmp_path: Path) -> None:
    recipe = RECIPES["x-task"]
    run = train(recipe, tmp_path / "run")
    first, second = run.weights("last", "maps"), run.weights("last", "stage1")
    moved = {name.split(".")[0] for name, value in first.items() if not torch.equal(value, second[name])}
    assert moved == {"network"}
    fresh = run_method_weights(recipe)
    learnt = {name.split(".")[0] for name, value in fresh.items() if not torch.equal(value, first[name])}
    assert learnt == {"maps"}
    rows = [row for row in run.rows("metrics") if "learning_rate" in row]
    assert all("loss/depth_to_segmentation/source" in row for row in rows[:3])
    assert all("loss/perceptual/source" in row and "loss/depth_to_segmentation/source" not in row for row in rows[3:])


def run_method_weights(recipe: DenseRecipe) -> dict[str, torch.Tensor]:
    from isthmus.training.dense.problem import DenseProblem

    return DenseProblem(recipe).build_method().state_dict()


def test_a_run_leaves_the_files_it_promises(tmp_path: Path) -> None:
    run = train(RECIPES["multi-task"], tmp_path / "run")
    found = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    assert found == {
        "recipe.yaml", "run.json", "metrics.jsonl", "metrics.csv", "gate.jsonl", "checkpoints/last.pt",
        "checkpoints/stage1.last.pt", "checkpoints/stage1.source-val.pt",
        "evaluations/stage1-00000003.npz", "evaluations/stage1-00000006.npz",
    }  # fmt: skip
    assert run.finished and run.recipe == RECIPES["multi-task"]
    assert set(run.state["stores"]) == {"source", "labels"} and run.state["outputs"]["size"] == [24, 32]


def test_a_task_without_a_label_in_a_batch_is_not_in_that_steps_log(tmp_path: Path) -> None:
    run = train(changed(RECIPES["multi-task"], batch_size=2), tmp_path / "run")
    for row in run.rows("metrics"):
        if "learning_rate" in row:
            logged = {name for name in row if name.startswith("loss/")}
            assert 1 <= len(logged) <= 2  # two images with one label each
    logged_sets = {frozenset(n for n in row if n.startswith("loss/")) for row in run.rows("metrics")}
    assert len(logged_sets) > 2


def test_two_seeds_differ_and_one_seed_repeats(tmp_path: Path) -> None:
    recipe = RECIPES["mtpsl-released"]
    first = train(recipe, tmp_path / "a")
    another_process()
    assert_same(first, train(recipe, tmp_path / "b"))
    other = train(changed(recipe, seed=1), tmp_path / "c").weights("last")
    with pytest.raises(AssertionError):
        assert_same_values(first.weights("last"), other, "")
