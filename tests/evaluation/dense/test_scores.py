import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_testing import NAMES, batch, tasks
from isthmus.errors import RunError
from isthmus.evaluation.dense.scores import Measured, image_key, mean_relative_gain, score_gain, select
from isthmus.evaluation.statistics import Interval
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.run import Run, read_arrays, write_arrays

from .conftest import Runs, copied

HIGHER = {"segmentation": True, "depth": False, "normals": False}


def measured(seed: int, groups: list[str] | None = None, images: int = 8, noise: float = 1.0) -> Measured:
    """Random predictions of the same images; less noise is closer to the truth."""
    truth, generator = batch(["SDN"] * images), torch.Generator().manual_seed(seed)
    hot = torch.nn.functional.one_hot(truth.labels["segmentation"], 4).permute(0, 3, 1, 2).float()
    exact = {"segmentation": hot, "depth": truth.labels["depth"], "normals": truth.labels["normals"]}
    statistics = {}
    for name, task in tasks().items():
        output = exact[name] + noise * torch.randn(exact[name].shape, generator=generator)
        statistics[name] = task.statistics(output, truth.labels[name], truth.valid[name]).numpy()
    return Measured(1, tasks(), statistics, np.array(groups or [f"room{i}" for i in range(images)]))


def rows_of(one: Measured, rows: list[int]) -> Measured:
    """Some of the images, or some of them several times."""
    return Measured(one.step, one.tasks, {n: s[rows] for n, s in one.statistics.items()}, one.groups[rows])


def by_hand(ours: Measured, baseline: Measured) -> float:
    """Eq. of the mean relative gain: 1/K sum of (-1)^l (M - B) / B, l = 1 where less is better."""
    total = 0.0
    for name in NAMES:
        sign = 1 if HIGHER[name] else -1
        total += sign * (ours.headline(name) - baseline.headline(name)) / baseline.headline(name)
    return total / len(NAMES)


