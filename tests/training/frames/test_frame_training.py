"""Tiny runs on simulated streets: what they leave behind, that they resume, and what they never look at."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_runs import Stopping, another_process, assert_same, assert_same_values
from frame_runs import changed, small
from test_dense_processes import execute

from isthmus.errors import DataError
from isthmus.training.engine import train
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.presets import named
from isthmus.training.run import Run, read_arrays

NAMES = ("source-only", "xmuda", "cmal-pl")


@pytest.fixture(scope="module")
def runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Finished runs; tests read them and must not change them."""
    folder = tmp_path_factory.mktemp("frames")
    return {name: train(small(f"{name}/streets-light"), folder / name) for name in NAMES}


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_weights_and_measurements_of_every_prediction(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    stages = {"train": 4, "pseudo-labels": 3} if name == "cmal-pl" else {"train": 4}
    assert run.finished and set(run.state["stores"]) == {"source", "target"}
    for stage in stages:
        for rule in ("last", "source-val", "label-free"):
            assert all(value.isfinite().all() for value in run.weights(rule, stage).values())
    steps = [f"{stage}-{step:08d}.npz" for stage, last in stages.items() for step in (2, last)]
    assert sorted(file.name for file in run.evaluations()) == sorted(steps)
    store = FrameProblem(run.recipe).target
    for file in run.evaluations():
        found = read_arrays(file)
        assert found["rows"].tolist() == store.indices("test").tolist()
        for task in ("2D", "3D", "average"):
            assert found[f"test/{task}"].shape == (2, 64)
            # every labelled point of each test frame is counted once
            for row, counts in zip(found["rows"], found[f"test/{task}"]):
                span = slice(store.offsets[row], store.offsets[row + 1])
                assert counts.sum() == (store.labels[span] != 255).sum()


def test_logs_name_the_losses_of_the_method(runs: dict[str, Run]) -> None:
    logged = {
        name: [{key for key in row if key.startswith("loss/")} for row in run.rows("metrics") if "learning_rate" in row]
        for name, run in runs.items()
    }
    own = {"loss/2D/source", "loss/3D/source"}
    assert set.union(*logged["source-only"]) == own
    mimicry = {f"loss/mimicry {stream}/{domain}" for stream in ("2D", "3D") for domain in ("source", "target")}
    assert all(row == own | mimicry for row in logged["xmuda"])
    later = {"loss/pseudo 2D/target", "loss/pseudo 3D/target"}
    assert not any(row & later for row in logged["cmal-pl"][:4]) and set.union(*logged["cmal-pl"][4:]) >= later
    assert all("loss/discriminator/source 2D and target 3D" in row for row in logged["cmal-pl"])


def test_everything_that_should_learn_does(runs: dict[str, Run]) -> None:
    run = runs["cmal-pl"]
    fresh, last = FrameProblem(run.recipe).build_method().state_dict(), run.weights("last")
    still = {name for name, value in fresh.items() if torch.equal(value, last[name])}
    assert not {name for name in still if name.startswith(("network.networks", "adversaries", "network.patch"))}
    assert "class_weights" in still and "network.classifiers.2D.weight" not in still


def test_pseudo_labels_are_of_the_targets_training_frames(runs: dict[str, Run]) -> None:
    run = runs["cmal-pl"]
    store = FrameProblem(run.recipe).target
    found = read_arrays(run.path / "pseudo_labels.pseudo-labels.npz")
    assert found.keys() == {"2D", "3D"}
    for labels in found.values():
        end = store.offsets[4]
        assert (labels[end:] == 255).all() and 0.4 < (labels[:end] != 255).mean() <= 1


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_a_crash_at_any_step_resumes_to_the_same_result(
    after: int, runs: dict[str, Run], tmp_path: Path, deterministic: None
) -> None:
    """Before the first checkpoint, between two, at the end of a stage, within the stage on pseudo-labels."""
    recipe, out = runs["cmal-pl"].recipe, tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, out, reporter=Stopping(after))
    assert not Run.open(out).finished
    another_process()
    assert_same(runs["cmal-pl"], train(recipe, out, resume=True))


def copied(recipe: FrameRecipe, folder: Path) -> Path:
    """A copy of the target's prepared data, beside one of the source's, in a cache of its own."""
    problem = FrameProblem(recipe)
    for store in (problem.source, problem.target):
        shutil.copytree(store.path, folder / store.path.name)
    return folder / problem.target.path.name


