"""HeadFreeze: what is frozen stays as it was to the last bit, what stage 1 may see, where stage 2 starts, resuming."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from anchor_runs import BEHIND_UP2, Keeping, another_class, copied, rewrite, small, split_state
from dense_runs import Stopping, another_process, assert_same, assert_same_values
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dense_testing import changed, total
from isthmus.data.randomness import Progress
from isthmus.errors import DataError
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import train
from isthmus.training.optimisation import freeze, training_mode
from isthmus.training.run import Run, read_checkpoint

HEADFREEZE = small("headfreeze/rooms", (4, 3))


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def killed_and_resumed(recipe: DenseRecipe, out: Path, after: int) -> Run:
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, out, reporter=Stopping(after))
    assert not Run.open(out).finished
    another_process()
    return train(recipe, out, resume=True)


@pytest.mark.parametrize(
    ("recipe", "killed_after"),
    [
        (HEADFREEZE, 0),
        (HEADFREEZE, 5),
        (HEADFREEZE, 6),
        (changed(HEADFREEZE, ema=0.9, stages__1__keep_optimizer=True), 6),
        (small("headfreeze-dann/rooms", (4, 3)), 6),
        (small("headfreeze/faces", (4, 3)), 0),
    ],
    ids=["whole", "cut-5", "cut-6", "ema-keep", "dann", "vectors"],
)
def test_frozen_means_frozen(recipe: DenseRecipe, killed_after: int, tmp_path: Path) -> None:
    """Weights and BatchNorm's statistics behind the boundary, also through a kill in stage 2; all else moves."""
    if killed_after:
        run = killed_and_resumed(recipe, tmp_path / "run", killed_after)
    else:
        run = train(recipe, tmp_path / "run")
    before, _ = run.weights_before_overfit("source")
    frozen, rest = split_state(before)
    names = {key.split(".")[1] for key in frozen}
    assert names == {"up3", "heads", "vectors"} if recipe.anchor == "keypoints" else names == {"up3", "heads"}
    assert {key.rpartition(".")[2] for key in frozen if "norm" in key} >= {"running_mean", "num_batches_tracked"}
    last = run.weights("last", "frozen")
    for key, value in frozen.items():
        assert torch.equal(last[key], value), key
    still = [key for key, value in rest.items() if torch.equal(last[key], value)]
    assert not still
    saved = read_checkpoint(run.path / "checkpoints" / "last.pt")
    assert not any(key in saved["optimizer"] for key in frozen)
    assert all(torch.equal(saved["weights"][key], before[key]) for key in frozen)


def test_stage_1_does_train_what_stage_2_freezes(tmp_path: Path) -> None:
    """Of this the test above lives."""
    run = train(small("headfreeze/faces", (4, 1)), tmp_path / "run")
    fresh = DenseProblem(run.recipe).build_method().state_dict()
    behind, _ = split_state(run.weights("last", "source"))
    assert not [key for key, value in behind.items() if torch.equal(fresh[key], value)]


def test_no_gradient_of_a_frozen_weight_is_computed() -> None:
    """A step saves the operations of the weight gradients of the frozen convolutions, no more and no less."""
    problem, flops = DenseProblem(HEADFREEZE), []
    method, progress = problem.build_method(), Progress(0, 1, 0, 2)
    batches = {name: stream.batch(progress, 0) for name, stream in problem.streams(method).items()}
    saved: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Each entry of a kernel is multiplied once per place: of the output, or of the input of a deconvolution.
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        saved.append(2 * module.weight.numel() * len(places) * places[0, 0].numel())

    for stage in (changed(HEADFREEZE, stages__1__frozen_after=None).stages[1], HEADFREEZE.stages[1]):
        freeze(method, stage)
        training_mode(method, stage)
        hooks = [
            module.register_forward_hook(count)
            for name, module in method.named_modules()
            if stage.frozen_after and f"{name}.".startswith(BEHIND_UP2) and hasattr(module, "kernel_size")
        ]
        with FlopCounterMode(display=False) as counter:
            total(method(batches, progress)).backward()
        flops.append(counter.get_total_flops())
        assert len(hooks) == (4 if stage.frozen_after else 0)  # up3: lateral and conv; two heads
    assert flops[0] - flops[1] == sum(saved) > 0


