"""Which labels training reads: never those of the test part, never those that a partial-label setting hides."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_runs import Stopping, assert_same_values

from dense_testing import changed, tiny
from isthmus.data.image_store import ImageStore
from isthmus.data.partial_labels import partial_labels, write_partial_labels
from isthmus.data.randomness import Progress
from isthmus.errors import DataError, RunError
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.run import Run, read_arrays, read_checkpoint

TASKS = ("segmentation", "depth", "normals")
JUNK = {"segmentation": 200, "depth": np.nan, "normals": np.inf}


@pytest.fixture
def own_store(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared rooms that a test may change; from now on recipes find this one."""
    store = DenseProblem(tiny("multi-task/rooms-full")).source.path
    shutil.copytree(store, tmp_path / "cache" / store.name)
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / store.name


def rewrite(store: Path, task: str, rows: np.ndarray, change: Any) -> None:
    """Change label maps on disk."""
    file = np.load(store / f"label_{task}.npy", mmap_mode="r+")
    file[rows] = change(file[rows])
    file.flush()


def poison(store: Path, hidden: dict[str, np.ndarray]) -> None:
    """Other, possible labels for the test part (they are measured), impossible ones where a label is hidden."""
    test = ImageStore(store).indices("test")
    other: dict[str, Any] = {"segmentation": lambda x: (x + 1) % 13, "depth": lambda x: 3 * x, "normals": lambda x: -x}
    for task in TASKS:
        rewrite(store, task, test, other[task])
        rewrite(store, task, np.flatnonzero(hidden[task]), lambda x, task=task: np.full_like(x, JUNK[task]))


def label_file(
    path: Path,
    store: ImageStore,
    *,
    tasks: tuple[str, ...] = TASKS,
    renamed: tuple[str, str] = ("", ""),
    left_out: int = 0,
    added: tuple[str, ...] = (),
) -> Path:
    """One or two labels for each image of the training and validation parts, or nearly so."""
    learnt = [store.names[row].replace(*renamed) for row in np.flatnonzero(store.parts != 2)]
    names = [*learnt[: len(learnt) - left_out], *added]
    write_partial_labels(path, names, tasks, partial_labels("random", tasks, np.ones((len(names), 3), bool), seed=4))
    return path


def hidden_by(problem: DenseProblem) -> dict[str, np.ndarray]:
    learnt = problem.source.parts != 2
    return {task: learnt & ~problem.present[task] for task in TASKS}


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("multi-task", "random"),
        ("mtpsl-released", "random"),
        ("gradnorm", "random"),
        ("semi-supervised", "random"),
        ("single-task", "random"),
        ("mtpsl", "file"),
    ],
)
def test_hidden_labels_and_test_labels_change_no_bit_of_a_run(
    name: str, setting: str, own_store: Path, tmp_path: Path
) -> None:
    recipe = tiny(f"{name}/rooms-random")
    if setting == "file":
        file = label_file(tmp_path / "labels.json", ImageStore(own_store))
        recipe = changed(recipe, source__labels={"setting": "file", "file": str(file)})
    clean = train(recipe, tmp_path / "clean")
    hidden = hidden_by(DenseProblem(recipe))
    assert all(8 <= mask.sum() <= 24 for mask in hidden.values())
    poison(own_store, hidden)
    dirty = train(recipe, tmp_path / "dirty")
    assert list(clean.rows("metrics")) == list(dirty.rows("metrics"))
    for file in sorted((clean.path / "checkpoints").iterdir()):
        one, other = read_checkpoint(file), read_checkpoint(dirty.path / "checkpoints" / file.name)
        assert_same_values({**one, "seconds": 0}, {**other, "seconds": 0}, file.name)
    for file, again in zip(clean.evaluations(), dirty.evaluations(), strict=True):
        one, other = read_arrays(file), read_arrays(again)
        for key, values in one.items():  # what was measured on the test part shows that other labels were there
            assert np.array_equal(values, other[key], equal_nan=True) == (not key.startswith("test/")), key


def test_validation_labels_that_are_hidden_do_not_choose(own_store: Path) -> None:
    """The validation part is thinned out as the training part is, so that choosing costs labels too."""
    problem = DenseProblem(tiny("multi-task/rooms-onelabel"))
    store = problem.source
    counts = np.stack([problem.present[task] for task in TASKS]).sum(axis=0)
    assert (counts[store.indices("train")] == 1).all() and (counts[store.indices("val")] == 1).all()
    assert (counts[store.indices("test")] == 0).all()
    assert all(problem.present[task][store.indices("train")].sum() == 8 for task in TASKS)