@pytest.mark.parametrize("name", ["xmuda", "cmal-pl"])
def test_target_labels_change_no_weight_and_no_choice(
    name: str, runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are others here, the test part's too; only what is recorded of the test part differs."""
    store = copied(runs[name].recipe, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    labels = np.load(store / "labels.npy", mmap_mode="r+")
    labels[:] = (labels + 1) % 8
    labels.flush()
    run = train(runs[name].recipe, tmp_path / "run")
    for stage in run.recipe.stages:
        for rule in ("last", "source-val", "label-free"):
            weights = [each.weights(rule, stage.name) for each in (runs[name], run)]
            assert_same_values(*weights, f"{stage.name} {rule}")
    assert list(run.rows("metrics")) == list(runs[name].rows("metrics"))
    pairs = [[read_arrays(file) for file in each.evaluations()] for each in (runs[name], run)]
    different = {key for one, other in zip(*pairs) for key in one if not np.array_equal(one[key], other[key])}
    assert different == {"test/2D", "test/3D", "test/average"}


@pytest.mark.parametrize("name", ["xmuda", "cmal-pl"])
def test_target_labels_are_never_opened_in_training(
    name: str, runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a test part, whose labels are measured with for the record, the file need not be there."""
    recipe = changed(runs[name].recipe, target__data__test=0)
    store = copied(recipe, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    (store / "labels.npy").unlink()
    run = train(recipe, tmp_path / "run")
    assert_same_values(run.weights("last"), runs[name].weights("last"), "last")
    assert_same_values(run.weights("label-free"), runs[name].weights("label-free"), "label-free")


def test_the_first_stage_of_pseudo_labels_is_source_only(runs: dict[str, Run], tmp_path: Path) -> None:
    """To the last bit: the target's frames, which wait for labels, leave nothing in BatchNorm."""
    run = train(small("pl/streets-light"), tmp_path / "run")
    assert_same_values(run.weights("last", "train"), runs["source-only"].weights("last"), "train")


def test_from_scratch_the_first_stage_gives_its_predictions_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    """A second stage that learns nothing ends where it began: at the first weights, or at those of the first stage."""
    frozen = {"stages__1__learning_rate": 1e-30, "stages__1__batch_norm": "frozen"}
    scratch = train(small("dscml-pl/streets-light", **frozen), tmp_path / "scratch")
    further = train(small("dscml-pl/streets-light", **frozen, stages__1__start_from="last"), tmp_path / "further")
    assert_same_values(scratch.weights("last", "train"), further.weights("last", "train"), "train")
    assert_same_values(further.weights("last"), further.weights("last", "train"), "from the last weights")
    begun = FrameProblem(scratch.recipe).build_method().state_dict()
    for name, value in scratch.weights("last").items():
        assert torch.allclose(value, begun[name], rtol=0, atol=1e-25), name
    labels = [read_arrays(run.path / "pseudo_labels.pseudo-labels.npz") for run in (scratch, further)]
    assert all(np.array_equal(labels[0][name], labels[1][name]) for name in ("2D", "3D"))


def test_photographs_train_the_stream_of_images_alone(tmp_path: Path, cache: Path) -> None:
    if not os.environ.get("ISTHMUS_DATA"):
        pytest.skip("set ISTHMUS_DATA to the data directory to train on CamVid's photographs")
    changes = {"batch_size": 2, "evaluate_every": 2}
    recipe = changed(named("clan/camvid"), stages__0__steps=2, **changes)
    run = train(recipe, tmp_path / "run")
    store = FrameProblem(recipe).target
    assert len(store.classes) == 11 and not store.has_sweeps
    found = read_arrays(run.evaluations()[-1])["test/2D"]
    assert found.shape == (len(store.indices("test")), 121) and found.sum() > 0
    with pytest.raises(DataError, match="expected sweeps for the 3D stream, found photographs"):
        FrameProblem(changed(recipe, streams=["2D", "3D"]))


@pytest.mark.parametrize("stream", ["2D", "3D"])
def test_one_stream_alone_trains(stream: str, tmp_path: Path) -> None:
    run = train(small("adapt-segnet/streets-light", (2,), streams=[stream]), tmp_path / "run")
    assert read_arrays(run.evaluations()[-1]).keys() >= {f"test/{stream}", f"val/{stream}"}
    assert not any("average" in key for key in read_arrays(run.evaluations()[-1]))


def test_batches_of_one_frame_train(tmp_path: Path) -> None:
    assert train(
        small("cmal/streets-light", (2,), batch_size=1, stages__0__batch_norm="frozen"), tmp_path / "run"
    ).finished


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """BatchNorm in eval mode, no dropout, SGD; the pseudo-labels of the first stage are those of both."""
    recipe = small("cmal-pl/streets-light", (3, 2), batch_size=4, image_network__dropout=0.0, evaluate_every=3)
    for index in range(2):
        fixed = {"optimizer": "sgd", "learning_rate": 0.01, "batch_norm": "frozen", "schedule": "constant"}
        recipe = changed(recipe, **{f"stages__{index}__{field}": value for field, value in fixed.items()})
    single, folder = train(recipe, tmp_path / "single"), tmp_path / "double"
    folder.mkdir()
    half = changed(recipe, batch_size=2, engine__devices=2, engine__strategy="ddp", engine__accelerator="cpu")
    (folder / "cmal.yaml").write_text(half.dump())
    execute(folder)
    double = Run.open(folder / "cmal")
    fresh = FrameProblem(recipe).build_method().state_dict()
    one, two = single.weights("last"), double.weights("last")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    for part in ("network.networks.2D", "network.networks.3D", "adversaries", "network.classifiers"):
        assert any(not torch.equal(one[key], fresh[key]) for key in one if key.startswith(part)), part
    for row, other in zip(single.rows("metrics"), double.rows("metrics"), strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), (key, row["global_step"])
