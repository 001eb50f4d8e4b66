import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from isthmus.errors import DataError, RunError
from isthmus.evaluation.points.accuracy import select
from isthmus.training.engine import Interrupted, Silent, train
from isthmus.training.recipe import Recipe, override, parse
from isthmus.training.run import Run, read_checkpoint


def changed(recipe: Recipe, **changes: object) -> Recipe:
    pairs = [(name.replace("__", "."), yaml.safe_dump(value)) for name, value in changes.items()]
    return parse(override(recipe.model_dump(mode="json"), pairs))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.weights("last")


def assert_same(first: Run, second: Run) -> None:
    """Two runs are the same to the last bit: weights, log, gate decisions, predictions."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    for file in ("metrics", "gate"):
        assert list(first.rows(file)) == list(second.rows(file))
    for one, other in zip(first.evaluations(), second.evaluations(), strict=True):
        assert np.array_equal(np.load(one)["logits"], np.load(other)["logits"])


class Stopping(Silent):
    """Interrupts the training after some steps, the way a crash does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("power cut")


def test_a_run_leaves_the_files_it_promises(tiny: Recipe, tmp_path: Path) -> None:
    run = train(tiny, tmp_path / "run")
    found = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    rules = ("last", "source-val", "label-free")
    assert found == {
        "recipe.yaml", "run.json", "metrics.jsonl", "metrics.csv", "gate.jsonl", "pseudo_labels.stage2.npz",
        "checkpoints/last.pt", *(f"checkpoints/stage{s}.{rule}.pt" for s in (1, 2) for rule in rules),
        "evaluations/stage1-00000003.npz", "evaluations/stage1-00000006.npz",
        "evaluations/stage2-00000003.npz", "evaluations/stage2-00000004.npz",
    }  # fmt: skip
    assert run.finished and Run.open(run.path).recipe == tiny
    losses = [row for row in run.rows("metrics") if "learning_rate" in row]
    assert [row["global_step"] for row in losses] == list(range(1, 11))
    assert "loss/class/target" not in losses[0] and "loss/class/target" in losses[-1]
    assert losses[0]["gate/source/taking_part"] == 0.75  # round(0.7 * 8) of 8


@pytest.mark.parametrize("after", [1, 3, 6, 7, 9])
def test_a_crash_at_any_step_resumes_to_the_same_result(after: int, tiny: Recipe, tmp_path: Path) -> None:
    whole = train(tiny, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, tmp_path / "cut", reporter=Stopping(after))
    assert_same(whole, train(tiny, tmp_path / "cut", resume=True))


def test_moving_average_and_carried_optimiser_resume_too(tiny: Recipe, tmp_path: Path) -> None:
    recipe = changed(tiny, ema=0.9, stages__1__keep_optimizer=True, stages__1__start_from="source-val")
    whole = train(recipe, tmp_path / "whole")
    for after, name in ((4, "a"), (6, "b"), (8, "c")):
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe, tmp_path / name, reporter=Stopping(after))
        assert_same(whole, train(recipe, tmp_path / name, resume=True))
    raw = read_checkpoint(whole.path / "checkpoints" / "last.pt")["weights"]
    averaged = weights(whole)
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)


