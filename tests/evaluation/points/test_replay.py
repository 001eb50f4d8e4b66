from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.errors import RunError
from isthmus.evaluation.points.replay import Plan, Probe, measure, plan_of
from isthmus.training.engine import Silent
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, read_arrays, read_checkpoint, write_checkpoint


class PowerCut(Silent):
    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("power cut")


def test_a_replay_is_the_run_and_goes_on_where_it_was_killed(finished: Run, tmp_path: Path) -> None:
    plan = Plan(2, ("stage1", "stage2"))
    once = measure(finished, tmp_path / "once", plan)
    assert once.differences == {"stage1": 0.0, "stage2": 0.0}
    assert not (tmp_path / "once" / "replay").exists()  # nobody takes it for a second run of this seed
    assert once.steps["global_step"].tolist() == [2, 4, 6, 8, 10]
    assert once.steps["number"].tolist() == [2, 4, 6, 2, 4]
    assert len(once.samples["id"]) == 5 * 16
    with pytest.raises(RuntimeError, match="power cut"):
        measure(finished, tmp_path / "twice", plan, reporter=PowerCut(7))
    early = tmp_path / "twice" / "stage1-00000002.npz"
    marked = early.stat().st_mtime_ns
    again = measure(finished, tmp_path / "twice", plan)
    assert early.stat().st_mtime_ns == marked and again.differences == once.differences
    for first, second in ((once.samples, again.samples), (once.steps, again.steps)):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
    # What the gate saw in the log of the run is what the replay met.
    logged = next(r for r in finished.rows("gate") if r["global_step"] == 4 and r["domain"] == "source")
    here = (once.samples["global_step"] == 4) & (once.samples["domain"] == "source")
    np.testing.assert_allclose(once.samples["score"][here], logged["scores"], atol=1e-4)
    assert once.samples["taking_part"][here].astype(int).tolist() == logged["taking_part"]


def test_true_labels_are_the_stores_and_known_ones_those_of_the_pseudo_labels(finished: Run, tmp_path: Path) -> None:
    found = measure(finished, tmp_path / "m", Plan(3, ("stage2",)))
    assert set(found.samples["stage"]) == {"stage2"} and found.steps["number"].tolist() == [3, 4]
    from isthmus.training.points.build import open_domains

    labels = np.load(open_domains(finished.recipe).target.path / "labels.npy")
    pseudo = read_arrays(finished.path / "pseudo_labels.stage2.npz")["labels"]
    target = found.samples["domain"] == "target"
    np.testing.assert_array_equal(found.samples["truth"][target], labels[found.samples["id"][target]])
    np.testing.assert_array_equal(found.samples["label"][target], pseudo[found.samples["id"][target]])


def test_a_replay_ends_behind_the_last_stage_asked_for(finished: Run, tmp_path: Path) -> None:
    found = measure(finished, tmp_path / "m", Plan(6, ("stage1",)))
    assert found.differences == {"stage1": 0.0} and found.steps["number"].tolist() == [6]


def test_steps_without_a_labelled_target_cloud_are_left_out(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(2, ("stage1", "stage2"))
    whole = measure(finished, tmp_path / "whole", plan)
    of_target = whole.samples["domain"] == "target"
    ids, steps = whole.samples["id"][of_target], whole.samples["global_step"][of_target]
    known = ids[steps == 2][:1]
    expected = sorted(set(steps[np.isin(ids, known)].tolist()))
    assert 0 < len(expected) < len(whole.steps["number"])
    make = Probe.__init__

    def partly_labelled(self: Probe, *arguments: Any) -> None:
        make(self, *arguments)
        self.truth[np.setdiff1d(np.arange(len(self.truth)), known)] = -1

    monkeypatch.setattr(Probe, "__init__", partly_labelled)
    assert measure(finished, tmp_path / "some", plan).steps["global_step"].tolist() == expected
    known = known[:0]
    with pytest.raises(RunError, match="expected measured steps of stage1, stage2, found no batch with labels"):
        measure(finished, tmp_path / "none", plan)


def test_other_weights_are_noticed(own_run: Run, tmp_path: Path) -> None:
    file = own_run.weights_file("stage1", "last")
    content = read_checkpoint(file)
    name = next(name for name, value in content["weights"].items() if value.is_floating_point())
    content["weights"][name] = content["weights"][name] + 0.25
    write_checkpoint(file, content)
    found = measure(own_run, tmp_path / "m", Plan(6, ("stage1",)))
    assert found.differences["stage1"] == pytest.approx(0.25, abs=1e-5)


def test_measurements_of_something_else_are_not_gone_on_with(finished: Run, tmp_path: Path) -> None:
    measure(finished, tmp_path / "m", Plan(6, ("stage1",)))
    with pytest.raises(RunError, match=r"others \(every\); --overwrite"):
        measure(finished, tmp_path / "m", Plan(3, ("stage1",)))


def test_the_plan_covers_training_and_refuses_what_cannot_be_measured(own_run: Run, tmp_path: Path) -> None:
    assert plan_of(own_run, None, ()) == Plan(1, ("stage1", "stage2"))
    assert plan_of(own_run, 4, ("stage2",)) == Plan(4, ("stage2",))
    with pytest.raises(RunError, match="--stages: expected some of stage1, stage2, found stage3"):
        plan_of(own_run, None, ("stage3",))
    own_run.update(status="training")
    with pytest.raises(RunError, match="expected a finished run, found status 'training'"):
        plan_of(own_run, None, ())
    values = own_run.recipe.model_dump(mode="json")
    plain = Run(own_run.path, parse(override(values, [("method", "{kind: source-only}"), ("stages", "[{steps: 3}]")])))
    with pytest.raises(RunError, match=r"self-supervised or self-distillation\), found method.kind 'source-only'"):
        plan_of(plain, None, ())
