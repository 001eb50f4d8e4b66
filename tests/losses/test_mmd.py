import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.losses.mmd import BANDWIDTHS, mmd


def by_hand(source: torch.Tensor, target: torch.Tensor, bandwidths: tuple[float, ...], unbiased: bool) -> float:
    """Pair by pair, in plain numbers."""

    def kernel(a: list[float], b: list[float]) -> float:
        square = sum((x - y) ** 2 for x, y in zip(a, b))
        return sum(math.exp(-square / (2 * sigma**2)) for sigma in bandwidths)

    s, t = source.tolist(), target.tolist()

    def within(rows: list[list[float]]) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if not unbiased or i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in s for b in t]
    return within(s) + within(t) - 2 * sum(across) / len(across)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_it_is_the_mean_over_all_pairs(unbiased, scale):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(5, 3, generator=generator, dtype=torch.float64) * scale
    target = torch.randn(4, 3, generator=generator, dtype=torch.float64) * scale + 0.5 * scale
    for bandwidths in (BANDWIDTHS, (0.7,)):
        expected = by_hand(source, target, bandwidths, unbiased)
        found = mmd(source, target, bandwidths=bandwidths, unbiased=unbiased)
        assert found.shape == (1,) and float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        single = mmd(source.float(), target.float(), bandwidths=bandwidths, unbiased=unbiased)
        assert single.dtype == torch.float32 and float(single) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_narrowest_kernel_survives_many_channels_far_from_the_origin():
    rows = torch.randn(6, 4096, generator=torch.Generator().manual_seed(0)) + 10
    # A matrix product would find these rows some 1e-2 away from themselves, and lose the kernel of 0.01 altogether.
    assert float(mmd(rows, rows, bandwidths=(0.01,))) == pytest.approx(0.0, abs=1e-6)
    assert float(mmd(rows[:3], rows[3:], bandwidths=(0.01,))) == pytest.approx(2 / 3, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_it_is_symmetric_bounded_and_blind_to_order_and_origin(seed, m, n):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(m, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    value = float(mmd(source, target))
    assert -1e-12 <= value <= 2 * len(BANDWIDTHS)
    assert float(mmd(target, source)) == pytest.approx(value)
    assert float(mmd(source.flip(0) + 3, target + 3)) == pytest.approx(value, abs=1e-9)


def test_the_unbiased_estimate_has_mean_zero_for_one_distribution_and_the_biased_one_has_not():
    generator = torch.Generator().manual_seed(0)
    values = {
        unbiased: torch.cat(
            [
                mmd(torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator), unbiased=unbiased)
                for _ in range(300)
            ]
        )
        for unbiased in (False, True)
    }
    error = float(values[True].std()) / math.sqrt(300)
    assert abs(float(values[True].mean())) < 4 * error < 0.1 < float(values[False].mean())


def test_gradients_reach_both_domains_and_bring_them_together():
    source = torch.zeros(4, 2, requires_grad=True)
    target = torch.ones(3, 2, requires_grad=True)
    mmd(source, target).sum().backward()
    assert (source.grad < 0).all() and (target.grad > 0).all()  # descent moves the source up, the target down
    values = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    other = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda rows: mmd(rows, other, bandwidths=(1.0, 3.0)), (values,))


def test_half_precision_is_widened_under_autocast_too():
    rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mmd(rows, rows + 1), mmd(rows, rows + 1))
        assert mmd(rows.bfloat16(), rows.bfloat16() + 1).dtype == torch.float32


def test_too_few_samples_give_no_value():
    rows = torch.zeros(3, 2)
    assert mmd(rows[:0], rows).shape == (0,)
    assert mmd(rows[:1], rows).shape == (1,) and mmd(rows[:1], rows, unbiased=True).shape == (0,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\(m, C\) and \(n, C\), found \(3, 2\) and \(3, 4\)"):
        mmd(torch.zeros(3, 2), torch.zeros(3, 4))
    for wrong in ((), (0.0, 1.0)):
        with pytest.raises(ValueError, match="bandwidths must be"):
            mmd(torch.zeros(3, 2), torch.zeros(3, 2), bandwidths=wrong)
