import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from weighting_tester import TASKS, CombiningTester

from isthmus.losses.weightings.mgda import MGDA, least_norm_weights


class TestByLoss(CombiningTester):
    def build(self):
        return MGDA(TASKS)

    trained = build


class TestByNorm(CombiningTester):
    def build(self):
        return MGDA(TASKS, normalisation="l2")

    trained = build


class TestPlain(CombiningTester):
    def build(self):
        return MGDA(TASKS, normalisation="none")

    trained = build


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), size=st.integers(1, 8))
def test_weights_minimise_the_norm_as_scipy_does(seed, count, size):
    rows = np.random.default_rng(seed).normal(size=(count, size))
    gram = rows @ rows.T
    weights = least_norm_weights(gram)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1.0)
    starts = [np.full(count, 1 / count), *np.eye(count)]
    found = min(
        minimize(
            lambda a: a @ gram @ a,
            start,
            jac=lambda a: 2 * gram @ a,
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 500},
        ).fun
        for start in starts
    )
    assert weights @ gram @ weights <= found + 1e-6 * np.trace(gram)
    # Optimal on the simplex: no corner is downhill.
    assert (gram @ weights).min() >= weights @ gram @ weights - 1e-6 * np.trace(gram)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(0.05, 3.0), size=st.floats(0.1, 10))
def test_two_tasks_have_a_closed_form(seed, angle, size):
    """Sener and Koltun, Eq. 4."""
    a, b = np.array([1.0, 0.0]), size * np.array([np.cos(angle), np.sin(angle)])
    expected = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
    gram = np.array([[a @ a, a @ b], [a @ b, b @ b]])
    np.testing.assert_allclose(least_norm_weights(gram), [expected, 1 - expected], atol=1e-6)


def test_equal_gradients_share_evenly():
    np.testing.assert_allclose(least_norm_weights(np.ones((3, 3))), [1 / 3] * 3, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_no_task_gets_worse(seed):
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
    direction = MGDA(TASKS, normalisation="none").combine(rows, TASKS, torch.ones(3))
    assert (rows @ direction >= float(direction @ direction) / 3 - 1e-4).all()


@pytest.mark.parametrize("normalisation", ["loss", "l2", "none"])
def test_normalisation_decides_about_weights_and_does_not_scale_gradients(normalisation):
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1.0], [3.0], [0.2]])
    means = torch.tensor([2.0, 0.5, 1.0])
    divisors = {"loss": means, "l2": rows.norm(dim=1), "none": torch.ones(3)}[normalisation]
    unit = (rows / divisors[:, None]).double().numpy()
    weights = least_norm_weights(unit @ unit.T)
    direction = MGDA(TASKS, normalisation=normalisation).combine(rows, TASKS, means)
    np.testing.assert_allclose(direction, 3 * weights @ rows.numpy(), rtol=1e-3, atol=1e-4)


def test_orthogonal_alike_tasks_add_up_as_with_uniform_weights():
    rows = torch.eye(3)
    torch.testing.assert_close(MGDA(TASKS).combine(rows, TASKS, torch.ones(3)), torch.ones(3))


def test_a_task_without_a_gradient_does_not_stop_the_others():
    rows = torch.eye(3) * torch.tensor([1.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(MGDA(TASKS).combine(rows, TASKS, torch.ones(3)), torch.tensor([1.0, 0.0, 1.0]))
