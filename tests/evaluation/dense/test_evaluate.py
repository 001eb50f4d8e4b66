import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.data.image_stream import read_batch
from isthmus.errors import DataError, RecipeError, RunError
from isthmus.evaluation.dense.evaluate import (
    ClassScore,
    class_scores,
    class_table,
    headline_row,
    measured_on,
    score_table,
    summary,
)
from isthmus.evaluation.dense.scores import select
from isthmus.evaluation.evaluate import evaluation
from isthmus.evaluation.load import load_method
from isthmus.evaluation.statistics import Interval
from isthmus.evaluation.tables import Table
from isthmus.training.dense.problem import DenseProblem

from .conftest import Runs

TEST_ROOMS = "{kind: rooms, train: 0, val: 0, test: 10, size: [32, 48]}"


@torch.no_grad()
def by_hand(runs: Runs) -> dict[str, float]:
    """mIoU in percent, absolute depth error and mean angle of the last weights, pixel by pixel."""
    problem, method = DenseProblem(runs.multi.recipe), load_method(runs.multi, "last")
    store = problem.source
    rows = store.indices("test")
    present = {name: store.present[:, list(store.tasks).index(name)] for name in problem.tasks}
    batch = read_batch(store, rows, present, "test")
    outputs = method.predict(batch.inputs)
    valid = {name: mask.numpy() for name, mask in batch.valid.items()}
    predicted, truth = outputs["segmentation"].argmax(dim=1).numpy(), batch.labels["segmentation"].numpy()
    ious = []
    for label in range(13):
        ours, theirs = (predicted == label) & valid["segmentation"], (truth == label) & valid["segmentation"]
        if (ours | theirs).any():
            ious.append((ours & theirs).sum() / (ours | theirs).sum())
    wrong = np.abs(np.maximum(outputs["depth"].numpy(), 1e-9) - batch.labels["depth"].numpy())[:, 0]
    normals = torch.nn.functional.normalize(outputs["normals"], dim=1).numpy()
    cosine = (normals * batch.labels["normals"].numpy()).sum(axis=1).clip(-1, 1)
    return {
        "mIoU [%] ↑": 100 * np.mean(ious),
        "aErr [m] ↓": wrong[valid["depth"]].mean(),
        "mErr [°] ↓": np.degrees(np.arccos(cosine))[valid["normals"]].mean(),
    }


def test_row_of_the_paper_s_table_against_a_slow_loop(runs: Runs) -> None:
    ours = measured_on(runs.multi, "target", "last")
    row = headline_row(ours.tasks, ours)
    shown = dict(zip(row.headings, map(float, row.rows[0])))
    assert list(shown) == ["mIoU [%] ↑", "aErr [m] ↓", "mErr [°] ↓", "odsF [%] ↑"]
    for heading, value in by_hand(runs).items():
        assert shown[heading] == pytest.approx(value, rel=2e-3), heading


class TestMeasuredOn:
    def test_what_was_kept_in_training_is_what_the_weights_say(self, runs: Runs) -> None:
        kept, again = measured_on(runs.multi, "target", "last"), measured_on(runs.multi, TEST_ROOMS, "last")
        assert again.groups.tolist() == kept.groups.tolist()
        for name in kept.tasks:
            np.testing.assert_allclose(again.statistics[name], kept.statistics[name], rtol=1e-5, atol=1e-6)

    def test_folder_with_labels_of_one_task(self, runs: Runs, tmp_path: Path) -> None:
        store = DenseProblem(runs.multi.recipe).source
        rows = store.indices("test")[:5]
        for folder in ("images", "depth"):
            (tmp_path / "mine" / folder).mkdir(parents=True)
        for row in rows:
            Image.fromarray(np.asarray(store.images[row])).save(tmp_path / "mine" / "images" / f"{row:04d}.png")
            np.save(tmp_path / "mine" / "depth" / f"{row:04d}.npy", np.asarray(store.labels("depth")[row]))
        found = measured_on(runs.multi, str(tmp_path / "mine"), "last")
        kept = measured_on(runs.multi, "target", "last")
        assert list(found.tasks) == ["depth"] and len(found.groups) == 5
        sums = kept.statistics["depth"][:5].sum(axis=0)
        assert found.headline("depth") == pytest.approx(sums[0] / sums[3], rel=1e-3)

    def test_errors(self, runs: Runs, tmp_path: Path) -> None:
        for data in ("{kind: rom}", "nowhere", "{"):
            with pytest.raises(RecipeError, match="--data: expected 'target', a folder, or a data set"):
                measured_on(runs.multi, data, "last")
        with pytest.raises(RunError, match=r"--select: expected one of source-val, last, found 'label-free'"):
            measured_on(runs.multi, "target", "label-free")
        with pytest.raises(RunError, match=r"segmentation: expected the classes bed, .* found flat, "):
            measured_on(runs.multi, "{kind: streets, train: 0, val: 0, test: 1, size: [32, 48]}", "last")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError):
            measured_on(runs.multi, str(tmp_path / "empty"), "last")


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high, 0.1)


