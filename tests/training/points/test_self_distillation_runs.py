"""Self-distillation through the engine: both stages, pseudo-labels refined within the second, and resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import RecipeError
from isthmus.evaluation.load import load_method
from isthmus.training.engine import Silent, train
from isthmus.training.points.build import build_method
from isthmus.training.points.problem import PointProblem
from isthmus.training.presets import named
from isthmus.training.recipe import Recipe, override, parse
from isthmus.training.run import Run, read_arrays

CHANGES = {
    "points": "32", "batch_size": "6", "network.width": "0.125", "log_every": "1", "evaluate_every": "4",
    "checkpoint_every": "1", "stages.0.steps": "3", "stages.1.steps": "7", "stages.1.pseudo_labels.refresh_every": "2",
    "stages.1.pseudo_labels.graph.steps": "3", "stages.1.pseudo_labels.graph.threshold": "0.5",
    "method.memory": "{momentum: 0.5}", "method.refresh_every": "2",
    **{f"{domain}.data.{part}": "18" for domain in ("source", "target") for part in ("train", "val", "test")},
}  # fmt: skip


def small(**changes: str) -> Recipe:
    values = named("sim/smdsb/selfdist-gcn").model_dump(mode="json")
    return parse(override(values, [*CHANGES.items(), *((k.replace("__", "."), v) for k, v in changes.items())]))


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(small(), tmp_path_factory.mktemp("selfdist") / "run")


class PowerCut(Silent):
    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("after", [2, 5, 8])
def test_a_run_resumes_bit_for_bit_teacher_memory_and_labels_included(whole: Run, tmp_path: Path, after: int) -> None:
    """Also when it was killed behind a refresh that the last checkpoint had not seen."""
    recipe = small(checkpoint_every="1" if after != 8 else "3")
    reference = whole if after != 8 else train(recipe, tmp_path / "reference")
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "run", reporter=PowerCut(after))
    run = train(recipe, tmp_path / "run", resume=True)
    first, second = reference.weights("last"), run.weights("last")
    assert any(name.startswith("teacher.") for name in first) and "memory.scores_source" in first
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, equal_nan=True)
    assert list(reference.rows("metrics")) == list(run.rows("metrics"))
    assert list(reference.rows("gate")) == list(run.rows("gate"))


def test_a_refresh_that_was_due_at_the_checkpoint_is_made_by_the_resumed_run(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> str:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(PointProblem, "refresh_pseudo_labels", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            train(small(), tmp_path / "run")
    run = train(small(), tmp_path / "run", resume=True)
    for name, value in whole.weights("last").items():
        torch.testing.assert_close(run.weights("last")[name], value, rtol=0, atol=0, equal_nan=True)


def test_labels_are_refined_within_the_stage_and_more_and_more_are_confident(whole: Run) -> None:
    files = sorted(whole.path.glob("pseudo_labels.stage2*.npz"), key=lambda file: (len(file.name), file.name))
    assert [file.stem for file in files] == [
        "pseudo_labels.stage2",
        *(f"pseudo_labels.stage2-{s:08d}" for s in (2, 4, 6)),
    ]
    confident = []
    for file in files:
        saved = read_arrays(file)
        rows = saved["present"]
        assert rows.sum() == 18 and set(np.unique(saved["weights"][rows])) <= {np.float32(0.2), np.float32(1.0)}
        confident.append(int((saved["weights"][rows] == 1).sum()))
    assert confident[0] == 0 and confident == sorted(confident) and confident[-1] > confident[1] > 0


def test_a_finished_run_is_loaded_without_its_data(whole: Run) -> None:
    method = load_method(whole)
    assert method.predict({"points": torch.zeros(2, 32, 3)})["class"].shape == (2, 10)
    assert method.memory.recall("source", torch.arange(3)).shape == (3,)  # type: ignore[union-attr]


def test_recipes_say_what_the_facts_say() -> None:
    recipe = named("pointda/modelnet2scannet/selfdist-gcn")
    assert recipe.method.strong.occlusion == 0.3 and recipe.method.gate is None  # type: ignore[union-attr]
    assert named("pointda/scannet2modelnet/selfdist-gcn").method.strong.occlusion == 0  # type: ignore[union-attr]
    second = recipe.stages[1]
    assert (second.optimizer, second.weight_decay, second.schedule) == ("adamw", 1e-4, "onecycle")
    assert second.pseudo_labels is not None and second.pseudo_labels.refresh_every == second.steps // 20
    assert not recipe.augment.rotate and recipe.augment.jitter == 0  # type: ignore[attr-defined]
    views = build_method(recipe).strong  # type: ignore[arg-type, union-attr]
    assert views["source"].rotate and not views["target"].rotate and views["target"].occlusion == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method__gate": "none"}, "memory: needs the gate 'skewness'"),
        ({"method__memory": "null"}, "refresh_every: needs a memory"),
        ({"method__gating__saliency_view": "mixed"}, "expected 'clean'"),
        ({"stages.1.pseudo_labels.refresh_every": "null"}, "graph: needs refresh_every"),
        ({"method__kind": "self-supervised"}, "'self-distillation' alone obeys"),
    ],
)
def test_a_recipe_that_cannot_be_obeyed_is_refused(change: dict[str, str], message: str) -> None:
    if "method__kind" in change:
        change = change | {"method.memory": "null", "method.refresh_every": "1"}
    with pytest.raises(RecipeError, match=message):
        small(**change)
