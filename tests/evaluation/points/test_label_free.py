import shutil
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import IsthmusError, RunError
from isthmus.evaluation.evaluate import evaluation
from isthmus.evaluation.points.accuracy import select
from isthmus.evaluation.points.label_free import other_seeds
from isthmus.evaluation.points.outputs import outputs_on, source_validation
from isthmus.evaluation.tables import Table
from isthmus.training.engine import train
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, read_arrays


def scans(folder: Path, count: int = 20) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        np.save(folder / f"{index}.npy", rng.normal(size=(100, 3)) * rng.uniform(0.2, 1, size=3))
    return folder


def text(parts: tuple) -> str:
    return "\n".join(part.markdown() if isinstance(part, Table) else part for part in parts)


@pytest.mark.parametrize("rule", ["label-free", "source-val", "last"])
def test_source_validation_is_that_of_the_chosen_checkpoint(tiny_run: Run, rule: str) -> None:
    step = select(tiny_run)[rule].step
    kept = read_arrays(tiny_run.path / "evaluations" / f"stage2-{step:08d}.npz")
    found = source_validation(tiny_run, rule)
    assert len(found.rows) == 24 and (found.labels() >= 0).all()
    assert (found.logits.argmax(axis=1) == found.labels()).mean() == pytest.approx(float(kept["source_val"]))
    target = outputs_on(tiny_run, "target", rule)
    assert np.array_equal(target.logits, kept["logits"]) and np.array_equal(target.rows, kept["rows"])


def test_estimates_stand_beside_the_truth_and_the_gain_beside_its_error(tiny_run: Run, other_seed: Run) -> None:
    found = evaluation(tiny_run, other_seed, "target", "last", seeds=[tiny_run, other_seed])
    values = found.values["estimates"]
    mine, theirs = (outputs_on(run, "target", "last") for run in (tiny_run, other_seed))
    truth = [float((each.logits.argmax(axis=1) == each.labels()).mean()) for each in (mine, theirs)]
    same = float((mine.logits.argmax(axis=1) == theirs.logits.argmax(axis=1)).mean())
    assert found.values["overall_accuracy"] == pytest.approx(truth[0])
    assert values["agreement"]["accuracy"] == pytest.approx(same) == found.values["agreement"]
    assert values["agreement"]["against"] is None and values["agreement"]["gain_error"] is None
    powers = np.exp(mine.logits - mine.logits.max(axis=1, keepdims=True))
    sure = values["average_confidence"]
    assert sure["accuracy"] == pytest.approx((powers.max(axis=1) / powers.sum(axis=1)).mean(), rel=1e-5)
    assert sure["error"] == pytest.approx(sure["accuracy"] - truth[0])
    assert sure["gain"] == pytest.approx(sure["accuracy"] - sure["against"])
    assert sure["gain_error"] == pytest.approx(sure["gain"] - (truth[0] - truth[1]))
    told = text(found.parts)
    assert f"predict the same on {100 * same:.1f} %" in told and "from the labels" in told
    for part in found.parts:
        if isinstance(part, Table):
            assert {len(row) for row in part.rows} == {len(part.headings)}
    alone = evaluation(tiny_run, None, "target", "last")
    assert "agreement" not in alone.values["estimates"] and "agreement" not in alone.values
    assert "estimates" not in evaluation(tiny_run, None, "source", "last").values


def test_a_target_without_labels_gets_estimates_and_counts_alone(tiny_values: dict, tmp_path: Path) -> None:
    changes = [("target", f"{{data: {{kind: unlabelled, root: {scans(tmp_path / 'scans')}}}}}")]
    run = train(parse(override(tiny_values, changes)), tmp_path / "run")
    found = evaluation(run, run, "target", "last")
    assert found.values["clouds"] == 20 and found.values["labels"] is False
    assert sum(found.values["predicted"].values()) == 20 and "overall_accuracy" not in found.values
    sure = found.values["estimates"]["average_confidence"]
    assert 0 < sure["accuracy"] <= 1 and "error" not in sure and sure["gain"] == 0.0
    assert found.values["agreement"] == 1.0
    told = text(found.parts)
    assert "have no labels" in told and "isthmus audit" in told and "from the labels" not in told


def test_new_scans_without_labels_can_be_looked_at_with_any_run(tiny_run: Run, tmp_path: Path) -> None:
    data = f"{{kind: unlabelled, root: {scans(tmp_path / 'scans', 5)}}}"
    found = evaluation(tiny_run, None, data, "last").values
    assert found["clouds"] == 5 and sum(found["predicted"].values()) == 5 and "estimates" in found


def test_what_a_run_cannot_be_measured_on_is_named(tiny_run: Run, tmp_path: Path) -> None:
    known = tiny_run.recipe.classes[0]
    for name in (known, "piano", "violin"):
        scans(tmp_path / "mine" / name, 4)
    (tmp_path / "mine" / known / "broken.xyz").write_text("no cloud")
    found = evaluation(tiny_run, None, str(tmp_path / "mine"), "last")
    lines = [part for part in found.parts if isinstance(part, str)]
    assert lines[0] == "left out: piano, violin, which the run has no class for"
    assert lines[1].startswith(f"data: 1 left out, the first: {known}/broken.xyz: ")
    assert lines[2] == "4 clouds, checkpoint: last" and found.values["left_out"] == lines[:2]
    shutil.rmtree(tmp_path / "mine" / known)
    with pytest.raises(RunError, match=r"expected classes of the run .* found piano, violin"):
        evaluation(tiny_run, None, str(tmp_path / "mine"), "last")


def test_scores_do_not_need_what_only_estimates_need(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "own")
    run = Run.open(tmp_path / "own")
    run.weights_file("stage2", "last").unlink()
    found = evaluation(run, None, "target", "last")
    assert found.values["clouds"] == 24 and "estimates" not in found.values
    assert "no estimates without labels: " in text(found.parts) and "stage2.last.pt" in text(found.parts)


def test_seeds_differ_in_their_seed_and_nothing_else(tiny_run: Run, other_seed: Run, tmp_path: Path) -> None:
    assert other_seeds(tiny_run, [tiny_run, other_seed]) == [other_seed]
    with pytest.raises(RunError, match="expected runs beside"):
        other_seeds(tiny_run, [tiny_run])
    shutil.copytree(tiny_run.path, tmp_path / "copy")
    with pytest.raises(RunError, match=r"expected another seed than that of .* found 0 twice"):
        other_seeds(tiny_run, [Run.open(tmp_path / "copy")])
    changed = parse({**other_seed.recipe.model_dump(mode="json"), "batch_size": 9})
    with pytest.raises(RunError, match="with another seed, found another recipe"):
        other_seeds(tiny_run, [Run(tmp_path, changed)])


def test_runs_on_other_clouds_or_classes_are_not_set_against_each_other(tiny_run: Run, tmp_path: Path) -> None:
    data = [f"{{kind: unlabelled, root: {scans(tmp_path / name, count)}}}" for name, count in (("a", 4), ("b", 5))]
    with pytest.raises(IsthmusError, match="expected other seeds on the same"):
        from isthmus.evaluation.points.label_free import estimated

        estimated(
            tiny_run, outputs_on(tiny_run, data[0], "last"), "last", None, [outputs_on(tiny_run, data[1], "last")]
        )
