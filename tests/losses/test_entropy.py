import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.losses.adversary import self_information
from isthmus.losses.entropy import normalised_entropy


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(2, 5), st.integers(0, 6))
def test_it_is_the_mean_over_points_by_hand(seed, batch, classes, points):
    torch.manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, 1, points, dtype=torch.float64)
    present = torch.rand(batch, points) < 0.6
    found = normalised_entropy(logits, present)
    for b in range(batch):
        values = []
        for n in range(points):
            if present[b, n]:
                p = logits[b, :, 0, n].softmax(dim=0).tolist()
                values.append(-sum(each * math.log(each) for each in p) / math.log(classes))
        assert found[b].item() == pytest.approx(sum(values) / len(values) if values else 0.0)


def test_it_is_the_sum_of_the_self_information_that_advent_feeds_its_discriminator():
    logits, present = torch.randn(2, 5, 1, 7), torch.ones(2, 7, dtype=torch.bool)
    expected = self_information(logits.softmax(dim=1)).sum(dim=1).flatten(1).mean(dim=1)
    torch.testing.assert_close(normalised_entropy(logits, present), expected)


def test_ends_of_the_scale_and_their_gradients():
    logits = torch.zeros(1, 4, 1, 2).requires_grad_()
    there = torch.ones(1, 2, dtype=torch.bool)
    assert normalised_entropy(logits, there).item() == pytest.approx(1)
    sure = torch.tensor([1e4, 0.0]).view(1, 2, 1, 1).requires_grad_()
    value = normalised_entropy(sure, there[:, :1])
    value.sum().backward()
    assert value.item() == 0 and sure.grad.isfinite().all()


def test_gradients_and_absent_points():
    torch.manual_seed(0)
    logits, present = torch.randn(2, 4, 1, 5, dtype=torch.float64), torch.rand(2, 5) < 0.6
    assert torch.autograd.gradcheck(lambda each: normalised_entropy(each, present), logits.requires_grad_())
    filled = logits.detach().masked_fill(~present[:, None, None], torch.nan).requires_grad_()
    found = normalised_entropy(filled, present)
    assert torch.equal(found, normalised_entropy(logits, present))
    found.sum().backward()
    assert filled.grad.isfinite().all()


def test_float32_under_autocast():
    logits, present = torch.randn(2, 4, 1, 5).bfloat16(), torch.ones(2, 5, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = normalised_entropy(logits, present)
    assert found.dtype == torch.float32 and torch.equal(found, normalised_entropy(logits.float(), present))


def test_a_single_class_has_no_entropy():
    with pytest.raises(ValueError, match="at least 2 classes, found 1"):
        normalised_entropy(torch.zeros(1, 1, 1, 3), torch.ones(1, 3, dtype=torch.bool))
