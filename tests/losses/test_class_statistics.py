import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.losses.class_statistics import ClassShares, class_shares, class_statistics, sample_shares


def test_shares_of_labelled_points_by_hand():
    labels = torch.tensor([[[0, 0, 2, 255, 1]], [[1, 1, 1, 1, 1]]])
    valid = torch.tensor([[[True, True, True, False, True]], [[False, False, False, False, False]]])
    found = sample_shares(labels, valid, 4)
    torch.testing.assert_close(found[0, :3], torch.tensor([0.5, 0.25, 0.25]).double())
    assert found[0, 3].isnan() and found[1].isnan().all()
    assert torch.equal(sample_shares(labels[:, 0], valid[:, 0], 4).nan_to_num(), found.nan_to_num())


def test_bounds_are_numpys_quantiles_over_samples_that_show_the_class():
    rng = np.random.default_rng(0)
    shares = rng.random((40, 3))
    shares[rng.random((40, 3)) < 0.3] = np.nan
    shares[:, 2] = np.nan
    found = class_shares(torch.from_numpy(shares))
    for k in range(2):
        seen = shares[:, k][~np.isnan(shares[:, k])]
        assert found.lower[k].item() == pytest.approx(np.quantile(seen, 0.1))
        assert found.mean[k].item() == pytest.approx(seen.mean())
        assert found.upper[k].item() == pytest.approx(np.quantile(seen, 0.9))
    assert all(bound[2].isnan() for bound in found)


def target(seed: int, batch: int = 3, classes: int = 4, points: int = 8) -> tuple[Tensor, Tensor, ClassShares]:
    torch.manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, 1, points, dtype=torch.float64)
    bounds = torch.rand(3, classes, dtype=torch.float64).mul(0.5).sort(dim=0).values
    if classes > 2:
        bounds[:, 2] = torch.nan
    return logits, torch.rand(batch, points) < 0.8, ClassShares(*bounds)


def by_hand(logits: Tensor, present: Tensor, shares: ClassShares, lower: str, slack: float) -> list[float]:
    found = []
    classes = logits.shape[1]
    for b in range(len(logits)):
        rows = [logits[b, :, 0, n].softmax(dim=0).tolist() for n in range(logits.shape[-1]) if present[b, n]]
        total = 0.0
        for k in range(classes):
            if not rows or math.isnan(shares.mean[k]):
                continue
            chosen = sum(max(row) == row[k] for row in rows) / len(rows)
            if chosen <= 0.1 * shares.lower[k]:
                continue
            share = sum(row[k] for row in rows) / len(rows)
            bound = float(shares.lower[k] if lower == "tail" else shares.mean[k])
            cost = slack * max(0.0, bound - share) + max(0.0, share - float(shares.upper[k]))
            total += cost * (0.1 if shares.lower[k] > 0.1 else 1.0)
        found.append(total / classes)
    return found


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 5), st.integers(0, 8), st.sampled_from(["tail", "mean"])
)
def test_it_is_the_hinge_of_slow_loops(seed, batch, classes, points, lower):
    logits, present, shares = target(seed, batch, classes, points)
    found = class_statistics(logits, present, shares, lower=lower, slack=0.5)
    assert found.tolist() == pytest.approx(by_hand(logits, present, shares, lower, 0.5))


def uniform(points: int = 4) -> tuple[Tensor, Tensor]:
    """Two classes, each with probability 1/2 and with half of the points predicted as it."""
    logits = torch.zeros(1, 2, 1, points, dtype=torch.float64)
    logits[0, 0, 0, : points // 2], logits[0, 1, 0, points // 2 :] = 1e-9, 1e-9
    return logits.requires_grad_(), torch.ones(1, points, dtype=torch.bool)


def bounds(*rows: list[float]) -> ClassShares:
    return ClassShares(*(torch.tensor(row, dtype=torch.float64) for row in zip(*rows)))


def test_a_share_within_its_bounds_costs_nothing_and_one_outside_is_pushed_inside():
    logits, there = uniform()
    inside = class_statistics(logits, there, bounds([0.05, 0.4, 0.6], [0.05, 0.4, 0.6]))
    inside.sum().backward()
    assert inside.item() == 0 and not logits.grad.any()
    for shares, sign in ((bounds([0.05, 0.1, 0.2], [0.05, 0.4, 0.6]), 1), (bounds([0.7, 0.8, 0.9], [0, 0.4, 1]), -1)):
        logits.grad = None
        value = class_statistics(logits, there, shares, damping=1.0)
        value.sum().backward()
        assert value.item() == pytest.approx(0.3 / 2 if sign > 0 else 0.2 / 2, rel=1e-6)
        assert (logits.grad[:, 0].sign() == sign).all() and (logits.grad[:, 1].sign() == -sign).all()


def test_large_classes_are_damped_and_classes_not_shown_are_left_alone():
    logits, there = uniform()
    large = bounds([0.7, 0.8, 0.9], [0.0, 0.4, 1.0])
    assert class_statistics(logits, there, large).item() == pytest.approx(0.1 * 0.2 / 2, rel=1e-6)
    sure = logits.detach().clone()
    sure[:, 0] += 5
    rare = bounds([0.0, 0.5, 1.0], [0.05, 0.3, 0.4])
    assert class_statistics(sure, there, rare).item() == 0
    assert class_statistics(sure, there, rare, shown=-1.0).item() > 0
    unknown = bounds([0.0, 0.5, 1.0], [math.nan] * 3)
    assert class_statistics(sure, there, unknown, shown=-1.0).item() == 0


def test_gradients_and_absent_points():
    logits, present, shares = target(3)
    present[0] = False
    options = {"shown": -1.0}
    assert torch.autograd.gradcheck(lambda x: class_statistics(x, present, shares, **options), logits.requires_grad_())
    expected = class_statistics(logits, present, shares, **options)
    filled = logits.detach().masked_fill(~present[:, None, None], torch.nan).requires_grad_()
    found = class_statistics(filled, present, shares, **options)
    found.sum().backward()
    assert torch.equal(found, expected) and found[0] == 0 and filled.grad.isfinite().all()


def test_statistics_in_float64_serve_float32_logits_under_autocast():
    logits, present, shares = target(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = class_statistics(logits.bfloat16(), present, shares)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, class_statistics(logits.bfloat16().float(), present, shares))


def test_impossible_inputs_are_named():
    logits, present, shares = target(0)
    with pytest.raises(ValueError, match=r"shares must be of 3 classes, found shape \(4,\)"):
        class_statistics(logits[:, :3], present, shares)
    with pytest.raises(ValueError, match='lower must be "tail" or "mean", found \'median\''):
        class_statistics(logits, present, shares, lower="median")
    with pytest.raises(ValueError, match=r"tail must lie in \[0, 0.5\), found 0.5"):
        class_shares(torch.rand(3, 2), 0.5)
    with pytest.raises(ValueError, match="at least one source sample"):
        class_shares(torch.rand(0, 2))


def test_a_class_is_shown_above_a_share_of_its_lower_bound_not_of_another():
    logits, there = uniform(8)
    shares = bounds([0.8, 0.85, 0.9], [0.0, 0.4, 1.0])
    expected = 0.1 * (0.8 - 0.5) / 2
    # Half of the points: more than 0.6 of the lower bound, less than 0.6 of the mean and of the upper one.
    assert class_statistics(logits, there, shares, shown=0.6).item() == pytest.approx(expected, rel=1e-6)
    assert class_statistics(logits, there, shares, shown=0.63).item() == 0