@pytest.mark.parametrize("row", ["headfreeze", "headfreeze-output"])
def test_stage_1_sees_nothing_of_the_target(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other images and other labels there, stage 1 and its choice are the same, and stage 2 is not."""
    recipe = small(f"{row}/rooms", (4, 3))
    clean = train(recipe, tmp_path / "clean")
    target = copied(recipe, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    rewrite(target / "images.npy", lambda image: 255 - image)
    rewrite(target / "label_segmentation.npy", another_class)
    rewrite(target / "label_normals.npy", lambda normals: -normals)
    dirty = train(recipe, tmp_path / "dirty")
    for file in sorted((clean.path / "checkpoints").glob("source.*.pt")):
        assert_same_values(read_checkpoint(file), read_checkpoint(dirty.path / "checkpoints" / file.name), file.name)
    assert clean.weights_before_overfit("source")[1] == dirty.weights_before_overfit("source")[1]
    first, second = clean.weights("last"), dirty.weights("last")
    moved = [key for key, value in first.items() if not torch.equal(value, second[key])]
    assert "network.layer1.0.conv1.weight" in moved
    for one, other in zip(clean.rows("metrics"), dirty.rows("metrics"), strict=True):
        if one["stage"] == "source":
            assert str(one) == str(other) and not any("target" in key or "discriminator" in key for key in one)
        elif "learning_rate" in one:
            assert one["loss/segmentation/target"] != other["loss/segmentation/target"]
            assert {"loss/segmentation/source", "loss/normals/source"} <= one.keys()
            assert "loss/normals/target" not in one


def test_stage_2_starts_before_either_task_overfits(tmp_path: Path) -> None:
    """From the earliest of the tasks' best steps, by the log; nearly so, after one step with a rate of nearly 0."""
    changes = {"evaluate_every": 1, "stages__0__learning_rate": 0.1, "stages__0__schedule": "constant"}
    changes |= {"augment__colour_shift": 0.0}
    second = {"stages__1__learning_rate": 1e-12, "stages__1__optimizer": "sgd"}
    recipe, said = small("headfreeze/rooms", (6, 1), **changes, **second), Keeping()
    run = train(recipe, tmp_path / "run", reporter=said)
    rows = [row for row in run.rows("metrics") if row["stage"] == "source" and "score/source-val" in row]
    best = {}
    for task, sign in (("normals", -1), ("segmentation", 1)):
        values = [sign * row[f"score/val/{task}"] for row in rows]
        best[task] = max(step for step, value in enumerate(values, start=1) if value == max(values))
    assert len(rows) == 6 and best["normals"] != best["segmentation"] and min(best.values()) < 6
    for task, step in best.items():
        assert read_checkpoint(run.weights_file("source", f"val-{task}"))["step"] == step
    earliest = min(best, key=lambda task: best[task])
    assert f"frozen: starts from step {best[earliest]} of source" in said.messages
    weights, step = run.weights_before_overfit("source")
    assert step == best[earliest]
    last, parameters = run.weights("last"), [key for key in weights if key.endswith(("weight", "bias"))]
    for key in parameters:
        torch.testing.assert_close(last[key], weights[key], rtol=0, atol=1e-7)
    other = run.weights("last", "source")
    assert all(not torch.allclose(last[key], other[key], rtol=0, atol=1e-7) for key in parameters if "conv" in key)


def test_a_fixed_step_is_the_other_way(tmp_path: Path) -> None:
    recipe = small("headfreeze/rooms", (3, 1), stages__1__start_from="last", evaluate_every=1)
    run = train(changed(recipe, stages__0__learning_rate=0.05), tmp_path / "run")
    behind, _ = split_state(run.weights("last", "frozen"))
    assert all(torch.equal(run.weights("last", "source")[key], value) for key, value in behind.items())
    assert not list((run.path / "checkpoints").glob("*.val-*"))


def test_a_source_without_validation_images_is_noticed_before_stage_1(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source: expected labelled validation images .* 'before-overfit', found none"):
        train(small("headfreeze/rooms", (2, 2), source__data__val=0), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert train(small("mtl-both/rooms", (1,), source__data__val=0), tmp_path / "other").finished


def test_moments_are_fresh_or_go_on(tmp_path: Path) -> None:
    """After a first step of stage 2, Adam's first moments differ by 0.9 times those that stage 1 left."""
    kept, fresh = (
        train(small("headfreeze/rooms", (3, 1), stages__1__keep_optimizer=keep), tmp_path / str(keep))
        for keep in (True, False)
    )
    with pytest.raises(RuntimeError, match="power cut"):
        train(small("headfreeze/rooms", (3, 1)), tmp_path / "cut", reporter=Stopping(4))
    after_1, with_, without = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("cut", "True", "False")
    )
    assert (after_1["stage"], after_1["step"]) == (1, 0)
    behind, before = split_state(after_1["optimizer"])
    assert behind and before and with_["optimizer"].keys() == without["optimizer"].keys() == before.keys()
    for name, state in before.items():
        assert float(state["step"]) == 3, name
        assert float(with_["optimizer"][name]["step"]) == 4 and float(without["optimizer"][name]["step"]) == 1
        difference = with_["optimizer"][name]["exp_avg"] - without["optimizer"][name]["exp_avg"]
        torch.testing.assert_close(difference, 0.9 * state["exp_avg"], rtol=1e-4, atol=1e-6)
    assert kept.finished and fresh.finished


@pytest.mark.parametrize(
    ("name", "steps", "kills", "changes"),
    [
        ("headfreeze-dann/rooms", (3, 4), range(1, 7), {}),
        ("mtl-both-output/rooms", (5,), range(1, 5), {}),
        ("mtl-both-multilevel/rooms", (4,), (3,), {}),
        ("headfreeze-output/rooms", (3, 4), (3, 6), {"stages__1__keep_optimizer": True}),
    ],
)
def test_a_crash_at_any_step_resumes_to_the_same_result(
    name: str, steps: tuple[int, ...], kills: range, changes: dict, tmp_path: Path, deterministic: None
) -> None:
    """Weights, moments of all optimisers, the discriminators' running accuracy, the log, what was measured."""
    recipe = small(name, steps, **changes)
    whole = train(recipe, tmp_path / "whole")
    saved = read_checkpoint(whole.path / "checkpoints" / "last.pt")
    judges = [key for key in saved["optimizer"] if key.startswith("adversaries.")]
    assert judges and all(set(saved["optimizer"][key]) == {"momentum_buffer"} for key in judges)
    assert "exp_avg_sq" in saved["optimizer"]["network.layer1.0.conv1.weight"]
    assert saved["weights"]["adversaries.0.accuracy"].isfinite()
    logged = [row for row in whole.rows("metrics") if any(key.startswith("accuracy/") for key in row)]
    assert len(logged) >= 2
    for after in kills:
        resumed = killed_and_resumed(recipe, tmp_path / f"cut{after}", after)
        assert_same(whole, resumed)