class TestMeanRelativeGain:
    def test_formula_with_the_sign_of_every_task(self) -> None:
        ours, baseline = measured(0, noise=0.5), measured(1)
        assert ours.headline("segmentation") > baseline.headline("segmentation")
        assert ours.headline("depth") < baseline.headline("depth")
        found = mean_relative_gain([ours], [baseline])
        assert found.estimate == pytest.approx(by_hand(ours, baseline)) and found.estimate > 0
        for name in NAMES:  # every task alone counts as a gain as well
            one = mean_relative_gain(
                *([Measured(1, {name: m.tasks[name]}, m.statistics, m.groups)] for m in (ours, baseline))
            )
            assert one.estimate > 0, name

    def test_seeds_are_paired_and_averaged(self) -> None:
        pairs = [(measured(2 * seed, noise=0.8), measured(2 * seed + 1)) for seed in range(3)]
        found = mean_relative_gain(*map(list, zip(*pairs)))
        gains = [by_hand(*pair) for pair in pairs]
        assert found.estimate == pytest.approx(np.mean(gains))
        single = [mean_relative_gain([ours], [theirs]) for ours, theirs in pairs]
        assert found.standard_error**2 >= np.var(gains, ddof=1) / 3
        assert found.high - found.low > min(each.high - each.low for each in single)

    def test_interval_is_that_of_a_slow_bootstrap_over_whole_groups(self) -> None:
        # Both images of a room went the same: as independent images they would seem to say more than they do.
        twice = [index // 2 for index in range(16)]
        ours, baseline = rows_of(measured(0, noise=0.9), twice), rows_of(measured(1), twice)
        rng, gains = np.random.default_rng(5), []
        for _ in range(400):
            drawn = rng.integers(0, 8, 8)
            rows = [row for room in drawn for row in (2 * room, 2 * room + 1)]
            gains.append(by_hand(rows_of(ours, rows), rows_of(baseline, rows)))
        found = mean_relative_gain([ours], [baseline])
        assert found.standard_error == pytest.approx(np.std(gains), rel=0.15)
        np.testing.assert_allclose(
            [found.low, found.high], np.quantile(gains, [0.025, 0.975]), atol=0.3 * float(np.std(gains))
        )
        names = [f"{group}-{index}" for index, group in enumerate(ours.groups)]
        apart = mean_relative_gain(*([Measured(1, m.tasks, m.statistics, np.array(names))] for m in (ours, baseline)))
        assert apart.standard_error < 0.85 * found.standard_error

    def test_alike_groups_leave_no_doubt_and_one_group_no_interval(self) -> None:
        ours, baseline = rows_of(measured(0), [0] * 6), rows_of(measured(1), [0] * 6)
        rooms = np.array([f"room{i}" for i in range(6)])
        alike = [Measured(1, each.tasks, each.statistics, rooms) for each in (ours, baseline)]
        found = mean_relative_gain([alike[0]], [alike[1]])
        np.testing.assert_allclose([found.low, found.high], found.estimate)
        lone = mean_relative_gain([ours], [baseline])
        assert lone.estimate == pytest.approx(found.estimate) and math.isnan(lone.low) and not lone.excludes_zero

    def test_other_images_are_refused(self) -> None:
        ours = measured(0)
        with pytest.raises(RunError, match="expected runs measured on the same 8 images"):
            mean_relative_gain([ours], [measured(1, groups=["elsewhere"] * 8)])
        with pytest.raises(RunError, match="expected runs measured on the same 8 images"):
            mean_relative_gain([ours], [Measured(1, ours.tasks, ours.statistics, ours.groups, "other pixels")])

    def test_other_tasks_are_refused(self) -> None:
        ours = measured(0)
        fewer = Measured(1, {"depth": ours.tasks["depth"]}, ours.statistics, ours.groups)
        for pair in ((ours, fewer), (fewer, ours)):
            with pytest.raises(RunError, match="expected runs of the tasks"):
                mean_relative_gain([pair[0]], [pair[1]])


def test_gain_of_one_score_is_the_difference() -> None:
    ours, baseline = measured(0, noise=0.5), measured(1)
    found = score_gain([ours], [baseline], "segmentation", "iou/chair")
    expected = ours.scores("segmentation")["iou/chair"] - baseline.scores("segmentation")["iou/chair"]
    assert found.estimate == pytest.approx(expected) and found.low < found.estimate < found.high
    same = score_gain([ours], [ours], "segmentation", "iou/chair")
    assert same == Interval(0.0, 0.0, 0.0, 0.0)


def test_images_are_told_by_name_and_by_content(runs: Runs, elsewhere: Run) -> None:
    stores = [DenseProblem(run.recipe).source for run in (runs.multi, elsewhere)]
    rows = [store.indices("test") for store in stores]
    assert [stores[0].names[r] for r in rows[0]] == [stores[1].names[r] for r in rows[1]]
    keys = [image_key(store, chosen) for store, chosen in zip(stores, rows)]
    assert keys[0] != keys[1]
    assert keys[0] != image_key(stores[0], rows[0][:-1])
    assert keys[0] == image_key(stores[0], rows[0])


class TestSelect:
    def written(self, run: Run, source_val: list[float], factors: list[float | None]) -> None:
        """Evaluations with given validation scores, whose test errors are multiplied (None: not measured)."""
        template = read_arrays(run.evaluations()[-1])
        for file in run.evaluations():
            file.unlink()
        for index, (score, factor) in enumerate(zip(source_val, factors)):
            arrays = {**template, "step": np.array(10 * index), "source_val": np.array(score)}
            for name in [name for name in arrays if name.startswith("test/")]:
                if factor is None:
                    del arrays[name]
                elif name == "test/depth":
                    arrays[name] = arrays[name] * np.array([factor, 1, 1, 1, 1])
            write_arrays(run.path / "evaluations" / f"stage1-{10 * index:08d}.npz", **arrays)

    def test_each_rule_has_its_own_checkpoint(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        self.written(run, [0.1, 0.9, 0.5], [0.5, 3.0, 2.0])
        found = select(run)
        assert {rule: one.step for rule, one in found.items()} == {"source-val": 10, "last": 20, "test-selected": 0}
        # Every one of them is measured on the test part, in its own checkpoint.
        errors = {rule: one.headline("depth") for rule, one in found.items()}
        assert errors["source-val"] == pytest.approx(6 * errors["test-selected"])
        assert errors["last"] == pytest.approx(4 * errors["test-selected"])

    def test_no_test_label_moves_the_choice_by_validation(self, runs: Runs, tmp_path: Path) -> None:
        for index, factors in enumerate(([1.0, 9.0, 1.0], [9.0, 0.1, 9.0])):
            run = copied(runs.multi, tmp_path / f"run{index}")
            self.written(run, [0.1, 0.9, 0.5], list(factors))
            assert select(run)["source-val"].step == 10

    def test_of_equal_scores_the_later_is_taken_and_without_any_the_last(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        self.written(run, [0.7, 0.7, 0.1], [1.0, 1.0, 1.0])
        assert select(run)["source-val"].step == 10 and select(run)["test-selected"].step == 20
        self.written(run, [math.nan] * 3, [1.0, 1.0, 1.0])
        assert select(run)["source-val"].step == 20

    def test_test_selection_needs_every_checkpoint_measured(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        self.written(run, [0.1, 0.9, 0.5], [None, 1.0, 2.0])
        assert {rule: one.step for rule, one in select(run).items()} == {"source-val": 10, "last": 20}

    def test_rows_belong_to_the_rooms_of_the_test_part(self, runs: Runs) -> None:
        store = DenseProblem(runs.multi.recipe).source
        found = select(runs.multi)["last"]
        assert found.groups.tolist() == [store.groups[row] for row in store.indices("test")]
        assert len(set(found.groups)) == 3  # four views of a room

    def test_run_without_evaluations_and_changed_data_are_errors(self, runs: Runs, tmp_path: Path) -> None:
        run = copied(runs.multi, tmp_path / "run")
        run.update(stores={**run.state["stores"], "source": "0123456789abcdef"})
        with pytest.raises(RunError, match="the source data has changed since the run started"):
            select(run)
        empty = copied(runs.multi, tmp_path / "empty")
        for file in empty.evaluations():
            file.unlink()
        with pytest.raises(RunError, match="expected evaluations of stage 'stage1', found none"):
            select(empty)
