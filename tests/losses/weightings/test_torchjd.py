import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from weighting_tester import TASKS, CombiningTester

from isthmus.errors import IsthmusError
from isthmus.losses.weightings.torchjd import Aggregated

pytest.importorskip("torchjd", reason="TorchJD is not installed (extra mtl)")

SOLVERS = {"nash-mtl": ("ecos",), "upgrad": ("qpsolvers", "quadprog")}
"""Under the GPL, in an extra of their own: tests go without where they are missing."""


def aggregated(rule: str) -> Aggregated:
    for solver in SOLVERS.get(rule, ()):
        pytest.importorskip(solver, reason=f"{solver} is an optional extra: pip install 'isthmus[mtl-gpl]'")
    return Aggregated(TASKS, rule)


class RuleTester(CombiningTester):
    rule = ""

    def build(self):
        return aggregated(self.rule)

    trained = build


class TestPCGrad(RuleTester):
    rule = "pcgrad"

    def test_the_order_of_tasks_does_not_matter(self):
        """Of three or more tasks it does: their order is drawn. Of two there is only one."""
        rows = rows_of(0)[:2]
        first, second = TASKS[:2]
        torch.testing.assert_close(self.combined(rows, (first, second)), self.combined(rows.flip(0), (second, first)))


class TestCAGrad(RuleTester):
    rule = "cagrad"


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate", "ignore:divide by zero", "ignore:invalid value")
class TestNashMTL(RuleTester):
    rule = "nash-mtl"


class TestUPGrad(RuleTester):
    rule = "upgrad"


def rows_of(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def combined(rule: str, rows: torch.Tensor) -> torch.Tensor:
    return aggregated(rule).combine(rows, TASKS[: len(rows)], torch.ones(len(rows)))


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_of_two_tasks_projects_each_on_the_others_normal_plane(seed):
    a, b = rows_of(seed)[:2]
    dot = a @ b
    expected = a + b if dot >= 0 else (a - dot / (b @ b) * b) + (b - dot / (a @ a) * a)
    torch.testing.assert_close(combined("pcgrad", torch.stack([a, b])), expected)


def test_pcgrad_draws_its_order_from_the_step_and_leaves_global_randomness_alone():
    rows = rows_of(3) - 0.5 * rows_of(3).mean(dim=0) * 3
    first, second = Aggregated(TASKS, "pcgrad"), Aggregated(TASKS, "pcgrad")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ours = [first.combine(rows, TASKS, torch.ones(3)) for _ in range(8)]
    assert torch.equal(torch.rand(3), expected)
    assert len({tuple(direction.tolist()) for direction in ours}) > 1
    for direction in ours[:4]:
        assert torch.equal(second.combine(rows, TASKS, torch.ones(3)), direction)
    resumed = Aggregated(TASKS, "pcgrad")
    resumed.load_state_dict(second.state_dict())
    for direction in ours[4:]:
        assert torch.equal(resumed.combine(rows, TASKS, torch.ones(3)), direction)


@pytest.mark.parametrize("seed", range(3))
def test_cagrad_is_three_times_the_direction_of_the_paper(seed):
    """The direction within 0.4 |mean| of the mean that helps the task it helps least as much as it can."""
    rows = rows_of(seed).double().numpy()
    mean = rows.mean(axis=0)
    radius = 0.4 * np.linalg.norm(mean)

    def dual(w):
        return (w @ rows) @ mean + radius * np.linalg.norm(w @ rows)

    w = minimize(
        dual, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}
    ).x
    expected = mean + radius * (w @ rows) / np.linalg.norm(w @ rows)
    np.testing.assert_allclose(combined("cagrad", rows_of(seed)), 3 * expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("seed", range(5))
def test_upgrad_adds_up_projections_on_the_dual_cone(seed):
    rows = rows_of(seed).double().numpy()
    expected = np.zeros(5)
    for row in rows:
        constraints = [{"type": "ineq", "fun": lambda d, other=other: other @ d} for other in rows]
        expected += minimize(lambda d, row=row: ((d - row) ** 2).sum(), row, constraints=constraints).x
    direction = combined("upgrad", rows_of(seed))
    np.testing.assert_allclose(direction, expected, rtol=1e-2, atol=1e-2)
    assert (rows_of(seed) @ direction > -1e-2).all()


@pytest.mark.parametrize("seed", range(3))
def test_nash_mtl_solves_the_bargaining_game_with_a_direction_of_length_1(seed):
    """Navon et al., Claim 3.1: G G' alpha = 1 / alpha, up to the factor that the clipping takes."""
    rows = rows_of(seed) * 10
    direction = combined("nash-mtl", rows)
    assert float(direction.norm()) == pytest.approx(1.0, rel=1e-4)
    alpha = torch.linalg.lstsq(rows.T, direction[:, None]).solution[:, 0]
    products = (rows @ direction) * alpha
    assert (alpha > 0).all() and float(products.max() / products.min()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("rule", ["pcgrad", "upgrad"])
def test_tasks_without_a_conflict_add_up_as_with_uniform_weights(rule):
    rows = torch.eye(3) + 0.1
    torch.testing.assert_close(combined(rule, rows), rows.sum(dim=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", ["pcgrad", "cagrad", "upgrad"])
def test_the_unit_of_the_gradients_does_not_matter(rule):
    expected = combined(rule, rows_of(0))
    for unit in (1e-6, 1e6):
        torch.testing.assert_close(combined(rule, rows_of(0) * unit) / unit, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", ["nash-mtl", "cagrad"])
def test_a_step_does_not_depend_on_those_before_it(rule):
    weighting = aggregated(rule)
    for seed in range(3):
        weighting.combine(rows_of(seed, 2), TASKS[:2], torch.ones(2))
    assert torch.equal(weighting.combine(rows_of(7), TASKS, torch.ones(3)), combined(rule, rows_of(7)))


@pytest.mark.parametrize(("rule", "extra"), [("pcgrad", "mtl"), ("nash-mtl", "mtl-gpl")])
def test_without_torchjd_the_error_names_the_extra(monkeypatch, rule, extra):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(IsthmusError, match=rf"weighting '{rule}': .*pip install 'isthmus\[{extra}\]'"):
        Aggregated(TASKS, rule)


def test_without_a_solver_the_error_names_the_extra_and_the_licence(monkeypatch):
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None if name == "quadprog" else object())
    with pytest.raises(IsthmusError, match=r"under the GPL\), found .*quadprog.*isthmus\[mtl-gpl\]"):
        Aggregated(TASKS, "upgrad")


def test_an_unknown_rule_is_refused():
    with pytest.raises(IsthmusError, match=r"weighting: expected one of .*found 'pcgard'"):
        Aggregated(TASKS, "pcgard")
