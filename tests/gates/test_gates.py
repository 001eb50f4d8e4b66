import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import SkewnessGate
from isthmus.data.randomness import Progress
from isthmus.gates import CosineGate, Evidence, RandomGate, ScaledWeight
from isthmus.gates.base import lowest


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=70),
    st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_exactly_the_rounded_share_of_lowest_scores_is_kept(scores: list[float], keep: float) -> None:
    mask = lowest(torch.tensor(scores), keep)
    assert mask.sum().item() == round(keep * len(scores))
    kept, dropped = [s for s, m in zip(scores, mask) if m], [s for s, m in zip(scores, mask) if not m]
    assert not kept or not dropped or max(kept) <= min(dropped)


def test_ties_go_to_the_first_samples() -> None:
    assert lowest(torch.zeros(5), 0.6).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("missing", [torch.nan, torch.inf, -torch.inf])
def test_a_sample_without_a_score_always_takes_part_and_is_not_counted(missing: float) -> None:
    scores = torch.tensor([3.0, missing, 1.0, 2.0, missing])
    assert lowest(scores, 1 / 3).tolist() == [False, True, True, False, True]
    assert lowest(scores, 0.0).tolist() == [False, True, False, False, True]


def test_three_lines_in_somebody_elses_loop() -> None:
    gate = SkewnessGate(keep=0.7)
    points, gradient = torch.randn(10, 32, 3), torch.randn(10, 32, 3)
    mask, scores = gate(points, gradient), gate.scores(points, gradient)
    assert mask.shape == (10,) and mask.dtype == torch.bool and mask.sum() == 7
    assert scores[mask].max() <= scores[~mask].min()


def test_keep_side_high_is_the_mirror_image() -> None:
    scores = torch.tensor([0.1, 4.0, -2.0, 1.0])
    assert SkewnessGate(0.5).select(scores).tolist() == [True, False, True, False]
    assert SkewnessGate(0.5, keep_side="high").select(scores).tolist() == [False, True, False, True]
    unscored = torch.tensor([0.1, torch.nan, -2.0, 1.0])
    assert SkewnessGate(0.34, keep_side="high").select(unscored).tolist() == [False, True, False, True]


def test_keep_moves_linearly_over_a_stage() -> None:
    gate = SkewnessGate(keep=1.0, keep_end=0.5)
    kept = [int(gate.select(torch.arange(10.0), fraction).sum()) for fraction in (0.0, 0.4, 1.0)]
    assert kept == [10, 8, 5]


@pytest.mark.parametrize("keep", [-0.1, 1.1])
def test_a_share_outside_0_to_1_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match=r"keep: expected a share in \[0, 1\], found"):
        RandomGate(keep)


def evidence(ids: list[int], step: int = 0) -> Evidence:
    random = Progress(0, 0, step, 10).random("gate", ids)
    return Evidence(torch.zeros(len(ids), 8, 3), random, agreement=torch.arange(float(len(ids))))


def test_random_gate_draws_by_sample_and_step_not_by_position() -> None:
    gate = RandomGate(0.5)
    first, swapped = gate.measure(evidence([3, 8, 11])), gate.measure(evidence([11, 3, 8]))
    assert first[[2, 0, 1]].tolist() == swapped.tolist()
    assert first.tolist() != gate.measure(evidence([3, 8, 11], step=1)).tolist()


def test_random_gate_keeps_every_sample_equally_often() -> None:
    gate, counts = RandomGate(0.7), torch.zeros(10)
    for step in range(600):
        counts += gate.select(gate.measure(evidence(list(range(10)), step)))
    # 4.5 standard deviations of a binomial with n = 600, p = 0.7
    assert (counts - 420).abs().max() < 4.5 * (600 * 0.7 * 0.3) ** 0.5


def test_scaled_weight_weighs_scored_samples_and_drops_none() -> None:
    gate = ScaledWeight(0.7)
    scores = torch.tensor([0.0, torch.nan])
    assert gate.select(scores).all()
    assert gate.participation(scores).tolist() == pytest.approx([0.7, 1.0])


def test_cosine_gate_keeps_the_samples_that_agree_with_the_oracle() -> None:
    gate = CosineGate(0.5)
    assert gate.select(gate.measure(evidence([0, 1, 2, 3]))).tolist() == [False, False, True, True]
    assert gate.uses_target_labels
