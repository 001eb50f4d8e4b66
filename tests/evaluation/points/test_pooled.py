from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isthmus.evaluation.points.accuracy import Predictions
from isthmus.evaluation.points.compare import Row, counterpart
from isthmus.evaluation.points.pooled import pooled_gain, pooled_table


def test_the_mean_is_over_directions_whatever_their_number_of_seeds() -> None:
    gain = pooled_gain([np.array([0.1, 0.1, 0.1, 0.1]), np.array([0.3])])
    assert gain.estimate == pytest.approx(0.2) and (gain.directions, gain.pairs) == (2, 5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(-20, 20), min_size=2, max_size=3), min_size=2, max_size=3))
def test_the_p_value_is_that_of_all_exchanges_within_pairs(values: list[list[int]]) -> None:
    differences = [np.array(each) / 100 for each in values]
    weights = np.concatenate([np.full(len(each), 1 / len(each) / len(differences)) for each in differences])
    flat = np.concatenate(differences)
    observed = (weights * flat).sum()
    null = np.array([(weights * flat * signs).sum() for signs in product((1, -1), repeat=len(flat))])
    share = min(1.0, 2 * min((null >= observed - 1e-12).mean(), (null <= observed + 1e-12).mean()))
    gain = pooled_gain(differences)
    assert gain.p_value == pytest.approx(share, abs=1e-9)
    means = np.array([each.mean() for each in differences])
    low, high = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
    if means.std() > 0:
        assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))


def test_one_direction_is_bounded_by_its_seeds_and_one_pair_by_nothing() -> None:
    seeds = np.array([0.01, 0.02, 0.06])
    gain = pooled_gain([seeds])
    low, high = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))
    alone = pooled_gain([np.array([0.1])])
    assert np.isnan(alone.low) and alone.p_value == 1.0
    with pytest.raises(ValueError, match="at least one direction"):
        pooled_gain([])


def predictions(accuracy: float, names: Sequence[str]) -> Any:
    """The first ones are right; there are ten of them or a multiple."""
    right = np.arange(len(names)) < round(accuracy * len(names))
    logits = np.stack([right, ~right], axis=1).astype(float)
    labels = np.zeros(len(names), dtype=np.int64)
    return SimpleNamespace(predictions=Predictions(("a", "b"), logits, labels, np.array(names), tuple(names)))


def row(
    direction: str, method: str, stage: str, accuracies: dict[int, float], names: Sequence[str] = "0123456789"
) -> Row:
    columns = ("source-val", "label-free", "last", "target-selected")
    overall = {column: list(accuracies.values()) for column in columns}
    selected = tuple(dict.fromkeys(columns, predictions(each, names)) for each in accuracies.values())
    return Row(direction, method, stage, tuple(accuracies), overall, overall, selected, False)  # type: ignore[arg-type]


def test_the_table_pairs_by_direction_stage_and_seed() -> None:
    rows = [
        row("a→b", "host", "stage1", {0: 0.5, 1: 0.6}),
        row("a→b", "host", "stage2", {0: 0.7, 1: 0.8}),
        row("a→b", "gated", "stage1", {1: 0.7, 0: 0.5}),
        row("a→b", "gated", "stage2", {1: 0.8, 2: 0.1}),
        row("a→b", "plain", "stage1", {0: 0.6, 1: 0.7}),
        row("c→d", "gated", "stage1", {0: 0.2}),
    ]
    lines = {line[:2]: line[2:] for line in pooled_table(rows, "host").rows}
    assert lines[("gated", "stage1")][:2] == ("1", "2") and lines[("gated", "stage1")][2].startswith("+5.0 [")
    assert lines[("gated", "stage2")][:3] == ("1", "1", "+0.0")
    assert lines[("plain", "stage1")][2].startswith("-10.0")
    assert ("host", "stage1") not in lines


def test_an_oracle_is_compared_on_the_objects_that_both_have() -> None:
    """Right on 6 of the 10 that the oracle was measured on; all of the other 10 are right as well."""
    plain = row(
        "a→b", "plain", "stage1", {0: 0.8, 1: 0.8}, [f"{n}" for n in (*range(6), *range(20, 30), *range(6, 10))]
    )
    oracle = row("a→b", "oracle", "stage1", {0: 0.7, 1: 0.9})
    (line,) = pooled_table([plain, oracle], "plain").rows
    assert line[2:4] == ("1", "2") and line[4].startswith("+20.0 [")


def test_the_last_stages_meet_where_one_of_the_two_has_a_single_one() -> None:
    plain = row("a→b", "plain", "stage1", {0: 0.6})
    host = [row("a→b", "host", name, {0: accuracy}) for name, accuracy in (("stage1", 0.4), ("stage2", 0.5))]
    rounds = [row("a→b", "rounds", name, {0: 0.3}) for name in ("stage1", "round1")]
    rows = [plain, *host, *rounds]
    assert counterpart(host[0], rows, "plain") is None and counterpart(host[1], rows, "plain") is plain
    assert counterpart(plain, rows, "host") is host[1] and counterpart(rounds[0], rows, "host") is host[0]
    assert counterpart(rounds[1], rows, "host") is host[1] and counterpart(rounds[1], rows, "plain") is plain
    assert counterpart(plain, rows, "plain") is None and counterpart(plain, rows, "nobody") is None
