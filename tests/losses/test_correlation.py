import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.losses.correlation import FLOOR, coral, covariance, divided_differences, log_coral, matrix_logarithm
from isthmus.losses.weighted import Loss


def domains(points: tuple[int, int] = (12, 15), channels: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    source = torch.randn(2, points[0], channels, dtype=torch.float64) @ torch.randn(channels, channels).double()
    target = torch.randn(3, points[1], channels, dtype=torch.float64) * 2 + 5
    return source, target, torch.rand(2, points[0]) < 0.7, torch.rand(3, points[1]) < 0.7


def covariance_by_hand(rows: np.ndarray) -> np.ndarray:
    """Eq. 2 of deep CORAL, entry by entry."""
    count, channels = rows.shape
    found = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            own = sum(rows[n, i] * rows[n, j] for n in range(count))
            found[i, j] = (own - rows[:, i].sum() * rows[:, j].sum() / count) / (count - 1)
    return found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 4))
def test_distances_are_those_of_the_papers(seed, channels):
    source, target, there, elsewhere = domains(channels=channels, seed=seed)
    first, second = (covariance_by_hand(x[m].numpy()) for x, m in ((source, there), (target, elsewhere)))
    plain = ((first - second) ** 2).sum() / (4 * channels**2)
    found = coral(source, target, there, elsewhere)
    assert found.shape == (1,) and found.item() == pytest.approx(plain, rel=1e-8)
    if min(np.linalg.eigvalsh(first)[0], np.linalg.eigvalsh(second)[0]) > 10 * FLOOR:
        difference = scipy.linalg.logm(first) - scipy.linalg.logm(second)
        found = log_coral(source, target, there, elsewhere)
        assert found.item() == pytest.approx((np.real(difference) ** 2).sum() / (4 * channels**2), rel=1e-6)


def test_covariance_is_that_of_numpy_and_keeps_its_digits_far_from_zero():
    rows = torch.randn(200, 4)
    np.testing.assert_allclose(covariance(rows + 1000), np.cov((rows + 1000).double().numpy().T), rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert covariance(rows).dtype == torch.float32 and torch.equal(covariance(rows), covariance(rows * 1.0))


@pytest.mark.parametrize("loss", [coral, log_coral])
def test_equal_domains_have_no_distance_and_gradients_are_right(loss):
    source, target, there, elsewhere = domains()
    assert loss(source, source, there, there).item() == 0
    inputs = (source.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, there, elsewhere), inputs, atol=1e-4)


@pytest.mark.parametrize("loss", [coral, log_coral])
def test_absent_points_are_not_read(loss):
    source, target, there, elsewhere = domains()
    expected = loss(source, target, there, elsewhere)
    source[~there], target[~elsewhere] = torch.nan, torch.inf
    source.requires_grad_()
    found = loss(source, target, there, elsewhere)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert source.grad.isfinite().all() and not source.grad[~there].any()


def test_logarithm_of_repeated_and_missing_eigenvalues_has_the_right_gradient():
    """Directions along which eigenvectors are not defined: there formulas through them are not finite."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    matrix = ((basis * torch.tensor([2.0, 2.0, 0.5, 0.0])) @ basis.T).requires_grad_()
    floor = 0.01
    assert torch.autograd.gradcheck(lambda each: matrix_logarithm(each, floor), matrix, atol=1e-5)
    clamped = (basis * torch.tensor([2.0, 2.0, 0.5, floor])) @ basis.T
    np.testing.assert_allclose(matrix_logarithm(matrix, floor).detach(), scipy.linalg.logm(clamped.numpy()), atol=1e-9)


def test_divided_differences_by_hand():
    values = torch.tensor([-1.0, 0.0, 2.0, 2.0 + 1e-12, 3.0], dtype=torch.float64)
    found, floor = divided_differences(values, 0.5), 0.5
    assert found[0, 1] == 0 and found[0, 0] == 0 and found[1, 1] == 0
    assert found[2, 3].item() == pytest.approx(0.5) and found[4, 4].item() == pytest.approx(1 / 3)
    assert found[4, 2].item() == pytest.approx(np.log(1.5)) and found[2, 4] == found[4, 2]
    assert found[4, 1].item() == pytest.approx((np.log(3) - np.log(floor)) / 3)


def test_dead_channels_cost_nothing_and_their_gradient_is_finite():
    source, target, there, elsewhere = domains(channels=4)
    source[..., 3], target[..., 3] = 0, 0
    source.requires_grad_()
    found = log_coral(source, target, there, elsewhere)
    alive = log_coral(source[..., :3], target[..., :3], there, elsewhere)
    assert (found * 16).item() == pytest.approx((alive * 9).item())
    found.sum().backward()
    assert source.grad.isfinite().all()
    few = torch.zeros_like(there)
    few[0, :2] = True
    few_value = log_coral(source, target, few, elsewhere)
    few_value.sum().backward()
    assert few_value.isfinite().all() and source.grad.isfinite().all()


def test_fewer_than_two_points_give_no_value_and_vanish_as_a_loss():
    source, target, there, elsewhere = domains()
    one = torch.zeros_like(there)
    one[0, 0] = True
    for loss in (coral, log_coral):
        value = loss(source, target, one, elsewhere)
        assert value.shape == (0,)
        wrapped = Loss.of(value, len(value))
        assert wrapped.sum == 0 and wrapped.weight == 0


def test_float32_features_stay_near_float64():
    source, target, there, elsewhere = domains()
    exact = log_coral(source, target, there, elsewhere)
    found = log_coral(source.float(), target.float(), there, elsewhere)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(exact.item(), rel=1e-4)


def test_impossible_inputs_are_named():
    source, target, there, elsewhere = domains()
    with pytest.raises(ValueError, match="as many channels, found 3 and 2"):
        coral(source, target[..., :2], there, elsewhere)
    with pytest.raises(ValueError, match="floor must be greater than 0, found 0"):
        log_coral(source, target, there, elsewhere, floor=0)