def test_batches_carry_the_labels_of_the_file_and_no_others(own_store: Path, tmp_path: Path) -> None:
    store = ImageStore(own_store)
    learnt = [store.names[row] for row in np.flatnonzero(store.parts != 2)]
    kept = np.zeros((len(learnt), 3), bool)
    kept[np.arange(len(learnt)), np.arange(len(learnt)) % 3] = True
    write_partial_labels(tmp_path / "labels.json", learnt[::-1], TASKS[::-1], kept[::-1, ::-1])
    labels = {"setting": "file", "file": str(tmp_path / "labels.json")}
    problem = DenseProblem(changed(tiny("multi-task/rooms-full"), source__labels=labels))
    stream = problem.streams(problem.build_method())["source"]
    expected = dict(zip(learnt, kept))
    for step in range(12):
        batch = stream.batch(Progress(0, 0, step, 12), step)
        found = torch.stack([batch.present[task] for task in TASKS], dim=1)
        for row, sample in zip(found.tolist(), batch.sample_id.tolist()):
            assert row == expected[store.names[sample]].tolist()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"renamed": ("train/", "")}, r"expected the 32 images .* found 24 of them missing .* and 24 that it does not"),
        ({"left_out": 1}, r"labels\.json: images: .* found 1 of them missing \('val/"),
        ({"added": ("extra",)}, r"labels\.json: images: .* found 1 that it does not have \('extra'\)"),
        ({"tasks": ("segmentation", "dept", "normals")}, r"labels\.json: tasks: .*not a task here: dept; did you mean"),
        ({"tasks": ("segmentation", "normals", "edges")}, r"labels\.json: tasks: .*missing: depth"),
    ],
)
def test_a_label_file_that_does_not_fit_is_one_error_before_training(
    changes: dict[str, Any], complaint: str, own_store: Path, tmp_path: Path
) -> None:
    store = ImageStore(own_store)
    file = label_file(tmp_path / "labels.json", store, **changes)
    recipe = changed(tiny("multi-task/rooms-full"), source__labels={"setting": "file", "file": str(file)})
    with pytest.raises(DataError, match=complaint):
        train(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").glob("metrics*"))


def test_a_label_file_that_changes_under_a_run_is_refused_on_resume(own_store: Path, tmp_path: Path) -> None:
    store = ImageStore(own_store)
    file = label_file(tmp_path / "labels.json", store)
    recipe = changed(tiny("multi-task/rooms-full"), source__labels={"setting": "file", "file": str(file)})
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "run", reporter=Stopping(3))
    file.write_text(file.read_text().replace('["segmentation"]', '["depth"]', 1))
    with pytest.raises(RunError, match="the labels data has changed since the run started"):
        train(recipe, tmp_path / "run", resume=True)
    assert not Run.open(tmp_path / "run").finished


@pytest.mark.parametrize("method", ["multi-task", "mtpsl", "mtpsl-released", "gradnorm", "uncertainty"])
def test_a_label_without_a_valid_pixel_trains_as_an_absent_one(method: str, own_store: Path, tmp_path: Path) -> None:
    """In the middle of other labels, and finite: a mean over no pixel would be NaN."""
    rows = np.arange(0, 24, 3)
    rewrite(own_store, "depth", rows, np.zeros_like)
    recipe = tiny(f"{method}/rooms-full")
    empty = train(recipe, tmp_path / "empty")
    present = np.load(own_store / "present.npy", mmap_mode="r+")
    present[rows, list(ImageStore(own_store).tasks).index("depth")] = False
    present.flush()
    absent = train(recipe, tmp_path / "absent")
    assert_same_values(empty.weights("last"), absent.weights("last"), "weights")
    assert all(value.isfinite().all() for value in empty.weights("last").values())
    assert list(empty.rows("metrics")) == list(absent.rows("metrics"))


def test_a_task_without_any_valid_pixel_trains_the_others(own_store: Path, tmp_path: Path) -> None:
    rewrite(own_store, "depth", np.arange(40), np.zeros_like)
    run = train(tiny("mtpsl/rooms-full"), tmp_path / "run")
    assert run.finished and all(value.isfinite().all() for value in run.weights("last").values())
    logged = {name for row in run.rows("metrics") for name in row}
    assert "loss/normals/source" in logged and "loss/depth/source" not in logged
    assert "loss/consistency/source" in logged  # depth is unlabelled everywhere, and compared with the others


@pytest.mark.parametrize(
    ("dataset", "tasks"),
    [("nyuv2", ("segmentation", "depth", "normals")), ("cityscapes", ("segmentation", "inverse_depth"))],
)
def test_a_published_list_thins_out_the_data_set_it_was_made_for(
    dataset: str, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    """MTAN's files and a list in the format of MTPSL: row i is training file i, also where it validates."""
    size, rng = (8, 12), np.random.default_rng(0)
    kinds = {"nyuv2": ("image", "label", "depth", "normal"), "cityscapes": ("image", "label_7", "depth")}[dataset]
    for part, count in (("train", 40), ("val", 4)):
        for kind in kinds:
            (tmp_path / "data" / part / kind).mkdir(parents=True)
            for index in range(count):
                channels = {"image": 3, "normal": 3}.get(kind, 1)
                values = rng.uniform(0.1, 0.5, (*size, channels)).astype(np.float32)
                if kind == "normal":
                    values /= np.linalg.norm(values, axis=-1, keepdims=True)
                if kind.startswith("label"):
                    values = rng.integers(-1, 7, size).astype(np.float32)
                np.save(tmp_path / "data" / part / kind / f"{index}.npy", values)
    weights = torch.eye(len(tasks)).repeat(20, 1)[:40]
    torch.save({"labels_weights": weights}, tmp_path / "onelabel.pth", _use_new_zipfile_serialization=False)
    recipe = changed(
        named(f"mtpsl/{dataset}-onelabel"),
        source__data__root=str(tmp_path / "data"),
        source__data__validation_share=0.5,
        source__labels={"setting": "file", "file": str(tmp_path / "onelabel.pth")},
    )
    problem = DenseProblem(recipe)
    store = problem.source
    found = np.stack([problem.present[task] for task in tasks], axis=1)
    numbers = [int(store.names[row].removeprefix("train/")) for row in np.flatnonzero(store.parts != 2)]
    assert sorted(numbers) == list(range(40)) and len(store.indices("val")) == 20
    assert np.array_equal(found[store.parts != 2], weights.bool().numpy()[numbers])
    assert not found[store.parts == 2].any() and len(store.indices("test")) == 4
    torch.save({"labels_weights": weights[:39]}, tmp_path / "onelabel.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"onelabel\.pth: images: .* found 1 of them missing \('train/39'\)"):
        DenseProblem(recipe)
