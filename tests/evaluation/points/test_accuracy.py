import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import RunError
from isthmus.evaluation.points.accuracy import Predictions, class_gains, overall_gain, select
from isthmus.evaluation.points.compare import collect, paired_gain, table
from isthmus.tasks.classification import class_accuracy, mean_class_accuracy, overall_accuracy
from isthmus.training.engine import train
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, read_arrays, write_arrays


def predictions(labels: list[int], predicted: list[int], groups: list[str] | None = None) -> Predictions:
    logits = np.eye(3, dtype=np.float32)[predicted] * 9
    names = tuple(f"cloud{i}" for i in range(len(labels)))
    return Predictions(("bed", "chair", "lamp"), logits, np.array(labels), np.array(groups or names), names)


def test_accuracies_are_those_of_a_hand_calculation() -> None:
    found = predictions([0, 0, 0, 1], [0, 0, 1, 1])
    assert found.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert found.accuracy == 0.75
    assert found.mean_class_accuracy == pytest.approx((2 / 3 + 1) / 2)  # the class without clouds does not count
    assert class_accuracy(found.confusion)[2].isnan()
    assert np.isnan(overall_accuracy(torch.zeros(3, 3))) and np.isnan(mean_class_accuracy(torch.zeros(3, 3)))


def test_hurt_and_helped_need_an_interval_beyond_zero() -> None:
    labels = [0] * 40 + [1] * 40
    ours = predictions(labels, [0] * 40 + [0] * 30 + [1] * 10)
    before = predictions(labels, [1] * 10 + [0] * 30 + [1] * 40)
    bed, chair, lamp = class_gains(ours, before)
    assert (bed.verdict, chair.verdict, lamp.verdict) == ("helped", "hurt", "no sample")
    assert bed.gain.estimate == 0.25 and chair.gain.estimate == -0.75
    assert overall_gain(ours, before).estimate == pytest.approx(-0.25)
    slightly = predictions(labels, [1] * 9 + [0] * 31 + [1] * 40)
    assert class_gains(slightly, before)[0].verdict == "higher, within noise"
    assert class_gains(before, before)[0].verdict == "same"


def test_runs_on_other_clouds_are_not_compared() -> None:
    with pytest.raises(RunError, match="expected the same 2 clouds"):
        class_gains(predictions([0, 1], [0, 1]), predictions([0, 1, 1], [0, 1, 1]))


def test_runs_with_another_order_of_classes_are_not_compared() -> None:
    ours, other = predictions([0, 1], [0, 1]), predictions([0, 1], [0, 1])
    with pytest.raises(RunError, match="expected the classes"):
        class_gains(ours, dataclasses.replace(other, classes=("chair", "bed", "lamp")))


def test_one_seed_twice_is_not_two_seeds(own_run: Run, finished: Run) -> None:
    with pytest.raises(RunError, match="expected different seeds, found 0 twice"):
        collect([own_run, finished])


def test_predictions_of_rows_that_have_changed_since_are_refused(own_run: Run) -> None:
    own_run.update(stores={"target": "0123456789abcdef"})
    with pytest.raises(RunError, match=r"the target data has changed since the run started: expected .* 0123456789ab"):
        select(own_run)


def test_files_that_were_copied_are_the_same_data_and_files_that_changed_are_not(
    tiny_values: dict, cache: Path, tmp_path: Path
) -> None:
    rng, root = np.random.default_rng(0), tmp_path / "scans"
    for name in parse(tiny_values).classes[:2]:
        for index in range(8):
            file = root / name / ("train" if index < 4 else "test") / f"{index}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, rng.normal(size=(100, 3)) * rng.uniform(0.2, 1, size=3))
    run = train(
        parse(override(tiny_values, [("target", f"{{data: {{kind: folder, root: {root}}}}}")])), tmp_path / "run"
    )
    before = select(run)["last"].predictions.accuracy
    for path in root.rglob("*.npy"):
        os.utime(path, (0, 0))
    assert select(run)["last"].predictions.accuracy == before
    np.save(file, rng.normal(size=(100, 3)))
    with pytest.raises(RunError, match="the target data has changed since the run started"):
        select(run)