def test_kill_minus_nine_resumes_to_the_same_result(tiny_values: dict, tmp_path: Path) -> None:
    recipe = parse(override(tiny_values, [("stages.0.steps", "60"), ("evaluate_every", "20")]))
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    whole = train(recipe, tmp_path / "whole")
    command = [
        sys.executable,
        "-m",
        "isthmus.cli.main",
        "train",
        str(tmp_path / "recipe.yaml"),
        "--out",
        str(tmp_path / "cut"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 10):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not Run.open(tmp_path / "cut").finished
    subprocess.run([*command[:4], "--resume", str(tmp_path / "cut")], check=True, stdout=subprocess.DEVNULL)
    assert_same(whole, Run.open(tmp_path / "cut"))


class Asking(Silent):
    """Sends this process a signal after some steps, as a scheduler does before it takes the machine away."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_writes_a_checkpoint_at_the_very_step(tiny: Recipe, tmp_path: Path) -> None:
    recipe = changed(tiny, checkpoint_every=1000)
    whole = train(recipe, tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="after 3 steps"):
        train(recipe, tmp_path / "cut", reporter=Asking(3))
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.pt")["step"] == 3
    assert_same(whole, train(recipe, tmp_path / "cut", resume=True))


def test_nothing_a_user_made_is_overwritten(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="expected a new or empty folder"):
        train(tiny, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_kill_while_the_folder_is_made_leaves_a_folder_that_can_be_used(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "recipe.yaml.part").write_text("name: half a re")
    assert train(tiny, tmp_path / "run", resume=True).finished


@pytest.mark.parametrize(
    ("field", "complaint"),
    [("target__data__test", "target.evaluate_on: expected clouds in test, found none"),
     ("source__data__val", r"source: expected validation clouds \(part 'val'\), found none")],
)  # fmt: skip
def test_a_part_without_clouds_is_found_before_training(
    field: str, complaint: str, tiny: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=complaint):
        train(changed(tiny, **{field: 0}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("metrics*"))


def test_a_target_without_any_labels_is_adapted_to(tiny: Recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "scans" / "deeper").mkdir(parents=True)
    for index in range(20):
        np.save(tmp_path / "scans" / "deeper" / f"{index}.npy", rng.normal(size=(100, 3)))
    (tmp_path / "scans" / "broken.xyz").write_text("no cloud")
    target = {"data": {"kind": "unlabelled", "root": str(tmp_path / "scans")}}
    run = train(changed(tiny, target=target), tmp_path / "run")
    labels = np.load(run.path / "pseudo_labels.stage2.npz")
    assert run.finished and 10 < labels["present"].sum() < 20  # the validation part gets none
    with pytest.raises(RunError, match="expected labelled target clouds to measure on, found none"):
        select(run)


def test_data_that_changed_since_the_run_started_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, tmp_path / "run", reporter=Stopping(3))
    Run.open(tmp_path / "run").update(stores={"source": "something else", "target": "something else"})
    with pytest.raises(RunError, match="the source data has changed since the run started"):
        train(tiny, tmp_path / "run", resume=True)


def test_a_run_resumes_with_its_own_recipe_only(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, tmp_path / "run", reporter=Stopping(3))
    with pytest.raises(RunError, match="expected the recipe that the run was started with"):
        train(changed(tiny, seed=1), tmp_path / "run", resume=True)


def test_a_truncated_checkpoint_is_named(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, tmp_path / "run", reporter=Stopping(5))
    file = tmp_path / "run" / "checkpoints" / "last.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"last\.pt: expected a checkpoint of tensors"):
        train(tiny, tmp_path / "run", resume=True)


def test_target_training_labels_are_never_opened(tiny: Recipe, tmp_path: Path, cache: Path) -> None:
    recipe = changed(tiny, target__data__seed=77)
    train(recipe, tmp_path / "first")
    from isthmus.training.points.build import open_domains

    labels = open_domains(recipe).target.path / "labels.npy"
    kept = labels.read_bytes()
    labels.unlink()
    try:
        assert_same(train(recipe, tmp_path / "second"), Run.open(tmp_path / "first"))
    finally:
        labels.write_bytes(kept)


def test_two_seeds_differ_and_one_seed_repeats(tiny: Recipe, tmp_path: Path) -> None:
    first, again = train(tiny, tmp_path / "a"), train(tiny, tmp_path / "b")
    assert_same(first, again)
    other = train(changed(tiny, seed=1), tmp_path / "c")
    assert any(not torch.equal(value, weights(other)[name]) for name, value in weights(first).items())


def test_a_loss_that_breaks_stops_the_run_with_its_name(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"stage1 step \d+: loss \S+: expected a number, found (nan|inf)"):
        train(changed(tiny, stages__0__learning_rate=1e30, stages__0__optimizer="sgd"), tmp_path / "run")


@pytest.mark.parametrize("precision", ["bf16-mixed"])
def test_mixed_precision_trains(precision: str, tiny: Recipe, tmp_path: Path) -> None:
    assert train(changed(tiny, engine__precision=precision), tmp_path / "run").finished


def test_an_encoder_can_start_from_weights_of_ones_own(tiny: Recipe, tmp_path: Path) -> None:
    first = train(tiny, tmp_path / "first")
    file = first.weights_file("stage2", "last")
    second = train(changed(tiny, encoder_weights=str(file), stages__0__learning_rate=1e-12), tmp_path / "second")
    assert "keys matched" in second.state["initial_weights"]
    own = {k: v for k, v in weights(first).items() if k.startswith("network.encoder") and k.endswith("weight")}
    kept = second.weights("last", "stage1")
    assert all(torch.allclose(value, kept[name], atol=1e-6) for name, value in own.items())


def test_tensorboard_gets_the_metrics(tiny: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(changed(tiny, engine__loggers=["tensorboard"]), tmp_path / "run")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    logged = [row["loss/class/source"] for row in run.rows("metrics") if "loss/class/source" in row]
    assert [event.value for event in events.Scalars("loss/class/source")] == pytest.approx(logged)
