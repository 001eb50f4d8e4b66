import math

import numpy as np
import pytest
from scipy import stats

from isthmus.evaluation.points import analysis_numbers as numbers
from isthmus.evaluation.points.conflict import ALPHAS, Table
from isthmus.evaluation.points.replay import Measured

STEPS, BATCH = 12, 20


def planted(seed: int = 0) -> Measured:
    """One stage: conflict falls with skewness on the source; wrong pseudo-labels add 0.5 on the target."""
    random = np.random.default_rng(seed)
    rows = STEPS * BATCH
    step = np.repeat(np.arange(1, STEPS + 1), BATCH)

    def domain(name: str) -> Table:
        true = random.normal(size=rows) + step
        wrong = random.random(rows) < 0.25
        skew = true + 0.5 * wrong if name == "target" else true
        within = true - step
        table: Table = {
            "domain": np.full(rows, name), "id": np.arange(rows), "label": wrong.astype(int),
            "truth": np.zeros(rows, int),
            "coupled": skew, "separate": random.normal(size=rows), "coupled_truth": true, "separate_truth": true,
            "loss": 1 + 0.3 * within, "class_loss": np.full(rows, np.nan), "norm": np.ones(rows),
            "cosine_oracle": -within / 10 + 0.02 * random.normal(size=rows),
            "cosine_class": random.normal(size=rows), "score": skew, "taking_part": np.full(rows, np.nan),
            "stage": np.full(rows, "only"), "step": step, "global_step": step,
        }  # fmt: skip
        kept = np.concatenate([(stats.rankdata(skew[step == s]) <= BATCH / 2) for s in range(1, STEPS + 1)])
        table["taking_part"] = kept.astype(float)
        return table | {f"alpha_{a:g}": skew + (a - 1) * random.normal(size=rows) for a in ALPHAS}

    tables = [domain("source"), domain("target")]
    samples = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    number = np.arange(1, STEPS + 1)
    steps = {"stage": np.full(STEPS, "only"), "number": number, "global_step": number}
    steps |= {name: np.linspace(0.5, -0.5, STEPS) for name in numbers.STEP_COSINES}
    return Measured(samples, steps, {"only": 0.0})


def test_skewness_is_correlated_over_steps_and_within_them() -> None:
    source, _ = numbers.skewness_and_conflict(planted())
    assert source["over_steps"] < -0.9 and abs(source["over_steps_changes"]) < 0.9
    assert source["coupled_cosine_oracle"]["rho"] < -0.8 and source["coupled_cosine_oracle"]["p_value"] < 0.01
    assert abs(source["separate_cosine_oracle"]["rho"]) < 0.2 and source["coupled_cosine_oracle"]["steps"] == STEPS


def test_conflicts_are_counted() -> None:
    found = numbers.conflicts(planted())
    row = next(each for each in found["steps"] if each["name"] == "ssl_oracle")
    assert row["negative"]["estimate"] == 0.5 and row["first_third"] > 0.2 > -0.2 > row["last_third"]
    measured = planted()
    here = measured.samples["domain"] == "target"
    row = next(e for e in found["samples"] if (e["domain"], e["name"]) == ("target", "cosine_oracle"))
    assert row["negative"]["estimate"] == pytest.approx((measured.samples["cosine_oracle"][here] < 0).mean())
    assert row["negative"]["low"] < row["negative"]["estimate"] < row["negative"]["high"]


def test_groups_are_fifths_of_each_step() -> None:
    _, _, table = next(iter(numbers.parts(planted())))
    table["coupled"][3] = np.nan
    groups = numbers.groups_of(table)
    assert groups[3] == -1
    for step in range(2, STEPS + 1):
        here = table["global_step"] == step
        assert np.bincount(groups[here]).tolist() == [4] * 5
        assert table["coupled"][here & (groups == 0)].max() < table["coupled"][here & (groups == 1)].min()


def test_losses_by_skewness_and_by_what_the_gate_did() -> None:
    source, _ = numbers.losses_by_skewness(planted())
    means = [group["estimate"] for group in source["loss"]]
    assert means == sorted(means) and source["loss_high_less_low"]["low"] > 0
    assert source["cosine_oracle_kept_less_dropped"]["low"] > 0 > source["loss_kept_less_dropped"]["high"]
    assert all(math.isnan(group["estimate"]) for group in source["class_loss"])


def test_pseudo_labels_against_true_ones() -> None:
    measured = planted()
    (row,) = numbers.pseudo_against_true(measured)
    target = measured.samples["domain"] == "target"
    wrong = measured.samples["label"][target] == 1
    assert row["samples"] == STEPS * BATCH
    assert row["right"]["estimate"] == pytest.approx(1 - wrong.mean())
    assert row["coupled_all"]["estimate"] == pytest.approx(0.5 * wrong.mean())
    assert row["coupled_wrong"]["estimate"] == pytest.approx(0.5)
    shares = []
    for step in range(1, STEPS + 1):
        here = np.flatnonzero(target & (measured.samples["global_step"] == step))
        kept = [set(here[np.argsort(measured.samples[name][here])][:14]) for name in ("coupled", "coupled_truth")]
        shares.append(len(kept[0] & kept[1]) / 14)
    assert row["coupled_same_kept"]["0.7"]["estimate"] == pytest.approx(np.mean(shares))
    assert 0.7 < row["coupled_same_kept"]["0.7"]["estimate"] < 1 and 0.8 < row["coupled_rank_correlation"] < 1


def test_alpha_one_ranks_like_itself() -> None:
    rows = [row for row in numbers.alphas(planted()) if row["domain"] == "source"]
    assert [row["alpha"] for row in rows] == list(ALPHAS)
    itself = next(row for row in rows if row["alpha"] == 1)
    assert itself["rank_correlation"] == pytest.approx(1) and itself["same_kept"]["0.3"]["estimate"] == 1
    assert rows[-1]["rank_correlation"] < 0.6
