"""Which labels the rows of TADA's tables read: those that its Figure 2 gives them, and no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anchor_runs import another_class, copied, part_of, rewrite, small
from dense_runs import assert_same_values

from isthmus.data.clouds import PARTS
from isthmus.data.image_store import ImageStore
from isthmus.training.dense.anchor_presets import anchor_rows
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import AdversarialSpec, DenseRecipe
from isthmus.training.engine import train
from isthmus.training.presets import named
from isthmus.training.run import read_arrays, read_checkpoint

MAIN, ANCHOR = "normals", "segmentation"
FIGURE_2 = {
    "baseline": ({MAIN}, set()),
    "mtl-source": ({MAIN, ANCHOR}, set()),
    "mtl-target": ({MAIN}, {ANCHOR}),
    "mtl-both": ({MAIN, ANCHOR}, {ANCHOR}),
    "headfreeze": ({MAIN, ANCHOR}, {ANCHOR}),
    "oracle": ({MAIN, ANCHOR}, {MAIN, ANCHOR}),
}
"""Tasks whose labels a row learns from in the source and in the target."""
ROWS = sorted(anchor_rows())


def recipe(row: str) -> DenseRecipe:
    result = named(f"{row}/rooms")
    return small(f"{row}/rooms", (2,) * len(result.stages), evaluate_every=1)


def figure_2(row: str) -> tuple[set[str], set[str]]:
    (found,) = (labels for name, labels in FIGURE_2.items() if row == name or row.startswith(f"{name}-"))
    return found


class Watched:
    """Labels that tell which rows of them are read."""

    def __init__(self, kept: np.ndarray, note: Any) -> None:
        self.kept, self.note = kept, note
        self.shape, self.dtype = kept.shape, kept.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.note(rows)
        return self.kept[rows]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str, str]]:
    """(folder of the store, task, part) of every label that is read from now on."""
    found: set[tuple[str, str, str]] = set()
    labels = ImageStore.labels

    def watched(store: ImageStore, task: str) -> Watched:
        def note(rows: np.ndarray) -> None:
            found.update((store.path.name, task, PARTS[part]) for part in store.parts[rows])

        return Watched(labels(store, task), note)

    monkeypatch.setattr(ImageStore, "labels", watched)
    return found


def test_every_row_of_the_tables_is_there() -> None:
    assert len(ROWS) >= 25 and {figure_2(row) is not None for row in ROWS} == {True}
    for row in ("baseline", "mtl-source", "mtl-target", "mtl-both", "headfreeze"):
        assert {row, f"{row}-dann", f"{row}-output"} <= set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_reads_the_labels_of_figure_2_and_the_targets_main_labels_move_the_oracle_alone(
    row: str, reads: set[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads them to train, and of the source to choose a checkpoint; the target's test part is measured.

    With other main labels in the target (in its test part too) all weights, moments, chosen checkpoints and validation
    scores are the same.
    """
    chosen = recipe(row)
    clean = train(chosen, tmp_path / "clean")
    problem = DenseProblem(chosen)
    assert problem.target is not None
    in_source, in_target = figure_2(row)
    domains = {problem.source.path.name: "source", problem.target.path.name: "target"}
    expected = {("source", task, part) for task in in_source for part in ("train", "val")}
    expected |= {("target", task, "train") for task in in_target} | {("target", MAIN, "test")}
    assert {(domains[store], task, part) for store, task, part in reads} == expected
    if row.startswith("mtl-both-dann-"):
        return  # they differ from mtl-both-dann in taps alone

    target = copied(chosen, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    rewrite(target / f"label_{MAIN}.npy", lambda normals: -normals[:, :, ::-1])
    dirty = train(chosen, tmp_path / "dirty")
    same = [
        _same(read_checkpoint(file), read_checkpoint(dirty.path / "checkpoints" / file.name))
        for file in sorted((clean.path / "checkpoints").iterdir())
    ]
    assert len(same) >= 3 and all(same) == (row != "oracle") and any(same) == (row != "oracle")
    logs = [(run.path / "metrics.jsonl").read_text() for run in (clean, dirty)]
    assert (logs[0] == logs[1]) == (row != "oracle")
    for one, other in zip(clean.evaluations(), dirty.evaluations(), strict=True):
        first, second = read_arrays(one), read_arrays(other)
        assert first.keys() == second.keys()
        measured = [key for key in first if key.startswith("test/")]
        assert all(not np.array_equal(first[key], second[key]) for key in measured)
        if row != "oracle":
            assert all(np.array_equal(first[k], second[k], equal_nan=True) for k in first if k not in measured)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        assert_same_values({**one, "seconds": 0}, {**other, "seconds": 0}, "")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("row", ["baseline", "baseline-dann", "mtl-target"])
def test_impossible_anchor_labels_where_a_row_has_none(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end what the reads above say: the baseline never reads anchors, nor does Eq. 5 in the source."""
    chosen = recipe(row)
    clean = train(chosen, tmp_path / "clean")
    target = copied(chosen, tmp_path / "cache")
    (source,) = (folder for folder in (tmp_path / "cache").iterdir() if folder != target)
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    poisoned = (source,) if row == "mtl-target" else (source, target)
    for folder in poisoned:
        rewrite(folder / f"label_{ANCHOR}.npy", lambda label: np.full_like(label, 200))
    dirty = train(chosen, tmp_path / "dirty")
    for key, value in clean.weights("last").items():
        assert torch.equal(value.nan_to_num(), dirty.weights("last")[key].nan_to_num()), key
    assert ("network.heads.segmentation.weight" in clean.weights("last")) == (row == "mtl-target")


def test_the_anchors_of_the_target_are_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: without it, everything above would hold for a target that is thrown away."""
    chosen = recipe("mtl-both")
    clean = train(chosen, tmp_path / "clean")
    target = copied(chosen, tmp_path / "cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    rewrite(target / f"label_{ANCHOR}.npy", another_class, part_of(ImageStore(target), "val", "test"))
    unmoved = train(chosen, tmp_path / "unmoved")
    rewrite(target / f"label_{ANCHOR}.npy", another_class, part_of(ImageStore(target), "train"))
    moved = train(chosen, tmp_path / "moved")
    key = "network.layer1.0.conv1.weight"
    assert torch.equal(clean.weights("last")[key], unmoved.weights("last")[key])
    assert not torch.equal(clean.weights("last")[key], moved.weights("last")[key])


def masks(name: str) -> Iterator[str | None]:
    method = named(name).method  # type: ignore[attr-defined]
    assert isinstance(method, AdversarialSpec)
    yield from (adversary.mask for adversary in method.adversaries)


@pytest.mark.parametrize("row", [row for row in ROWS if anchor_rows()[row].adversary and "advent" not in row])
def test_a_mask_is_laid_over_both_domains_or_none(row: str) -> None:
    """Zeros around the faces of one domain alone would give it away."""
    source, target = figure_2(row)
    both = ANCHOR in source and ANCHOR in target
    assert set(masks(f"{row}/faces")) == ({"anchor"} if both else {None})
    assert set(masks(f"{row}/rooms")) == {None}
