import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch import Tensor

from isthmus.geometry import knn
from isthmus.geometry.chamfer import chamfer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def slow_chamfer(a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> list[float]:
    result = []
    for i in range(len(a)):
        distance = cdist(a[i][mask_a[i]].numpy(), b[i][mask_b[i]].numpy(), "sqeuclidean")
        whole = distance.size > 0
        result.append(distance.min(axis=1).mean() + distance.min(axis=0).mean() if whole else 0.0)
    return result


def broadcast_chamfer(a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> Tensor:
    square = (a[:, :, None] - b[:, None]).square().sum(-1)
    square = square.masked_fill(~(mask_a[:, :, None] & mask_b[:, None]), torch.inf)
    there = square.amin(2).masked_fill(~mask_a, 0).sum(1) / mask_a.sum(1)
    back = square.amin(1).masked_fill(~mask_b, 0).sum(1) / mask_b.sum(1)
    return there + back


def random_pair(seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 12, 3, dtype=dtype, generator=generator)
    b = torch.randn(3, 9, 3, dtype=dtype, generator=generator)
    mask_a, mask_b = torch.rand(3, 12, generator=generator) < 0.6, torch.rand(3, 9, generator=generator) < 0.6
    mask_a[:, 0], mask_b[:, 0] = True, True
    return a, b, mask_a, mask_b


@pytest.mark.parametrize("trees", [True, False])
def test_equals_the_definition(monkeypatch, trees):
    monkeypatch.setattr(knn, "_trees_pay", lambda *clouds: trees)
    pair = random_pair()
    assert chamfer(*pair).tolist() == pytest.approx(slow_chamfer(*pair), rel=1e-12)


def test_without_masks_all_points_count():
    a, b, *_ = random_pair()
    everywhere = torch.ones(3, 12, dtype=torch.bool), torch.ones(3, 9, dtype=torch.bool)
    assert chamfer(a, b).tolist() == pytest.approx(slow_chamfer(a, b, *everywhere), rel=1e-12)


def test_gradient_equals_that_of_the_broadcast_form():
    a, b, *masks = random_pair()
    a.requires_grad_(), b.requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    ours = torch.autograd.grad((chamfer(a, b, *masks) * weight).sum(), (a, b))
    expected = torch.autograd.grad((broadcast_chamfer(a, b, *masks) * weight).sum(), (a, b))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: chamfer(a, b, *masks), (a, b))


def test_an_empty_mask_counts_zero_and_pulls_at_nothing():
    a, b, mask_a, mask_b = random_pair()
    mask_a[0], mask_b[1] = False, False
    a.requires_grad_(), b.requires_grad_()
    value = chamfer(a, b, mask_a, mask_b)
    value.sum().backward()
    assert value[:2].tolist() == [0.0, 0.0] and value[2] > 0
    for gradient in (a.grad, b.grad):
        assert gradient[:2].count_nonzero() == 0 and gradient[2].count_nonzero() > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_symmetric_quadratic_in_scale_and_blind_to_order_and_motion(seed, scale):
    a, b, mask_a, mask_b = random_pair(seed)
    value = chamfer(a, b, mask_a, mask_b)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(12, generator=generator)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q
    torch.testing.assert_close(chamfer(b, a, mask_b, mask_a), value)
    torch.testing.assert_close(chamfer(a * scale, b * scale, mask_a, mask_b), value * scale**2)
    torch.testing.assert_close(chamfer(a[:, order], b, mask_a[:, order], mask_b), value)
    torch.testing.assert_close(chamfer(a @ rotation + 1, b @ rotation + 1, mask_a, mask_b), value)


def test_half_precision_points_are_compared_in_float32():
    a, b, *masks = random_pair(dtype=torch.float32)
    a, b = a.bfloat16(), b.bfloat16()
    value = chamfer(a, b, *masks)
    assert value.dtype == torch.float32
    assert value.tolist() == pytest.approx(slow_chamfer(a.double(), b.double(), *masks), rel=1e-5)


def test_a_network_that_diverged_gives_a_loss_that_is_not_finite():
    a = torch.randn(1, 5, 3)
    a[0, 2] = torch.nan
    assert not chamfer(a, torch.randn(1, 4, 3)).isfinite().any()


def test_masks_of_the_wrong_kind_are_refused():
    a = torch.zeros(1, 4, 3)
    with pytest.raises(ValueError, match=r"mask_a must be bool \(1, 4\)"):
        chamfer(a, a, torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"mask_b must be bool \(1, 4\)"):
        chamfer(a, a, None, torch.ones(1, 5, dtype=torch.bool))
