import copy

import pytest
import torch
from torch import Tensor
from weighting_tester import TASKS, CombiningTester

from isthmus.losses.weightings.gradvac import GradVac

ONES = torch.ones(2)


def rows_of(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


class TestGradVac(CombiningTester):
    def build(self):
        return GradVac(TASKS)

    trained = build

    def test_the_order_of_tasks_does_not_matter(self):
        """Of three or more tasks it does: their order is drawn. Of two there is only one."""
        rows, (first, second) = rows_of(0), TASKS[:2]
        torch.testing.assert_close(
            self.build().combine(rows, (first, second), ONES), self.build().combine(rows.flip(0), (second, first), ONES)
        )


def test_two_tasks_follow_torchjds_rule_step_by_step():
    aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed (extra mtl)")
    ours, theirs = GradVac(("a", "b"), rate=0.3), aggregation.GradVac(beta=0.3)
    for seed in range(12):
        rows = rows_of(seed) + (seed % 3 == 0)  # gradients that agree teach a positive cosine
        found = ours.combine(rows, ("a", "b"), ONES)
        torch.testing.assert_close(found, theirs(rows), atol=1e-4, rtol=1e-4)


def test_the_first_step_projects_a_conflict_away_as_pcgrad_does():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    found = GradVac(("a", "b")).combine(torch.stack([one, other]), ("a", "b"), ONES)
    first = one - (one @ other) / (other @ other) * other
    second = other - (one @ other) / (one @ one) * one
    torch.testing.assert_close(found, first + second)


def test_gradients_are_brought_to_the_usual_cosine():
    weighting = GradVac(("a", "b"), rate=1.0)
    weighting.cosines[0, 1] = 0.5
    one, other = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 0.0])
    changed = weighting.combine(torch.stack([one, other]), ("a", "b"), ONES) - other
    assert torch.cosine_similarity(changed, other, dim=0).item() == pytest.approx(0.5)
    assert weighting.cosines[0, 1].item() == pytest.approx(0.0) and weighting.cosines[1, 0].item() == pytest.approx(0.0)


def test_gradients_that_agree_more_than_usual_add_up_and_raise_what_is_usual():
    weighting = GradVac(("a", "b"), rate=0.25)
    rows = torch.tensor([[1.0, 0.1], [1.0, -0.1]])
    torch.testing.assert_close(weighting.combine(rows, ("a", "b"), ONES), rows.sum(dim=0))
    cosine = torch.cosine_similarity(rows[0], rows[1], dim=0).item()
    assert weighting.cosines[0, 1].item() == pytest.approx(0.25 * cosine)


def test_gradients_of_one_direction_stay_finite_for_ever():
    weighting = GradVac(("a", "b"), rate=1.0)
    for rows in (torch.ones(2, 3), torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])):
        assert weighting.combine(rows, ("a", "b"), ONES).isfinite().all()


def test_a_resumed_run_goes_on_with_the_same_averages():
    weighting = GradVac(TASKS, rate=0.5)
    for seed in range(3):
        weighting.combine(rows_of(seed, 3), TASKS, torch.ones(3))
    resumed = GradVac(TASKS, rate=0.5)
    resumed.load_state_dict(copy.deepcopy(weighting.state_dict()))
    rows = rows_of(9, 3)
    assert torch.equal(weighting.combine(rows, TASKS, torch.ones(3)), resumed.combine(rows, TASKS, torch.ones(3)))


def test_a_task_without_gradient_takes_no_part_and_teaches_nothing():
    weighting, rows = GradVac(("a", "b")), torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(weighting.combine(rows, ("a", "b"), ONES), rows[0])
    assert not weighting.cosines.any()
    torch.testing.assert_close(weighting.combine(rows * 0, ("a", "b"), ONES), torch.zeros(2))


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="rate: expected"):
        GradVac(TASKS, rate=rate)
