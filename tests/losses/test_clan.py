import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.losses.clan import domain_cross_entropy, local_factor, weight_discrepancy
from isthmus.models.point_discriminator import PointDiscriminator, point_rows


def predictions(batch: int = 2, classes: int = 4, points: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    first, second = (2 * torch.randn(batch, classes, 1, points, dtype=torch.float64) for _ in range(2))
    return first, second, torch.rand(batch, points) < 0.7


def test_weight_discrepancy_is_the_cosine_of_all_parameters():
    torch.manual_seed(0)
    first, second = nn.Conv1d(3, 4, 1), nn.Conv1d(3, 4, 1)
    found = weight_discrepancy(first.parameters(), second.parameters())
    pairs = [
        (a, b)
        for one, two in zip(first.parameters(), second.parameters())
        for a, b in zip(one.flatten().tolist(), two.flatten().tolist())
    ]
    lengths = [math.sqrt(sum(pair[side] ** 2 for pair in pairs)) for side in (0, 1)]
    assert found.shape == (1,)
    assert found.item() == pytest.approx(sum(a * b for a, b in pairs) / lengths[0] / lengths[1], rel=1e-5)
    assert weight_discrepancy(first.parameters(), first.parameters()).item() == pytest.approx(1)
    assert weight_discrepancy([torch.ones(3)], [-2 * torch.ones(3)]).item() == pytest.approx(-1)


def test_descent_on_weight_discrepancy_drives_classifiers_apart():
    first = torch.randn(5, dtype=torch.float64).requires_grad_()
    second = (first.detach() + 0.1 * torch.randn(5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: weight_discrepancy([a], [b]), (first, second))
    before = weight_discrepancy([first], [second])
    before.sum().backward()
    after = weight_discrepancy([first - 0.1 * first.grad], [second - 0.1 * second.grad])
    assert after < before
    zeros = torch.zeros(3).requires_grad_()
    weight_discrepancy([zeros], [torch.ones(3)]).sum().backward()
    assert zeros.grad.isfinite().all()


def test_local_factor_by_hand():
    first, second, present = predictions()
    found = local_factor(first, second, present)
    for b in range(2):
        for n in range(6):
            p, q = (each[b, :, 0, n].softmax(dim=0).tolist() for each in (first, second))
            cosine = sum(x * y for x, y in zip(p, q)) / math.hypot(*p) / math.hypot(*q)
            expected = 40 * (1 - cosine) + 0.4 if present[b, n] else 0
            assert found[b, n].item() == pytest.approx(expected)
    assert not found.requires_grad


def test_agreement_leaves_epsilon_and_full_disagreement_everything():
    there = torch.ones(1, 1, dtype=torch.bool)
    sure = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1)
    assert local_factor(sure, sure, there, weight=10).item() == pytest.approx(0.4)
    assert local_factor(sure, -sure, there, weight=10).item() == pytest.approx(10.4)


def test_gradient_goes_through_the_factor_only_if_attached():
    first, second, present = predictions()
    inputs = (first.requires_grad_(), second.requires_grad_())
    assert not local_factor(*inputs, present).requires_grad
    assert torch.autograd.gradcheck(lambda a, b: local_factor(a, b, present, attached=True), inputs)


@pytest.mark.parametrize("source", [True, False])
def test_cross_entropy_of_points_by_hand(source):
    torch.manual_seed(1)
    logits, factor, present = torch.randn(2, 5), torch.rand(2, 5), torch.rand(2, 5) < 0.7
    plain = domain_cross_entropy(logits, present, source)
    weighted = domain_cross_entropy(logits, present, source, factor)
    for b in range(2):
        values, scaled = [], []
        for n in range(5):
            if present[b, n]:
                p = 1 / (1 + math.exp(-logits[b, n]))
                values.append(-math.log(p if source else 1 - p))
                scaled.append(values[-1] * float(factor[b, n]))
        assert plain[b].item() == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert weighted[b].item() == pytest.approx(sum(scaled) / len(values), rel=1e-5)


def test_labels_may_differ_from_sample_to_sample_and_absent_points_are_not_read():
    logits, present = torch.randn(3, 4), torch.ones(3, 4, dtype=torch.bool)
    present[1], present[0, 0] = False, False
    mixed = domain_cross_entropy(logits, present, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(mixed[0], domain_cross_entropy(logits, present, True)[0])
    torch.testing.assert_close(mixed[2], domain_cross_entropy(logits, present, False)[2])
    filled = logits.masked_fill(~present, torch.nan).requires_grad_()
    found = domain_cross_entropy(filled, present, True, torch.ones(3, 4).masked_fill(~present, torch.nan))
    found.sum().backward()
    assert found[1] == 0 and torch.equal(found, domain_cross_entropy(logits, present, True))
    assert filled.grad.isfinite().all() and not filled.grad[~present].any()


def test_game_with_a_discriminator_of_points():
    """Where classifiers agree, the network is pushed the less: the gradient is scaled by the factor."""
    first, second, present = predictions()
    summed = (first + second).float().requires_grad_()
    net = PointDiscriminator(4)
    logits, kept = net(point_rows(summed.softmax(dim=1)), present)
    factor = local_factor(first, second, present).float()
    (plain,) = torch.autograd.grad(domain_cross_entropy(logits, kept, True).sum(), summed, retain_graph=True)
    (scaled,) = torch.autograd.grad(domain_cross_entropy(logits, kept, True, factor).sum(), summed)
    torch.testing.assert_close(scaled, plain * factor[:, None, None])
    assert plain.any()
    half = domain_cross_entropy(logits.detach().bfloat16(), kept, True)
    assert half.dtype == torch.float32
    reference = F.binary_cross_entropy_with_logits(logits[present], torch.ones(int(present.sum())))
    weight = present.sum(dim=1) / present.sum()
    torch.testing.assert_close((domain_cross_entropy(logits, kept, True) * weight).sum(), reference)


def test_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"same shapes, found \[\(2,\)\] and \[\(3,\)\]"):
        weight_discrepancy([torch.ones(2)], [torch.ones(3)])
    with pytest.raises(ValueError, match=r"found \[\] and \[\]"):
        weight_discrepancy([], [])