def evaluation(run: Run, step: int, *, correct: float, source: float, im: float, collapsed: bool = False) -> None:
    """Replace an evaluation by one whose outcome is known."""
    file = run.path / "evaluations" / f"stage2-{step:08d}.npz"
    rows = read_arrays(run.evaluations("stage1")[0])["rows"]
    from isthmus.training.points.build import open_domains

    labels = open_domains(run.recipe).target.labels[rows]
    wrong = np.arange(len(rows)) >= round(correct * len(rows))
    logits = np.eye(10, dtype=np.float32)[(labels + wrong) % 10]
    scores = {"source_val": source, "im": im, "bnm": 0.0, "collapsed": float(collapsed)}
    write_arrays(file, step=np.array(step), rows=rows, logits=logits, **{k: np.array(v) for k, v in scores.items()})


def test_each_column_picks_by_its_own_rule_and_only_one_looks_at_target_labels(own_run: Run) -> None:
    for file in own_run.evaluations("stage2"):
        file.unlink()
    evaluation(own_run, 1, correct=0.25, source=0.9, im=-3.0)
    evaluation(own_run, 2, correct=1.0, source=0.1, im=-2.0)
    evaluation(own_run, 3, correct=0.5, source=0.9, im=-1.0)
    evaluation(own_run, 4, correct=0.0, source=0.2, im=-0.1, collapsed=True)
    chosen = select(own_run)
    assert {rule: each.step for rule, each in chosen.items()} == {
        "source-val": 3,  # the later of two equals
        "label-free": 3,  # the best score had collapsed and is vetoed
        "last": 4,
        "target-selected": 2,
    }
    assert chosen["source-val"].predictions.accuracy == pytest.approx(0.5)
    assert chosen["target-selected"].predictions.accuracy == 1.0


def test_if_everything_collapsed_label_free_is_the_last(own_run: Run) -> None:
    for file in own_run.evaluations("stage2"):
        file.unlink()
    for step in (1, 2):
        evaluation(own_run, step, correct=0.5, source=1.0, im=-float(step), collapsed=True)
    assert select(own_run)["label-free"].step == 2


def test_a_table_has_a_row_per_stage_and_the_four_columns(own_run: Run) -> None:
    rows = collect([own_run])
    assert [(row.stage, row.seeds) for row in rows] == [("stage1", (0,)), ("stage2", (0,))]
    result = table(rows, baseline="sm-dsb")
    assert result.headings[5:9] == ("source-val", "label-free", "last", "target-selected (not usable)")
    expected = 100 * select(own_run)["last"].predictions.accuracy
    assert result.rows[1][7].startswith(f"{expected:.1f} (")
    for text in (result.markdown(), result.csv(), result.latex()):
        assert "sim-cad" in text and f"{expected:.1f}" in text
    assert paired_gain(rows[0], rows[0]).estimate == 0.0


def test_recipes_of_one_name_are_told_apart_by_what_they_differ_in(finished: Run, own_run: Run) -> None:
    values = override(own_run.recipe.model_dump(mode="json"), [("method.gate.keep", "0.25"), ("seed", "7")])
    changed = Run(own_run.path, parse(values))
    name = finished.recipe.method_name
    keep = finished.recipe.method.gate.keep
    told = {row.method for row in collect([finished, changed])}
    assert told == {f"{name} (gate.keep {keep})", f"{name} (gate.keep 0.25)"}
    assert {row.method for row in collect([finished])} == {name}


def test_unfinished_runs_are_not_compared(own_run: Run) -> None:
    own_run.update(status="training")
    with pytest.raises(RunError, match="expected a finished run, found status 'training'"):
        collect([own_run])