class TestClasses:
    @pytest.mark.parametrize(
        ("iou", "gain", "verdict"),
        [
            (0.5, interval(-0.1, -0.2, -0.05), "hurt"),
            (0.5, interval(0.1, 0.05, 0.2), "helped"),
            (0.5, interval(0.1, -0.05, 0.2), "within noise"),
            (0.5, interval(-0.0004, -0.0006, -0.0001), "within noise"),  # 0.0 points, wherever it is written
            (0.0, interval(0.0, 0.0, 0.0), "same"),
            (math.nan, interval(0.1, 0.05, 0.2), "no pixel"),
            (0.5, None, "within noise"),
        ],
    )
    def test_verdict(self, iou: float, gain: Interval | None, verdict: str) -> None:
        assert ClassScore("segmentation", "bed", iou, 0.4, gain).verdict == verdict

    def test_gains_are_differences_of_the_two_runs(self, runs: Runs) -> None:
        ours, theirs = (select(run)["last"] for run in (runs.multi, runs.single))
        found = {each.name: each for each in class_scores(ours, theirs)}
        assert list(found) == list(ours.tasks["segmentation"].classes)
        for name, each in found.items():
            scores = [one.scores("segmentation")[f"iou/{name}"] for one in (ours, theirs)]
            np.testing.assert_equal([each.iou, each.baseline], scores)
            assert each.gain is not None
            np.testing.assert_allclose(each.gain.estimate, scores[0] - scores[1])
        table = class_table(list(found.values()))
        assert table.headings[-1] == "verdict" and len(table.rows) == 13
        alone = class_table(class_scores(ours))
        assert alone.headings == ("task", "class", "IoU [%]")

    def test_values_are_json(self, runs: Runs) -> None:
        ours, theirs = (select(run)["last"] for run in (runs.multi, runs.single))
        values = summary(ours, class_scores(ours, theirs))
        json.dumps(values, allow_nan=False)
        assert values["images"] == 10 and len(values["gains"]) == 13
        assert values["scores"]["depth"]["abs_error"] == ours.headline("depth")


def test_every_score_is_in_the_table_and_only_the_headline_in_percent(runs: Runs) -> None:
    ours = select(runs.multi)["last"]
    found = {(task, score): float(value) for task, score, value in score_table(ours).rows}
    assert found["segmentation", "mean_iou (mIoU [%])"] == pytest.approx(100 * ours.headline("segmentation"), rel=2e-3)
    accuracy = ours.scores("segmentation")["pixel_accuracy"]
    assert found["segmentation", "pixel_accuracy"] == pytest.approx(accuracy, rel=2e-3)
    assert {task for task, _ in found} == set(ours.tasks)


def test_what_evaluate_shows(runs: Runs) -> None:
    found = evaluation(runs.multi, runs.single, "target", "source-val")
    text = "\n".join(part for part in found.parts if isinstance(part, str))
    assert "10 images of 3 groups" in text and "mean relative gain over" in text and "classes hurt" in text
    assert sum(isinstance(part, Table) for part in found.parts) == 3
    ours, theirs = (select(run)["source-val"] for run in (runs.multi, runs.single))
    signs = {"segmentation": 1, "depth": -1, "normals": -1, "edges": 1}
    gains = [sign * (ours.headline(n) - theirs.headline(n)) / theirs.headline(n) for n, sign in signs.items()]
    assert found.values["mean_relative_gain"]["gain"] == pytest.approx(np.mean(gains))
